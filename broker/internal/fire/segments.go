package main

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
)

// batch is a record batch as it is found in a segment file.
type batch struct {
	base, last int64
	size       int
	sum        [sha256.Size]byte // of all of its bytes
}

const (
	batchPrefix = 12 // base offset and length
	batchHeader = 61
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// readSegments reads all batches of a partition from its directory, by the format that
// Apache Kafka documents (record batch, version 2). The zeros of a preallocated file end
// it; behind them a node that runs keeps a note of its own. It shares no code with the
// broker.
func readSegments(dir string, running bool) ([]batch, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.log"))
	if err != nil {
		return nil, err
	}
	slices.Sort(files) // named after their first offset, in twenty digits
	var list []batch
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		found, err := parseBatches(data, running)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		list = append(list, found...)
	}
	return list, nil
}

var errDamaged = errors.New("damaged")

// parseBatches splits a segment's bytes into batches.
func parseBatches(data []byte, running bool) ([]batch, error) {
	var list []batch
	for at := 0; at+batchPrefix <= len(data); {
		length := int(binary.BigEndian.Uint32(data[at+8:]))
		if length == 0 {
			if !running && slices.ContainsFunc(data[at:], func(b byte) bool { return b != 0 }) {
				return nil, fmt.Errorf("%w: a batch of no length at byte %d, and bytes behind it", errDamaged, at)
			}
			return list, nil
		}
		size := batchPrefix + length
		if size < batchHeader || size > len(data)-at {
			return nil, fmt.Errorf("%w: a batch of %d bytes at byte %d of %d", errDamaged, size, at, len(data))
		}
		raw := data[at : at+size]
		if raw[16] != 2 {
			return nil, fmt.Errorf("%w: a batch of format %d at byte %d", errDamaged, raw[16], at)
		}
		if want, got := binary.BigEndian.Uint32(raw[17:]), crc32.Checksum(raw[21:], castagnoli); want != got {
			return nil, fmt.Errorf("%w: checksum %08x instead of %08x at byte %d", errDamaged, got, want, at)
		}
		base := int64(binary.BigEndian.Uint64(raw))
		list = append(list, batch{base: base, last: base + int64(int32(binary.BigEndian.Uint32(raw[23:]))), size: size, sum: sha256.Sum256(raw)})
		at += size
	}
	return list, nil
}
