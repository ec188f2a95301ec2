package storage

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/leatlog/leat/broker/internal/record"
	"github.com/leatlog/leat/broker/internal/vfs"
)

// flip changes one byte of a file.
func flip(t testing.TB, fs vfs.FS, name string, position int64) {
	t.Helper()
	f, err := fs.OpenReadWrite(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if err := readFull(f, b[:], position); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x40
	if _, err := f.WriteAt(b[:], position); err != nil {
		t.Fatal(err)
	}
}

func fileSize(t testing.TB, fs vfs.FS, name string) int64 {
	t.Helper()
	info, err := fs.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

// TestFlippedBitsInSyncedBytes flips a byte of every batch of a log that was
// killed, with some batches synced and some not. Damage to the former is reported
// and fenced, to the latter is cut off.
func TestFlippedBitsInSyncedBytes(t *testing.T) {
	const synced, unsynced = 12, 4
	cfg := smallConfig()
	cfg.SegmentBytes = 1 << 20
	base := vfs.NewMem()
	l := mustOpen(t, base, cfg)
	var positions []int64
	for i := range synced + unsynced {
		positions = append(positions, l.Size())
		mustAppend(t, l, batchOf(1, 200, fmt.Sprint(i)))
		if i < synced {
			if err := l.Sync(); err != nil {
				t.Fatal(err)
			}
		}
	}
	name := testDir + "/" + segmentName(0, logSuffix)
	for i, position := range positions {
		disk := base.Crash(newAll())
		flip(t, disk, name, position+record.HeaderSize+20)
		again := mustOpen(t, disk, cfg)
		if again.EndOffset() != int64(i) {
			t.Fatalf("batch %d: the log ends at %d", i, again.EndOffset())
		}
		damage := again.Damaged()
		if (i < synced) != (damage != nil) {
			t.Fatalf("batch %d: %v", i, damage)
		}
		if _, err := readRange(again, 0, int64(i)); err != nil {
			t.Errorf("batch %d: what precedes it cannot be read: %v", i, err)
		}
		if i < synced {
			checkDamage(t, again, disk, name, position, int64(i))
		}
	}
}

func checkDamage(t *testing.T, l *Log, disk *vfs.Mem, name string, position, offset int64) {
	t.Helper()
	var damage *DamageError
	if err := l.Damaged(); !errors.As(err, &damage) || !errors.Is(err, ErrDamaged) || damage.File != name || damage.Position != position || damage.Offset != offset {
		t.Fatalf("damage at byte %d, offset %d is told as %v", position, offset, err)
	}
	before := fileSize(t, disk, name)
	if _, err := l.Append(batchOf(1, 10, "x"), 0); !errors.Is(err, ErrFenced) || !errors.Is(err, ErrDamaged) {
		t.Fatalf("append to a damaged log: %v", err)
	}
	for what, err := range map[string]error{"sync": l.Sync(), "truncate": l.TruncateTo(0), "close": l.Close()} {
		if err == nil {
			t.Errorf("%s of a damaged log succeeds", what)
		}
	}
	if after := fileSize(t, disk, name); after != before {
		t.Fatalf("a damaged segment went from %d to %d bytes", before, after)
	}
	// It stays damaged until it is reset.
	again := mustOpen(t, disk, smallConfig())
	if again.Damaged() == nil {
		t.Fatal("damage is gone after closing")
	}
	if err := again.ResetTo(7); err != nil || again.Damaged() != nil || again.StartOffset() != 7 {
		t.Fatalf("reset: %v, %v", err, again.Damaged())
	}
	mustAppend(t, again, batchOf(1, 10, "x"))
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
	if again = mustOpen(t, disk, smallConfig()); again.EndOffset() != 8 || again.Damaged() != nil {
		t.Fatalf("after reset and append: ends at %d, %v", again.EndOffset(), again.Damaged())
	}
}

// TestDamageAfterCleanClose: the mark is gone by then, the recovery point tells.
func TestDamageAfterCleanClose(t *testing.T) {
	cfg := smallConfig()
	cfg.SegmentBytes = 1 << 20
	disk := vfs.NewMem()
	l := mustOpen(t, disk, cfg)
	for i := range 5 {
		mustAppend(t, l, batchOf(1, 200, fmt.Sprint(i)))
	}
	size := l.Size()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	name := testDir + "/" + segmentName(0, logSuffix)
	if got := fileSize(t, disk, name); got != size {
		t.Fatalf("closed segment has %d bytes, batches have %d", got, size)
	}
	f, err := disk.OpenReadWrite(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(size - 10); err != nil {
		t.Fatal(err)
	}
	if l = mustOpen(t, disk, cfg); !errors.Is(l.Damaged(), ErrDamaged) || l.EndOffset() != 4 {
		t.Errorf("a segment that lost its end: %v, ends at %d", l.Damaged(), l.EndOffset())
	}
}

// TestDamageInFullSegment: nothing reads full segments at start, so that damage is
// found by the reader, at the latest by the record's CRC; what breaks the chain of
// headers is reported and fenced.
func TestDamageInFullSegment(t *testing.T) {
	build := func() (*vfs.Mem, *Log) {
		disk := vfs.NewMem()
		l := mustOpen(t, disk, smallConfig())
		for i := range 60 {
			mustAppend(t, l, batchOf(1, 200, fmt.Sprint(i)))
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		return disk, l
	}
	name := testDir + "/" + segmentName(0, logSuffix)
	t.Run("header", func(t *testing.T) {
		disk, _ := build()
		flip(t, disk, name, 16) // magic of the first batch
		l := mustOpen(t, disk, smallConfig())
		if _, err := l.Read(nil, 0, l.EndOffset(), 1000, true); !errors.Is(err, ErrDamaged) || l.Damaged() == nil {
			t.Errorf("read: %v, log: %v", err, l.Damaged())
		}
	})
	t.Run("end cut off", func(t *testing.T) {
		disk, old := build()
		f, err := disk.OpenReadWrite(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Truncate(old.segments[0].size.Load() - 1000); err != nil {
			t.Fatal(err)
		}
		l := mustOpen(t, disk, smallConfig())
		if _, err := readRange(l, 0, l.EndOffset()); !errors.Is(err, ErrDamaged) || l.Damaged() == nil {
			t.Errorf("read: %v, log: %v", err, l.Damaged())
		}
	})
}

// TestWrongIndexes breaks the indexes of a log in every way and reads it.
func TestWrongIndexes(t *testing.T) {
	base := vfs.NewMem()
	l := mustOpen(t, base, smallConfig())
	for i := range 80 {
		mustAppend(t, l, batchOf(1+i%2, 150, fmt.Sprint(i)))
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	want := readAll(t, mustOpen(t, base.Crash(nil), smallConfig()))
	last := l.active().base
	for _, suffix := range []string{indexSuffix, timesSuffix} {
		for _, segment := range []int64{0, last} {
			name := testDir + "/" + segmentName(segment, suffix)
			breakIt := map[string]func(fs *vfs.Mem){
				"missing": func(fs *vfs.Mem) { _ = fs.Remove(name) },
				"empty":   func(fs *vfs.Mem) { truncateFile(t, fs, name, 0) },
				"odd":     func(fs *vfs.Mem) { truncateFile(t, fs, name, 5) },
			}
			for at := range fileSize(t, base, name) {
				breakIt[fmt.Sprint("flipped at ", at)] = func(fs *vfs.Mem) { flip(t, fs, name, at) }
			}
			for how, apply := range breakIt {
				disk := base.Crash(nil)
				apply(disk)
				broken := mustOpen(t, disk, smallConfig())
				if err := broken.Damaged(); err != nil {
					t.Fatalf("%s %s: %v", name, how, err)
				}
				if got := readAll(t, broken); !bytes.Equal(got, want) {
					t.Fatalf("%s %s: read differs", name, how)
				}
				for offset := broken.EndOffset() - 1; offset >= 0; offset -= 7 {
					b, err := broken.Read(nil, offset, broken.EndOffset(), 1, true)
					if err != nil || record.Batch(b).BaseOffset() > offset || record.Batch(b).NextOffset() <= offset {
						t.Fatalf("%s %s: read at %d: %v", name, how, offset, err)
					}
				}
				if offset, _, _, err := broken.OffsetForTimestamp(epochStart.UnixMilli()); err != nil || offset != 0 {
					t.Fatalf("%s %s: time lookup gives %d, %v", name, how, offset, err)
				}
			}
		}
	}
}

func truncateFile(t testing.TB, fs vfs.FS, name string, size int64) {
	t.Helper()
	f, err := fs.OpenReadWrite(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
}

// TestWrongDerivedFiles breaks checkpoints and snapshots: the log opens, all
// batches are there and the producers are known.
func TestWrongDerivedFiles(t *testing.T) {
	base := vfs.NewMem()
	l := mustOpen(t, base, smallConfig())
	for i := range 40 {
		mustAppend(t, l, idempotentBatch(5, 0, int32(i*2), 2))
		mustAppend(t, l, batchOf(1, 100, "x"))
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	names, err := base.List(testDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if _, isLog := parseSegmentName(name, logSuffix); isLog {
			continue
		}
		for _, how := range []string{"remove", "cut", "flip"} {
			disk := base.Crash(nil)
			path := testDir + "/" + name
			switch how {
			case "remove":
				if err := disk.Remove(path); err != nil {
					t.Fatal(err)
				}
			case "cut":
				truncateFile(t, disk, path, fileSize(t, disk, path)/2)
			case "flip":
				if fileSize(t, disk, path) == 0 {
					continue
				}
				flip(t, disk, path, fileSize(t, disk, path)-1)
			}
			again := mustOpen(t, disk, smallConfig())
			if err := again.Damaged(); err != nil && !(name == recoveryPointName && how == "flip") {
				t.Fatalf("%s %s: %v", how, name, err)
			}
			if again.EndOffset() != 120 {
				t.Fatalf("%s %s: the log ends at %d", how, name, again.EndOffset())
			}
			readAll(t, again)
			if p := again.Producers(); len(p) != 1 || p[0].LastSequence != 79 {
				t.Fatalf("%s %s: producers %+v", how, name, p)
			}
		}
	}
}
