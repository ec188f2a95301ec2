package client

import (
	"encoding/binary"
	"hash/crc32"
	"math"

	"github.com/leatlog/leat/topology/plan"
)

// batchBuilder builds one record batch in memory that is used again. The zero
// value is ready.
type batchBuilder struct {
	buf               []byte // header, then the records as they are
	count             int32
	baseTime, maxTime int64
}

// size returns the bytes so far, before compression.
func (b *batchBuilder) size() int { return len(b.buf) }

// append adds a record; all is copied.
func (b *batchBuilder) append(timestamp int64, key, value []byte, headers []plan.Header) {
	if b.count == 0 {
		if cap(b.buf) < batchHeaderSize {
			b.buf = make([]byte, 0, 4096)
		}
		b.buf = b.buf[:batchHeaderSize]
		b.baseTime, b.maxTime = timestamp, timestamp
	}
	if timestamp > b.maxTime {
		b.maxTime = timestamp
	}
	timeDelta := timestamp - b.baseTime
	size := 1 + varintSize(timeDelta) + varintSize(int64(b.count)) +
		nullableSize(key) + nullableSize(value) + varintSize(int64(len(headers)))
	for i := range headers {
		size += varintSize(int64(len(headers[i].Key))) + len(headers[i].Key) + nullableSize(headers[i].Value)
	}
	buf := appendVarint(b.buf, int64(size))
	buf = append(buf, 0)
	buf = appendVarint(buf, timeDelta)
	buf = appendVarint(buf, int64(b.count))
	buf = appendNullable(buf, key)
	buf = appendNullable(buf, value)
	buf = appendVarint(buf, int64(len(headers)))
	for i := range headers {
		buf = appendVarint(buf, int64(len(headers[i].Key)))
		buf = append(buf, headers[i].Key...)
		buf = appendNullable(buf, headers[i].Value)
	}
	b.buf = buf
	b.count++
}

// build appends the batch to dst, compressed, without its producer and CRC (see
// stamp), and empties the builder. A batch that does not shrink is stored plain.
func (b *batchBuilder) build(dst []byte, codec Codec, transactional bool) ([]byte, error) {
	start := len(dst)
	dst = append(dst, b.buf[:batchHeaderSize]...)
	if codec != NoCompression {
		var err error
		if dst, err = compress(dst, codec, b.buf[batchHeaderSize:]); err != nil {
			return nil, err
		}
		if len(dst)-start >= len(b.buf) {
			codec, dst = NoCompression, dst[:start+batchHeaderSize]
		}
	}
	if codec == NoCompression {
		dst = append(dst, b.buf[batchHeaderSize:]...)
	}
	attributes := uint16(codec)
	if transactional {
		attributes |= transactionalBit
	}
	h := dst[start:]
	binary.BigEndian.PutUint64(h, 0)
	binary.BigEndian.PutUint32(h[batchLengthAt:], uint32(len(h)-batchEpochAt))
	binary.BigEndian.PutUint32(h[batchEpochAt:], math.MaxUint32) // -1: the broker sets it
	h[batchMagicAt] = batchMagic
	binary.BigEndian.PutUint16(h[batchAttributesAt:], attributes)
	binary.BigEndian.PutUint32(h[batchLastDeltaAt:], uint32(b.count-1))
	binary.BigEndian.PutUint64(h[batchBaseTimeAt:], uint64(b.baseTime))
	binary.BigEndian.PutUint64(h[batchMaxTimeAt:], uint64(b.maxTime))
	binary.BigEndian.PutUint32(h[batchCountAt:], uint32(b.count))
	b.buf, b.count = b.buf[:0], 0
	return dst, nil
}

// stamp writes the producer's id, epoch and sequence into a built batch and then
// its CRC. -1, -1, -1 is a batch without a producer.
func stamp(batch []byte, id int64, epoch int16, sequence int32) {
	binary.BigEndian.PutUint64(batch[batchProducerAt:], uint64(id))
	binary.BigEndian.PutUint16(batch[batchEpochOfPIDAt:], uint16(epoch))
	binary.BigEndian.PutUint32(batch[batchSequenceAt:], uint32(sequence))
	binary.BigEndian.PutUint32(batch[batchCRCAt:], crc32.Checksum(batch[batchAttributesAt:], castagnoli))
}

// nextSequence returns the sequence n records after sequence: they wrap to 0
// after 2^31-1.
func nextSequence(sequence, n int32) int32 {
	return int32((int64(sequence) + int64(n)) & math.MaxInt32)
}

func appendVarint(b []byte, v int64) []byte {
	u := uint64(v)<<1 ^ uint64(v>>63)
	for u >= 0x80 {
		b = append(b, byte(u)|0x80)
		u >>= 7
	}
	return append(b, byte(u))
}

func varintSize(v int64) int {
	n := 1
	for u := uint64(v)<<1 ^ uint64(v>>63); u >= 0x80; u >>= 7 {
		n++
	}
	return n
}

func appendNullable(b, field []byte) []byte {
	if field == nil {
		return append(b, 1) // -1
	}
	return append(appendVarint(b, int64(len(field))), field...)
}

func nullableSize(field []byte) int {
	if field == nil {
		return 1
	}
	return varintSize(int64(len(field))) + len(field)
}
