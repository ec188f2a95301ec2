package record

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
)

// Errors that callers branch on with errors.Is. The returned errors wrap them
// with the field and the value that is wrong.
var (
	// ErrTruncated says that the bytes end before the batch does.
	ErrTruncated = errors.New("record: batch is truncated")
	// ErrCorrupt says that lengths, counts or records contradict each other.
	ErrCorrupt = errors.New("record: batch is corrupt")
	// ErrMagic says that the batch is not of format version 2. Message sets of
	// versions 0 and 1 ended with Kafka 4.0 (KIP-724) and are never converted.
	ErrMagic = errors.New("record: batch format is not supported")
	// ErrCRC says that the checksum does not match the bytes.
	ErrCRC = errors.New("record: batch checksum does not match")
	// ErrTooLarge says that the records need more than the caller's limit when
	// they are decompressed.
	ErrTooLarge = errors.New("record: decompressed records exceed the limit")
	// ErrCodec says that the batch names a codec that does not exist.
	ErrCodec = errors.New("record: unknown compression codec")
)

// Sizes of a batch in bytes.
const (
	// HeaderSize is the size of a batch without records.
	HeaderSize = 61
	// LengthPrefix is what precedes the bytes that a batch's length counts.
	LengthPrefix = 12
	// Magic is the format version that is stored and served.
	Magic = 2
)

// Values of fields that are not set.
const (
	NoProducerID    = -1
	NoProducerEpoch = -1
	NoSequence      = -1
	NoTimestamp     = -1
)

const (
	lengthAt          = 8
	leaderEpochAt     = 12
	magicAt           = 16
	crcAt             = 17
	attributesAt      = 21
	lastOffsetDeltaAt = 23
	baseTimestampAt   = 27
	maxTimestampAt    = 35
	producerIDAt      = 43
	producerEpochAt   = 51
	baseSequenceAt    = 53
	countAt           = 57
)

const (
	codecMask         = 0x07
	logAppendTimeFlag = 0x08
	transactionalFlag = 0x10
	controlFlag       = 0x20
	deleteHorizonFlag = 0x40
)

// Codec is how the records of a batch are compressed.
type Codec int8

// The codecs of the Kafka protocol.
const (
	CodecNone Codec = iota
	CodecGzip
	CodecSnappy
	CodecLZ4
	CodecZstd
)

