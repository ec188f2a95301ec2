package statetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/leatlog/leat/state"
)

// Spec is the store that the suite opens.
var Spec = state.Spec{Name: "store"}

// Run runs the conformance suite. open returns a fresh backend and closes it
// when the test ends.
func Run(t *testing.T, open func(t *testing.T) state.Backend) {
	for _, c := range []struct {
		name string
		run  func(t *testing.T, b state.Backend)
	}{
		{"opens empty", opensEmpty},
		{"gets what was put", getsWhatWasPut},
		{"applies a batch in order", appliesInOrder},
		{"scans ranges both ways", scansRanges},
		{"scan stops", scanStops},
		{"deletes before", deletesBefore},
		{"keeps sessions by their ends", keepsSessions},
		{"finds versions as of a time", keepsVersions},
		{"takes odd keys and values", oddKeys},
		{"loads", loads},
		{"loads over contents", loadsOverContents},
		{"keeps its position", keepsPosition},
		{"clears", clears},
		{"refuses use after close", closed},
		{"opens a store once", opensOnce},
		{"refuses a bad spec", badSpec},
		{"keeps tasks and stores apart", keepsApart},
		{"serves readers while it writes", concurrentReaders},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, open(t)) })
	}
}

// Open opens the suite's store for task "0_0" and closes it at the end of the test.
func Open(t testing.TB, b state.Backend) state.Engine {
	t.Helper()
	return OpenTask(t, b, "0_0", Spec)
}

// OpenTask opens a store and closes it at the end of the test.
func OpenTask(t testing.TB, b state.Backend, task string, spec state.Spec) state.Engine {
	t.Helper()
	e, err := b.Open(context.Background(), task, spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil && !errors.Is(err, state.ErrClosed) {
			t.Error(err)
		}
	})
	return e
}

func mustApply(t testing.TB, e state.Engine, m Model, b *state.Batch) {
	t.Helper()
	if err := e.Apply(b); err != nil {
		t.Fatal(err)
	}
	m.Apply(b)
}

func opensEmpty(t *testing.T, b state.Backend) {
	e := Open(t, b)
	MustEqual(t, e, Model{})
	if p, ok := e.Position(); ok {
		t.Errorf("position = %v of an empty store", p)
	}
	if _, found, err := e.Get(nil, []byte("k")); found || err != nil {
		t.Errorf("get = %v %v", found, err)
	}
}

func getsWhatWasPut(t *testing.T, b state.Backend) {
	e, m := Open(t, b), Model{}
	mustApply(t, e, m, Build("a=1", "b=2", "c=3"))
	mustApply(t, e, m, Build("b=22", "a", "missing"))
	MustEqual(t, e, m)
	if e.Size() < 4 {
		t.Errorf("size = %d", e.Size())
	}
}

func appliesInOrder(t *testing.T, b state.Backend) {
	e, m := Open(t, b), Model{}
	mustApply(t, e, m, Build("a=1", "a=2", "b=1", "b", "c", "c=1", "d=1", "<e", "b=9"))
	MustEqual(t, e, m)
	mustApply(t, e, m, Build("a=0", "<c", "a=5", "<b", "bb=1"))
	MustEqual(t, e, m)
	mustApply(t, e, m, &state.Batch{})
	MustEqual(t, e, m)
}

func scansRanges(t *testing.T, b state.Backend) {
	e, m := Open(t, b), Model{}
	mustApply(t, e, m, Build("a=1", "ab=2", "b=3", "ba=4", "c=5", "\xff=6", "\xff\xff=7"))
	bounds := [][]byte{nil, {}, []byte("a"), []byte("aa"), []byte("b"), []byte("c"), []byte("d"), {0xff}, {0xff, 0xff}, {0xff, 0xff, 0}}
	for _, from := range bounds {
		for _, to := range bounds {
			for _, reverse := range []bool{false, true} {
				got, err := Scan(e, from, to, reverse)
				if err != nil {
					t.Fatal(err)
				}
				if want := m.Scan(from, to, reverse); !slices.Equal(got, want) {
					t.Errorf("scan [%q, %q) reverse %v = %v, want %v", from, to, reverse, got, want)
				}
			}
		}
	}
}

