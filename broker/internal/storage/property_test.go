package storage

import (
	"bytes"
	"errors"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/leatlog/leat/broker/internal/record"
	"github.com/leatlog/leat/broker/internal/vfs"
)

// modelLog is what a Log promises, as a list of batches.
type modelLog struct {
	batches []modelBatch
	start   int64
	end     int64
}

func (m *modelLog) read(offset, limit int64, maxBytes int, atLeastOne bool) []byte {
	var out []byte
	for _, b := range m.batches {
		if b.next <= offset {
			continue
		}
		if b.next > limit {
			break
		}
		if len(out)+len(b.bytes) > maxBytes && (len(out) > 0 || !atLeastOne) {
			break
		}
		out = append(out, b.bytes...)
	}
	return out
}

func (m *modelLog) timeOf(at int64) (offset, timestamp int64) {
	offset, timestamp = -1, -1
	for _, b := range m.batches {
		if err := record.Batch(b.bytes).Iterate(func(r *record.Record) error {
			if offset < 0 && r.Offset >= m.start && r.Timestamp >= at {
				offset, timestamp = r.Offset, r.Timestamp
			}
			return nil
		}); err != nil {
			panic(err)
		}
	}
	return offset, timestamp
}

// TestAgainstModel compares a log with a list, over random operations.
func TestAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		disk := vfs.NewMem()
		cfg := smallConfig()
		cfg.SegmentBytes = int64(rapid.IntRange(300, 4000).Draw(t, "segment bytes"))
		cfg.IndexInterval = rapid.IntRange(0, 1000).Draw(t, "index interval")
		cfg.TimestampAfterMax = -1
		env := testEnv(disk)
		env.Files = NewFileCache(rapid.IntRange(0, 5).Draw(t, "open files"))
		var m modelLog
		open := func() *Log {
			l, err := Open(env, testDir, cfg)
			if err != nil {
				t.Fatal(err)
			}
			return l
		}
		l := open()
		verifier := l.Verifier()
		epoch := int32(0)
		check := func(err error) {
			if err != nil {
				t.Fatal(err)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"append": func(t *rapid.T) {
				var appended []byte
				for range rapid.IntRange(1, 3).Draw(t, "batches") {
					b := record.NewBuilder(rapid.SampledFrom([]record.Codec{record.CodecNone, record.CodecSnappy}).Draw(t, "codec"))
					for range rapid.IntRange(1, 4).Draw(t, "records") {
						b.Append(epochStart.UnixMilli()+rapid.Int64Range(-1000, 1000).Draw(t, "time"), nil, rapid.SliceOfN(rapid.Byte(), 0, 400).Draw(t, "value"), nil)
					}
					batch := record.Batch(b.Build(nil))
					batch.SetBaseOffset(m.end)
					batch.SetLeaderEpoch(epoch)
					m.batches = append(m.batches, modelBatch{m.end, batch.NextOffset(), epoch, slices.Clone(batch)})
					m.end = batch.NextOffset()
					appended = append(appended, batch...)
				}
				if rapid.Bool().Draw(t, "as follower") {
					check(l.AppendFollower(appended))
				} else {
					_, err := l.Append(appended, epoch)
					check(err)
				}
			},
			"sync": func(*rapid.T) {
				check(l.Sync())
				if l.SyncedOffset() != m.end {
					t.Fatalf("synced to %d of %d", l.SyncedOffset(), m.end)
				}
			},
			"reopen": func(t *rapid.T) {
				if rapid.Bool().Draw(t, "kill") {
					l.abandon()
				} else {
					check(l.Close())
				}
				l = open()
				check(l.Damaged())
				verifier = l.Verifier()
			},
			"verify": func(t *rapid.T) {
				_, done, err := verifier.Step(rapid.Int64Range(1, 3000).Draw(t, "bytes"))
				check(err)
				if done {
					verifier = l.Verifier()
				}
			},
			"truncate": func(t *rapid.T) {
				to := rapid.Int64Range(m.start, m.end).Draw(t, "to")
				check(l.TruncateTo(to))
				m.batches = slices.DeleteFunc(m.batches, func(b modelBatch) bool { return b.next > to })
				m.end = m.start
				if n := len(m.batches); n > 0 {
					m.end = max(m.end, m.batches[n-1].next)
				}
				epoch++
			},
			"advance start": func(t *rapid.T) {
				m.start = rapid.Int64Range(m.start, m.end).Draw(t, "to")
				check(l.AdvanceStart(m.start))
			},
			"reset": func(t *rapid.T) {
				to := rapid.Int64Range(0, 2*m.end+5).Draw(t, "to")
				check(l.ResetTo(to))
				m = modelLog{start: to, end: to}
			},
			"read": func(t *rapid.T) {
				offset := rapid.Int64Range(m.start, m.end).Draw(t, "offset")
				limit := rapid.Int64Range(m.start, m.end+1).Draw(t, "limit")
				maxBytes := rapid.IntRange(0, 3000).Draw(t, "max bytes")
				one := rapid.Bool().Draw(t, "at least one")
				want := m.read(offset, min(limit, m.end), maxBytes, one)
				got, err := l.Read([]byte("dst"), offset, limit, maxBytes, one)
				check(err)
				// A read may stop early at the end of a segment, but not without progress.
				if got = got[3:]; !bytes.HasPrefix(want, got) || len(got) == 0 && len(want) > 0 {
					t.Fatalf("read at %d below %d, %d bytes: got %d bytes, want %d", offset, limit, maxBytes, len(got), len(want))
				}
			},
			"time": func(t *rapid.T) {
				at := epochStart.UnixMilli() + rapid.Int64Range(-1100, 1100).Draw(t, "time")
				wantOffset, wantTime := m.timeOf(at)
				offset, timestamp, _, err := l.OffsetForTimestamp(at)
				check(err)
				if offset != wantOffset || timestamp != wantTime {
					t.Fatalf("time %d: offset %d at %d, want %d at %d", at, offset, timestamp, wantOffset, wantTime)
				}
			},
			"": func(*rapid.T) {
				if l.StartOffset() != m.start || l.EndOffset() != m.end {
					t.Fatalf("log holds %d to %d, want %d to %d", l.StartOffset(), l.EndOffset(), m.start, m.end)
				}
				for _, outside := range []int64{m.start - 1, m.end + 1} {
					if _, err := l.Read(nil, outside, m.end, 10, true); !errors.Is(err, ErrOffsetOutOfRange) {
						t.Fatalf("read at %d: %v", outside, err)
					}
				}
			},
		})
	})
}

