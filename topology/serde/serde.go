// Package serde turns typed values into the bytes of records and back.
//
// The encodings are Kafka's own, so that any Kafka client reads what a topology
// writes: integers and floats big-endian, strings as UTF-8, booleans as one byte.
//
//	String    n bytes         UTF-8, as StringSerializer
//	Bytes     n bytes         as they are, as ByteArraySerializer
//	Bool      1 byte          0 or 1, as BooleanSerializer
//	Int32     4 bytes         two's complement, big-endian, as IntegerSerializer
//	Int64     8 bytes         two's complement, big-endian, as LongSerializer
//	Uint64    8 bytes         big-endian; what LongSerializer writes up to 2^63-1
//	Float64   8 bytes         IEEE 754, big-endian, as DoubleSerializer
//	JSON      n bytes         one JSON value
//	Proto     n bytes         protobuf wire format, no schema id, deterministic
//	Windowed  n + 8 bytes     key, then window start in ms since the epoch,
//	                          big-endian, as Kafka Streams' TimeWindowedSerializer
//	Session   n + 16 bytes    key, then the session's end and start, as Kafka
//	                          Streams' SessionWindowedSerializer
//
// Null is not a serde's business: the engine writes a nil pointer or a nil []byte
// as null, and never hands null to Decode.
package serde

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// Serde encodes and decodes values of one type. Implementations are safe for
// concurrent use.
//
// Values that serve as keys need an encoding that gives equal bytes for equal
// values, since bytes decide partitions and store rows.
type Serde[T any] interface {
	// Append appends the encoding of v to dst and returns the extended slice.
	Append(dst []byte, v T) ([]byte, error)
	// Decode reads a value from all of src. The value must not alias src, which is
	// overwritten after the call. Whatever src holds, Decode returns a value or an
	// error and does not panic.
	Decode(src []byte) (T, error)
	// Name tells the format, such as "string" or "json(main.Stats)". It goes into error
	// messages and the plan's manifest, by which a start is refused that would read
	// state with a serde of another name: change it when the encoding changes.
	Name() string
}

// ErrFormat says that bytes are not an encoding of the type.
var ErrFormat = errors.New("serde: bytes do not hold a value of this type")

// The serdes of the basic types.
var (
	// String holds text; bytes that are not UTF-8 are kept as they are.
	String Serde[string] = stringSerde{}
	// Bytes holds bytes; Decode copies.
	Bytes Serde[[]byte] = bytesSerde{}
	// Bool holds one byte, 0 or 1.
	Bool Serde[bool] = boolSerde{}
	// Int32 holds four bytes.
	Int32 Serde[int32] = int32Serde{}
	// Int64 holds eight bytes.
	Int64 Serde[int64] = int64Serde{}
	// Uint64 holds eight bytes.
	Uint64 Serde[uint64] = uint64Serde{}
	// Float64 holds eight bytes.
	Float64 Serde[float64] = float64Serde{}
)

type stringSerde struct{}

func (stringSerde) Append(dst []byte, v string) ([]byte, error) { return append(dst, v...), nil }
func (stringSerde) Decode(src []byte) (string, error)           { return string(src), nil }
func (stringSerde) Name() string                                { return "string" }

type bytesSerde struct{}

func (bytesSerde) Append(dst, v []byte) ([]byte, error) { return append(dst, v...), nil }
func (bytesSerde) Name() string                         { return "bytes" }

// Decode returns a slice that is not nil even when empty: nil means null.
func (bytesSerde) Decode(src []byte) ([]byte, error) {
	return append(make([]byte, 0, len(src)), src...), nil
}

type boolSerde struct{}

func (boolSerde) Name() string { return "bool" }

func (boolSerde) Append(dst []byte, v bool) ([]byte, error) {
	if v {
		return append(dst, 1), nil
	}
	return append(dst, 0), nil
}

func (s boolSerde) Decode(src []byte) (bool, error) {
	if err := checkSize(s.Name(), src, 1); err != nil {
		return false, err
	}
	if src[0] > 1 {
		return false, fmt.Errorf("%w: bool: the byte is 0x%02x, want 0x00 or 0x01", ErrFormat, src[0])
	}
	return src[0] == 1, nil
}

type int32Serde struct{}

func (int32Serde) Name() string { return "int32" }

func (int32Serde) Append(dst []byte, v int32) ([]byte, error) {
	return binary.BigEndian.AppendUint32(dst, uint32(v)), nil
}

func (s int32Serde) Decode(src []byte) (int32, error) {
	if err := checkSize(s.Name(), src, 4); err != nil {
		return 0, err
	}
	return int32(binary.BigEndian.Uint32(src)), nil
}

type int64Serde struct{}

func (int64Serde) Name() string { return "int64" }

func (int64Serde) Append(dst []byte, v int64) ([]byte, error) {
	return binary.BigEndian.AppendUint64(dst, uint64(v)), nil
}

func (s int64Serde) Decode(src []byte) (int64, error) {
	if err := checkSize(s.Name(), src, 8); err != nil {
		return 0, err
	}
	return int64(binary.BigEndian.Uint64(src)), nil
}

type uint64Serde struct{}

func (uint64Serde) Name() string { return "uint64" }

func (uint64Serde) Append(dst []byte, v uint64) ([]byte, error) {
	return binary.BigEndian.AppendUint64(dst, v), nil
}

func (s uint64Serde) Decode(src []byte) (uint64, error) {
	if err := checkSize(s.Name(), src, 8); err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint64(src), nil
}

type float64Serde struct{}

func (float64Serde) Name() string { return "float64" }

func (float64Serde) Append(dst []byte, v float64) ([]byte, error) {
	return binary.BigEndian.AppendUint64(dst, math.Float64bits(v)), nil
}

func (s float64Serde) Decode(src []byte) (float64, error) {
	if err := checkSize(s.Name(), src, 8); err != nil {
		return 0, err
	}
	return math.Float64frombits(binary.BigEndian.Uint64(src)), nil
}

func checkSize(name string, src []byte, want int) error {
	if len(src) != want {
		return fmt.Errorf("%w: %s: got %d bytes, want %d", ErrFormat, name, len(src), want)
	}
	return nil
}
