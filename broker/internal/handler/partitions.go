package handler

import (
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/leatlog/leat/broker/internal/metadata"
	"github.com/leatlog/leat/broker/internal/storage"
)

// Partitions is this broker's replicas. Safe for concurrent use.
type Partitions interface {
	// Partition returns the replica of a partition. It fails with
	// UNKNOWN_TOPIC_OR_PARTITION when this broker has none.
	Partition(topic metadata.UUID, partition int32) (Partition, *kerr.Error)
	// Schedule has expire called at or soon after at; it must not block. cancel may
	// be called at any time.
	Schedule(at time.Time, expire func()) (cancel func())
}

// Partition is one replica on this broker. Safe for concurrent use.
type Partition interface {
	// Leader returns who leads the partition, -1 when nobody does, and the leader epoch.
	Leader() (id, epoch int32)

	// Append appends one record batch, whose header the caller has checked: it
	// verifies the CRC and sets offset and leader epoch in place. sink is told
	// how it ended, exactly once, perhaps before Append returns: with acks 0 and 1
	// when written, with acks -1 when all in-sync replicas have it on disk or at the
	// deadline. The batch is not kept.
	Append(batch []byte, acks int16, deadline time.Time, tag int, sink AppendSink)

	// TransactionState returns the state of a producer's transaction here.
	TransactionState(producerID int64, epoch int16) storage.TransactionState
	// AppendVerified is Append for a transactional batch whose transaction was verified
	// with its coordinator when ended of the producer had ended here. It returns false,
	// having done nothing, when another has ended since and none is open.
	AppendVerified(batch []byte, ended uint32, acks int16, deadline time.Time, tag int, sink AppendSink) bool
	// Producers returns the producers that are known, by id.
	Producers() ([]storage.Producer, *kerr.Error)

	// Read reads whole batches as a range of a log file. The caller releases the slice.
	Read(r ReadRequest) ReadResult

	// ReadFollower is Read for a follower that is registered under brokerEpoch: up to
	// the end of the log. That it asks for an offset says that it has on disk what is
	// below; -1 says that it lost its log.
	ReadFollower(r ReadRequest, replica int32, brokerEpoch int64) ReadResult
	// WaitEnd is Wait for the growth of the log beyond the End of a ReadResult.
	WaitEnd(w Waiter, end int64, leaderEpoch int32) (token uint64)

	// Wait registers w for what becomes readable after a position that Read
	// returned, in that leader epoch. It may call w before it returns.
	Wait(w Waiter, position int64, leaderEpoch int32) (token uint64)
	// Unwait ends a registration; one that is over or 0 is fine.
	Unwait(token uint64)

	// ListOffset finds an offset by time or by one of the special timestamps of
	// ListOffsets: -1 latest, -2 earliest, -3 of the largest timestamp, -4 earliest
	// local. An offset of -1 means that there is none.
	ListOffset(timestamp int64, committed bool, currentLeaderEpoch int32) (Listed, *kerr.Error)
	// EpochEnd returns the largest epoch that is not larger than epoch and its end
	// offset; -1, -1 when the epoch is not known.
	EpochEnd(currentLeaderEpoch, epoch int32) (found int32, end int64, err *kerr.Error)
	// DeleteBefore removes all records below offset, -1 meaning the high watermark,
	// and returns the new log start. It does I/O.
	DeleteBefore(offset int64) (logStart int64, err *kerr.Error)
}

// AppendSink is told how an append ended, exactly once. It is called with no
// lock held, on any goroutine, and must not block. On an error the offsets are
// -1 except logStart.
type AppendSink interface {
	Appended(tag int, err *kerr.Error, baseOffset, logAppendTime, logStart int64)
}

// Waiter is told what happens to a partition on which it waits. It is called
// with no lock held, on any goroutine, and must not block. A call may still be
// on its way when Unwait returns.
type Waiter interface {
	// Readable says that bytes more became readable since the last call.
	Readable(bytes int64)
	// Interrupted says that the leadership changed or ended; Read tells how.
	Interrupted()
}

// ReadRequest says what to read.
type ReadRequest struct {
	Offset   int64
	MaxBytes int32
	// AtLeastOne has the first batch returned even when it is larger than MaxBytes.
	AtLeastOne bool
	// CurrentLeaderEpoch is what the reader takes for the leader epoch (KIP-320), -1 unknown.
	CurrentLeaderEpoch int32
	// LastFetchedEpoch is the epoch of the record before Offset, -1 unknown. When the
	// log has another there, the result diverges.
	LastFetchedEpoch int32
	// Committed reads up to the last stable offset instead of the high watermark.
	Committed bool
	// Nearby lets a follower answer, up to its own high watermark (KIP-392).
	Nearby bool
	// Near are the brokers that are close to the reader (KIP-392): a leader that is none
	// of them says in the result which of them to read from, if one can serve the read.
	Near []int32
}

// ReadResult is what was read. With an Err all else but Position is unset.
type ReadResult struct {
	Err              *kerr.Error
	Slice            storage.Slice // Size 0: nothing to read
	HighWatermark    int64
	LastStableOffset int64
	LogStart         int64
	// Aborted are the aborted transactions of what is in Slice, of a read with
	// Committed; their producers' batches from FirstOffset on are not to be seen.
	Aborted     []storage.AbortedTxn
	LeaderEpoch int32
	// Position is the point in the partition's growth at which Read looked, for Wait.
	Position int64
	// DivergingEpoch is -1 when the reader's log and this one agree.
	DivergingEpoch int32
	DivergingEnd   int64
	// Preferred is the broker to read from instead, 0 for none: then nothing was read.
	Preferred int32
	// End is the end of the log at which ReadFollower looked, for WaitEnd.
	End int64
}

// Listed is an answer of ListOffset; -1 is unknown.
type Listed struct {
	Offset      int64
	Timestamp   int64 // ms
	LeaderEpoch int32
}
