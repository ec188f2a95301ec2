package storage

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/leatlog/leat/broker/internal/vfs"
)

// TestDeletesShareASync deletes many logs while their names are being synced: one more
// sync serves them all, and no file goes before it.
func TestDeletesShareASync(t *testing.T) {
	defer goleak.VerifyNone(t)
	const logs = 100
	var mu sync.Mutex
	var syncs, removed int
	counting := false
	began, goOn := make(chan struct{}), make(chan struct{})
	disk := vfs.NewFaulty(vfs.NewMem(), func(o vfs.Operation) error {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case !counting:
		case o.Kind == vfs.KindSyncDir && o.Path == "data":
			if syncs++; syncs == 1 {
				mu.Unlock()
				close(began)
				<-goOn
				mu.Lock()
			}
		case o.Kind == vfs.KindRemove:
			if removed++; removed > 1 && syncs < 2 {
				t.Errorf("%s is removed before its name was synced", o.Path)
			}
		}
		return nil
	})
	d := mustOpenDirectory(t, disk)
	for i := range logs {
		mustAppend(t, mustLog(t, d, "topic", int32(i), 1), batchOf(1, 100, "x"))
	}
	mu.Lock()
	counting = true
	mu.Unlock()
	for i := range logs {
		if err := d.Delete("topic", int32(i)); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			<-began
		}
	}
	close(goOn)
	d.remover.wait()
	mu.Lock()
	if syncs != 2 || removed != logs {
		t.Errorf("%d logs were removed after %d syncs, want %d after 2", removed, syncs, logs)
	}
	counting = false
	mu.Unlock()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestCrashWhileLogsAreDeleted takes the power at each step of deleting logs and
// making them anew. Each log is found whole, as the deleted one or as the new one,
// or not at all; what the new ones acknowledged is there.
func TestCrashWhileLogsAreDeleted(t *testing.T) {
	const logs = 12
	type moment struct {
		disk  *vfs.Mem
		acked [logs]bool // by the new log
		gone  bool       // the deletions are known to be durable
		at    string
	}
	disk := vfs.NewMem()
	random := rand.New(rand.NewPCG(7, 7))
	var mu sync.Mutex
	var now moment
	var moments []moment
	begun := false
	faulty := vfs.NewFaulty(disk, func(o vfs.Operation) error {
		mu.Lock()
		defer mu.Unlock()
		if begun && o.Mutates() {
			now.at = fmt.Sprint(o.Kind, " of ", o.Path)
			for _, r := range []*rand.Rand{nil, random, random, newAll()} {
				now.disk = disk.Crash(r)
				moments = append(moments, now)
			}
		}
		return nil
	})
	d := mustOpenDirectory(t, faulty)
	for i := range logs {
		l := mustLog(t, d, "topic", int32(i), 1)
		for range 3 {
			mustAppend(t, l, batchOf(1, 100, "old"))
		}
		if err := l.Sync(); err != nil {
			t.Fatal(err)
		}
	}
	mu.Lock()
	begun = true
	mu.Unlock()
	for i := range logs {
		if err := d.Delete("topic", int32(i)); err != nil {
			t.Fatal(err)
		}
		if i%3 != 0 {
			continue
		}
		l := mustLog(t, d, "topic", int32(i), 2)
		mustAppend(t, l, batchOf(1, 100, "new"))
		if err := l.Sync(); err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		now.acked[i] = true
		mu.Unlock()
	}
	d.remover.wait()
	mu.Lock()
	now.gone = true
	mu.Unlock()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	for _, m := range moments {
		after := mustOpenDirectory(t, m.disk)
		list, err := after.List()
		if err != nil {
			t.Fatal(err)
		}
		for i := range logs {
			at := slices.IndexFunc(list, func(id LogID) bool { return int(id.Partition) == i })
			if at < 0 {
				if m.acked[i] {
					t.Fatalf("before %s: log %d is gone", m.at, i)
				}
				continue
			}
			id := list[at].TopicID[0]
			want := map[byte]int64{1: 3, 2: 1}[id]
			if m.acked[i] && id != 2 || m.gone && id == 1 {
				t.Fatalf("before %s: log %d has topic id %d", m.at, i, id)
			}
			if id == 0 {
				continue // made anew, nothing acknowledged
			}
			l := mustLog(t, after, "topic", int32(i), id)
			if l.Damaged() != nil || l.EndOffset() != want && (id == 1 || m.acked[i]) {
				t.Fatalf("before %s: log %d with topic id %d ends at %d, want %d, %v", m.at, i, id, l.EndOffset(), want, l.Damaged())
			}
		}
		if err := after.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if len(moments) < 200 {
		t.Errorf("%d crashes", len(moments))
	}
}

// TestNamesOfDeletedLogs: the longest name of a topic can be deleted, and a log that
// comes and goes under the same id again, over restarts.
func TestNamesOfDeletedLogs(t *testing.T) {
	long := strings.Repeat("t", 249)
	name := deletedName(logDirName(long, 123456), [16]byte{1}, 1<<32-1)
	if n, ok := parseDeleted(name); len(name) != maxFileName || !ok || n != 1<<32-1 {
		t.Errorf("%s has %d bytes and number %d, %v", name, len(name), n, ok)
	}
	for name, want := range map[string]bool{"t-0": false, "t-delete-0": false, "x-delete": true, "-delete": true} {
		if n, ok := parseDeleted(name); ok != want || n != 0 {
			t.Errorf("%s: %d, %v", name, n, ok)
		}
	}
	root := t.TempDir()
	for range 3 {
		d, err := OpenDirectory(testEnv(vfs.OS{}), root)
		if err != nil {
			t.Fatal(err)
		}
		mustLog(t, d, long, 0, 1)
		d.remover.mu.Lock()
		d.remover.working = true // so that what is deleted stays for the next start
		d.remover.mu.Unlock()
		if err := d.Delete(long, 0); err != nil {
			t.Fatal(err)
		}
		d.remover.mu.Lock()
		d.remover.working = false
		d.remover.mu.Unlock()
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestFailedSyncOfDeletedNames fences the directory, and no file of the deleted log goes.
func TestFailedSyncOfDeletedNames(t *testing.T) {
	disk := newFaultyDisk()
	d := mustOpenDirectory(t, disk)
	l := mustLog(t, d, "a", 0, 1)
	mustAppend(t, l, batchOf(1, 10, "x"))
	if err := l.Sync(); err != nil {
		t.Fatal(err)
	}
	disk.fail = func(o vfs.Operation) error {
		if o.Kind == vfs.KindRemove {
			t.Errorf("%s is removed", o.Path)
		}
		return failing(vfs.KindSyncDir)(o)
	}
	if err := d.Delete("a", 0); err != nil {
		t.Fatal(err)
	}
	d.remover.wait()
	if err := d.Damaged(); !errors.Is(err, errDisk) {
		t.Errorf("the directory: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}
