package storage

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
)

// The sync mark is what tells a torn tail from damage. It takes the last bytes of
// the active segment's preallocated file, is written after each successful sync
// and becomes durable with the next one. Big-endian:
//
//	magic 8 bytes "LEATMARK"
//	base offset of the segment int64
//	synced position int64: the file's bytes below were durable
//	synced offset int64: the log's offsets below were durable
//	CRC-32C uint32 of the 32 bytes before
//	4 bytes 0xff
//
// It goes when the segment is trimmed; a segment that is followed by another was
// durable as a whole before the other was created and needs no mark.
type syncMark struct {
	base     int64
	position int64
	offset   int64
}

const markSize = 40

var markMagic = []byte("LEATMARK")

func (m syncMark) encode(dst *[markSize]byte) {
	copy(dst[:], markMagic)
	binary.BigEndian.PutUint64(dst[8:], uint64(m.base))
	binary.BigEndian.PutUint64(dst[16:], uint64(m.position))
	binary.BigEndian.PutUint64(dst[24:], uint64(m.offset))
	binary.BigEndian.PutUint32(dst[32:], crc32.Checksum(dst[:32], castagnoli))
	binary.BigEndian.PutUint32(dst[36:], 0xffffffff)
}

// decodeMark returns the mark in the last bytes of a segment's file of that size.
func decodeMark(b []byte, base, fileSize int64) (syncMark, bool) {
	if len(b) != markSize || !bytes.Equal(b[:8], markMagic) || binary.BigEndian.Uint32(b[36:]) != 0xffffffff ||
		crc32.Checksum(b[:32], castagnoli) != binary.BigEndian.Uint32(b[32:]) {
		return syncMark{}, false
	}
	m := syncMark{
		base:     int64(binary.BigEndian.Uint64(b[8:])),
		position: int64(binary.BigEndian.Uint64(b[16:])),
		offset:   int64(binary.BigEndian.Uint64(b[24:])),
	}
	if m.base != base || m.position < 0 || m.position > fileSize-markSize || m.offset < base {
		return syncMark{}, false
	}
	return m, true
}
