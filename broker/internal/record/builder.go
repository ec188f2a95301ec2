package record

import (
	"encoding/binary"
	"fmt"
	"math/bits"
)

// Builder makes batches. Offsets start at 0; the log assigns the real ones. It
// may be used again after Reset. It is not safe for concurrent use.
type Builder struct {
	codec         Codec
	attributes    int16
	records       []byte // encoded, not compressed
	count         int32
	lastDelta     int32
	baseTimestamp int64
	fixedBase     bool // baseTimestamp is not the first record's
	maxTimestamp  int64
	producerID    int64
	producerEpoch int16
	baseSequence  int32
}

// NewBuilder returns a builder of batches compressed with codec. An unknown
// codec is a mistake of the program and panics.
func NewBuilder(codec Codec) *Builder {
	if codec < CodecNone || codec > CodecZstd {
		panic(fmt.Sprintf("record: NewBuilder: %v", codec))
	}
	b := &Builder{codec: codec}
	b.Reset()
	return b
}

// Reset forgets records, producer and flags, and keeps the codec and the memory.
func (b *Builder) Reset() {
	*b = Builder{
		codec: b.codec, records: b.records[:0], lastDelta: -1, maxTimestamp: NoTimestamp, baseTimestamp: NoTimestamp,
		producerID: NoProducerID, producerEpoch: NoProducerEpoch, baseSequence: NoSequence,
	}
}

// SetProducer sets the idempotent producer's id, its epoch and the sequence
// number of the first record. Markers of transactions have NoSequence.
func (b *Builder) SetProducer(id int64, epoch int16, baseSequence int32) {
	b.producerID, b.producerEpoch, b.baseSequence = id, epoch, baseSequence
}

// SetControl makes the batch a control batch.
func (b *Builder) SetControl() { b.attributes |= controlFlag }

// SetTransactional makes the batch part of its producer's transaction.
func (b *Builder) SetTransactional() { b.attributes |= transactionalFlag }

// Count returns the number of records appended since Reset.
func (b *Builder) Count() int { return int(b.count) }

// Size returns the size in bytes of the batch as if it were not compressed.
func (b *Builder) Size() int { return HeaderSize + len(b.records) }

// Append adds a record at the next offset, with its timestamp in milliseconds.
// A nil key or value is null. The bytes are copied.
func (b *Builder) Append(timestamp int64, key, value []byte, headers []Header) {
	b.AppendAt(b.lastDelta+1, timestamp, key, value, headers)
}

// AppendAt adds a record at an offset delta, which must exceed that of the
// record before. Compaction needs it, which leaves gaps.
func (b *Builder) AppendAt(delta int32, timestamp int64, key, value []byte, headers []Header) {
	if delta <= b.lastDelta {
		panic(fmt.Sprintf("record: AppendAt: offset delta %d after %d", delta, b.lastDelta))
	}
	if b.count == 0 {
		b.maxTimestamp = timestamp
		if !b.fixedBase {
			b.baseTimestamp = timestamp
		}
	}
	b.count++
	b.lastDelta = delta
	b.maxTimestamp = max(b.maxTimestamp, timestamp)
	timestampDelta := timestamp - b.baseTimestamp
	size := 1 + varintSize(timestampDelta) + varintSize(int64(delta)) + bytesSize(key) + bytesSize(value) + varintSize(int64(len(headers)))
	for _, h := range headers {
		size += varintSize(int64(len(h.Key))) + len(h.Key) + bytesSize(h.Value)
	}
	r := binary.AppendVarint(b.records, int64(size))
	r = append(r, 0)
	r = binary.AppendVarint(r, timestampDelta)
	r = binary.AppendVarint(r, int64(delta))
	r = appendBytes(r, key)
	r = appendBytes(r, value)
	r = binary.AppendVarint(r, int64(len(headers)))
	for _, h := range headers {
		r = binary.AppendVarint(r, int64(len(h.Key)))
		r = append(r, h.Key...)
		r = appendBytes(r, h.Value)
	}
	b.records = r
}

// Build appends the batch to dst, with base offset 0 and leader epoch -1. The
// builder keeps its records until Reset.
func (b *Builder) Build(dst []byte) []byte {
	start := len(dst)
	dst = grow(dst, HeaderSize+len(b.records))
	dst = dst[:start+HeaderSize]
	clear(dst[start:])
	compressed, err := Compress(dst, b.codec, b.records)
	if err != nil {
		// Writing to memory with a known codec does not fail.
		panic("record: Build: " + err.Error())
	}
	dst = compressed
	batch := Batch(dst[start:])
	binary.BigEndian.PutUint32(batch[lengthAt:], uint32(len(batch)-LengthPrefix))
	batch.SetLeaderEpoch(-1)
	batch[magicAt] = Magic
	binary.BigEndian.PutUint16(batch[attributesAt:], uint16(b.attributes)|uint16(b.codec))
	binary.BigEndian.PutUint32(batch[lastOffsetDeltaAt:], uint32(max(b.lastDelta, 0)))
	binary.BigEndian.PutUint64(batch[baseTimestampAt:], uint64(b.baseTimestamp))
	binary.BigEndian.PutUint64(batch[maxTimestampAt:], uint64(b.maxTimestamp))
	binary.BigEndian.PutUint64(batch[producerIDAt:], uint64(b.producerID))
	binary.BigEndian.PutUint16(batch[producerEpochAt:], uint16(b.producerEpoch))
	binary.BigEndian.PutUint32(batch[baseSequenceAt:], uint32(b.baseSequence))
	binary.BigEndian.PutUint32(batch[countAt:], uint32(b.count))
	batch.SetCRC()
	return dst
}

func appendBytes(dst, b []byte) []byte {
	if b == nil {
		return append(dst, 1) // -1 as a zigzag varint
	}
	dst = binary.AppendVarint(dst, int64(len(b)))
	return append(dst, b...)
}

func bytesSize(b []byte) int {
	if b == nil {
		return 1
	}
	return varintSize(int64(len(b))) + len(b)
}

func varintSize(v int64) int {
	zigzag := uint64(v<<1) ^ uint64(v>>63)
	return (bits.Len64(zigzag|1) + 6) / 7
}
