package badgerstore

import (
	"bufio"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"os"
)

// Badger's write-ahead logs (.mem) and value logs (.vlog) are mapped files,
// longer than what is written in them. What is written is found by walking it:
//
//	| key id (8) | base IV (12) | entries | zeros |
//
//	entry: | meta (1) | user meta (1) | key length (uvarint) | value length (uvarint)
//	       | expiry (uvarint) | key | value | CRC-32C of all before (4) |
const (
	logHeaderSize      = 20
	maxEntryHeaderSize = 2 + 3*binary.MaxVarintLen64
	maxEntryKeySize    = 1 << 16
)

// logMark walks the entries of a log after known, which must mark a prefix of it
// (the zero fileMark does), and returns the mark of all that is written.
func logMark(f *os.File, known fileMark) (fileMark, error) {
	mark := known
	r := bufio.NewReaderSize(io.NewSectionReader(f, mark.size, 1<<62), 64<<10)
	if mark.size == 0 {
		header, err := r.Peek(logHeaderSize)
		if err != nil {
			return mark, ignoreEnd(err)
		}
		mark.size, mark.crc = logHeaderSize, crc32.Checksum(header, castagnoli)
		if _, err := r.Discard(logHeaderSize); err != nil {
			return mark, err
		}
	}
	for {
		size, crc, err := walkEntry(r, mark.crc)
		if err != nil || size == 0 {
			return mark, ignoreEnd(err)
		}
		mark.size += size
		mark.crc = crc
	}
}

// walkEntry reads one entry and returns its size and the prefix checksum
// extended by it; size 0 when there is none or it is not whole.
func walkEntry(r *bufio.Reader, prefix uint32) (size int64, extended uint32, err error) {
	header, err := r.Peek(maxEntryHeaderSize)
	if len(header) < 5 {
		return 0, 0, err
	}
	n := 2
	var lengths [3]uint64 // key, value, expiry
	for i := range lengths {
		v, width := binary.Uvarint(header[n:])
		if width <= 0 {
			return 0, 0, nil
		}
		lengths[i], n = v, n+width
	}
	if lengths[0] == 0 || lengths[0] > maxEntryKeySize || lengths[1] > 1<<31 {
		return 0, 0, nil
	}
	left := int64(n) + int64(lengths[0]) + int64(lengths[1])
	size = left + crc32.Size
	entry := uint32(0)
	extended = prefix
	for left > 0 {
		chunk, err := r.Peek(int(min(left, int64(r.Size()))))
		if err != nil {
			return 0, 0, err
		}
		entry = crc32.Update(entry, castagnoli, chunk)
		extended = crc32.Update(extended, castagnoli, chunk)
		left -= int64(len(chunk))
		if _, err := r.Discard(len(chunk)); err != nil {
			return 0, 0, err
		}
	}
	sum, err := r.Peek(crc32.Size)
	if err != nil {
		return 0, 0, err
	}
	if binary.BigEndian.Uint32(sum) != entry {
		return 0, 0, nil
	}
	extended = crc32.Update(extended, castagnoli, sum)
	_, err = r.Discard(crc32.Size)
	return size, extended, err
}

func ignoreEnd(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// prefixMark returns the mark of the first size bytes of a file; it is shorter
// when the file is.
func prefixMark(path string, size int64) (fileMark, error) {
	f, err := os.Open(path)
	if err != nil {
		return fileMark{}, err
	}
	defer f.Close()
	hash := crc32.New(castagnoli)
	n, err := io.CopyBuffer(struct{ io.Writer }{hash}, io.LimitReader(f, size), make([]byte, 256<<10))
	return fileMark{size: n, crc: hash.Sum32()}, err
}
