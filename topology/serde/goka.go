package serde

import "fmt"

// Codec is the shape of github.com/lovoo/goka's Codec: a goka codec is one
// without further ado, and so is what ToCodec returns for goka.
type Codec interface {
	Encode(value any) (data []byte, err error)
	Decode(data []byte) (value any, err error)
}

// FromCodec makes a serde of a goka codec. name goes into the manifest and error
// messages. A value that Decode returns with a type other than T is an error.
// The codec's Decode gets its own copy of the bytes, which it may keep.
func FromCodec[T any](name string, codec Codec) Serde[T] {
	return codecSerde[T]{name: name, codec: codec}
}

type codecSerde[T any] struct {
	name  string
	codec Codec
}

func (s codecSerde[T]) Name() string { return s.name }

func (s codecSerde[T]) Append(dst []byte, v T) ([]byte, error) {
	encoded, err := s.codec.Encode(v)
	if err != nil {
		return dst, fmt.Errorf("serde: codec %s: %w", s.name, err)
	}
	return append(dst, encoded...), nil
}

func (s codecSerde[T]) Decode(src []byte) (T, error) {
	var zero T
	decoded, err := s.codec.Decode(append(make([]byte, 0, len(src)), src...))
	if err != nil {
		return zero, fmt.Errorf("%w: codec %s: %w", ErrFormat, s.name, err)
	}
	v, ok := decoded.(T)
	if !ok {
		return zero, fmt.Errorf("%w: codec %s decoded a %T, the stream holds %s", ErrFormat, s.name, decoded, typeName[T]())
	}
	return v, nil
}

// ToCodec makes a goka codec of a serde. Encode takes a T and nothing else.
func ToCodec[T any](s Serde[T]) Codec { return serdeCodec[T]{s} }

type serdeCodec[T any] struct{ serde Serde[T] }

func (c serdeCodec[T]) Encode(value any) ([]byte, error) {
	v, ok := value.(T)
	if !ok {
		return nil, fmt.Errorf("serde: %s: cannot encode a %T, want %s", c.serde.Name(), value, typeName[T]())
	}
	return c.serde.Append(nil, v)
}

func (c serdeCodec[T]) Decode(data []byte) (any, error) { return c.serde.Decode(data) }
