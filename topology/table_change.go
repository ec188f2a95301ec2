package topology

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// change is what happened to a row of a grouped table: what it counted for in a group, and
// what it counts for now. At least one of the two is there.
type change[V any] struct {
	old, new       V
	hasOld, hasNew bool
}

// A change, in a repartition topic:
//
//	| 1: has an old value, 2: has a new one, 3: both (1) | length of the old (4) | old (n) | new (n) |
//
// The length, big-endian, is 0 without an old value.
type changeSerde[V any] struct{ value Serde[V] }

const changeHeader = 1 + 4

// Name implements Serde.
func (s changeSerde[V]) Name() string { return "change(" + s.value.Name() + ")" }

// Append implements Serde.
func (s changeSerde[V]) Append(dst []byte, c change[V]) ([]byte, error) {
	flags := byte(0)
	start := len(dst)
	dst = append(dst, 0, 0, 0, 0, 0)
	var err error
	if c.hasOld {
		flags |= 1
		if dst, err = s.value.Append(dst, c.old); err != nil {
			return nil, err
		}
	}
	binary.BigEndian.PutUint32(dst[start+1:], uint32(len(dst)-start-changeHeader))
	if c.hasNew {
		flags |= 2
		if dst, err = s.value.Append(dst, c.new); err != nil {
			return nil, err
		}
	}
	dst[start] = flags
	return dst, nil
}

// Decode implements Serde.
func (s changeSerde[V]) Decode(src []byte) (c change[V], err error) {
	if len(src) < changeHeader || src[0] < 1 || src[0] > 3 {
		return c, fmt.Errorf("%w: %d bytes are no change of a table", errChange, len(src))
	}
	c.hasOld, c.hasNew = src[0]&1 != 0, src[0]&2 != 0
	length := uint64(binary.BigEndian.Uint32(src[1:]))
	src = src[changeHeader:]
	if length > uint64(len(src)) || !c.hasOld && length > 0 {
		return c, fmt.Errorf("%w: the old value is cut", errChange)
	}
	if c.hasOld {
		if c.old, err = s.value.Decode(src[:length:length]); err != nil {
			return c, err
		}
	}
	if c.hasNew {
		c.new, err = s.value.Decode(src[length:])
	}
	return c, err
}

var errChange = errors.New("a change of a grouped table is damaged")

// contribution is what a row of a table counts for: the group it is in and its value there.
type contribution[K, V any] struct {
	key   K
	value V
	// encoded is
	//
	//	| length of the key (4) | key (n) | value (n) |
	encoded []byte
}

func (c *contribution[K, V]) rawKey() []byte {
	return c.encoded[4 : 4+binary.BigEndian.Uint32(c.encoded)]
}

func (c *contribution[K, V]) sameKey(other *contribution[K, V]) bool {
	return bytes.Equal(c.rawKey(), other.rawKey())
}

type contributionSerde[K, V any] struct {
	key   Serde[K]
	value Serde[V]
}

// encode fills encoded.
func (s contributionSerde[K, V]) encode(c *contribution[K, V]) (err error) {
	encoded := make([]byte, 4, 64)
	if encoded, err = s.key.Append(encoded, c.key); err != nil {
		return fmt.Errorf("new key: %w", err)
	}
	binary.BigEndian.PutUint32(encoded, uint32(len(encoded)-4))
	if c.encoded, err = s.value.Append(encoded, c.value); err != nil {
		return fmt.Errorf("new value: %w", err)
	}
	return nil
}

// Name implements Serde.
func (s contributionSerde[K, V]) Name() string {
	return "contribution(" + s.key.Name() + "," + s.value.Name() + ")"
}

// Append implements Serde.
func (s contributionSerde[K, V]) Append(dst []byte, c *contribution[K, V]) ([]byte, error) {
	return append(dst, c.encoded...), nil
}

// Decode implements Serde.
func (s contributionSerde[K, V]) Decode(src []byte) (*contribution[K, V], error) {
	if len(src) < 4 || uint64(binary.BigEndian.Uint32(src)) > uint64(len(src)-4) {
		return nil, fmt.Errorf("%w: what a row counted for is cut", errChange)
	}
	c := &contribution[K, V]{encoded: bytes.Clone(src)}
	var err error
	if c.key, err = s.key.Decode(c.rawKey()); err != nil {
		return nil, err
	}
	c.value, err = s.value.Decode(c.encoded[4+len(c.rawKey()):])
	return c, err
}
