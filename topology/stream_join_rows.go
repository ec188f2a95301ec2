package topology

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// A stream-stream join keeps the records of a key and a span of time, of both streams, in
// one row of its window store, whose window begins with the span; what goes beyond
// fullJoinRow in the next row, 1 ms later, and so on. Each list is in the order of timestamps and, among equal
// ones, of arrival:
//
//	| records of the first stream (4) | record | ... | record of the second | ... |
//	record: | timestamp (8) | found a partner (1) | length (4) | value (n) |
//
// Numbers are big-endian, timestamps in ms since the Unix epoch.

// joinRecord is a record that waits for partners.
type joinRecord[V any] struct {
	timestamp int64
	value     V
	// encoded is the value as its serde writes it: rows are written as often as they
	// change, records are encoded once.
	encoded []byte
	// joined says that it found one.
	joined bool
}

// fullJoinRow is how large a row gets: it is written again with each commit that adds to
// it, and must be far from what a record of its changelog may have.
const fullJoinRow = 32 << 10

// joinRows are the records of a key and a span of time.
type joinRows[A, B any] struct {
	a []joinRecord[A]
	b []joinRecord[B]
	// size is that of the records as they are written.
	size int
}

func (r *joinRecord[V]) size() int { return joinRecordHeader + len(r.encoded) }

// insert adds a record behind those that are not later.
func insert[V any](list []joinRecord[V], r joinRecord[V]) []joinRecord[V] {
	at := len(list)
	for at > 0 && list[at-1].timestamp > r.timestamp {
		at--
	}
	return slices.Insert(list, at, r)
}

// between returns the part of a list with timestamps in [from, to].
func between[V any](list []joinRecord[V], from, to int64) []joinRecord[V] {
	order := func(r joinRecord[V], timestamp int64) int {
		if r.timestamp < timestamp {
			return -1
		}
		return 1 // no two are equal: the place found is before the first
	}
	begin, _ := slices.BinarySearchFunc(list, from, order)
	end, _ := slices.BinarySearchFunc(list, to+1, order)
	return list[begin:max(begin, end)]
}

const joinRecordHeader = 8 + 1 + 4

var errJoinRow = errors.New("a stored row of a join is cut")

// joinRowsSerde writes rows of a join.
type joinRowsSerde[A, B any] struct {
	a Serde[A]
	b Serde[B]
}

// Name implements Serde.
func (s joinRowsSerde[A, B]) Name() string { return "joined(" + s.a.Name() + "," + s.b.Name() + ")" }

// Append implements Serde.
func (s joinRowsSerde[A, B]) Append(dst []byte, rows *joinRows[A, B]) ([]byte, error) {
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(rows.a)))
	return appendJoinRecords(appendJoinRecords(dst, rows.a), rows.b), nil
}

// Decode implements Serde.
func (s joinRowsSerde[A, B]) Decode(src []byte) (*joinRows[A, B], error) {
	if len(src) < 4 {
		return nil, errJoinRow
	}
	count := binary.BigEndian.Uint32(src)
	src = src[4:]
	rows := &joinRows[A, B]{size: len(src)}
	var err error
	for range count {
		if rows.a, src, err = decodeJoinRecord(rows.a, src, s.a); err != nil {
			return nil, err
		}
	}
	for len(src) > 0 {
		if rows.b, src, err = decodeJoinRecord(rows.b, src, s.b); err != nil {
			return nil, err
		}
	}
	return rows, nil
}

func appendJoinRecords[V any](dst []byte, list []joinRecord[V]) []byte {
	for _, r := range list {
		dst = binary.BigEndian.AppendUint64(dst, uint64(r.timestamp))
		joined := byte(0)
		if r.joined {
			joined = 1
		}
		dst = binary.BigEndian.AppendUint32(append(dst, joined), uint32(len(r.encoded)))
		dst = append(dst, r.encoded...)
	}
	return dst
}

func decodeJoinRecord[V any](list []joinRecord[V], src []byte, value Serde[V]) ([]joinRecord[V], []byte, error) {
	if len(src) < joinRecordHeader {
		return nil, nil, errJoinRow
	}
	r := joinRecord[V]{timestamp: int64(binary.BigEndian.Uint64(src)), joined: src[8] != 0}
	length := binary.BigEndian.Uint32(src[9:])
	src = src[joinRecordHeader:]
	if uint64(length) > uint64(len(src)) {
		return nil, nil, errJoinRow
	}
	var err error
	if r.value, err = value.Decode(src[:length:length]); err != nil {
		return nil, nil, fmt.Errorf("a stored record of a join: %w", err)
	}
	r.encoded = bytes.Clone(src[:length])
	return append(list, r), src[length:], nil
}
