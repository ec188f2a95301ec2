package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/leatlog/leat/broker/internal/record"
	"github.com/leatlog/leat/broker/internal/vfs"
)

func mustOpenDirectory(t testing.TB, fs vfs.FS) *Directory {
	t.Helper()
	d, err := OpenDirectory(testEnv(fs), "data")
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func mustLog(t testing.TB, d *Directory, topic string, partition int32, id byte) *Log {
	t.Helper()
	l, err := d.Log(LogID{topic, partition, [16]byte{id}}, smallConfig())
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestDirectory(t *testing.T) {
	defer goleak.VerifyNone(t)
	disk := vfs.NewMem()
	d := mustOpenDirectory(t, disk)
	if d.Clean() {
		t.Error("a new directory was closed cleanly")
	}
	if _, err := OpenDirectory(testEnv(disk), "data"); !errors.Is(err, vfs.ErrLocked) {
		t.Errorf("opened twice: %v", err)
	}
	for i := range 3 {
		l := mustLog(t, d, "topic-with-dash", int32(i), 1)
		mustAppend(t, l, batchOf(1, 100, fmt.Sprint(i)))
		if again := mustLog(t, d, "topic-with-dash", int32(i), 1); again != l {
			t.Error("a log is opened twice")
		}
	}
	mustAppend(t, mustLog(t, d, "other", 0, 2), batchOf(1, 100, "x"))
	if _, err := d.Log(LogID{Topic: "../up"}, smallConfig()); err == nil {
		t.Error("a path is taken for a topic")
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	disk = disk.Crash(nil)
	d = mustOpenDirectory(t, disk)
	if !d.Clean() {
		t.Error("not found to be closed cleanly")
	}
	list, err := d.List()
	if want := []LogID{{"other", 0, [16]byte{2}}, {"topic-with-dash", 0, [16]byte{1}}, {"topic-with-dash", 1, [16]byte{1}}, {"topic-with-dash", 2, [16]byte{1}}}; err != nil || !slices.Equal(list, want) {
		t.Errorf("list %v, want %v, %v", list, want, err)
	}
	if l := mustLog(t, d, "topic-with-dash", 1, 1); l.EndOffset() != 1 {
		t.Errorf("a log ends at %d", l.EndOffset())
	}
	if _, err := d.Log(LogID{"other", 0, [16]byte{3}}, smallConfig()); !errors.Is(err, ErrStaleLog) {
		t.Errorf("a log of another topic of that name: %v", err)
	}
	if err := d.Delete("other", 0); err != nil {
		t.Fatal(err)
	}
	if err := d.Delete("other", 0); err != nil {
		t.Errorf("delete twice: %v", err)
	}
	l := mustLog(t, d, "topic-with-dash", 1, 1)
	slice, err := l.Slice(0, 1, 1000, true)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Delete("topic-with-dash", 1); err != nil {
		t.Fatal(err)
	}
	if b, err := slice.AppendTo(nil); err != nil || record.Batch(b).Validate() != nil {
		t.Errorf("a reader loses what it has open: %v", err)
	}
	slice.Release()
	if _, err := l.Append(batchOf(1, 1, "x"), 0); !errors.Is(err, ErrClosed) {
		t.Errorf("append to a deleted log: %v", err)
	}
	d.remover.wait() // so that the deletions are durable
	if l := mustLog(t, d, "topic-with-dash", 1, 9); l.EndOffset() != 0 {
		t.Errorf("a new log ends at %d", l.EndOffset())
	}
	// Without a clean close there is no marker, and deleted logs do not come back.
	crashed := disk.Crash(nil)
	d2 := mustOpenDirectory(t, crashed)
	if d2.Clean() {
		t.Error("found to be closed cleanly after a crash")
	}
	if list, err = d2.List(); err != nil || len(list) != 2 { // the new one is empty and not durable yet
		t.Errorf("after a crash: %v, %v", list, err)
	}
	d2.remover.wait()
	if err := errors.Join(d.Close(), d2.Close()); err != nil {
		t.Fatal(err)
	}
	names, err := crashed.List("data")
	if err != nil || slices.ContainsFunc(names, func(n string) bool { return strings.HasSuffix(n, deletedSuffix) }) {
		t.Errorf("deleted logs are left: %v, %v", names, err)
	}
	if env := d.env; env.Files.Open() != 0 {
		t.Errorf("%d files are left open", env.Files.Open())
	}
}

// TestCrashWhileLogsAreMade crashes before each operation that makes, fills and
// deletes logs: what was synced is found under its topic id, the rest does not stand
// in the way of a new start.
func TestCrashWhileLogsAreMade(t *testing.T) {
	disk := vfs.NewMem()
	random := rand.New(rand.NewPCG(3, 4))
	acked := map[string]byte{}
	checking := false
	clones := 0
	faulty := vfs.NewFaulty(disk, func(o vfs.Operation) error {
		if checking || !o.Mutates() {
			return nil
		}
		checking = true
		defer func() { checking = false }()
		for _, r := range []*rand.Rand{nil, random, random, random, newAll()} {
			clones++
			d := mustOpenDirectory(t, disk.Crash(r))
			list, err := d.List()
			if err != nil {
				t.Fatal(err)
			}
			for topic, id := range acked {
				if !slices.Contains(list, LogID{topic, 0, [16]byte{id}}) {
					t.Fatalf("before %s of %s: %s with id %d is not among %v", o.Kind, o.Path, topic, id, list)
				}
				if l := mustLog(t, d, topic, 0, id); l.EndOffset() < 1 {
					t.Fatalf("before %s of %s: %s ends at %d", o.Kind, o.Path, topic, l.EndOffset())
				}
			}
			for _, topic := range []string{"a", "b"} {
				if acked[topic] > 0 {
					continue
				}
				l, err := d.Log(LogID{topic, 0, [16]byte{7}}, smallConfig())
				if errors.Is(err, ErrStaleLog) {
					err = d.Delete(topic, 0)
					if err == nil {
						l, err = d.Log(LogID{topic, 0, [16]byte{7}}, smallConfig())
					}
				}
				if err != nil {
					t.Fatalf("before %s of %s: %v", o.Kind, o.Path, err)
				}
				mustAppend(t, l, batchOf(1, 10, "x"))
			}
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
		}
		return nil
	})
	d := mustOpenDirectory(t, faulty)
	for round := range byte(3) {
		for _, topic := range []string{"a", "b"} {
			l := mustLog(t, d, topic, 0, round+1)
			mustAppend(t, l, batchOf(1, 100, topic))
			if err := l.Sync(); err != nil {
				t.Fatal(err)
			}
			acked[topic] = round + 1
		}
		for _, topic := range []string{"a", "b"} {
			delete(acked, topic)
			if err := d.Delete(topic, 0); err != nil {
				t.Fatal(err)
			}
			d.remover.wait()
		}
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if clones < 100 {
		t.Errorf("%d clones", clones)
	}
}

func TestFailedSyncFencesTheDirectory(t *testing.T) {
	disk := newFaultyDisk()
	d := mustOpenDirectory(t, disk)
	told := 0
	d.OnFence(func(cause error) {
		if told++; !errors.Is(cause, errDisk) {
			t.Error(cause)
		}
	})
	a, b := mustLog(t, d, "a", 0, 1), mustLog(t, d, "b", 0, 2)
	mustAppend(t, a, batchOf(1, 10, "x"))
	mustAppend(t, b, batchOf(1, 10, "x"))
	disk.fail = failing(vfs.KindSync)
	if err := a.Sync(); !errors.Is(err, errDisk) {
		t.Fatal(err)
	}
	disk.fail = func(vfs.Operation) error { return nil }
	if err := b.Sync(); !errors.Is(err, ErrFenced) || told != 1 || d.Damaged() == nil {
		t.Errorf("the other log syncs: %v; told %d times, directory: %v", err, told, d.Damaged())
	}
	if err := d.Close(); !errors.Is(err, ErrFenced) {
		t.Errorf("close: %v", err)
	}
	if d := mustOpenDirectory(t, disk); d.Clean() {
		t.Error("a fenced directory counts as cleanly closed")
	}
}

// TestFailuresWhileClosing: a disk that fails during the close is told, and the
// directory does not count as cleanly closed.
func TestFailuresWhileClosing(t *testing.T) {
	for _, kind := range []vfs.Kind{vfs.KindSync, vfs.KindSyncAll, vfs.KindCreate, vfs.KindRename, vfs.KindTruncate} {
		for _, logs := range []int{1, syncAllFrom} {
			if logs == 1 && kind == vfs.KindSyncAll {
				continue
			}
			disk := newFaultyDisk()
			d := mustOpenDirectory(t, disk)
			for i := range logs {
				mustAppend(t, mustLog(t, d, "topic", int32(i), 1), batchOf(1, 10, "x"))
			}
			disk.fail = failing(kind)
			if err := d.Close(); !errors.Is(err, errDisk) {
				t.Errorf("%d logs, failing %s: %v", logs, kind, err)
			}
			disk.fail = func(vfs.Operation) error { return nil }
			if d := mustOpenDirectory(t, disk); d.Clean() {
				t.Errorf("%d logs, failing %s: counts as cleanly closed", logs, kind)
			}
		}
	}
}

// TestCommitter appends to few and to many logs from several goroutines and holds
// what is told against what a crash leaves.
func TestCommitter(t *testing.T) {
	defer goleak.VerifyNone(t)
	for _, logs := range []int{3, syncAllFrom + 10} {
		disk := vfs.NewMem()
		d := mustOpenDirectory(t, disk)
		c := NewCommitter(d)
		var told sync.WaitGroup
		var appenders sync.WaitGroup
		for i := range logs {
			l := mustLog(t, d, "topic", int32(i), 1)
			appenders.Go(func() {
				for n := range 10 {
					mustAppend(t, l, batchOf(1, 100, fmt.Sprint(n)))
					end := l.EndOffset()
					told.Add(1)
					c.Request(l, func(synced int64, err error) {
						defer told.Done()
						if err != nil || synced < end {
							t.Errorf("synced to %d, want %d, %v", synced, end, err)
						}
					})
				}
			})
		}
		appenders.Wait()
		told.Wait()
		after := mustOpenDirectory(t, disk.Crash(nil))
		for i := range logs {
			if l := mustLog(t, after, "topic", int32(i), 1); l.EndOffset() != 10 {
				t.Errorf("log %d of %d ends at %d after a crash", i, logs, l.EndOffset())
			}
		}
		c.Close()
		c.Request(mustLog(t, d, "topic", 0, 1), func(_ int64, err error) {
			if !errors.Is(err, ErrClosed) {
				t.Error(err)
			}
		})
		if err := errors.Join(d.Close(), after.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFailedSyncAllIsTold(t *testing.T) {
	disk := newFaultyDisk()
	d := mustOpenDirectory(t, disk)
	var logs []*Log
	for i := range syncAllFrom {
		logs = append(logs, mustLog(t, d, "topic", int32(i), 1))
		mustAppend(t, logs[i], batchOf(1, 10, "x"))
	}
	disk.fail = failing(vfs.KindSyncAll)
	c := &Committer{directory: d}
	failed := 0
	for _, l := range logs {
		c.round = append(c.round, commitRequest{l, func(synced int64, err error) {
			if synced == 0 && errors.Is(err, errDisk) {
				failed++
			}
		}})
	}
	c.commit()
	if failed != len(logs) || d.Damaged() == nil {
		t.Errorf("%d of %d told, directory: %v", failed, len(logs), d.Damaged())
	}
}

// TestCloseManyLogs crashes at each step of closing many logs together.
func TestCloseManyLogs(t *testing.T) {
	disk := vfs.NewMem()
	random := rand.New(rand.NewPCG(1, 1))
	var clones []*vfs.Mem
	n := 0
	faulty := vfs.NewFaulty(disk, func(o vfs.Operation) error {
		if n++; o.Mutates() && n > 0 && n%37 == 0 || o.Kind == vfs.KindSyncAll {
			clones = append(clones, disk.Crash(random))
		}
		return nil
	})
	d := mustOpenDirectory(t, faulty)
	for i := range syncAllFrom {
		l := mustLog(t, d, "topic", int32(i), 1)
		mustAppend(t, l, batchOf(1, 100, fmt.Sprint(i)))
		if err := l.Sync(); err != nil {
			t.Fatal(err)
		}
		mustAppend(t, l, idempotentBatch(1, 0, 0, 2))
	}
	clones = nil
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if len(clones) < 5 {
		t.Fatalf("%d clones", len(clones))
	}
	for i, clone := range append(clones, disk.Crash(nil)) {
		d := mustOpenDirectory(t, clone)
		if last := i == len(clones); d.Clean() != last {
			t.Errorf("clone %d of %d: closed cleanly %v", i, len(clones), d.Clean())
		}
		for p := range syncAllFrom {
			l := mustLog(t, d, "topic", int32(p), 1)
			if l.EndOffset() < 1 || d.Clean() && l.EndOffset() != 3 || l.Damaged() != nil {
				t.Fatalf("clone %d: log %d ends at %d, %v", i, p, l.EndOffset(), l.Damaged())
			}
			readAll(t, l)
		}
		for p := range syncAllFrom {
			l := mustLog(t, d, "topic", int32(p), 1)
			if l.EndOffset() == 3 && len(l.Producers()) != 1 {
				t.Fatalf("clone %d: log %d has producers %v", i, p, l.Producers())
			}
			l.abandon()
		}
	}
}

// TestFileCache reads many logs with few files.
func TestFileCache(t *testing.T) {
	env := testEnv(vfs.NewMem())
	env.Files = NewFileCache(5)
	d, err := OpenDirectory(env, "data")
	if err != nil {
		t.Fatal(err)
	}
	var logs []*Log
	for i := range 40 {
		l := mustLog(t, d, "topic", int32(i), 1)
		mustAppend(t, l, batchOf(1, 100, fmt.Sprint(i)))
		if err := l.Sync(); err != nil {
			t.Fatal(err)
		}
		logs = append(logs, l)
	}
	var readers sync.WaitGroup
	for n := range 4 {
		readers.Go(func() {
			for i := range logs {
				l := logs[(i*7+n)%len(logs)]
				if _, err := readRange(l, 0, l.EndOffset()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	readers.Wait()
	if open := env.Files.Open(); open > 5 {
		t.Errorf("%d files open, at most 5 may stay so", open)
	}
	if err := d.Close(); err != nil || env.Files.Open() != 0 {
		t.Errorf("%d files open after closing: %v", env.Files.Open(), err)
	}
	h := &handle{cache: env.Files, fs: env.FS, dir: "data", suffix: logSuffix}
	if _, err := h.acquire(); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}
