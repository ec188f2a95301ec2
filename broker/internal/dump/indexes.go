package dump

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
)

// entries writes a file of entries of equal size. One that is all zero ends it:
// the index of a segment in use has room left.
func entries(p *printer, file io.ReaderAt, size int64, width int, base int64, decode func([]byte, int64) []field) error {
	entry := make([]byte, width)
	for i := int64(0); p.err == nil && (i+1)*int64(width) <= size; i++ {
		if _, err := file.ReadAt(entry, i*int64(width)); err != nil {
			return fmt.Errorf("read entry %d: %w", i, err)
		}
		if allZero(entry) {
			return nil
		}
		p.print(0, "entry", decode(entry, base)...)
	}
	if rest := size % int64(width); rest != 0 {
		return fmt.Errorf("%w: %d bytes after the last whole entry", ErrDamaged, rest)
	}
	return nil
}

func offsetEntry(b []byte, base int64) []field {
	return []field{{"offset", base + int64(binary.BigEndian.Uint32(b))}, {"position", int64(binary.BigEndian.Uint32(b[4:]))}}
}

func timeEntry(b []byte, base int64) []field {
	return []field{{"timestamp", timestamp(binary.BigEndian.Uint64(b))}, {"offset", base + int64(binary.BigEndian.Uint32(b[8:]))}}
}

func abortedEntry(b []byte, _ int64) []field {
	at := func(i int) int64 { return int64(binary.BigEndian.Uint64(b[i:])) }
	return []field{{"producer id", at(2)}, {"first offset", at(10)}, {"last offset", at(18)}, {"last stable offset", at(26)}}
}

// producers writes a producer snapshot.
func producers(p *printer, file io.ReaderAt, size int64) error {
	const header, width, limit = 10, 46, 1 << 30
	if size < header || size > limit {
		return fmt.Errorf("%w: a producer snapshot of %d bytes", ErrDamaged, size)
	}
	b := make([]byte, size)
	if _, err := file.ReadAt(b, 0); err != nil {
		return fmt.Errorf("read: %w", err)
	}
	if v := binary.BigEndian.Uint16(b); v != 1 {
		return fmt.Errorf("%w: version %d of a producer snapshot", ErrDamaged, v)
	}
	if sum, stored := crc32.Checksum(b[6:], crc32.MakeTable(crc32.Castagnoli)), binary.BigEndian.Uint32(b[2:]); sum != stored {
		return fmt.Errorf("%w: checksum %#08x, computed %#08x", ErrDamaged, stored, sum)
	}
	count := int64(binary.BigEndian.Uint32(b[6:]))
	b = b[header:]
	if count*width != int64(len(b)) {
		return fmt.Errorf("%w: %d producers in %d bytes", ErrDamaged, count, len(b))
	}
	for ; len(b) > 0; b = b[width:] {
		at := func(i int) int64 { return int64(binary.BigEndian.Uint64(b[i:])) }
		p.print(0, "producer",
			field{"producer id", at(0)}, field{"producer epoch", int16(binary.BigEndian.Uint16(b[8:]))},
			field{"last sequence", int32(binary.BigEndian.Uint32(b[10:]))}, field{"last offset", at(14)},
			field{"offset delta", int32(binary.BigEndian.Uint32(b[22:]))}, field{"timestamp", timestamp(at(26))},
			field{"coordinator epoch", int32(binary.BigEndian.Uint32(b[34:]))}, field{"transaction start", at(38)})
	}
	return nil
}
