package topology

import (
	"reflect"
	"time"

	"github.com/leatlog/leat/topology/plan"
	"github.com/leatlog/leat/topology/serde"
)

// Serde encodes and decodes values of one type; see package serde.
type Serde[T any] = serde.Serde[T]

// Window is a span of event time; see serde.Window.
type Window = serde.Window

// WindowedKey is the key of a windowed aggregation's result.
type WindowedKey[K any] = serde.WindowedKey[K]

// Header is a record header.
type Header = plan.Header

// Record is what runs through the operators, and what the Record form of a user
// function gets. It is lent: read it during the call, keep its Key and Value if
// need be, and change nothing.
type Record[K, V any] struct {
	Key   K
	Value V
	// Timestamp is the event time in milliseconds since the Unix epoch.
	Timestamp int64
	// Headers came with the source record; they are valid during the call only.
	// Results of aggregations have none.
	Headers []Header

	// Null of a type that can say it is a nil Key or Value, and the flag is off.
	nullKey, nullValue bool
}

// Time returns the event time in UTC.
func (r *Record[K, V]) Time() time.Time { return time.UnixMilli(r.Timestamp).UTC() }

// HasKey tells whether the record has a key: Key is a zero value when not.
func (r *Record[K, V]) HasKey() bool { return !r.nullKey && !nullCheck[K]().isNull(r.Key) }

// HasValue tells whether the record has a value: Value is a zero value when not.
func (r *Record[K, V]) HasValue() bool { return !r.nullValue && !nullCheck[V]().isNull(r.Value) }

// KeyValue is what FlatMap makes.
type KeyValue[K, V any] struct {
	Key   K
	Value V
}

// nulls tells how a type says null; the zero value is a type that cannot.
type nulls[T any] struct{ check func(T) bool }

// nullCheck finds out: pointers, interfaces and []byte say null with nil.
func nullCheck[T any]() nulls[T] {
	switch t := reflect.TypeFor[T](); {
	case t.Kind() == reflect.Pointer, t.Kind() == reflect.Interface:
		var null T
		return nulls[T]{func(v T) bool { return any(v) == any(null) }}
	case t == reflect.TypeFor[[]byte]():
		return nulls[T]{func(v T) bool { return any(v).([]byte) == nil }}
	}
	return nulls[T]{}
}

func (n nulls[T]) possible() bool { return n.check != nil }

func (n nulls[T]) isNull(v T) bool { return n.check != nil && n.check(v) }