func scanStops(t *testing.T, b state.Backend) {
	e := Open(t, b)
	mustApply(t, e, Model{}, Build("a=1", "b=2", "c=3", "d=4"))
	for _, reverse := range []bool{false, true} {
		for stop := 1; stop <= 4; stop++ {
			calls := 0
			err := e.Scan(nil, nil, reverse, func(_, _ []byte) bool { calls++; return calls < stop })
			if err != nil || calls != stop {
				t.Errorf("reverse %v: %d calls, %v, want %d", reverse, calls, err, stop)
			}
		}
	}
}

func deletesBefore(t *testing.T, b state.Backend) {
	e, m := Open(t, b), Model{}
	var key []byte
	for window := range int64(20) {
		batch := &state.Batch{}
		for i := range 10 {
			key = state.WindowKey(key[:0], window*1000, fmt.Appendf(nil, "key-%d", i))
			batch.Put(key, fmt.Appendf(nil, "%d", window))
		}
		if window >= 5 {
			batch.DeleteBefore(state.WindowKey(nil, (window-5)*1000, nil))
		}
		mustApply(t, e, m, batch)
		MustEqual(t, e, m)
	}
	// A late write below what has expired is a write like any other.
	late := &state.Batch{}
	late.Put(state.WindowKey(nil, 1000, []byte("late")), []byte("v"))
	mustApply(t, e, m, late)
	MustEqual(t, e, m)
	mustApply(t, e, m, Build("<"))
	MustEqual(t, e, m)
	mustApply(t, e, m, Build("<\xff"))
	MustEqual(t, e, Model{})
}

// keepsSessions does what a session aggregation does: sessions grow and merge, which
// moves their rows, are scanned by their ends, and are forgotten by them.
func keepsSessions(t *testing.T, b state.Backend) {
	e := OpenTask(t, b, "0_0", state.Spec{Name: "sessions", Kind: state.Session, Retention: 100e6})
	m := Model{}
	batch := &state.Batch{}
	key := func(start, end int64, key string) []byte { return state.SessionKey(nil, start, end, []byte(key)) }
	batch.Put(key(5, 5, "a"), []byte("1"))
	batch.Put(key(3, 300, "long"), []byte("2"))
	batch.Put(key(250, 255, "a"), []byte("3"))
	batch.Put(key(250, 255, "a\x00"), []byte("4"))
	batch.Put(key(0, 256, ""), []byte("5"))
	mustApply(t, e, m, batch)
	MustEqual(t, e, m)
	batch.Reset()
	batch.Delete(key(5, 5, "a")) // merged into the other one
	batch.Delete(key(250, 255, "a"))
	batch.Put(key(5, 255, "a"), []byte("6"))
	mustApply(t, e, m, batch)
	var ends []int64
	err := e.Scan(key(0, 255, ""), key(0, 257, ""), false, func(k, _ []byte) bool {
		_, end, _, _ := state.SplitSessionKey(k)
		ends = append(ends, end)
		return true
	})
	if err != nil || !slices.Equal(ends, []int64{255, 255, 256}) {
		t.Errorf("ends %v, %v", ends, err)
	}
	batch.Reset()
	batch.DeleteBefore(key(0, 256, ""))
	mustApply(t, e, m, batch)
	if len(m) != 2 {
		t.Errorf("%d sessions are left, want those that end at 256 and at 300", len(m))
	}
	MustEqual(t, e, m)
}