// String returns the codec's name in Kafka's compression.type.
func (c Codec) String() string {
	switch c {
	case CodecNone:
		return "none"
	case CodecGzip:
		return "gzip"
	case CodecSnappy:
		return "snappy"
	case CodecLZ4:
		return "lz4"
	case CodecZstd:
		return "zstd"
	}
	return fmt.Sprintf("codec %d", int8(c))
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Batch is one whole RecordBatch, its header first. Its accessors read in
// place and may be called on what Parse returned: Parse makes sure that the
// header is there. A Batch aliases the bytes it was parsed from.
type Batch []byte

// Parse splits the first batch off b. It checks the magic and the length, so
// that the accessors are safe, and nothing else; Validate does the rest. An
// empty b is ErrTruncated.
func Parse(b []byte) (batch Batch, rest []byte, err error) {
	if len(b) <= magicAt {
		return nil, b, fmt.Errorf("%w: %d bytes, a header has %d", ErrTruncated, len(b), HeaderSize)
	}
	if b[magicAt] != Magic {
		return nil, b, fmt.Errorf("%w: magic %d, want %d", ErrMagic, int8(b[magicAt]), Magic)
	}
	length := int64(int32(binary.BigEndian.Uint32(b[lengthAt:]))) + LengthPrefix
	if length < HeaderSize {
		return nil, b, fmt.Errorf("%w: length field %d, at least %d", ErrCorrupt, length-LengthPrefix, HeaderSize-LengthPrefix)
	}
	if length > int64(len(b)) {
		return nil, b, fmt.Errorf("%w: batch of %d bytes, %d are there", ErrTruncated, length, len(b))
	}
	return Batch(b[:length:length]), b[length:], nil
}

// SizeOf returns the size in bytes of the batch that starts with header, of
// which LengthPrefix bytes must be there. It may be nonsense when the bytes
// are: compare it with HeaderSize and with what can be there.
func SizeOf(header []byte) int64 {
	return int64(int32(binary.BigEndian.Uint32(header[lengthAt:]))) + LengthPrefix
}

// Validate checks the header's sanity and the checksum. It accepts what may be
// in a log, such as compacted batches, whose last offset delta exceeds the
// count. It does not open the records.
func (b Batch) Validate() error {
	if err := b.ValidateHeader(); err != nil {
		return err
	}
	if sum := crc32.Checksum(b[attributesAt:], castagnoli); sum != b.CRC() {
		return fmt.Errorf("%w: stored %#08x, computed %#08x", ErrCRC, b.CRC(), sum)
	}
	return nil
}

// ValidateHeader is Validate without the checksum.
func (b Batch) ValidateHeader() error {
	if err := b.ValidateFields(); err != nil {
		return err
	}
	if size := SizeOf(b); size != int64(len(b)) {
		return fmt.Errorf("%w: length field says %d bytes, batch has %d", ErrCorrupt, size, len(b))
	}
	return nil
}

// ValidateFields is ValidateHeader for a header whose records may not be there:
// everything but that the length is right.
func (b Batch) ValidateFields() error {
	if len(b) < HeaderSize {
		return fmt.Errorf("%w: %d bytes, a header has %d", ErrTruncated, len(b), HeaderSize)
	}
	if b[magicAt] != Magic {
		return fmt.Errorf("%w: magic %d, want %d", ErrMagic, int8(b[magicAt]), Magic)
	}
	if size := SizeOf(b); size < HeaderSize {
		return fmt.Errorf("%w: length field says %d bytes, a header has %d", ErrCorrupt, size, HeaderSize)
	}
	count, delta := b.Count(), b.LastOffsetDelta()
	if count < 0 || delta < 0 || int64(delta) < int64(count)-1 {
		return fmt.Errorf("%w: %d records with last offset delta %d", ErrCorrupt, count, delta)
	}
	if b.BaseOffset() < 0 || b.BaseOffset() > math.MaxInt64-int64(delta)-1 {
		return fmt.Errorf("%w: base offset %d with last offset delta %d", ErrCorrupt, b.BaseOffset(), delta)
	}
	if b.Codec() > CodecZstd {
		return fmt.Errorf("%w: %d", ErrCodec, b.Codec())
	}
	return nil
}

// ChecksumFrom is where the bytes begin that a batch's checksum covers.
const ChecksumFrom = attributesAt

// UpdateChecksum continues a checksum, which begins as 0, with more bytes of a
// batch from ChecksumFrom on, for batches that are not in memory as a whole.
func UpdateChecksum(sum uint32, b []byte) uint32 { return crc32.Update(sum, castagnoli, b) }

// ValidateProduced checks what Kafka demands of a batch that a client
// produces, beyond Validate: at least one record, an offset for each, no
// control batch, and a producer id where sequences or transactions need one.
func (b Batch) ValidateProduced() error {
	switch count, delta := b.Count(), b.LastOffsetDelta(); {
	case count <= 0 || delta != count-1:
		return fmt.Errorf("%w: %d records with last offset delta %d", ErrCorrupt, count, delta)
	case b.IsControl():
		return fmt.Errorf("%w: clients may not write control batches", ErrCorrupt)
	case b.ProducerID() < 0 && b.IsTransactional():
		return fmt.Errorf("%w: transactional without a producer id", ErrCorrupt)
	case b.ProducerID() >= 0 && (b.ProducerEpoch() < 0 || b.BaseSequence() < 0):
		return fmt.Errorf("%w: producer %d with epoch %d and sequence %d", ErrCorrupt, b.ProducerID(), b.ProducerEpoch(), b.BaseSequence())
	}
	return nil
}

// BaseOffset returns the offset of the first record, or of the first one there
// was before compaction.
func (b Batch) BaseOffset() int64 { return int64(binary.BigEndian.Uint64(b)) }

// LastOffset returns the offset of the last record.
func (b Batch) LastOffset() int64 { return b.BaseOffset() + int64(b.LastOffsetDelta()) }

// NextOffset returns the offset that follows the batch.
func (b Batch) NextOffset() int64 { return b.LastOffset() + 1 }

// LastOffsetDelta returns LastOffset less BaseOffset.
func (b Batch) LastOffsetDelta() int32 {
	return int32(binary.BigEndian.Uint32(b[lastOffsetDeltaAt:]))
}

// LeaderEpoch returns the epoch of the leader that appended the batch.
func (b Batch) LeaderEpoch() int32 { return int32(binary.BigEndian.Uint32(b[leaderEpochAt:])) }

// Size returns the size of the whole batch in bytes, as its header says.
func (b Batch) Size() int { return int(SizeOf(b)) }

// CRC returns the stored checksum.
func (b Batch) CRC() uint32 { return binary.BigEndian.Uint32(b[crcAt:]) }

// Attributes returns all attribute bits.
func (b Batch) Attributes() int16 { return int16(binary.BigEndian.Uint16(b[attributesAt:])) }

// Codec returns how the records are compressed.
func (b Batch) Codec() Codec { return Codec(b[attributesAt+1] & codecMask) }

// IsTransactional reports whether the batch belongs to a transaction.
func (b Batch) IsTransactional() bool { return b[attributesAt+1]&transactionalFlag != 0 }

// IsControl reports whether the batch holds a control record, which consumers
// do not see: a transaction's end or an entry of the quorum.
func (b Batch) IsControl() bool { return b[attributesAt+1]&controlFlag != 0 }

// IsLogAppendTime reports whether MaxTimestamp is the time of appending, for
// all records.
func (b Batch) IsLogAppendTime() bool { return b[attributesAt+1]&logAppendTimeFlag != 0 }

// HasDeleteHorizon reports whether BaseTimestamp is the time from which on the
// batch's tombstones may go (KIP-534).
func (b Batch) HasDeleteHorizon() bool { return b[attributesAt+1]&deleteHorizonFlag != 0 }

// BaseTimestamp returns the first record's timestamp in milliseconds.
func (b Batch) BaseTimestamp() int64 { return int64(binary.BigEndian.Uint64(b[baseTimestampAt:])) }

// MaxTimestamp returns the largest timestamp of the records in milliseconds.
func (b Batch) MaxTimestamp() int64 { return int64(binary.BigEndian.Uint64(b[maxTimestampAt:])) }

// ProducerID returns the idempotent producer's id, or NoProducerID.
func (b Batch) ProducerID() int64 { return int64(binary.BigEndian.Uint64(b[producerIDAt:])) }

// ProducerEpoch returns the epoch of the producer id, or NoProducerEpoch.
func (b Batch) ProducerEpoch() int16 { return int16(binary.BigEndian.Uint16(b[producerEpochAt:])) }

// BaseSequence returns the first record's sequence number, or NoSequence.
func (b Batch) BaseSequence() int32 { return int32(binary.BigEndian.Uint32(b[baseSequenceAt:])) }

// LastSequence returns the last record's sequence number. Sequence numbers
// wrap to 0 after the largest int32. It is NoSequence when BaseSequence is.
func (b Batch) LastSequence() int32 {
	base := b.BaseSequence()
	if base == NoSequence {
		return NoSequence
	}
	return AddSequence(base, b.LastOffsetDelta())
}

// AddSequence returns the sequence number delta records after sequence; delta
// may be negative. Both wrap within 0 and the largest int32, as in Kafka.
func AddSequence(sequence, delta int32) int32 {
	return int32((int64(sequence) + int64(delta) + 1<<31) & math.MaxInt32)
}

// Count returns the number of records.
func (b Batch) Count() int32 { return int32(binary.BigEndian.Uint32(b[countAt:])) }

// Records returns the bytes after the header, compressed as Codec says.
func (b Batch) Records() []byte { return b[HeaderSize:] }

// SetBaseOffset assigns the batch's place. The checksum does not cover it.
func (b Batch) SetBaseOffset(offset int64) { binary.BigEndian.PutUint64(b, uint64(offset)) }

// SetLeaderEpoch assigns the leader's epoch. The checksum does not cover it.
func (b Batch) SetLeaderEpoch(epoch int32) {
	binary.BigEndian.PutUint32(b[leaderEpochAt:], uint32(epoch))
}

// SetLogAppendTime stamps the batch with the time of appending, in
// milliseconds, and computes its checksum again.
func (b Batch) SetLogAppendTime(milliseconds int64) {
	b[attributesAt+1] |= logAppendTimeFlag
	binary.BigEndian.PutUint64(b[maxTimestampAt:], uint64(milliseconds))
	b.SetCRC()
}

// SetCRC stores the checksum of the batch as it is now.
func (b Batch) SetCRC() {
	binary.BigEndian.PutUint32(b[crcAt:], crc32.Checksum(b[attributesAt:], castagnoli))
}
