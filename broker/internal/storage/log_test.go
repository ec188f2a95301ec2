package storage

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/leatlog/leat/broker/internal/record"
	"github.com/leatlog/leat/broker/internal/vfs"
)

const testDir = "data/topic-0"

// epochStart is the time at which tests begin, and of the records in them.
var epochStart = time.UnixMilli(1_700_000_000_000)

func testEnv(fs vfs.FS) Env {
	return Env{FS: fs, Now: func() time.Time { return epochStart }, Logger: zerolog.Nop()}
}

// smallConfig has limits that a few small batches reach.
func smallConfig() Config {
	cfg := DefaultConfig()
	cfg.SegmentBytes = 4096
	cfg.IndexInterval = 256
	cfg.MaxBatchBytes = 1 << 20
	cfg.RetentionAge = -1
	return cfg
}

func mustOpen(t testing.TB, fs vfs.FS, cfg Config) *Log {
	t.Helper()
	l, err := Open(testEnv(fs), testDir, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// batchOf builds a batch whose records say what they are.
func batchOf(records, valueSize int, tag string) []byte {
	b := record.NewBuilder(record.CodecNone)
	for i := range records {
		value := bytes.Repeat([]byte(tag+" "), valueSize/(len(tag)+1)+1)[:valueSize]
		b.Append(epochStart.UnixMilli()+int64(i), fmt.Appendf(nil, "%s-%d", tag, i), value, nil)
	}
	return b.Build(nil)
}

func idempotentBatch(id int64, epoch int16, sequence int32, records int) []byte {
	b := record.NewBuilder(record.CodecNone)
	b.SetProducer(id, epoch, sequence)
	for range records {
		b.Append(epochStart.UnixMilli(), nil, []byte("value"), nil)
	}
	return b.Build(nil)
}

func mustAppend(t testing.TB, l *Log, batches []byte) AppendInfo {
	t.Helper()
	info, err := l.Append(batches, max(l.LatestEpoch(), 0))
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// readAll returns all bytes from start to end, checking that offsets follow.
func readAll(t testing.TB, l *Log) []byte {
	t.Helper()
	all, err := readRange(l, l.StartOffset(), l.EndOffset())
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func readRange(l *Log, from, to int64) ([]byte, error) {
	var all []byte
	for next := from; next < to; {
		chunk, err := l.Read(nil, next, to, 1000, true)
		if err != nil {
			return nil, fmt.Errorf("read at %d of %d to %d: %w", next, from, to, err)
		}
		if len(chunk) == 0 {
			return nil, fmt.Errorf("nothing at offset %d of %d to %d", next, from, to)
		}
		for rest := chunk; len(rest) > 0; {
			var b record.Batch
			if b, rest, err = record.Parse(rest); err == nil {
				err = b.Validate()
			}
			if err != nil {
				return nil, fmt.Errorf("batch at %d: %w", next, err)
			}
			if b.BaseOffset() > next || b.NextOffset() <= next || next != from && b.BaseOffset() != next {
				return nil, fmt.Errorf("batch of %d to %d at offset %d", b.BaseOffset(), b.NextOffset(), next)
			}
			next = b.NextOffset()
		}
		all = append(all, chunk...)
	}
	return all, nil
}

func TestAppendReadReopen(t *testing.T) {
	fs := vfs.NewMem()
	l := mustOpen(t, fs, smallConfig())
	var want []byte
	for i := range 100 {
		b := batchOf(1+i%3, 50+i, fmt.Sprint("batch", i))
		info := mustAppend(t, l, b)
		if info.BaseOffset != l.EndOffset()-int64(1+i%3) || info.LastOffset != l.EndOffset()-1 || info.LogAppendTime != -1 {
			t.Fatalf("append %d: %+v, end %d", i, info, l.EndOffset())
		}
		want = append(want, b...)
	}
	if l.Segments() < 3 {
		t.Fatalf("%d segments", l.Segments())
	}
	if got := readAll(t, l); !bytes.Equal(got, want) {
		t.Fatal("read differs from what was appended")
	}
	if err := l.Sync(); err != nil || l.SyncedOffset() != l.EndOffset() {
		t.Fatalf("sync: %v, %d of %d", err, l.SyncedOffset(), l.EndOffset())
	}
	for round, reopen := range []func() vfs.FS{
		func() vfs.FS { return fs.Crash(nil) },
		func() vfs.FS {
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			return fs.Crash(nil)
		},
	} {
		again := mustOpen(t, reopen(), smallConfig())
		if err := again.Damaged(); err != nil {
			t.Fatal(err)
		}
		if got := readAll(t, again); !bytes.Equal(got, want) {
			t.Fatalf("round %d: read differs after reopening", round)
		}
	}
	if _, err := l.Append(batchOf(1, 1, "late"), 0); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}
