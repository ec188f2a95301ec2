package serde_test

import (
	"bytes"
	"errors"
	"math"
	"reflect"
	"testing"
	"time"

	"github.com/lovoo/goka"
	"github.com/lovoo/goka/codec"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/leatlog/leat/topology/serde"
)

type stats struct {
	Count int64
	Sum   float64
}

// The bytes are what Kafka's serializers write for the same values.
func TestEncodings(t *testing.T) {
	check(t, serde.String, "grüße", []byte("gr\xc3\xbc\xc3\x9fe"))
	check(t, serde.String, "", []byte{})
	check(t, serde.Bytes, []byte{1, 2}, []byte{1, 2})
	check(t, serde.Bytes, []byte{}, []byte{})
	check(t, serde.Bool, true, []byte{1})
	check(t, serde.Bool, false, []byte{0})
	check(t, serde.Int32, -2, []byte{0xff, 0xff, 0xff, 0xfe})
	check(t, serde.Int64, math.MinInt64, []byte{0x80, 0, 0, 0, 0, 0, 0, 0})
	check(t, serde.Uint64, 258, []byte{0, 0, 0, 0, 0, 0, 1, 2})
	check(t, serde.Float64, 1.5, []byte{0x3f, 0xf8, 0, 0, 0, 0, 0, 0})
	check(t, serde.JSON[stats](), stats{2, 0.5}, []byte(`{"Count":2,"Sum":0.5}`))
	check(t, serde.Pointer(serde.Int32), new(int32), []byte{0, 0, 0, 0})
	key := serde.WindowedKey[string]{Key: "ab", Window: serde.Window{Start: 60_000, End: 120_000}}
	check(t, serde.Windowed(serde.String, time.Minute), key, []byte("ab\x00\x00\x00\x00\x00\x00\xea\x60"))
	session := serde.WindowedKey[string]{Key: "ab", Window: serde.Window{Start: 1, End: 60_000}}
	check(t, serde.Session(serde.String), session, []byte("ab\x00\x00\x00\x00\x00\x00\xea\x60\x00\x00\x00\x00\x00\x00\x00\x01"))
	check(t, serde.WithName("old", serde.String), "x", []byte("x"))
	if name := serde.WithName("json(main.stats)", serde.JSON[stats]()).Name(); name != "json(main.stats)" {
		t.Errorf("the name is %q", name)
	}
	check(t, serde.FromCodec[string]("goka", new(codec.String)), "x", []byte("x"))
}

func check[T any](t *testing.T, s serde.Serde[T], v T, want []byte) {
	t.Helper()
	got, err := s.Append([]byte("prefix"), v)
	if err != nil || !bytes.Equal(got, append([]byte("prefix"), want...)) {
		t.Errorf("%s: Append(%v) = %x, %v, want prefix and %x", s.Name(), v, got, err, want)
	}
	source := bytes.Clone(want)
	if source == nil {
		source = []byte{}
	}
	back, err := s.Decode(source)
	for i := range source {
		source[i] = 0xaa // the value must not alias it
	}
	if err != nil || !reflect.DeepEqual(back, v) {
		t.Errorf("%s: Decode = %v, %v, want %v", s.Name(), back, err, v)
	}
}

func TestProto(t *testing.T) {
	s := serde.Proto[wrapperspb.StringValue]()
	encoded, err := s.Append(nil, wrapperspb.String("x"))
	if err != nil || !bytes.Equal(encoded, []byte{0x0a, 1, 'x'}) {
		t.Fatalf("Append = %x, %v", encoded, err)
	}
	v, err := s.Decode(encoded)
	if err != nil || !proto.Equal(v, wrapperspb.String("x")) {
		t.Fatalf("Decode = %v, %v", v, err)
	}
	if s.Name() != "proto(wrapperspb.StringValue)" {
		t.Errorf("name %q", s.Name())
	}
}

func TestErrors(t *testing.T) {
	fails(t, serde.Bool, []byte{2}, "serde: bytes do not hold a value of this type: bool: the byte is 0x02, want 0x00 or 0x01")
	fails(t, serde.Bool, []byte{}, "serde: bytes do not hold a value of this type: bool: got 0 bytes, want 1")
	fails(t, serde.Int32, make([]byte, 8), "serde: bytes do not hold a value of this type: int32: got 8 bytes, want 4")
	fails(t, serde.Int64, make([]byte, 4), "serde: bytes do not hold a value of this type: int64: got 4 bytes, want 8")
	fails(t, serde.Uint64, nil, "serde: bytes do not hold a value of this type: uint64: got 0 bytes, want 8")
	fails(t, serde.Float64, make([]byte, 9), "serde: bytes do not hold a value of this type: float64: got 9 bytes, want 8")
	fails(t, serde.Windowed(serde.String, time.Minute), make([]byte, 7),
		"serde: bytes do not hold a value of this type: windowed(string,1m0s): got 7 bytes, want at least 8")
	fails(t, serde.Windowed(serde.String, time.Minute), bytes.Repeat([]byte{0xff}, 8),
		"serde: bytes do not hold a value of this type: windowed(string,1m0s): window start -1 is out of range")
	fails(t, serde.Session(serde.String), make([]byte, 15),
		"serde: bytes do not hold a value of this type: session(string): got 15 bytes, want at least 16")
	fails(t, serde.Session(serde.String), append(make([]byte, 15), 1),
		"serde: bytes do not hold a value of this type: session(string): a session from 1 to 0")
	if _, err := serde.Session(serde.String).Append(nil, serde.WindowedKey[string]{Window: serde.Window{Start: 2, End: 1}}); err == nil {
		t.Error("a session that ends before its start was encoded")
	}
	fails(t, serde.FromCodec[int64]("goka", new(codec.String)), []byte("x"),
		"serde: bytes do not hold a value of this type: codec goka decoded a string, the stream holds int64")
	if _, err := serde.Windowed(serde.String, time.Minute).Append(nil, serde.WindowedKey[string]{}); err == nil {
		t.Error("a window of another size was encoded")
	}
	if _, err := serde.Pointer(serde.Int64).Append(nil, nil); err == nil {
		t.Error("nil was encoded")
	}
	if _, err := serde.JSON[chan int]().Append(nil, nil); err == nil {
		t.Error("a channel was encoded")
	}
}

