package state_test

import (
	"bytes"
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/leatlog/leat/state"
)

type version struct {
	key  []byte
	time int64
}

// Rows are in the order of keys, then of times, whatever bytes the keys have; and the
// versions of a key have a prefix of their own.
func TestVersionKeysAreOrdered(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var versions []version
	for range 2000 {
		key := make([]byte, random.IntN(4))
		for i := range key {
			key[i] = []byte{0, 0, 1, 'a', 0xfe, 0xff}[random.IntN(6)]
		}
		versions = append(versions, version{key, []int64{0, 1, 255, 256, 1 << 40, math.MaxInt64}[random.IntN(6)]})
	}
	slices.SortFunc(versions, func(a, b version) int {
		return cmp.Or(bytes.Compare(a.key, b.key), cmp.Compare(a.time, b.time))
	})
	var last []byte
	for i, v := range versions {
		row := state.VersionKey(nil, v.key, v.time)
		if bytes.Compare(last, row) > 0 {
			t.Fatalf("%x at %d lies before what is less", v.key, v.time)
		}
		key, time, ok := state.SplitVersionKey([]byte("before"), row)
		if !ok || string(key) != "before"+string(v.key) || time != v.time {
			t.Fatalf("%x at %d came back as %x at %d, %v", v.key, v.time, key, time, ok)
		}
		prefix, _ := state.VersionPrefix(row)
		if i > 0 && bytes.HasPrefix(last, prefix) != bytes.Equal(versions[i-1].key, v.key) {
			t.Fatalf("%x and %x are taken for one key, or one for two", versions[i-1].key, v.key)
		}
		last = row
	}
}

func TestVersionKeyOfOthers(t *testing.T) {
	for _, row := range []string{"", "\x00", "12345678", "a\x00\x00234567", "a\x00\xff\x00", "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", "a\x00\xff2345678", "a12345678"} {
		if key, _, ok := state.SplitVersionKey([]byte("x"), []byte(row)); ok || string(key) != "x" {
			t.Errorf("%q is taken for a version of %q", row, key)
		}
	}
}

func FuzzVersionKey(f *testing.F) {
	f.Add([]byte("a\x00\x00\x00\x00\x00\x00\x00\x00\x07"))
	f.Add([]byte("\x00\xff\x00\x00\x00\x00\x00\x00\x00\x00\x07"))
	f.Fuzz(func(t *testing.T, row []byte) {
		key, time, ok := state.SplitVersionKey(nil, row)
		if ok && !bytes.Equal(state.VersionKey(nil, key, time), row) {
			t.Fatalf("%x is another way to write version %d of %x", row, time, key)
		}
	})
}
