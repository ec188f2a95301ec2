package serde

import (
	"encoding/json"
	"fmt"
	"reflect"

	"google.golang.org/protobuf/proto"
)

// JSON encodes T with encoding/json. It is convenient and readable by every
// tool, and costs about 2 us a record to decode; Proto or a serde of your own is
// faster. As a key, T must not contain maps with unordered custom encodings;
// encoding/json sorts map keys itself.
func JSON[T any]() Serde[T] { return jsonSerde[T]{name: "json(" + typeName[T]() + ")"} }

type jsonSerde[T any] struct{ name string }

func (s jsonSerde[T]) Name() string { return s.name }

func (s jsonSerde[T]) Append(dst []byte, v T) ([]byte, error) {
	encoded, err := json.Marshal(v)
	if err != nil {
		return dst, fmt.Errorf("serde: %s: %w", s.name, err)
	}
	return append(dst, encoded...), nil
}

func (s jsonSerde[T]) Decode(src []byte) (T, error) {
	var v T
	if err := json.Unmarshal(src, &v); err != nil {
		var zero T
		return zero, fmt.Errorf("%w: %s: %w", ErrFormat, s.name, err)
	}
	return v, nil
}

// Message is a pointer to a generated protobuf message.
type Message[T any] interface {
	*T
	proto.Message
}

// Proto encodes the protobuf message T, as in Proto[pb.Order](), which is a
// Serde[*pb.Order]. The encoding is deterministic within one version of the
// library, which keys need.
func Proto[T any, M Message[T]]() Serde[M] {
	return protoSerde[T, M]{name: "proto(" + typeName[T]() + ")"}
}

type protoSerde[T any, M Message[T]] struct{ name string }

func (s protoSerde[T, M]) Name() string { return s.name }

func (s protoSerde[T, M]) Append(dst []byte, v M) ([]byte, error) {
	encoded, err := proto.MarshalOptions{Deterministic: true}.MarshalAppend(dst, v)
	if err != nil {
		return dst, fmt.Errorf("serde: %s: %w", s.name, err)
	}
	return encoded, nil
}

func (s protoSerde[T, M]) Decode(src []byte) (M, error) {
	v := M(new(T))
	if err := proto.Unmarshal(src, v); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrFormat, s.name, err)
	}
	return v, nil
}

// Pointer lifts a serde to pointers, for values that may be null: the engine
// hands null to user functions as nil, and writes nil as null.
func Pointer[T any](inner Serde[T]) Serde[*T] { return pointerSerde[T]{inner} }

type pointerSerde[T any] struct{ inner Serde[T] }

func (s pointerSerde[T]) Name() string { return "pointer(" + s.inner.Name() + ")" }

func (s pointerSerde[T]) Append(dst []byte, v *T) ([]byte, error) {
	if v == nil {
		return dst, fmt.Errorf("serde: %s: nil has no encoding: it is written as null", s.Name())
	}
	return s.inner.Append(dst, *v)
}

func (s pointerSerde[T]) Decode(src []byte) (*T, error) {
	v, err := s.inner.Decode(src)
	if err != nil {
		return nil, err
	}
	return &v, nil
}

// WithName is the serde under another name. The plan's manifest takes serdes with equal names
// for equal: when a type is renamed or moves to another package, and its encoding stays,
// the serde goes on under the name that it had, as in
// WithName("json(main.Stats)", JSON[stats.Totals]()).
func WithName[T any](name string, s Serde[T]) Serde[T] { return namedSerde[T]{s, name} }

type namedSerde[T any] struct {
	Serde[T]
	name string
}

func (s namedSerde[T]) Name() string { return s.name }

func typeName[T any]() string { return reflect.TypeFor[T]().String() }
