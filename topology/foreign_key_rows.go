package topology

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// subscription says that a row, by the bytes of its key, begins or ends to depend on a
// foreign key. In the topic:
//
//	| 1: subscribed, 0: not any more (1) | key of the row (n) |
type subscription struct {
	row        []byte
	subscribed bool
}

var errForeign = errors.New("a record of a foreign-key join is damaged")

type subscriptionSerde struct{}

// Name implements Serde.
func (subscriptionSerde) Name() string { return "subscription" }

// Append implements Serde.
func (subscriptionSerde) Append(dst []byte, s subscription) ([]byte, error) {
	flag := byte(0)
	if s.subscribed {
		flag = 1
	}
	return append(append(dst, flag), s.row...), nil
}

// Decode implements Serde.
func (subscriptionSerde) Decode(src []byte) (subscription, error) {
	if len(src) < 1 || src[0] > 1 {
		return subscription{}, fmt.Errorf("%w: %d bytes are no subscription", errForeign, len(src))
	}
	return subscription{bytes.Clone(src[1:]), src[0] == 1}, nil
}

// response tells a row what the second table has for a foreign key. In the topic:
//
//	| 1: it has it, 0: not (1) | length of the foreign key (4) | foreign key (n) | value (n) |
type response[B any] struct {
	foreignKey []byte
	value      B
	found      bool
}

type responseSerde[B any] struct{ value Serde[B] }

// Name implements Serde.
func (s responseSerde[B]) Name() string { return "response(" + s.value.Name() + ")" }

// Append implements Serde.
func (s responseSerde[B]) Append(dst []byte, r response[B]) ([]byte, error) {
	return appendForeign(dst, r.found, 0, r.foreignKey, r.value, s.value)
}

// Decode implements Serde.
func (s responseSerde[B]) Decode(src []byte) (r response[B], err error) {
	_, r.foreignKey, r.value, r.found, err = decodeForeign(src, s.value)
	return r, err
}

// foreignRow is what a row knows of its foreign key. In the store:
//
//	| flags (1) | length of the foreign key (4) | foreign key (n) | value (n) |
//
// with the flags 1: the second table has it, 2: the answer is awaited, 4: a result is
// shown, 8: the row has no foreign key.
type foreignRow[B any] struct {
	foreignKey            []byte // nil for none
	value                 B
	found, pending, shown bool
}

type foreignRowSerde[B any] struct{ value Serde[B] }

// Name implements Serde.
func (s foreignRowSerde[B]) Name() string { return "foreign-row(" + s.value.Name() + ")" }

// Append implements Serde.
func (s foreignRowSerde[B]) Append(dst []byte, r *foreignRow[B]) ([]byte, error) {
	flags := byte(0)
	if r.pending {
		flags |= 2
	}
	if r.shown {
		flags |= 4
	}
	if r.foreignKey == nil {
		flags |= 8
	}
	return appendForeign(dst, r.found, flags, r.foreignKey, r.value, s.value)
}

// Decode implements Serde.
func (s foreignRowSerde[B]) Decode(src []byte) (*foreignRow[B], error) {
	r := &foreignRow[B]{}
	var flags byte
	var err error
	if flags, r.foreignKey, r.value, r.found, err = decodeForeign(src, s.value); err != nil {
		return nil, err
	}
	r.pending, r.shown = flags&2 != 0, flags&4 != 0
	if flags&8 != 0 {
		r.foreignKey = nil
	}
	return r, nil
}

func appendForeign[B any](dst []byte, found bool, flags byte, key []byte, value B, serde Serde[B]) ([]byte, error) {
	if found {
		flags |= 1
	}
	dst = binary.BigEndian.AppendUint32(append(dst, flags), uint32(len(key)))
	dst = append(dst, key...)
	if !found {
		return dst, nil
	}
	return serde.Append(dst, value)
}

func decodeForeign[B any](src []byte, serde Serde[B]) (flags byte, key []byte, value B, found bool, err error) {
	if len(src) < 5 || uint64(binary.BigEndian.Uint32(src[1:])) > uint64(len(src)-5) {
		return 0, nil, value, false, fmt.Errorf("%w: %d bytes", errForeign, len(src))
	}
	flags, found = src[0], src[0]&1 != 0
	end := 5 + binary.BigEndian.Uint32(src[1:])
	key = append([]byte{}, src[5:end]...)
	if found {
		value, err = serde.Decode(src[end:])
	}
	return flags, key, value, found, err
}
