package badgerstore

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/rs/zerolog"
	"pgregory.net/rapid"

	"github.com/leatlog/leat/state"
	"github.com/leatlog/leat/state/internal/statetest"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		child(dir)
		return
	}
	flag.Parse()
	// A check opens a dozen databases; the long run is -rapid.checks=1000.
	if f := flag.Lookup("rapid.checks"); f.Value.String() == f.DefValue {
		if err := f.Value.Set("6"); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

// open returns a backend on dir that is closed at the end of the test, and what it logs.
func open(t testing.TB, dir string) (*Backend, *strings.Builder) {
	t.Helper()
	var log strings.Builder
	b, err := New(Config{Dir: dir, Logger: zerolog.New(zerolog.SyncWriter(&log)).Level(zerolog.InfoLevel)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil && !errors.Is(err, state.ErrClosed) {
			t.Error(err)
		}
	})
	return b, &log
}

func openStore(t testing.TB, b *Backend) *engine {
	t.Helper()
	return statetest.Open(t, b).(*engine)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestConformance(t *testing.T) {
	statetest.Run(t, func(t *testing.T) state.Backend {
		b, _ := open(t, t.TempDir())
		return b
	})
}

func TestMetamorphic(t *testing.T) {
	t.Parallel()
	rapid.Check(t, statetest.Metamorphic(func(rt *rapid.T) (state.Backend, func()) {
		dir, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			rt.Fatal(err)
		}
		b, err := New(Config{Dir: dir, MemoryBytes: 1 << 20, RestoreBytes: 1})
		if err != nil {
			rt.Fatal(err)
		}
		return b, func() { _, _ = b.Close(), os.RemoveAll(dir) }
	}, statetest.Durable))
}

func TestConfigIsChecked(t *testing.T) {
	for _, c := range []Config{{}, {Dir: "x", MemoryBytes: 1}, {Dir: "x", RestoreBytes: -1}, {Dir: "x", ReserveBytes: -5}} {
		if _, err := New(c); err == nil || !strings.Contains(err.Error(), "Config.") {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestOneProcessHasTheDirectory(t *testing.T) {
	dir := t.TempDir()
	open(t, dir)
	if _, err := New(Config{Dir: dir}); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("second backend: %v", err)
	}
}

func TestBackendRefusesToCloseOverOpenStores(t *testing.T) {
	b, _ := open(t, t.TempDir())
	e := openStore(t, b)
	if err := b.Close(); err == nil || !strings.Contains(err.Error(), "1 stores are open") {
		t.Errorf("close = %v", err)
	}
	must(t, e.Close())
	must(t, b.Close())
	if _, err := b.Open(context.Background(), "0_0", statetest.Spec); !errors.Is(err, state.ErrClosed) {
		t.Errorf("open after close = %v", err)
	}
}

func TestTaskNamesCannotEscape(t *testing.T) {
	b, _ := open(t, t.TempDir())
	for _, task := range []string{"", "..", "a/b", "0_0\x00"} {
		if _, err := b.Open(context.Background(), task, statetest.Spec); err == nil {
			t.Errorf("task %q was opened", task)
		}
	}
}

func TestFullDiskIsRefusedBeforeWriting(t *testing.T) {
	b, _ := open(t, t.TempDir())
	e, m := openStore(t, b), statetest.Model{}
	first := statetest.Build("a=1", "b=2")
	must(t, e.Apply(first))
	m.Apply(first)
	real := b.freeSpace
	b.freeSpace = func(string) (int64, error) { return 70 << 20, nil }
	for name, err := range map[string]error{
		"apply": e.Apply(statetest.Build("a=9")), "load": e.Load(statetest.Build("a=9")), "checkpoint": e.Checkpoint(state.Position{}),
	} {
		if !errors.Is(err, state.ErrNoSpace) || !strings.Contains(err.Error(), "70 MiB free") {
			t.Errorf("%s: %v, want ErrNoSpace", name, err)
		}
	}
	if _, err := b.Open(context.Background(), "0_1", statetest.Spec); !errors.Is(err, state.ErrNoSpace) {
		t.Errorf("open: %v, want ErrNoSpace", err)
	}
	statetest.MustEqual(t, e, m)
	b.freeSpace = real
	must(t, e.Apply(statetest.Build("a=9"))) // goes on when there is space again
	must(t, e.Checkpoint(state.Position{Offset: 5}))
}

func TestMemoryIsShared(t *testing.T) {
	b, log := open(t, t.TempDir())
	b.config.MemoryBytes = 64 << 20
	var last int64 = largestMemtable
	for i := range 20 {
		e := statetest.OpenTask(t, b, fmt.Sprintf("0_%d", i), statetest.Spec).(*engine)
		if e.memtable > last {
			t.Errorf("store %d has a memtable of %d, the one before %d", i, e.memtable, last)
		}
		last = e.memtable
		if within := b.memory <= b.config.MemoryBytes; within == strings.Contains(log.String(), "raise MemoryBytes") {
			t.Fatalf("store %d: %d of %d bytes, log %s", i, b.memory, b.config.MemoryBytes, log)
		}
	}
}

func TestBulkLoadSortsThroughRuns(t *testing.T) {
	t.Parallel()
	b, _ := open(t, t.TempDir())
	b.config.RestoreBytes = 1 // runs of 1 MiB
	e, m := openStore(t, b), statetest.Model{}
	const keys = 20_000
	for round := range 10 {
		batch := &state.Batch{}
		for i := range keys / 2 {
			n := (i*7919 + round*104_729) % keys
			key := fmt.Appendf(nil, "key-%06d", n)
			if n%11 == round {
				batch.Delete(key)
			} else {
				batch.Put(key, fmt.Appendf(nil, "value-%d-%040d", round, n))
			}
		}
		must(t, e.Load(batch))
		m.Apply(batch)
	}
	if len(e.bulk.runs) < 3 {
		t.Fatalf("%d runs: too few to test merging", len(e.bulk.runs))
	}
	if _, _, err := e.Get(nil, []byte("key-000001")); !errors.Is(err, state.ErrRestoring) {
		t.Errorf("read while restoring: %v", err)
	}
	must(t, e.Checkpoint(state.Position{Offset: 100}))
	statetest.MustEqual(t, e, m)
	if _, err := os.Stat(runsDir(e.dir)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the runs are still there: %v", err)
	}
	// It is a store like any other from here on.
	more := statetest.Build("key-000001=x", "key-000002", "<key-000100")
	must(t, e.Apply(more))
	m.Apply(more)
	must(t, e.Close())
	e = openStore(t, b)
	statetest.MustEqual(t, e, m)
	if p, ok := e.Position(); !ok || p.Offset != 100 {
		t.Errorf("position = %v %v", p, ok)
	}
}

func TestManyFlushesKeepEverything(t *testing.T) {
	t.Parallel()
	b, log := open(t, t.TempDir())
	b.config.MemoryBytes = 1 << 20 // the smallest memtable
	e, m := openStore(t, b), statetest.Model{}
	for round := range 30 {
		batch := &state.Batch{}
		for i := range 400 {
			batch.Put(fmt.Appendf(nil, "key-%04d", (round*131+i*17)%3000), fmt.Appendf(nil, "%0500d", round*i))
		}
		must(t, e.Apply(batch))
		m.Apply(batch)
		if round%7 == 3 {
			must(t, e.Checkpoint(state.Position{Offset: int64(round)}))
		}
		if round%10 == 9 {
			must(t, e.Close())
			e = openStore(t, b)
			if p, ok := e.Position(); !ok || p.Offset == 0 {
				t.Fatalf("position = %v %v: %s", p, ok, log)
			}
		}
	}
	statetest.MustEqual(t, e, m)
}

func BenchmarkApply(b *testing.B) { benchmarkWrite(b, false) }
func BenchmarkLoad(b *testing.B)  { benchmarkWrite(b, true) }
func benchmarkWrite(b *testing.B, load bool) {
	backend, _ := open(b, b.TempDir())
	e := openStore(b, backend)
	write := e.Apply
	if load {
		write = e.Load
	}
	var batch state.Batch
	key, value := make([]byte, 0, 32), make([]byte, 32)
	n := 0
	for b.Loop() {
		n++
		key = fmt.Appendf(key[:0], "key-%09d", n*7919%100_000_007)
		batch.Put(key, value)
		if batch.Len() == 5000 {
			must(b, write(&batch))
			batch.Reset()
		}
	}
	must(b, write(&batch))
	must(b, e.Checkpoint(state.Position{Offset: 1}))
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "keys/s")
}

func BenchmarkGet(b *testing.B) {
	backend, _ := open(b, b.TempDir())
	e := openStore(b, backend)
	batch := &state.Batch{}
	for i := range 100_000 {
		batch.Put(fmt.Appendf(nil, "key-%06d", i), make([]byte, 32))
	}
	must(b, e.Load(batch))
	must(b, e.Checkpoint(state.Position{Offset: 1}))
	key, value := make([]byte, 0, 32), make([]byte, 0, 64)
	for i := 0; b.Loop(); i++ {
		key = fmt.Appendf(key[:0], "key-%06d", i*7919%100_000)
		var found bool
		var err error
		value, found, err = e.Get(value[:0], key)
		if !found || err != nil {
			b.Fatal(found, err)
		}
	}
}

func BenchmarkCheckpoint(b *testing.B) {
	backend, _ := open(b, b.TempDir())
	e := openStore(b, backend)
	for i := 0; b.Loop(); i++ {
		must(b, e.Apply(statetest.Build(fmt.Sprintf("k%d=1", i%100))))
		must(b, e.Checkpoint(state.Position{Offset: int64(i)}))
	}
}