func TestRetentionByTimeAndSize(t *testing.T) {
	cfg := smallConfig()
	cfg.RetentionAge = time.Hour
	disk := vfs.NewMem()
	l := mustOpen(t, disk, cfg)
	cfg.TimestampAfterMax = -1
	if err := l.SetConfig(cfg); err != nil {
		t.Fatal(err)
	}
	for i := range 60 {
		b := record.NewBuilder(record.CodecNone)
		b.Append(epochStart.Add(time.Duration(i)*time.Minute).UnixMilli(), nil, make([]byte, 300), nil)
		mustAppend(t, l, b.Build(nil))
	}
	segments := l.Segments()
	apply := func(now time.Time, high int64) int {
		t.Helper()
		n, err := l.ApplyRetention(now, high)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := apply(epochStart.Add(time.Hour), l.EndOffset()); n != 0 {
		t.Errorf("%d segments removed although none is too old", n)
	}
	if n := apply(epochStart.Add(90*time.Minute), l.segments[1].base-1); n != 0 {
		t.Errorf("%d segments removed above the high watermark", n)
	}
	n := apply(epochStart.Add(90*time.Minute), l.EndOffset())
	if n == 0 || n >= segments || l.StartOffset() != l.segments[0].base || l.Segments() != segments-n {
		t.Errorf("%d of %d segments removed, the log starts at %d", n, segments, l.StartOffset())
	}
	if offset, at, _, err := l.OffsetForTimestamp(0); err != nil || offset != l.StartOffset() || at != epochStart.Add(time.Duration(offset)*time.Minute).UnixMilli() {
		t.Errorf("the first record is %d at %d, %v", offset, at, err)
	}
	cfg.RetentionBytes = 5000
	if err := l.SetConfig(cfg); err != nil {
		t.Fatal(err)
	}
	if n := apply(epochStart.Add(time.Hour), l.EndOffset()); n == 0 || l.Size() < 5000 || l.Size()-l.segments[0].size.Load() >= 5000 {
		t.Errorf("%d segments removed by size, %d bytes left", n, l.Size())
	}
	// All is too old: the active segment is rolled and goes as well.
	end := l.EndOffset()
	apply(epochStart.Add(24*time.Hour), end)
	if l.StartOffset() != end || l.EndOffset() != end || l.Size() != 0 {
		t.Errorf("the log holds %d to %d, want nothing from %d on", l.StartOffset(), l.EndOffset(), end)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if l = mustOpen(t, disk, cfg); l.StartOffset() != end || l.EndOffset() != end {
		t.Errorf("reopened it holds %d to %d, want nothing from %d on", l.StartOffset(), l.EndOffset(), end)
	}
	names, err := disk.List(testDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if base, ok := parseSegmentName(name, indexSuffix); ok && base < end {
			t.Errorf("%s is left", name)
		}
	}
}
