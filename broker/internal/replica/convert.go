package replica

import (
	"errors"

	"github.com/leatlog/leat/broker/internal/metadata"
	"github.com/leatlog/leat/broker/internal/record"
)

// Topics whose compression.type is not "producer" hold batches in one codec: the leader
// opens those that come in another one. It is the only case in which a broker opens what
// a producer wrote.

// A batch may take largeBatch bytes when it is opened. Most take far less, and several are
// opened at the same time, into buffers that are kept; those that take more than smallBatch wait for one another, so
// that no number of clients can fill the memory.
const (
	smallBatch   = 2 << 20
	smallBatches = 4
	largeBatch   = 32 << 20
)

// keepCodec is Replica.codec of a topic that keeps its producers' codecs.
const keepCodec = -1

// setCodec takes over the topic's compression.type.
func (r *Replica) setCodec(c *metadata.TopicConfig) {
	next := int32(keepCodec)
	if codec, ok := record.ParseCodec(c.CompressionType); ok {
		next = int32(codec)
	}
	r.codec.Store(next)
}

// convert returns a produced batch in the topic's codec; the batch itself when it is in
// that, and when it will be refused anyway.
func (r *Replica) convert(batch []byte) ([]byte, error) {
	to, b := r.codec.Load(), record.Batch(batch)
	if to == keepCodec || len(batch) < record.HeaderSize || b.Codec() == record.Codec(to) || b.IsControl() ||
		r.log == nil || len(batch) > r.log.Config().MaxBatchBytes {
		return batch, nil
	}
	if err := b.Validate(); err != nil {
		return nil, err
	}
	limit := largeBatch
	if record.Codec(to) == record.CodecNone {
		limit = min(limit, r.log.Config().MaxBatchBytes) // larger ones would be refused
	}
	m := r.manager
	scratch := <-m.converting
	if *scratch == nil {
		*scratch = make([]byte, 0, record.HeaderSize+smallBatch+1)
	}
	converted, err := b.Recompress(make([]byte, 0, len(batch)), record.Codec(to), min(limit, smallBatch), scratch)
	m.converting <- scratch
	if !errors.Is(err, record.ErrTooLarge) || limit <= smallBatch {
		return converted, err
	}
	m.largeMu.Lock()
	defer m.largeMu.Unlock()
	return b.Recompress(make([]byte, 0, len(batch)), record.Codec(to), limit, nil)
}
