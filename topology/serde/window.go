package serde

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"
)

// Window is a span of event time in milliseconds since the Unix epoch. Start
// belongs to it; End does not in tumbling and hopping windows, and does in
// sessions, where it is the time of the last record, and in sliding windows.
type Window struct{ Start, End int64 }

// StartTime returns Start as a time in UTC.
func (w Window) StartTime() time.Time { return time.UnixMilli(w.Start).UTC() }

// EndTime returns End as a time in UTC.
func (w Window) EndTime() time.Time { return time.UnixMilli(w.End).UTC() }

// String returns "start/end" in RFC 3339 with milliseconds.
func (w Window) String() string {
	const layout = "2006-01-02T15:04:05.000Z"
	return w.StartTime().Format(layout) + "/" + w.EndTime().Format(layout)
}

// WindowedKey is a key in a window: the key of a windowed aggregation's result.
type WindowedKey[K any] struct {
	Key K
	Window
}

// String returns "key@start/end".
func (k WindowedKey[K]) String() string { return fmt.Sprintf("%v@%v", k.Key, k.Window) }

const windowStartSize = 8

// Windowed encodes a windowed key as Kafka Streams does: the key's bytes, then
// the window's start. The end is not stored: Decode adds size to the start.
// Like Kafka Streams it takes any start that leaves room for size; a negative
// one is an error.
func Windowed[K any](inner Serde[K], size time.Duration) Serde[WindowedKey[K]] {
	return windowedSerde[K]{inner: inner, size: size.Milliseconds()}
}

type windowedSerde[K any] struct {
	inner Serde[K]
	size  int64
}

func (s windowedSerde[K]) Name() string {
	return fmt.Sprintf("windowed(%s,%v)", s.inner.Name(), time.Duration(s.size)*time.Millisecond)
}

func (s windowedSerde[K]) Append(dst []byte, v WindowedKey[K]) ([]byte, error) {
	if v.Start < 0 || v.End-v.Start != s.size {
		return dst, fmt.Errorf("serde: %s: window [%d, %d) does not begin at or after 0 and last %d ms: give Windowed the size of the windows",
			s.Name(), v.Start, v.End, s.size)
	}
	dst, err := s.inner.Append(dst, v.Key)
	if err != nil {
		return dst, err
	}
	return binary.BigEndian.AppendUint64(dst, uint64(v.Start)), nil
}

func (s windowedSerde[K]) Decode(src []byte) (WindowedKey[K], error) {
	split := len(src) - windowStartSize
	if split < 0 {
		return WindowedKey[K]{}, fmt.Errorf("%w: %s: got %d bytes, want at least %d", ErrFormat, s.Name(), len(src), windowStartSize)
	}
	start := int64(binary.BigEndian.Uint64(src[split:]))
	if start < 0 || start > math.MaxInt64-s.size {
		return WindowedKey[K]{}, fmt.Errorf("%w: %s: window start %d is out of range", ErrFormat, s.Name(), start)
	}
	key, err := s.inner.Decode(src[:split:split])
	if err != nil {
		return WindowedKey[K]{}, err
	}
	return WindowedKey[K]{Key: key, Window: Window{Start: start, End: start + s.size}}, nil
}

const sessionSpanSize = 16

// Session encodes the key of a session as Kafka Streams does: the key's bytes, then
// the session's end and start.
func Session[K any](inner Serde[K]) Serde[WindowedKey[K]] { return sessionSerde[K]{inner} }

type sessionSerde[K any] struct{ inner Serde[K] }

func (s sessionSerde[K]) Name() string { return "session(" + s.inner.Name() + ")" }

func (s sessionSerde[K]) Append(dst []byte, v WindowedKey[K]) ([]byte, error) {
	if v.Start < 0 || v.End < v.Start {
		return dst, fmt.Errorf("serde: %s: session [%d, %d] does not begin at or after 0 and end at or after its start", s.Name(), v.Start, v.End)
	}
	dst, err := s.inner.Append(dst, v.Key)
	if err != nil {
		return dst, err
	}
	dst = binary.BigEndian.AppendUint64(dst, uint64(v.End))
	return binary.BigEndian.AppendUint64(dst, uint64(v.Start)), nil
}

func (s sessionSerde[K]) Decode(src []byte) (WindowedKey[K], error) {
	split := len(src) - sessionSpanSize
	if split < 0 {
		return WindowedKey[K]{}, fmt.Errorf("%w: %s: got %d bytes, want at least %d", ErrFormat, s.Name(), len(src), sessionSpanSize)
	}
	end, start := int64(binary.BigEndian.Uint64(src[split:])), int64(binary.BigEndian.Uint64(src[split+8:]))
	if start < 0 || end < start {
		return WindowedKey[K]{}, fmt.Errorf("%w: %s: a session from %d to %d", ErrFormat, s.Name(), start, end)
	}
	key, err := s.inner.Decode(src[:split:split])
	if err != nil {
		return WindowedKey[K]{}, err
	}
	return WindowedKey[K]{Key: key, Window: Window{Start: start, End: end}}, nil
}