func fails[T any](t *testing.T, s serde.Serde[T], src []byte, want string) {
	t.Helper()
	_, err := s.Decode(src)
	if !errors.Is(err, serde.ErrFormat) || err.Error() != want {
		t.Errorf("%s: Decode(%x) = %v\nwant %s", s.Name(), src, err, want)
	}
}

func TestGokaCodecs(t *testing.T) {
	var c goka.Codec = serde.ToCodec(serde.JSON[stats]())
	encoded, err := c.Encode(stats{1, 2})
	if err != nil {
		t.Fatal(err)
	}
	v, err := c.Decode(encoded)
	if err != nil || v != any(stats{1, 2}) {
		t.Fatalf("Decode = %v, %v", v, err)
	}
	if _, err := c.Encode("text"); err == nil {
		t.Error("a string was encoded as stats")
	}
	// Round and round: a goka codec as a serde as a codec.
	c = serde.ToCodec(serde.FromCodec[int64]("goka int64", new(codec.Int64)))
	if encoded, err = c.Encode(int64(42)); err != nil || string(encoded) != "42" {
		t.Fatalf("Encode = %q, %v", encoded, err)
	}
}

// FuzzDecode feeds every decoder; what decodes must encode and decode to the
// same value again.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(nil))
	f.Add([]byte("01234567"))
	f.Add([]byte(`{"Count":1,"Sum":2}`))
	f.Add([]byte{0x0a, 1, 'x'})
	f.Add([]byte{0x0a, 0xff, 0xff, 0xff, 0xff, 0x7f})
	f.Fuzz(func(t *testing.T, src []byte) {
		again(t, serde.String, src)
		again(t, serde.Bytes, src)
		again(t, serde.Bool, src)
		again(t, serde.Int32, src)
		again(t, serde.Int64, src)
		again(t, serde.Uint64, src)
		again(t, serde.JSON[stats](), src)
		again(t, serde.Windowed(serde.Windowed(serde.Bytes, time.Second), time.Minute), src)
		again(t, serde.Session(serde.Bytes), src)
		again(t, serde.Pointer(serde.Int64), src)
		if v, err := serde.Float64.Decode(src); err == nil && !math.IsNaN(v) {
			again(t, serde.Float64, src)
		}
		p := serde.Proto[wrapperspb.StringValue]()
		if v, err := p.Decode(src); err == nil {
			if _, err := p.Append(nil, v); err != nil {
				t.Errorf("proto: %v", err)
			}
		}
	})
}

func again[T any](t *testing.T, s serde.Serde[T], src []byte) {
	v, err := s.Decode(src)
	if err != nil {
		return
	}
	encoded, err := s.Append(nil, v)
	if err != nil {
		t.Fatalf("%s: decoded %v does not encode: %v", s.Name(), v, err)
	}
	if encoded == nil {
		encoded = []byte{}
	}
	back, err := s.Decode(encoded)
	if err != nil || !reflect.DeepEqual(v, back) {
		t.Fatalf("%s: %v became %v, %v", s.Name(), v, back, err)
	}
}

func BenchmarkSerde(b *testing.B) {
	bench(b, serde.String, "a key of middling length")
	bench(b, serde.Int64, 42)
	bench(b, serde.Float64, 4.2)
	bench(b, serde.Windowed(serde.Int64, time.Minute), serde.WindowedKey[int64]{Key: 1, Window: serde.Window{End: 60_000}})
	bench(b, serde.JSON[stats](), stats{1, 2})
	bench(b, serde.Proto[wrapperspb.Int64Value](), wrapperspb.Int64(42))
}

func bench[T any](b *testing.B, s serde.Serde[T], v T) {
	encoded, err := s.Append(nil, v)
	if err != nil {
		b.Fatal(err)
	}
	b.Run(s.Name()+"/append", func(b *testing.B) {
		b.ReportAllocs()
		buffer := make([]byte, 0, 64)
		for b.Loop() {
			buffer, _ = s.Append(buffer[:0], v)
		}
	})
	b.Run(s.Name()+"/decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _ = s.Decode(encoded)
		}
	})
}