// keepsVersions does what a versioned table does: versions of keys come in any order, are
// found by the time at which they counted, and are removed one by one.
func keepsVersions(t *testing.T, b state.Backend) {
	e := OpenTask(t, b, "0_0", state.Spec{Name: "versions", Kind: state.Versioned, Retention: 100e6})
	m := Model{}
	batch := &state.Batch{}
	batch.Put(state.VersionNote(), []byte("note"))
	for _, v := range []struct {
		key  string
		time int64
	}{{"a", 300}, {"a", 5}, {"a", 256}, {"a\x00", 7}, {"", 256}, {"b", 0}, {"\xff", 1}} {
		batch.Put(state.VersionKey(nil, []byte(v.key), v.time), fmt.Appendf(nil, "%s from %d", v.key, v.time))
	}
	mustApply(t, e, m, batch)
	MustEqual(t, e, m)
	expect := func(key string, at int64, want string) {
		t.Helper()
		got := ""
		found, err := state.VersionAsOf(e, []byte(key), at, func(from int64, value []byte) {
			if got = string(value); got != fmt.Sprintf("%s from %d", key, from) {
				t.Errorf("%q from %d is %q", key, from, got)
			}
		})
		if err != nil || got != want || found != (want != "") {
			t.Errorf("%q as of %d is %q, %v, %v, want %q", key, at, got, found, err, want)
		}
	}
	expect("a", 4, "")
	expect("a", 5, "a from 5")
	expect("a", 255, "a from 5")
	expect("a", 256, "a from 256")
	expect("a", math.MaxInt64, "a from 300")
	expect("a\x00", 6, "")
	expect("a\x00", 1000, "a\x00 from 7")
	expect("", 255, "")
	expect("", 256, " from 256")
	expect("b", 0, "b from 0")
	expect("b", -1, "")
	expect("\xff", math.MaxInt64, "\xff from 1")
	expect("c", math.MaxInt64, "")
	for _, c := range []struct{ after, next int64 }{{-1, 5}, {0, 5}, {5, 256}, {255, 256}, {256, 300}, {300, -1}} {
		next, found, err := state.VersionAfter(e, []byte("a"), c.after)
		if err != nil || found != (c.next >= 0) || found && next != c.next {
			t.Errorf("behind %d comes %d, %v, %v, want %d", c.after, next, found, err, c.next)
		}
	}
	batch.Reset()
	batch.Delete(state.VersionKey(nil, []byte("a"), 5))
	batch.Delete(state.VersionKey(nil, []byte("a"), 300))
	mustApply(t, e, m, batch)
	MustEqual(t, e, m)
	expect("a", 255, "")
	expect("a", 1000, "a from 256")
}

func oddKeys(t *testing.T, b state.Backend) {
	e, m := Open(t, b), Model{}
	batch := &state.Batch{}
	batch.Put(nil, []byte("the empty key"))
	batch.Put([]byte("empty"), nil)
	batch.Put([]byte{0}, []byte{0})
	batch.Put([]byte{0, 0}, []byte("x"))
	batch.Put([]byte("!badger!key"), []byte("reserved word"))
	batch.Put(bytes.Repeat([]byte("k"), 60_000), []byte("long key"))
	batch.Put([]byte("long"), bytes.Repeat([]byte("v"), 100_000))
	batch.Put([]byte("longer"), bytes.Repeat([]byte("w"), 1_100_000))
	mustApply(t, e, m, batch)
	MustEqual(t, e, m)
	if err := e.Checkpoint(state.Position{Offset: 1}); err != nil {
		t.Fatal(err)
	}
	mustApply(t, e, m, Build("longer", "!badger!key", "long=short"))
	MustEqual(t, e, m)
}

func loads(t *testing.T, b state.Backend) {
	e, m := Open(t, b), Model{}
	for round := range 5 {
		batch := &state.Batch{}
		for i := range 500 {
			key := fmt.Appendf(nil, "key-%03d", (i*271+round*97)%700)
			if i%7 == round {
				batch.Delete(key)
			} else {
				batch.Put(key, fmt.Appendf(nil, "%d-%d", round, i))
			}
		}
		if err := e.Load(batch); err != nil {
			t.Fatal(err)
		}
		m.Apply(batch)
	}
	if err := e.Checkpoint(state.Position{Offset: 2500, LeaderEpoch: 3}); err != nil {
		t.Fatal(err)
	}
	MustEqual(t, e, m)
	mustApply(t, e, m, Build("key-001=after", "key-002", "zzz=1"))
	MustEqual(t, e, m)
}

func loadsOverContents(t *testing.T, b state.Backend) {
	e, m := Open(t, b), Model{}
	mustApply(t, e, m, Build("a=1", "b=1", "c=1"))
	for _, batch := range []*state.Batch{Build("b=2", "d=2"), Build("<b", "c", "d=3")} {
		if err := e.Load(batch); err != nil {
			t.Fatal(err)
		}
		m.Apply(batch)
	}
	if err := e.Checkpoint(state.Position{Offset: 7}); err != nil {
		t.Fatal(err)
	}
	MustEqual(t, e, m)
}

func keepsPosition(t *testing.T, b state.Backend) {
	e := Open(t, b)
	for i := range int64(3) {
		mustApply(t, e, Model{}, Build(fmt.Sprintf("k=%d", i)))
		want := state.Position{Offset: i * 10, LeaderEpoch: int32(i) - 1}
		if err := e.Checkpoint(want); err != nil {
			t.Fatal(err)
		}
		if got, ok := e.Position(); !ok || got != want {
			t.Errorf("position = %v %v, want %v", got, ok, want)
		}
	}
}

