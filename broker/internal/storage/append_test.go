package storage

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/leatlog/leat/broker/internal/record"
	"github.com/leatlog/leat/broker/internal/vfs"
)

func at(times ...time.Duration) []byte {
	b := record.NewBuilder(record.CodecNone)
	for _, t := range times {
		b.Append(epochStart.Add(t).UnixMilli(), nil, []byte("v"), nil)
	}
	return b.Build(nil)
}

func TestRefusedBatches(t *testing.T) {
	cfg := smallConfig()
	cfg.MaxBatchBytes = 500
	cfg.TimestampBeforeMax, cfg.TimestampAfterMax = time.Hour, time.Minute
	l := mustOpen(t, vfs.NewMem(), cfg)
	broken := batchOf(1, 100, "x")
	broken[len(broken)-1] ^= 1
	empty := record.NewBuilder(record.CodecNone).Build(nil)
	gap := record.NewBuilder(record.CodecNone)
	gap.AppendAt(3, epochStart.UnixMilli(), nil, nil, nil)
	badMarker := record.NewBuilder(record.CodecNone)
	badMarker.SetControl()
	badMarker.SetProducer(1, 0, record.NoSequence)
	badMarker.Append(epochStart.UnixMilli(), []byte{0, 0, 0, 1}, []byte{1}, nil)
	for name, c := range map[string]struct {
		batch []byte
		want  error
	}{
		"nothing":         {nil, record.ErrTruncated},
		"cut":             {batchOf(1, 100, "x")[:100], record.ErrTruncated},
		"checksum":        {broken, record.ErrCRC},
		"second is bad":   {append(batchOf(1, 100, "x"), broken...), record.ErrCRC},
		"too large":       {batchOf(1, 600, "x"), ErrRecordTooLarge},
		"no records":      {empty, ErrInvalidBatch},
		"gap":             {gap.Build(nil), ErrInvalidBatch},
		"marker":          {badMarker.Build(nil), ErrInvalidBatch},
		"too old":         {at(-2 * time.Hour), ErrInvalidTimestamp},
		"too new":         {at(2 * time.Minute), ErrInvalidTimestamp},
		"one of them new": {at(0, 2*time.Minute, 0), ErrInvalidTimestamp},
	} {
		if _, err := l.Append(c.batch, 0); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	mustAppend(t, l, at(-time.Hour, time.Minute))
	none := record.NewBuilder(record.CodecNone)
	none.Append(record.NoTimestamp, nil, nil, nil)
	mustAppend(t, l, none.Build(nil))
	if _, err := l.Append(batchOf(1, 10, "x"), 5); err != nil {
		t.Error(err)
	}
	if _, err := l.Append(batchOf(1, 10, "x"), 4); !errors.Is(err, ErrInvalidBatch) {
		t.Errorf("append in an epoch that is over: %v", err)
	}
	for name, change := range map[string]func(b record.Batch){
		"below the end": func(b record.Batch) { b.SetBaseOffset(l.EndOffset() - 1) },
		"old epoch":     func(b record.Batch) { b.SetLeaderEpoch(4) },
	} {
		b := record.Batch(batchOf(1, 10, "x"))
		b.SetBaseOffset(l.EndOffset())
		b.SetLeaderEpoch(5)
		change(b)
		if err := l.AppendFollower(b); !errors.Is(err, ErrInvalidBatch) {
			t.Errorf("follower, %s: %v", name, err)
		}
	}
	if l.EndOffset() != 4 {
		t.Errorf("the log ends at %d", l.EndOffset())
	}
	// The leader's log may have been compacted before its topic's policy changed.
	b := record.Batch(batchOf(1, 10, "x"))
	b.SetBaseOffset(l.EndOffset() + 3)
	b.SetLeaderEpoch(5)
	if err := l.AppendFollower(b); err != nil || l.EndOffset() != 8 || !l.mayHaveGaps() {
		t.Errorf("follower, gap: %v, the log ends at %d", err, l.EndOffset())
	}
}

func TestLogAppendTime(t *testing.T) {
	cfg := smallConfig()
	cfg.LogAppendTime = true
	l := mustOpen(t, vfs.NewMem(), cfg)
	b := at(-100*time.Hour, 100*time.Hour)
	info := mustAppend(t, l, b)
	if info.LogAppendTime != epochStart.UnixMilli() || record.Batch(b).Validate() != nil || record.Batch(b).MaxTimestamp() != epochStart.UnixMilli() {
		t.Errorf("%+v, batch at %d", info, record.Batch(b).MaxTimestamp())
	}
	if offset, ts, epoch := l.MaxTimestamp(); offset != 0 || ts != epochStart.UnixMilli() || epoch != 0 {
		t.Errorf("largest timestamp %d at %d, epoch %d", ts, offset, epoch)
	}
	mustAppend(t, l, idempotentBatch(1, 0, 0, 1))
	if info := mustAppend(t, l, idempotentBatch(1, 0, 0, 1)); !info.Duplicate || info.LogAppendTime != epochStart.UnixMilli() {
		t.Errorf("duplicate: %+v", info)
	}
}

func TestMaxTimestampAndEpochs(t *testing.T) {
	disk := vfs.NewMem()
	cfg := smallConfig()
	cfg.SegmentBytes = 200
	l := mustOpen(t, disk, cfg)
	if offset, ts, epoch := l.MaxTimestamp(); offset != -1 || ts != -1 || epoch != -1 {
		t.Error("an empty log has a largest timestamp")
	}
	for i, times := range [][]time.Duration{{0, 5}, {30, 50, 40}, {10}, {50}, {1, 2, 3}} {
		for j := range times {
			times[j] *= time.Second
		}
		if _, err := l.Append(at(times...), int32(i)); err != nil {
			t.Fatal(err)
		}
	}
	check := func(l *Log) {
		t.Helper()
		if offset, ts, epoch := l.MaxTimestamp(); offset != 3 || ts != epochStart.Add(50*time.Second).UnixMilli() || epoch != 1 {
			t.Errorf("largest timestamp %d at offset %d, epoch %d", ts, offset, epoch)
		}
		for _, c := range [][4]int64{{0, 2, 0, 2}, {1, 5, 1, 5}, {3, 7, 3, 7}, {4, 10, 4, 10}, {9, -1, -1, -1}, {-1, -1, -1, -1}} {
			if epoch, end := l.EndOffsetForEpoch(int32(c[0])); int64(epoch) != c[2] || end != c[3] {
				t.Errorf("epoch %d: %d ends at %d, want %d at %d", c[0], epoch, end, c[2], c[3])
			}
		}
	}
	check(l)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = mustOpen(t, disk, cfg)
	check(l)
	l.AssignEpoch(7)
	if epoch, end := l.EndOffsetForEpoch(7); epoch != 7 || end != 10 || l.LatestEpoch() != 7 {
		t.Errorf("epoch 7 without records is %d, ends at %d", epoch, end)
	}
	if epoch, end := l.EndOffsetForEpoch(6); epoch != 4 || end != 10 {
		t.Errorf("epoch 6 is %d, ends at %d", epoch, end)
	}
	if err := l.TruncateTo(6); err != nil {
		t.Fatal(err)
	}
	if epoch, end := l.EndOffsetForEpoch(2); epoch != 2 || end != 6 || l.LatestEpoch() != 2 {
		t.Errorf("after truncation epoch 2 is %d, ends at %d", epoch, end)
	}
	if err := l.AdvanceStart(3); err != nil {
		t.Fatal(err)
	}
	if epoch, end := l.EndOffsetForEpoch(0); epoch != 0 || end != 3 {
		t.Errorf("after deletion epoch 0 is %d, ends at %d", epoch, end)
	}
}

func TestRollByAgeAndIndex(t *testing.T) {
	cfg := smallConfig()
	cfg.SegmentAge = time.Minute
	cfg.TimestampAfterMax = -1
	l := mustOpen(t, vfs.NewMem(), cfg)
	mustAppend(t, l, at(0))
	mustAppend(t, l, at(time.Minute))
	if l.Segments() != 1 {
		t.Errorf("%d segments before the age is reached", l.Segments())
	}
	mustAppend(t, l, at(time.Minute+time.Millisecond))
	if l.Segments() != 2 {
		t.Errorf("%d segments after the age is reached", l.Segments())
	}
	cfg.SegmentAge = time.Hour
	cfg.IndexInterval, cfg.SegmentIndexBytes = 0, 16
	if err := l.SetConfig(cfg); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		mustAppend(t, l, at(time.Minute))
	}
	if l.Segments() < 3 {
		t.Errorf("%d segments with an index of two entries", l.Segments())
	}
	cfg.SegmentBytes = 0
	if err := l.SetConfig(cfg); err == nil {
		t.Error("segment.bytes 0 is accepted")
	}
}

