package topology

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/leatlog/leat/state"
	"github.com/leatlog/leat/state/memstore"
)

// engineStore writes to an engine at once.
type engineStore struct{ state.Engine }

func (s engineStore) apply(write func(*state.Batch)) error {
	var b state.Batch
	write(&b)
	return s.Apply(&b)
}

func (s engineStore) Put(key, value []byte, _ int64) error {
	return s.apply(func(b *state.Batch) { b.Put(key, value) })
}

func (s engineStore) Delete(key []byte, _ int64) error {
	return s.apply(func(b *state.Batch) { b.Delete(key) })
}

func (s engineStore) DeleteBefore(bound []byte) error {
	return s.apply(func(b *state.Batch) { b.DeleteBefore(bound) })
}

// asOf is what the store has for a key at a time, "" for none.
func (s engineStore) asOf(t *testing.T, key string, at int64) (value string, from int64) {
	t.Helper()
	from = -1
	_, err := state.VersionAsOf(s, []byte(key), at, func(time int64, row []byte) { value, from = string(row[1:]), time })
	if err != nil {
		t.Fatal(err)
	}
	return value, from
}

func (s engineStore) rows(t *testing.T) (rows int) {
	t.Helper()
	if err := s.Scan(nil, nil, false, func(_, _ []byte) bool { rows++; return true }); err != nil {
		t.Fatal(err)
	}
	return rows
}

func newEngineStore(t *testing.T) engineStore {
	t.Helper()
	engine, err := memstore.New().Open(context.Background(), "0_0", state.Spec{Name: "s"})
	if err != nil {
		t.Fatal(err)
	}
	return engineStore{engine}
}

// Wherever a sweep begins and ends, at whatever horizons, what can be asked for stays, to the
// millisecond, and what cannot goes when it has come around.
func TestSweepKeepsWhatCanBeAskedFor(t *testing.T) {
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 3))
		store := newEngineStore(t)
		sweeper := versionSweeper{store: store}
		if err := store.Put(state.VersionNote(), []byte("mark"), 0); err != nil {
			t.Fatal(err)
		}
		keys := []string{"", "a", "a\x00", "b"}[:1+random.IntN(4)]
		horizon := int64(0)
		for range 60 {
			for range random.IntN(6) {
				row := []byte{removedVersion}
				if random.IntN(2) == 0 {
					row = fmt.Appendf([]byte{valueVersion}, "v%d", random.IntN(1000))
				}
				key := state.VersionKey(nil, []byte(keys[random.IntN(len(keys))]), horizon+int64(random.IntN(12)))
				if err := store.Put(key, row, 0); err != nil {
					t.Fatal(err)
				}
			}
			horizon += int64(random.IntN(4))
			want := map[string]string{}
			for _, key := range keys {
				for at := horizon; at < horizon+16; at++ {
					want[fmt.Sprint(key, at)], _ = store.asOf(t, key, at)
				}
			}
			if _, err := sweeper.chunk(2+random.IntN(6), horizon); err != nil {
				t.Fatal(err)
			}
			for _, key := range sweeper.dead {
				if err := store.Delete(key, 0); err != nil {
					t.Fatal(err)
				}
			}
			for _, key := range keys {
				for at := horizon; at < horizon+16; at++ {
					if got, _ := store.asOf(t, key, at); got != want[fmt.Sprint(key, at)] {
						t.Fatalf("seed %d: %q as of %d is %q, was %q, at horizon %d", seed, key, at, got, want[fmt.Sprint(key, at)], horizon)
					}
				}
			}
		}
		// In the end each key has its latest version, unless that is a removal.
		left := 1
		for _, key := range keys {
			if value, from := store.asOf(t, key, math.MaxInt64); from >= 0 && value != "" {
				left++
			}
		}
		for range 500 {
			if _, err := sweeper.chunk(2, horizon+100); err != nil {
				t.Fatal(err)
			}
			for _, key := range sweeper.dead {
				if err := store.Delete(key, 0); err != nil {
					t.Fatal(err)
				}
			}
		}
		if rows := store.rows(t); rows != left {
			t.Fatalf("seed %d: %d rows are left, want %d", seed, rows, left)
		}
	}
}
