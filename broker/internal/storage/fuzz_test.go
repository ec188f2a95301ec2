package storage

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"github.com/leatlog/leat/broker/internal/record"
	"github.com/leatlog/leat/broker/internal/vfs"
)

// FuzzCheckpoints: what decodes encodes to something that decodes to the same.
func FuzzCheckpoints(f *testing.F) {
	e := epochs{entries: []epochEntry{{0, 0}, {3, 17}}}
	f.Add(e.encode())
	f.Add(encodeOffset("topic", 3, 42))
	f.Add(encodeTopicID([16]byte{1, 2, 3}))
	f.Add([]byte("0\n99999999999\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if entries, err := decodeEpochs(data); err == nil {
			e := epochs{entries: entries}
			if again, err := decodeEpochs(e.encode()); err != nil || !slices.Equal(again, entries) {
				t.Fatalf("epochs %v: %v, %v", entries, again, err)
			}
		}
		if offset, err := decodeOffset(data); err == nil {
			if again, err := decodeOffset(encodeOffset("t", 0, offset)); err != nil || again != offset {
				t.Fatalf("offset %d: %d, %v", offset, again, err)
			}
		}
		if id, err := decodeTopicID(data); err == nil {
			if again, err := decodeTopicID(encodeTopicID(id)); err != nil || again != id {
				t.Fatalf("topic id %v: %v, %v", id, again, err)
			}
		}
	})
}

// FuzzSnapshot and the transaction index: no input panics or takes memory beyond
// its size, and what decodes encodes to the same bytes.
func FuzzSnapshot(f *testing.F) {
	var s producers
	for id := range int64(3) {
		b := record.Batch(idempotentBatch(id, 1, 5, 2))
		b.SetBaseOffset(id * 2)
		if _, _, err := s.replay(b); err != nil {
			f.Fatal(err)
		}
	}
	f.Add(encodeSnapshot(s.sorted()))
	f.Add(encodeAborted([]abortedTxn{{1, 2, 3, 4}, {5, 6, 7, 8}}))
	f.Fuzz(func(t *testing.T, data []byte) {
		if list, err := decodeSnapshot(data); err == nil {
			pointers := make([]*producer, len(list))
			for i := range list {
				pointers[i] = &list[i]
			}
			if again, err := decodeSnapshot(encodeSnapshot(pointers)); err != nil || len(again) != len(list) {
				t.Fatalf("%d producers become %d, %v", len(list), len(again), err)
			}
		}
		if list, err := decodeAborted(data); err == nil && !bytes.Equal(encodeAborted(list), data) {
			t.Fatalf("aborted transactions %v", list)
		}
	})
}

// closedLog returns a disk with a cleanly closed log of several segments, and its
// bytes.
func closedLog(t testing.TB, batches int) (*vfs.Mem, []byte) {
	disk := vfs.NewMem()
	l := mustOpen(t, disk, smallConfig())
	var all []byte
	for i := range batches {
		b := batchOf(1+i%3, 120, fmt.Sprint(i))
		mustAppend(t, l, b)
		all = append(all, b...)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return disk, all
}

func replaceFile(t testing.TB, disk vfs.FS, name string, data []byte) {
	t.Helper()
	if err := writeFile(disk, name, data, true); err != nil {
		t.Fatal(err)
	}
}

// FuzzIndexes puts any bytes in the place of indexes: reads give the same.
func FuzzIndexes(f *testing.F) {
	disk, want := closedLog(f, 60)
	for _, suffix := range []string{indexSuffix, timesSuffix} {
		data, err := readFile(disk, testDir+"/"+segmentName(0, suffix), 1<<20)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data, suffix == timesSuffix)
	}
	f.Fuzz(func(t *testing.T, data []byte, times bool) {
		disk := disk.Crash(nil)
		suffix := indexSuffix
		if times {
			suffix = timesSuffix
		}
		names, err := disk.List(testDir)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if _, ok := parseSegmentName(name, suffix); ok {
				replaceFile(t, disk, testDir+"/"+name, data)
			}
		}
		l := mustOpen(t, disk, smallConfig())
		if err := l.Damaged(); err != nil {
			t.Fatal(err)
		}
		if got := readAll(t, l); !bytes.Equal(got, want) {
			t.Fatal("the log reads differently")
		}
		for offset := l.EndOffset() - 1; offset > 0; offset -= 5 {
			b, err := l.Read(nil, offset, l.EndOffset(), 1, true)
			if err != nil || record.Batch(b).BaseOffset() > offset || record.Batch(b).NextOffset() <= offset {
				t.Fatalf("read at %d: %v", offset, err)
			}
		}
		if offset, _, _, err := l.OffsetForTimestamp(epochStart.UnixMilli()); err != nil || offset != 0 {
			t.Fatalf("time lookup: %d, %v", offset, err)
		}
		if _, err := l.ApplyRetention(epochStart, l.EndOffset()); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzRecovery puts any bytes in the place of a part of the last segment of a log
// that was killed: it opens, damaged if synced bytes are wrong; whatever it holds
// is good, and it goes on after a reset.
func FuzzRecovery(f *testing.F) {
	base := vfs.NewMem()
	cfg := smallConfig()
	cfg.SegmentBytes = 1 << 20
	l := mustOpen(f, base, cfg)
	synced := 0
	for i := range 10 {
		mustAppend(f, l, batchOf(1+i%3, 120, fmt.Sprint(i)))
		if i == 5 {
			if err := l.Sync(); err != nil {
				f.Fatal(err)
			}
			synced = int(l.Size())
		}
	}
	base = base.Crash(newAll())
	end := l.EndOffset()
	f.Add([]byte("overwritten"), uint16(synced-50), false)
	f.Add(make([]byte, 100), uint16(synced+5), false)
	f.Add(batchOf(2, 10, "other"), uint16(synced), true)
	f.Add([]byte{}, uint16(0), true)
	f.Fuzz(func(t *testing.T, data []byte, position uint16, cut bool) {
		disk := base.Crash(nil)
		name := testDir + "/" + segmentName(0, logSuffix)
		file, err := disk.OpenReadWrite(name)
		if err != nil {
			t.Fatal(err)
		}
		before, err := readFile(disk, name, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		if cut {
			if err := file.Truncate(int64(position)); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := file.WriteAt(data, int64(position)); err != nil {
			t.Fatal(err)
		}
		after, err := readFile(disk, name, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		again := mustOpen(t, disk, cfg)
		wrong := len(after) < synced || !bytes.Equal(before[:synced], after[:synced])
		marked := len(after) >= markSize && bytes.Equal(after[len(after)-markSize:], before[len(before)-markSize:])
		if marked && wrong && again.Damaged() == nil {
			// Outside of the checksum lie base offset and leader epoch: the former is held
			// against its place, the latter may only rise.
			if again.EndOffset() < end/2 {
				t.Fatalf("synced bytes are wrong, the log ends at %d and nothing is said", again.EndOffset())
			}
		}
		if !wrong && again.Damaged() != nil {
			t.Fatalf("synced bytes are right: %v", again.Damaged())
		}
		readAll(t, again)
		if again.Damaged() != nil {
			if err := again.ResetTo(3); err != nil {
				t.Fatal(err)
			}
		}
		b := record.Batch(batchOf(1, 10, "next"))
		b.SetBaseOffset(again.EndOffset())
		b.SetLeaderEpoch(max(again.LatestEpoch(), 0))
		if err := again.AppendFollower(b); err != nil {
			t.Fatal(err)
		}
		if err := again.Close(); err != nil {
			t.Fatal(err)
		}
	})
}