func clears(t *testing.T, b state.Backend) {
	e, m := Open(t, b), Model{}
	mustApply(t, e, m, Build("a=1", "b=2"))
	if err := e.Checkpoint(state.Position{Offset: 9}); err != nil {
		t.Fatal(err)
	}
	if err := e.Load(Build("c=3")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := e.Clear(); err != nil {
			t.Fatal(err)
		}
		MustEqual(t, e, Model{})
		if p, ok := e.Position(); ok {
			t.Errorf("position after Clear = %v", p)
		}
		if err := e.Load(Build("d=4")); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.Checkpoint(state.Position{Offset: 1}); err != nil {
		t.Fatal(err)
	}
	MustEqual(t, e, Model{"d": "4"})
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	e = Open(t, b)
	if p, ok := e.Position(); ok && p.Offset != 1 {
		t.Errorf("position after reopening = %v", p)
	}
}

func closed(t *testing.T, b state.Backend) {
	e := Open(t, b)
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	_, _, getErr := e.Get(nil, []byte("k"))
	for name, err := range map[string]error{
		"Get":        getErr,
		"Scan":       e.Scan(nil, nil, false, func(_, _ []byte) bool { return true }),
		"Apply":      e.Apply(Build("a=1")),
		"Load":       e.Load(Build("a=1")),
		"Checkpoint": e.Checkpoint(state.Position{}),
		"Clear":      e.Clear(),
		"Close":      e.Close(),
	} {
		if !errors.Is(err, state.ErrClosed) {
			t.Errorf("%s after Close = %v, want ErrClosed", name, err)
		}
	}
	e.Size()
	Open(t, b) // it can be opened again
}

func opensOnce(t *testing.T, b state.Backend) {
	Open(t, b)
	if _, err := b.Open(context.Background(), "0_0", Spec); !errors.Is(err, state.ErrOpen) {
		t.Errorf("second open = %v, want ErrOpen", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := b.Open(ctx, "0_1", Spec); !errors.Is(err, context.Canceled) {
		t.Errorf("open after cancel = %v", err)
	}
}

func badSpec(t *testing.T, b state.Backend) {
	_, err := b.Open(context.Background(), "0_0", state.Spec{Name: "../escape"})
	if !errors.Is(err, state.ErrSpec) || !strings.Contains(err.Error(), "escape") {
		t.Errorf("err = %v, want ErrSpec", err)
	}
}

func keepsApart(t *testing.T, b state.Backend) {
	var engines []state.Engine
	var models []Model
	for _, task := range []string{"0_0", "0_1", "1_0"} {
		for _, name := range []string{"s", "t"} {
			e, m := OpenTask(t, b, task, state.Spec{Name: name}), Model{}
			mustApply(t, e, m, Build("who="+task+name, "only-"+task+name+"=1"))
			engines, models = append(engines, e), append(models, m)
		}
	}
	for i, e := range engines {
		MustEqual(t, e, models[i])
	}
}

// concurrentReaders checks that a Scan sees no torn batch: every batch sets all
// keys to the same value.
func concurrentReaders(t *testing.T, b state.Backend) {
	e := Open(t, b)
	write := func(round int) {
		batch := &state.Batch{}
		for i := range 20 {
			batch.Put(fmt.Appendf(nil, "k%02d", i), fmt.Appendf(nil, "%d", round))
		}
		if err := e.Apply(batch); err != nil {
			t.Error(err)
		}
	}
	write(0)
	done := make(chan struct{})
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				values := map[string]bool{}
				count := 0
				err := e.Scan(nil, nil, false, func(_, value []byte) bool { values[string(value)] = true; count++; return true })
				if err != nil || count != 20 || len(values) != 1 {
					t.Errorf("scan saw %d keys with values %v, %v: a torn batch", count, values, err)
					return
				}
				if _, found, err := e.Get(nil, []byte("k07")); !found || err != nil {
					t.Errorf("get = %v %v", found, err)
					return
				}
			}
		})
	}
	for round := range 200 {
		write(round)
	}
	close(done)
	readers.Wait()
}
