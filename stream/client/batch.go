package client

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// Where the fields of a record batch are; see the package comment.
const (
	batchLengthAt      = 8
	batchEpochAt       = 12
	batchMagicAt       = 16
	batchCRCAt         = 17
	batchAttributesAt  = 21
	batchLastDeltaAt   = 23
	batchBaseTimeAt    = 27
	batchMaxTimeAt     = 35
	batchProducerAt    = 43
	batchEpochOfPIDAt  = 51
	batchSequenceAt    = 53
	batchCountAt       = 57
	batchHeaderSize    = 61
	batchMagic         = 2
	codecMask          = 0x07
	logAppendTimeBit   = 0x08
	transactionalBit   = 0x10
	controlBit         = 0x20
	minRecordSize      = 7 // length, attributes, two deltas, two lengths, header count
	maxDecompressBytes = 256 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrCorrupt says that the bytes of a batch are not what was written: a wrong
// CRC or a length that does not fit.
var ErrCorrupt = errors.New("client: record batch is corrupt")

// batchView is one whole batch, header first.
type batchView []byte

// splitBatch returns the first batch of b. ok is false when b ends before the
// batch does, as the last batch of a fetch may.
func splitBatch(b []byte) (batch batchView, rest []byte, ok bool, err error) {
	if len(b) < batchHeaderSize {
		return nil, b, false, nil
	}
	if magic := b[batchMagicAt]; magic != batchMagic {
		return nil, b, false, fmt.Errorf("%w: magic is %d; only message format 2 is read", ErrCorrupt, magic)
	}
	n := int64(int32(binary.BigEndian.Uint32(b[batchLengthAt:]))) + batchEpochAt
	if n < batchHeaderSize {
		return nil, b, false, fmt.Errorf("%w: length is %d", ErrCorrupt, n)
	}
	if n > int64(len(b)) {
		return nil, b, false, nil
	}
	return batchView(b[:n:n]), b[n:], true, nil
}

func (b batchView) baseOffset() int64 { return int64(binary.BigEndian.Uint64(b)) }
func (b batchView) lastOffset() int64 {
	return b.baseOffset() + int64(int32(binary.BigEndian.Uint32(b[batchLastDeltaAt:])))
}
func (b batchView) leaderEpoch() int32   { return int32(binary.BigEndian.Uint32(b[batchEpochAt:])) }
func (b batchView) attributes() int16    { return int16(binary.BigEndian.Uint16(b[batchAttributesAt:])) }
func (b batchView) codec() Codec         { return Codec(b.attributes() & codecMask) }
func (b batchView) isControl() bool      { return b.attributes()&controlBit != 0 }
func (b batchView) isTransaction() bool  { return b.attributes()&transactionalBit != 0 }
func (b batchView) producerID() int64    { return int64(binary.BigEndian.Uint64(b[batchProducerAt:])) }
func (b batchView) baseTimestamp() int64 { return int64(binary.BigEndian.Uint64(b[batchBaseTimeAt:])) }
func (b batchView) maxTimestamp() int64  { return int64(binary.BigEndian.Uint64(b[batchMaxTimeAt:])) }
func (b batchView) count() int32         { return int32(binary.BigEndian.Uint32(b[batchCountAt:])) }

// check verifies the CRC.
func (b batchView) check() error {
	want := binary.BigEndian.Uint32(b[batchCRCAt:])
	if got := crc32.Checksum(b[batchAttributesAt:], castagnoli); got != want {
		return fmt.Errorf("%w: offset %d: CRC is %08x, the batch says %08x", ErrCorrupt, b.baseOffset(), got, want)
	}
	return nil
}

// wholeBatches cuts raw to the whole batches in it and returns the offset after
// the last one, or from when there is none.
func wholeBatches(raw []byte, from int64) (whole []byte, next int64, err error) {
	rest := raw
	next = from
	for {
		b, after, ok, err := splitBatch(rest)
		if err != nil {
			return raw[:len(raw)-len(rest)], next, err
		}
		if !ok {
			return raw[:len(raw)-len(rest)], next, nil
		}
		if last := b.lastOffset() + 1; last > next {
			next = last
		}
		rest = after
	}
}
