package storage

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/leatlog/leat/broker/internal/vfs"
)

// faultyDisk is an in-memory disk whose next operations fail as the test says.
type faultyDisk struct {
	*vfs.Faulty
	disk *vfs.Mem
	fail func(vfs.Operation) error
}

func newFaultyDisk() *faultyDisk {
	d := &faultyDisk{disk: vfs.NewMem(), fail: func(vfs.Operation) error { return nil }}
	d.Faulty = vfs.NewFaulty(d.disk, func(o vfs.Operation) error { return d.fail(o) })
	return d
}

var errDisk = errors.New("input/output error")

func failing(kind vfs.Kind) func(vfs.Operation) error {
	return func(o vfs.Operation) error {
		if o.Kind == kind {
			return errDisk
		}
		return nil
	}
}

// TestFullDisk fills the disk at every byte of an append: it is refused, the log
// is as before, reads go on, and after room is made appends do too.
func TestFullDisk(t *testing.T) {
	cfg := smallConfig()
	for room := int64(0); room < 12_000; room += 97 {
		quota := &vfs.Quota{}
		quota.Set(1 << 40)
		disk := newFaultyDisk()
		disk.fail = quota.Before
		l := mustOpen(t, disk, cfg)
		var want []byte
		for i := range 5 {
			b := batchOf(1, 100, fmt.Sprint(i))
			mustAppend(t, l, b)
			want = append(want, b...)
		}
		if err := l.Sync(); err != nil {
			t.Fatal(err)
		}
		quota.Set(room)
		refused := 0
		for i := range 40 {
			b := batchOf(1, 400, fmt.Sprint("more", i))
			if _, err := l.Append(b, 0); err == nil {
				want = append(want, b...)
			} else if !errors.Is(err, vfs.ErrNoSpace) {
				t.Fatalf("room for %d: append %d: %v", room, i, err)
			} else {
				refused++
			}
		}
		if refused == 0 || l.Damaged() != nil {
			t.Fatalf("room for %d: %d appends refused, %v", room, refused, l.Damaged())
		}
		if got := readAll(t, l); !bytes.Equal(got, want) {
			t.Fatalf("room for %d: the log holds other bytes while the disk is full", room)
		}
		// A process killed now finds the same, even with the disk still full.
		if again := mustOpen(t, vfs.NewFaulty(disk.disk.Crash(newAll()), (&vfs.Quota{}).Before), cfg); again.Damaged() != nil || !bytes.Equal(readAll(t, again), want) {
			t.Fatalf("room for %d: the log is not found again: %v", room, again.Damaged())
		}
		quota.Set(1 << 40)
		for i := range 10 {
			b := batchOf(1, 400, fmt.Sprint("late", i))
			mustAppend(t, l, b)
			want = append(want, b...)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if again := mustOpen(t, disk, cfg); again.Damaged() != nil || !bytes.Equal(readAll(t, again), want) {
			t.Fatalf("room for %d: after room was made the log holds other bytes: %v", room, again.Damaged())
		}
	}
}

// TestFailedSyncFences: nothing is acknowledged after a failed sync, ever, and it
// is not tried again.
func TestFailedSyncFences(t *testing.T) {
	disk := newFaultyDisk()
	l := mustOpen(t, disk, smallConfig())
	mustAppend(t, l, batchOf(1, 100, "a"))
	if err := l.Sync(); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, l, batchOf(1, 100, "b"))
	disk.fail = failing(vfs.KindSync)
	if err := l.Sync(); !errors.Is(err, ErrFenced) || !errors.Is(err, errDisk) {
		t.Fatalf("sync: %v", err)
	}
	syncs := 0
	disk.fail = func(o vfs.Operation) error {
		if o.Kind == vfs.KindSync || o.Kind == vfs.KindSyncAll {
			syncs++
		}
		return nil
	}
	if err := l.Sync(); !errors.Is(err, ErrFenced) || l.SyncedOffset() != 1 {
		t.Errorf("second sync: %v, synced to %d", err, l.SyncedOffset())
	}
	if _, err := l.Append(batchOf(1, 100, "c"), 0); !errors.Is(err, ErrFenced) {
		t.Errorf("append: %v", err)
	}
	if err := l.ResetTo(0); !errors.Is(err, ErrFenced) {
		t.Errorf("reset of a log on a failed disk: %v", err)
	}
	if got := readAll(t, l); len(got) == 0 {
		t.Error("nothing can be read")
	}
	if err := l.Close(); !errors.Is(err, ErrFenced) {
		t.Errorf("close: %v", err)
	}
	if syncs > 0 {
		t.Errorf("%d syncs after the failed one", syncs)
	}
}

