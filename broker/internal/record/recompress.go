package record

import (
	"encoding/binary"
	"fmt"
)

// sizedFrom is the limit from which on it pays to decompress twice, the first time only to
// learn the size, rather than to grow a buffer step by step.
const sizedFrom = 8 << 20

// Recompress appends to dst the batch with its records in another codec. All else stays
// as it is: offsets, timestamps, producer, sequence and flags. It opens every record, and
// fails with ErrCorrupt when they are not what the header says, and with ErrTooLarge when
// decompressed they take more than limit bytes. It decompresses into scratch, if that is
// not nil, and leaves there what it has grown to, for the next call.
func (b Batch) Recompress(dst []byte, codec Codec, limit int, scratch *[]byte) ([]byte, error) {
	if scratch == nil {
		scratch = new([]byte)
	}
	size := 0
	if limit > sizedFrom {
		var err error
		if size, err = sizeWithin(b.Codec(), b.Records(), limit); err != nil {
			return dst, fmt.Errorf("record: recompress: %w", err)
		}
	}
	plain := append(grow((*scratch)[:0], HeaderSize+size+1), b[:HeaderSize]...)
	plain, err := Decompress(plain, b.Codec(), b.Records(), limit)
	*scratch = plain
	if err != nil {
		return dst, fmt.Errorf("record: recompress: %w", err)
	}
	opened := Batch(plain)
	opened.setCodec(CodecNone)
	it := NewIterator(opened, limit)
	for it.Next() {
	}
	err = it.Err()
	it.Close()
	if err != nil {
		return dst, fmt.Errorf("record: recompress: %w", err)
	}
	start := len(dst)
	dst = append(dst, b[:HeaderSize]...)
	if dst, err = Compress(dst, codec, opened.Records()); err != nil {
		return dst[:start], fmt.Errorf("record: recompress: %w", err)
	}
	out := Batch(dst[start:])
	binary.BigEndian.PutUint32(out[lengthAt:], uint32(len(out)-LengthPrefix))
	out.setCodec(codec)
	out.SetCRC()
	return dst, nil
}

func (b Batch) setCodec(codec Codec) {
	b[attributesAt+1] = b[attributesAt+1]&^codecMask | byte(codec)
}

// ParseCodec returns the codec of that name, as in compression.type.
func ParseCodec(name string) (Codec, bool) {
	for codec := CodecNone; codec <= CodecZstd; codec++ {
		if codec.String() == name {
			return codec, true
		}
	}
	return CodecNone, name == "uncompressed"
}
