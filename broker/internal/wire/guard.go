package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// Errors of decoding. Each closes the connection, as in Kafka.
var (
	// ErrMalformed says that a request cannot be read.
	ErrMalformed = errors.New("malformed request")
	// ErrUnknownAPI says that no API with the key is served.
	ErrUnknownAPI = errors.New("api is not served")
	// ErrUnsupportedVersion says that the API is not served at the version.
	ErrUnsupportedVersion = errors.New("api version is not served")
)

// maxDecoded bounds the memory that a decoded request and its answer take besides
// the frame: room for some 60,000 topics or 90,000 partitions in one request.
const maxDecoded = 32 << 20

// What an element of an array is charged besides its own memory, since it is
// answered by an element, which often takes more. An element that is a name alone
// is a whole topic or group.
const (
	nameAnswer   = 500
	structAnswer = 256
)

// maxTags bounds the tagged fields of one struct. No request has more than five.
const maxTags = 64

// guard walks a request without allocating. It accepts what kmsg then decodes
// within maxDecoded, reading nothing outside of the request.
type guard struct {
	rest     []byte
	version  int16
	flexible bool
	memory   int // of the decoded values so far
}

// The reasons, wrapped with ErrMalformed.
var (
	errShort    = errors.New("ends within a field")
	errLength   = errors.New("has a length beyond its end")
	errNegative = errors.New("has a negative length")
	errNull     = errors.New("has null where none is allowed")
	errVarint   = errors.New("has a number of more than 32 bits")
	errTagOrder = errors.New("has tagged fields that are repeated or out of order")
	errManyTags = fmt.Errorf("has more than %d tagged fields in one place", maxTags)
	errMemory   = fmt.Errorf("would take more than %d MiB when decoded: send it in parts", maxDecoded>>20)
	errTagSize  = errors.New("has a tagged field of a wrong size")
	errPresence = errors.New("has a struct that is neither there nor null")
)

func (g *guard) value(f *field) error {
	switch f.kind {
	case fixedKind:
		return g.skip(f.size)
	case stringKind:
		n, err := g.length(f, false)
		if err != nil || n < 0 {
			return err
		}
		return g.skip(n)
	case bytesKind:
		n, err := g.length(f, true)
		if err != nil || n < 0 {
			return err
		}
		return g.skip(n)
	case arrayKind:
		return g.array(f)
	default:
		return g.structure(f)
	}
}

func (g *guard) array(f *field) error {
	n, err := g.length(f, true)
	if err != nil || n <= 0 {
		return err
	}
	if n > len(g.rest) { // an element takes a byte or more
		return errLength
	}
	e := f.elem
	g.memory += n * e.memory
	switch e.kind {
	case stringKind:
		g.memory += n * nameAnswer
	case structKind:
		g.memory += n * structAnswer
	}
	if g.memory > maxDecoded {
		return errMemory
	}
	if e.kind == fixedKind {
		if n > len(g.rest)/e.size {
			return errLength
		}
		return g.skip(n * e.size)
	}
	for range n {
		if err := g.value(e); err != nil {
			return err
		}
	}
	return nil
}

func (g *guard) structure(f *field) error {
	if f.nullable != never {
		if len(g.rest) == 0 {
			return errShort
		}
		present := int8(g.rest[0])
		g.rest = g.rest[1:]
		if present == -1 {
			return nil
		}
		if present != 1 {
			return errPresence
		}
		g.memory += f.memory
	}
	for i := range f.fields {
		if e := &f.fields[i]; g.version >= e.min && g.version <= e.max {
			if err := g.value(e); err != nil {
				return err
			}
		}
	}
	if !g.flexible {
		return nil
	}
	return g.tags(f.tagged)
}

// tags walks a section of tagged fields: count, then tag, size and bytes of each
// (KIP-482). Tags must rise.
func (g *guard) tags(known []field) error {
	count, err := g.uvarint()
	if err != nil {
		return err
	}
	if count > maxTags {
		return errManyTags
	}
	last := int64(-1)
	for i := range count {
		tag, err := g.uvarint()
		if err != nil {
			return err
		}
		if int64(tag) <= last {
			return errTagOrder
		}
		last = int64(tag)
		size, err := g.uvarint()
		if err != nil {
			return err
		}
		if int64(size) > int64(len(g.rest)) {
			return errLength
		}
		if i == 0 {
			g.memory += firstTag
		} else {
			g.memory += nextTag
		}
		if g.memory > maxDecoded {
			return errMemory
		}
		if err := g.tag(known, tag, int(size)); err != nil {
			return err
		}
	}
	return nil
}

// tag walks one tagged field of size bytes.
func (g *guard) tag(known []field, tag uint32, size int) error {
	for i := range known {
		f := &known[i]
		if int64(f.tag) != int64(tag) {
			continue
		}
		inner := *g
		inner.rest = g.rest[:size]
		if err := inner.value(f); err != nil {
			return err
		}
		if len(inner.rest) != 0 {
			return errTagSize
		}
		g.memory = inner.memory
		break
	}
	return g.skip(size)
}

// length reads the length of a string, of bytes or of an array; -1 is null. wide
// says that it takes four bytes where it is not compact.
func (g *guard) length(f *field, wide bool) (int, error) {
	n := 0
	switch {
	case g.flexible:
		u, err := g.uvarint()
		if err != nil {
			return 0, err
		}
		if u > math.MaxInt32 {
			return 0, errLength
		}
		n = int(u) - 1
	case wide:
		if len(g.rest) < 4 {
			return 0, errShort
		}
		n = int(int32(binary.BigEndian.Uint32(g.rest)))
		g.rest = g.rest[4:]
	default:
		if len(g.rest) < 2 {
			return 0, errShort
		}
		n = int(int16(binary.BigEndian.Uint16(g.rest)))
		g.rest = g.rest[2:]
	}
	switch {
	case n < -1:
		return 0, errNegative
	case n == -1 && g.version < f.nullable:
		return 0, errNull
	case n > len(g.rest):
		return 0, errLength
	}
	return n, nil
}

func (g *guard) skip(n int) error {
	if n > len(g.rest) {
		return errShort
	}
	g.rest = g.rest[n:]
	return nil
}

// uvarint reads an unsigned number of at most 32 bits in at most five bytes.
func (g *guard) uvarint() (uint32, error) {
	var v uint32
	for i := range 5 {
		if i >= len(g.rest) {
			return 0, errShort
		}
		b := g.rest[i]
		if i == 4 && b > 0x0f {
			return 0, errVarint
		}
		v |= uint32(b&0x7f) << (7 * i)
		if b < 0x80 {
			g.rest = g.rest[i+1:]
			return v, nil
		}
	}
	return 0, errVarint
}