// TestConcurrentUse appends, syncs, reads and deletes at once. Readers check what
// they get; the race detector checks the rest.
func TestConcurrentUse(t *testing.T) {
	cfg := smallConfig()
	cfg.RetentionBytes = 20_000
	l := mustOpen(t, vfs.NewMem(), cfg)
	batches := 3000
	if testing.Short() {
		batches = 500
	}
	done := make(chan struct{})
	var group sync.WaitGroup
	group.Go(func() {
		defer close(done)
		for i := range batches {
			mustAppend(t, l, batchOf(1+i%3, 50, fmt.Sprint(i)))
		}
	})
	background := func(f func() error) {
		group.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if err := f(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	background(l.Sync)
	background(func() error {
		_, err := l.ApplyRetention(epochStart, l.SyncedOffset())
		return err
	})
	background(func() error {
		_, _, _, err := l.OffsetForTimestamp(epochStart.UnixMilli())
		return err
	})
	for range 2 {
		offset := int64(0)
		buffer := []byte(nil)
		background(func() error {
			b, err := l.Read(buffer[:0], offset, l.EndOffset(), 5000, true)
			if errors.Is(err, ErrOffsetOutOfRange) {
				offset = l.StartOffset()
				return nil
			}
			if err != nil {
				return err
			}
			for rest := b; len(rest) > 0; {
				var batch record.Batch
				if batch, rest, err = record.Parse(rest); err != nil || batch.Validate() != nil || batch.NextOffset() <= offset {
					return fmt.Errorf("read at %d: %v", offset, err)
				}
				offset = batch.NextOffset()
			}
			return nil
		})
	}
	group.Wait()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestSlice(t *testing.T) {
	l := mustOpen(t, vfs.NewMem(), smallConfig())
	for i := range 30 {
		mustAppend(t, l, batchOf(1, 100, fmt.Sprint(i)))
	}
	slice, err := l.Slice(3, 9, 1<<20, true)
	if err != nil {
		t.Fatal(err)
	}
	want, err := l.Read(nil, 3, 9, 1<<20, true)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, slice.Size)
	if err := readFull(slice.File, got, slice.Position); err != nil || !bytes.Equal(got, want) {
		t.Errorf("slice differs from read: %v", err)
	}
	slice.Release()
	if slice, err := l.Slice(30, 30, 100, true); err != nil || slice.Size != 0 || slice.File != nil {
		t.Errorf("slice at the end: %+v, %v", slice, err)
	}
}

// TestAppendsDoNotWaitForSyncs holds every sync, the first one of a new log
// included, and appends meanwhile.
func TestAppendsDoNotWaitForSyncs(t *testing.T) {
	disk := newFaultyDisk()
	d := mustOpenDirectory(t, disk)
	l := mustLog(t, d, "topic", 0, 1)
	for round := range 2 {
		reached, release := make(chan struct{}), make(chan struct{})
		var once sync.Once
		disk.fail = func(o vfs.Operation) error {
			if o.Kind == vfs.KindSync || o.Kind == vfs.KindSyncDir {
				once.Do(func() {
					close(reached)
					<-release
				})
			}
			return nil
		}
		mustAppend(t, l, batchOf(1, 10, "first"))
		synced := make(chan error)
		go func() { synced <- l.Sync() }()
		<-reached
		mustAppend(t, l, batchOf(1, 10, "while it syncs"))
		if b, err := l.Read(nil, l.EndOffset()-1, l.EndOffset(), 1000, true); err != nil || len(b) == 0 {
			t.Errorf("round %d: read while it syncs: %v", round, err)
		}
		close(release)
		if err := <-synced; err != nil || l.SyncedOffset() <= int64(2*round) {
			t.Errorf("round %d: synced to %d, %v", round, l.SyncedOffset(), err)
		}
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}
