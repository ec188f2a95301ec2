package record

import (
	"encoding/binary"
	"fmt"
)

// DeleteHorizon returns the time in ms from which on the batch's tombstones, or
// its transaction marker, may go (KIP-534); ok is false when none is set.
func (b Batch) DeleteHorizon() (ms int64, ok bool) {
	if !b.HasDeleteHorizon() {
		return 0, false
	}
	return b.BaseTimestamp(), true
}

// Filter appends to dst the batch with only the records that keep names, called
// in their order with their index. Offsets, producer, sequence, codec and flags stay as
// they are, so that a batch without records still tells a producer's last
// sequence number. A horizon of at least 0 becomes the delete horizon; otherwise
// the batch keeps the one it has. Decompressed records may take up to limit bytes.
func (b Batch) Filter(dst []byte, limit int, horizon int64, keep func(index int) bool) ([]byte, error) {
	start := len(dst)
	dst = append(dst, b[:HeaderSize]...)
	base := b.BaseTimestamp()
	if horizon >= 0 {
		base = horizon
	}
	build := NewBuilder(b.Codec())
	// Timestamps are relative to the base, which a horizon replaces.
	build.baseTimestamp, build.fixedBase = base, true
	it := NewIterator(b, limit)
	defer it.Close()
	for i := 0; it.Next(); i++ {
		if !keep(i) {
			continue
		}
		r := it.Record()
		build.AppendAt(int32(r.Offset-b.BaseOffset()), r.Timestamp, r.Key, r.Value, r.Headers)
	}
	if err := it.Err(); err != nil {
		return dst[:start], fmt.Errorf("record: filter batch at offset %d: %w", b.BaseOffset(), err)
	}
	if build.count > 0 {
		var err error
		if dst, err = Compress(dst, b.Codec(), build.records); err != nil {
			return dst[:start], fmt.Errorf("record: filter batch at offset %d: %w", b.BaseOffset(), err)
		}
	}
	out := Batch(dst[start:])
	binary.BigEndian.PutUint32(out[lengthAt:], uint32(len(out)-LengthPrefix))
	if build.count == 0 {
		// Nothing to decompress.
		out[attributesAt+1] &^= codecMask
	} else if !b.IsLogAppendTime() {
		binary.BigEndian.PutUint64(out[maxTimestampAt:], uint64(build.maxTimestamp))
	}
	if horizon >= 0 {
		out[attributesAt+1] |= deleteHorizonFlag
		binary.BigEndian.PutUint64(out[baseTimestampAt:], uint64(horizon))
	}
	binary.BigEndian.PutUint32(out[countAt:], uint32(build.count))
	out.SetCRC()
	return dst, nil
}
