package storage

import (
	"fmt"
	"math"
	"time"

	"github.com/leatlog/leat/broker/internal/record"
)

// Config is how a log is kept. The fields bear the meaning of Kafka's topic
// configurations named beside them. DefaultConfig has Kafka's defaults; a
// negative or zero limit means what is said.
type Config struct {
	SegmentBytes      int64         // segment.bytes: size at which a segment is full
	SegmentAge        time.Duration // segment.ms: age in the records' time at which a segment is full
	SegmentIndexBytes int           // segment.index.bytes: size of the offset index at which a segment is full
	IndexInterval     int           // index.interval.bytes: bytes between two index entries
	RetentionBytes    int64         // retention.bytes: -1 no limit
	RetentionAge      time.Duration // retention.ms: negative for ever
	MaxBatchBytes     int           // max.message.bytes
	Compact           bool          // cleanup.policy has compact: offsets may have gaps
	Delete            bool          // cleanup.policy has delete: retention by time and size applies
	LogAppendTime     bool          // message.timestamp.type is LogAppendTime
	// TimestampBeforeMax and TimestampAfterMax are message.timestamp.before.max.ms and
	// message.timestamp.after.max.ms; they hold for CreateTime only. Negative: no limit.
	TimestampBeforeMax time.Duration
	TimestampAfterMax  time.Duration
	// ProducerExpiration is producer.id.expiration.ms: how long an idle producer's
	// sequence numbers are remembered.
	ProducerExpiration time.Duration

	// With Compact only.
	MinCleanableRatio float64       // min.cleanable.dirty.ratio
	MinCompactionLag  time.Duration // min.compaction.lag.ms
	MaxCompactionLag  time.Duration // max.compaction.lag.ms
	DeleteRetention   time.Duration // delete.retention.ms
}

// DefaultConfig returns Kafka's defaults.
func DefaultConfig() Config {
	return Config{
		SegmentBytes:       1 << 30,
		SegmentAge:         7 * 24 * time.Hour,
		SegmentIndexBytes:  10 << 20,
		IndexInterval:      4096,
		RetentionBytes:     -1,
		RetentionAge:       7 * 24 * time.Hour,
		MaxBatchBytes:      1<<20 + record.LengthPrefix,
		Delete:             true,
		TimestampBeforeMax: -1,
		TimestampAfterMax:  time.Hour,
		ProducerExpiration: 24 * time.Hour,
		MinCleanableRatio:  0.5,
		MaxCompactionLag:   math.MaxInt64,
		DeleteRetention:    24 * time.Hour,
	}
}

// maxSegmentBytes keeps positions within the int32 of an index entry.
const maxSegmentBytes = math.MaxInt32 - preallocateStep

func (c *Config) validate() error {
	switch {
	case c.SegmentBytes < 1 || c.SegmentBytes > math.MaxInt32:
		return fmt.Errorf("storage: segment.bytes is %d: must be within 1 and %d", c.SegmentBytes, math.MaxInt32)
	case c.SegmentAge <= 0:
		return fmt.Errorf("storage: segment.ms is %v: must be positive", c.SegmentAge)
	case c.SegmentIndexBytes < indexEntrySize:
		return fmt.Errorf("storage: segment.index.bytes is %d: must be at least %d", c.SegmentIndexBytes, indexEntrySize)
	case c.IndexInterval < 0:
		return fmt.Errorf("storage: index.interval.bytes is %d: must not be negative", c.IndexInterval)
	case c.MinCleanableRatio < 0 || c.MinCleanableRatio > 1:
		return fmt.Errorf("storage: min.cleanable.dirty.ratio is %v: must be within 0 and 1", c.MinCleanableRatio)
	case c.MinCompactionLag < 0 || c.MaxCompactionLag < c.MinCompactionLag:
		return fmt.Errorf("storage: max.compaction.lag.ms is %v: must be at least min.compaction.lag.ms, %v", c.MaxCompactionLag, c.MinCompactionLag)
	case c.DeleteRetention < 0:
		return fmt.Errorf("storage: delete.retention.ms is %v: must not be negative", c.DeleteRetention)
	case c.MaxBatchBytes < 0:
		return fmt.Errorf("storage: max.message.bytes is %d: must not be negative", c.MaxBatchBytes)
	}
	c.SegmentBytes = min(c.SegmentBytes, maxSegmentBytes)
	return nil
}