// TestFailuresAtEveryOperation fails each operation of a workload once. Whatever
// fails, no acknowledged byte is lost, then or after a crash.
func TestFailuresAtEveryOperation(t *testing.T) {
	for _, cause := range []error{errDisk, vfs.ErrNoSpace} {
		step := 1
		if testing.Short() {
			step = 4
		}
		for n := 1; ; n += step {
			disk := newFaultyDisk()
			left := n
			disk.fail = func(o vfs.Operation) error {
				if left--; left == 0 {
					return cause
				}
				return nil
			}
			acked := failingWorkload(disk)
			if left > 0 {
				break // the workload has fewer operations
			}
			disk.fail = func(vfs.Operation) error { return nil }
			for _, crashed := range []*vfs.Mem{disk.disk.Crash(nil), disk.disk.Crash(newAll())} {
				l, err := Open(testEnv(crashed), testDir, smallConfig())
				if err != nil || l.Damaged() != nil {
					t.Fatalf("%v at operation %d: open: %v, %v", cause, n, err, l.Damaged())
				}
				if l.EndOffset() < acked {
					t.Fatalf("%v at operation %d: ends at %d, acknowledged %d", cause, n, l.EndOffset(), acked)
				}
				readAll(t, l)
			}
		}
	}
}

// failingWorkload does what it can and returns what was acknowledged.
func failingWorkload(disk vfs.FS) (acked int64) {
	for range 2 {
		l, err := Open(testEnv(disk), testDir, smallConfig())
		if err != nil {
			continue
		}
		for i := range 30 {
			if _, err := l.Append(batchOf(1, 250, fmt.Sprint(i)), 0); err == nil && i%3 == 0 {
				_ = l.Sync()
			}
			acked = max(acked, l.SyncedOffset())
		}
		_ = l.AdvanceStart(5)
		acked = max(acked, l.SyncedOffset())
		_ = l.Close()
	}
	return acked
}

func TestReadErrorIsNoDamage(t *testing.T) {
	disk := newFaultyDisk()
	l := mustOpen(t, disk, smallConfig())
	mustAppend(t, l, batchOf(1, 100, "a"))
	disk.fail = failing(vfs.KindRead)
	if _, err := l.Read(nil, 0, 1, 1000, true); !errors.Is(err, errDisk) || errors.Is(err, ErrDamaged) {
		t.Errorf("read: %v", err)
	}
	disk.fail = func(vfs.Operation) error { return nil }
	if _, err := l.Read(nil, 0, 1, 1000, true); err != nil || l.Damaged() != nil {
		t.Errorf("read after a passing error: %v, %v", err, l.Damaged())
	}
}

