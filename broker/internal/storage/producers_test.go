package storage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/leatlog/leat/broker/internal/record"
)

// marker builds a batch that ends a transaction.
func marker(id int64, epoch int16, coordinatorEpoch int32, kind uint16) []byte {
	b := record.NewBuilder(record.CodecNone)
	b.SetControl()
	b.SetTransactional()
	b.SetProducer(id, epoch, record.NoSequence)
	key := binary.BigEndian.AppendUint16([]byte{0, 0}, kind)
	value := binary.BigEndian.AppendUint32([]byte{0, 0}, uint32(coordinatorEpoch))
	b.Append(epochStart.UnixMilli(), key, value, nil)
	return b.Build(nil)
}

// producerScript runs commands on the pure state as a log would.
type producerScript struct {
	state  producers
	offset int64
}

func (s *producerScript) append(b record.Batch) string {
	b.SetBaseOffset(s.offset)
	p, known := s.state.byID[b.ProducerID()]
	if known {
		if old, ok := p.duplicate(b); ok {
			return fmt.Sprintf("duplicate of offsets %d to %d\n", old.lastOffset-int64(old.offsetDelta), old.lastOffset)
		}
	} else {
		fresh := newProducer(b.ProducerID())
		p = &fresh
	}
	err := p.check(b)
	if m, ok, markerErr := parseMarker(b); b.IsControl() && ok && markerErr == nil {
		err = p.checkMarker(b, m)
	}
	if err != nil {
		for name, kind := range map[string]error{"OUT_OF_ORDER_SEQUENCE_NUMBER": ErrOutOfOrderSequence, "INVALID_PRODUCER_EPOCH": ErrInvalidProducerEpoch,
			"INVALID_TXN_STATE": ErrInvalidTxnState, "TRANSACTION_COORDINATOR_FENCED": ErrCoordinatorFenced} {
			if errors.Is(err, kind) {
				return name + "\n"
			}
		}
		return err.Error()
	}
	done, ended, err := s.state.replay(b)
	if err != nil {
		return err.Error()
	}
	out := fmt.Sprintf("offsets %d to %d\n", b.BaseOffset(), b.LastOffset())
	if ended {
		out += fmt.Sprintf("transaction from %d, aborted %v, last stable offset becomes %d\n", done.firstOffset, done.aborted, s.state.stableAfter(done))
	}
	s.offset = b.NextOffset()
	return out
}

func (s *producerScript) print() string {
	var out strings.Builder
	for _, p := range s.state.sorted() {
		fmt.Fprintf(&out, "producer %d epoch %d", p.id, p.epoch)
		for _, b := range p.batches[:p.count] {
			fmt.Fprintf(&out, " [%d-%d]@%d", b.firstSequence(), b.lastSequence, b.lastOffset)
		}
		if p.txnStart >= 0 {
			fmt.Fprintf(&out, " transaction from %d", p.txnStart)
		}
		out.WriteByte('\n')
	}
	return out.String()
}

func TestProducers(t *testing.T) {
	datadriven.RunTest(t, "testdata/producers", func(t *testing.T, d *datadriven.TestData) string {
		if d.Cmd != "run" {
			t.Fatalf("unknown command %s", d.Cmd)
		}
		s := &producerScript{}
		var out strings.Builder
		for line := range strings.Lines(d.Input) {
			var id, sequence, records, high int64
			var epoch, coordinator int32
			line = strings.TrimSpace(line)
			scan := func(format string, into ...any) bool {
				n, err := fmt.Sscanf(line, format, into...)
				return err == nil && n == len(into)
			}
			build := func(transactional bool) record.Batch {
				b := record.NewBuilder(record.CodecNone)
				b.SetProducer(id, int16(epoch), int32(sequence))
				if transactional {
					b.SetTransactional()
				}
				for range records {
					b.Append(epochStart.UnixMilli(), nil, nil, nil)
				}
				return b.Build(nil)
			}
			out.WriteString("> " + line + "\n")
			switch {
			case scan("batch id=%d epoch=%d sequence=%d records=%d", &id, &epoch, &sequence, &records):
				out.WriteString(s.append(build(false)))
			case scan("txn-batch id=%d epoch=%d sequence=%d records=%d", &id, &epoch, &sequence, &records):
				out.WriteString(s.append(build(true)))
			case scan("commit id=%d epoch=%d coordinator=%d", &id, &epoch, &coordinator):
				out.WriteString(s.append(marker(id, int16(epoch), coordinator, markerCommit)))
			case scan("abort id=%d epoch=%d coordinator=%d", &id, &epoch, &coordinator):
				out.WriteString(s.append(marker(id, int16(epoch), coordinator, markerAbort)))
			case scan("unstable high=%d", &high):
				first, ok := s.state.firstUnstable(high)
				fmt.Fprintf(&out, "%v %d\n", ok, map[bool]int64{true: first}[ok])
			case line == "snapshot":
				list, err := decodeSnapshot(encodeSnapshot(s.state.sorted()))
				if err != nil {
					t.Fatal(err)
				}
				s.state = producers{}
				for _, p := range list {
					s.state.set(p)
				}
			case scan("expire after=%d", &high):
				s.state.expire(epochStart.Add(time.Duration(high)*time.Second), time.Minute)
			case line == "print":
				out.WriteString(s.print())
			default:
				t.Fatalf("unknown line %q", line)
			}
		}
		return out.String()
	})
}

