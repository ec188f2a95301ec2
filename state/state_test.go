package state

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestWindowKeyOrdersByStartThenKey(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		start := rapid.Int64Range(0, math.MaxInt64)
		key := rapid.SliceOfN(rapid.Byte(), 0, 12)
		s1, s2 := start.Draw(t, "start1"), start.Draw(t, "start2")
		k1, k2 := key.Draw(t, "key1"), key.Draw(t, "key2")
		want := bytes.Compare(k1, k2)
		if s1 < s2 {
			want = -1
		} else if s1 > s2 {
			want = 1
		}
		if got := bytes.Compare(WindowKey(nil, s1, k1), WindowKey(nil, s2, k2)); got != want {
			t.Fatalf("compare(%d %x, %d %x) = %d, want %d", s1, k1, s2, k2, got, want)
		}
	})
}

func TestKeysRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		start := rapid.Int64Range(0, math.MaxInt64).Draw(t, "start")
		key := rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(t, "key")
		windowKey := WindowKey([]byte("x"), start, key)[1:]
		gotStart, gotKey, ok := SplitWindowKey(windowKey)
		if !ok || gotStart != start || !bytes.Equal(gotKey, key) {
			t.Fatalf("split = %d %x %v", gotStart, gotKey, ok)
		}
		end := rapid.Int64Range(start, math.MaxInt64).Draw(t, "end")
		session := SessionKey([]byte("x"), start, end, key)[1:]
		gotStart, gotEnd, gotKey, ok := SplitSessionKey(session)
		if !ok || gotStart != start || gotEnd != end || !bytes.Equal(gotKey, key) {
			t.Fatalf("split = %d %d %x %v", gotStart, gotEnd, gotKey, ok)
		}
		// What Kafka Streams' SessionWindowedSerializer writes.
		kafka := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(bytes.Clone(key), uint64(end)), uint64(start))
		if logged, ok := ChangelogKey(nil, Session, session); !ok || !bytes.Equal(logged, kafka) {
			t.Fatalf("changelog key %x of a session, want %x", logged, kafka)
		}
		if back, ok := StoreKey(nil, Session, kafka); !ok || !bytes.Equal(back, session) {
			t.Fatalf("store key %x of a session, want %x", back, session)
		}
		for _, kind := range []Kind{KeyValue, Window, Versioned} {
			logged, ok := ChangelogKey(nil, kind, windowKey)
			if !ok {
				t.Fatalf("%v: no changelog key", kind)
			}
			if kind == Window && !bytes.HasPrefix(logged, key) {
				t.Fatalf("changelog key %x does not begin with the key %x", logged, key)
			}
			back, ok := StoreKey(nil, kind, logged)
			if !ok || !bytes.Equal(back, windowKey) {
				t.Fatalf("%v: back = %x, want %x", kind, back, windowKey)
			}
		}
	})
}

func TestShortWindowKeysAreRefused(t *testing.T) {
	short := []byte("1234567")
	if _, _, ok := SplitWindowKey(short); ok {
		t.Error("SplitWindowKey took seven bytes")
	}
	if dst, ok := ChangelogKey([]byte("d"), Window, short); ok || string(dst) != "d" {
		t.Errorf("ChangelogKey = %q %v", dst, ok)
	}
	if dst, ok := StoreKey([]byte("d"), Window, short); ok || string(dst) != "d" {
		t.Errorf("StoreKey = %q %v", dst, ok)
	}
}

func TestShortSessionKeysAreRefused(t *testing.T) {
	short := []byte("123456781234567")
	if _, _, _, ok := SplitSessionKey(short); ok {
		t.Error("SplitSessionKey took fifteen bytes")
	}
	if dst, ok := ChangelogKey([]byte("d"), Session, short); ok || string(dst) != "d" {
		t.Errorf("ChangelogKey = %q %v", dst, ok)
	}
	if dst, ok := StoreKey([]byte("d"), Session, short); ok || string(dst) != "d" {
		t.Errorf("StoreKey = %q %v", dst, ok)
	}
}

func TestSpecValidate(t *testing.T) {
	window := Spec{Name: "w", Kind: Window, WindowSize: time.Second, Retention: time.Minute}
	for _, c := range []struct {
		name  string
		spec  Spec
		wants []string // nil: valid
	}{
		{"key-value", Spec{Name: "route-stats_1.x"}, nil},
		{"window", window, nil},
		{"no name", Spec{}, []string{"no name"}},
		{"dots", Spec{Name: ".."}, []string{"not allowed"}},
		{"long", Spec{Name: strings.Repeat("n", 161)}, []string{"161 bytes"}},
		{"slash", Spec{Name: "a/b"}, []string{`byte 1 of the name is '/'`}},
		{"retention on key-value", Spec{Name: "s", Retention: time.Second}, []string{"key-value store with"}},
		{"several", Spec{Name: "a b", Kind: Window}, []string{"byte 1", "window size is 0s"}},
		{"short retention", Spec{Name: "s", Kind: Window, WindowSize: time.Hour, Retention: time.Second}, []string{"retention is 1s"}},
		{"session", Spec{Name: "s", Kind: Session, Retention: time.Second}, nil},
		{"session window", Spec{Name: "s", Kind: Session, WindowSize: time.Hour}, []string{"session store with window size 1h", "retention is 0s"}},
		{"versioned", Spec{Name: "s", Kind: Versioned, Retention: time.Hour}, nil},
		{"versioned window", Spec{Name: "s", Kind: Versioned, WindowSize: time.Hour}, []string{"versioned store with window size 1h", "history reaches back 0s"}},
		{"kind", Spec{Name: "s", Kind: 9}, []string{"Kind(9): use KeyValue, Window, Session or Versioned"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := c.spec.Validate()
			if c.wants == nil {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if !errors.Is(err, ErrSpec) {
				t.Fatalf("err = %v, want ErrSpec", err)
			}
			for _, want := range c.wants {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("err = %v, want it to say %q", err, want)
				}
			}
		})
	}
}

func TestBatchKeepsEntriesInOrder(t *testing.T) {
	var b Batch
	key := []byte("k")
	b.Put(key, []byte("v"))
	key[0] = 'x' // the batch has its own copy
	b.Delete([]byte("d"))
	b.DeleteBefore([]byte("b"))
	b.Put([]byte("e"), nil)
	if b.Len() != 4 || b.Bytes() != 5 {
		t.Fatalf("len %d bytes %d", b.Len(), b.Bytes())
	}
	for i, want := range []struct {
		op         Op
		key, value string
	}{{OpPut, "k", "v"}, {OpDelete, "d", ""}, {OpDeleteBefore, "b", ""}, {OpPut, "e", ""}} {
		op, k, v := b.Entry(i)
		if op != want.op || string(k) != want.key || string(v) != want.value {
			t.Errorf("entry %d = %v %q %q", i, op, k, v)
		}
	}
	b.Reset()
	if b.Len() != 0 || b.Bytes() != 0 {
		t.Error("Reset left something")
	}
}