// TestFullDiskWhileCutting cuts a log, in its middle and below its beginning, and empties
// it, while the disk has room for more and more: nothing stops but this log, what is left
// can be read, and with room it can be emptied and takes appends again.
func TestFullDiskWhileCutting(t *testing.T) {
	steps := map[string]func(*Log) error{
		"truncate": func(l *Log) error { return l.TruncateTo(7) },
		"restart":  func(l *Log) error { return l.TruncateTo(3) }, // in the batch that holds the start
		"reset":    func(l *Log) error { return l.ResetTo(100) },
	}
	for name, step := range steps {
		refused := 0
		for room := int64(0); room < 1200; room += 13 {
			quota := &vfs.Quota{}
			quota.Set(1 << 40)
			directory := mustOpenDirectory(t, vfs.NewFaulty(vfs.NewMem(), quota.Before))
			l, err := directory.Log(LogID{Topic: "t", TopicID: [16]byte{1}}, smallConfig())
			if err != nil {
				t.Fatal(err)
			}
			for i := range 5 {
				mustAppend(t, l, batchOf(2, 100, fmt.Sprint(i)))
			}
			if err := l.Sync(); err != nil {
				t.Fatal(err)
			}
			if err := l.AdvanceStart(3); err != nil {
				t.Fatal(err)
			}
			quota.Set(room)
			err = step(l)
			switch {
			case err == nil:
			case errors.Is(err, vfs.ErrNoSpace):
				refused++
			default:
				t.Fatalf("%s with room for %d: %v", name, room, err)
			}
			if directory.Damaged() != nil {
				t.Fatalf("%s with room for %d: the whole directory stopped: %v", name, room, directory.Damaged())
			}
			readAll(t, l)
			l.EndOffsetForEpoch(0)
			quota.Set(1 << 40)
			if err := l.ResetTo(50); err != nil {
				t.Fatalf("%s with room for %d, then emptied: %v", name, room, err)
			}
			mustAppend(t, l, batchOf(1, 100, "again"))
			if l.StartOffset() != 50 || l.EndOffset() != 51 || len(readAll(t, l)) == 0 {
				t.Fatalf("%s with room for %d: the emptied log is from %d to %d", name, room, l.StartOffset(), l.EndOffset())
			}
			if err := directory.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if (refused == 0) != (name == "truncate") { // which needs none
			t.Errorf("%s: refused %d times", name, refused)
		}
	}
}

// TestUnreadableIsNotDamaged fails each read of an opening in turn. The log does not open,
// or is what it was: a disk that cannot be read now says nothing of what is on it, and
// nothing is made anew in its place.
func TestUnreadableIsNotDamaged(t *testing.T) {
	id, cfg := LogID{Topic: "t", TopicID: [16]byte{1, 2, 3}}, smallConfig()
	mem := vfs.NewMem()
	directory := mustOpenDirectory(t, mem)
	l, err := directory.Log(id, cfg)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 30 {
		mustAppend(t, l, batchOf(2, 100, fmt.Sprint(i)))
		if i == 20 {
			if err := errors.Join(l.Sync(), l.AdvanceStart(11)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := l.Sync(); err != nil {
		t.Fatal(err)
	}
	want, start, end := readAll(t, l), l.StartOffset(), l.EndOffset()
	refused := 0
	for fail := 1; ; fail++ {
		disk := mem.Crash(newAll())
		reads, opening := 0, true
		faulty := vfs.NewFaulty(disk, func(o vfs.Operation) error {
			if opening && (o.Kind == vfs.KindRead || o.Kind == vfs.KindOpen) {
				if reads++; reads == fail {
					return errDisk
				}
			}
			return nil
		})
		// What is opened then, and what a crash leaves of it.
		if d, err := OpenDirectory(testEnv(faulty), "data"); err == nil {
			l, err := d.Log(id, cfg)
			opening = false
			switch {
			case errors.Is(err, errDisk):
				refused++
			case err != nil:
				t.Fatalf("read %d fails: %v", fail, err)
			case l.Damaged() != nil || l.StartOffset() != start || l.EndOffset() != end || !bytes.Equal(readAll(t, l), want):
				t.Fatalf("read %d fails: the log is from %d to %d, %v", fail, l.StartOffset(), l.EndOffset(), l.Damaged())
			}
		}
		again, err := mustOpenDirectory(t, disk.Crash(rand.New(rand.NewPCG(uint64(fail), 1)))).Log(id, cfg)
		if err != nil {
			t.Fatalf("after read %d failed: %v", fail, err)
		}
		if again.StartOffset() != start || again.EndOffset() != end || !bytes.Equal(readAll(t, again), want) {
			t.Fatalf("after read %d failed: the log is from %d to %d", fail, again.StartOffset(), again.EndOffset())
		}
		if reads < fail {
			break
		}
	}
	if refused < 5 {
		t.Errorf("only %d readings were missed", refused)
	}
}