// TestIdempotence runs the same through a log, over a restart.
func TestIdempotence(t *testing.T) {
	disk := newFaultyDisk()
	l := mustOpen(t, disk, smallConfig())
	for i := range 8 {
		mustAppend(t, l, idempotentBatch(1, 0, int32(i*3), 3))
	}
	info, err := l.Append(idempotentBatch(1, 0, 15, 3), 0)
	if err != nil || !info.Duplicate || info.BaseOffset != 15 || info.LastOffset != 17 || l.EndOffset() != 24 {
		t.Fatalf("retry of the third last: %+v, %v, the log ends at %d", info, err, l.EndOffset())
	}
	if _, err := l.Append(idempotentBatch(1, 0, 6, 3), 0); !errors.Is(err, ErrOutOfOrderSequence) {
		t.Errorf("retry of the sixth last: %v", err)
	}
	// Several batches in one append are all taken or none.
	both := append(idempotentBatch(1, 0, 24, 1), idempotentBatch(1, 0, 26, 1)...)
	if _, err := l.Append(both, 0); !errors.Is(err, ErrOutOfOrderSequence) || l.EndOffset() != 24 {
		t.Errorf("two batches with a gap: %v, the log ends at %d", err, l.EndOffset())
	}
	mustAppend(t, l, append(idempotentBatch(1, 0, 24, 1), idempotentBatch(1, 0, 25, 1)...))
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = mustOpen(t, disk, smallConfig())
	if info, err := l.Append(idempotentBatch(1, 0, 25, 1), 0); err != nil || !info.Duplicate || info.BaseOffset != 25 {
		t.Errorf("retry after a restart: %+v, %v", info, err)
	}
	if _, err := l.Append(idempotentBatch(1, 0, 28, 1), 0); !errors.Is(err, ErrOutOfOrderSequence) {
		t.Errorf("gap after a restart: %v", err)
	}
	if err := l.TruncateTo(9); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, l, idempotentBatch(1, 0, 9, 3))
	if _, err := l.ApplyRetention(epochStart.Add(48*time.Hour), 0); err != nil || len(l.Producers()) != 0 {
		t.Errorf("idle producers: %+v, %v", l.Producers(), err)
	}
	mustAppend(t, l, idempotentBatch(1, 0, 77, 3))
}

func TestTransactions(t *testing.T) {
	cfg := smallConfig()
	cfg.SegmentBytes = 600
	disk := newFaultyDisk()
	l := mustOpen(t, disk, cfg)
	data := func(id int64, sequence int32) []byte {
		b := record.NewBuilder(record.CodecNone)
		b.SetTransactional()
		b.SetProducer(id, 0, sequence)
		b.Append(epochStart.UnixMilli(), nil, make([]byte, 100), nil)
		return b.Build(nil)
	}
	// Offsets 0-8: 1 aborts 0..4, 2 aborts 1..7, 3 commits 2..8.
	for _, b := range [][]byte{data(1, 0), data(2, 0), data(3, 0), data(2, 1), marker(1, 0, 0, markerAbort), data(3, 1), data(2, 2),
		marker(2, 0, 0, markerAbort), marker(3, 0, 0, markerCommit)} {
		mustAppend(t, l, b)
	}
	checkAborted := func(l *Log) {
		t.Helper()
		for _, c := range []struct {
			from, to int64
			want     string
		}{{0, 9, "[{1 0} {2 1}]"}, {0, 1, "[{1 0}]"}, {2, 4, "[{1 0} {2 1}]"}, {5, 9, "[{2 1}]"}, {8, 9, "[]"}} {
			got, err := l.AbortedTransactions(nil, c.from, c.to)
			if err != nil || fmt.Sprint(got) != c.want {
				t.Errorf("aborted in %d to %d: %v, want %s, %v", c.from, c.to, got, c.want, err)
			}
		}
	}
	checkAborted(l)
	if first, ok := l.FirstUnstableOffset(8); !ok || first != 2 {
		t.Errorf("first unstable offset with the last marker not replicated: %d, %v", first, ok)
	}
	if first, ok := l.FirstUnstableOffset(9); ok {
		t.Errorf("first unstable offset with all replicated: %d", first)
	}
	if err := l.Sync(); err != nil {
		t.Fatal(err)
	}
	checkAborted(mustOpen(t, disk.disk.Crash(nil), cfg))
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = mustOpen(t, disk, cfg)
	checkAborted(l)
	mustAppend(t, l, data(1, 1))
	if first, ok := l.FirstUnstableOffset(10); !ok || first != 9 {
		t.Errorf("first unstable offset of an open transaction: %d, %v", first, ok)
	}
	l.abandon()
	l = mustOpen(t, disk, cfg)
	if first, ok := l.FirstUnstableOffset(10); !ok || first != 9 {
		t.Errorf("after a restart: %d, %v", first, ok)
	}
	if _, err := l.Append(marker(1, 0, -5, markerCommit), 0); !errors.Is(err, ErrCoordinatorFenced) {
		t.Errorf("marker of an old coordinator: %v", err)
	}
	mustAppend(t, l, marker(1, 0, 1, markerCommit))
	if err := l.TruncateTo(10); err != nil {
		t.Fatal(err)
	}
	if first, ok := l.FirstUnstableOffset(10); !ok || first != 9 {
		t.Errorf("after the marker was truncated: %d, %v", first, ok)
	}
}
