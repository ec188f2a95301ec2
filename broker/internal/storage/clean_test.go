package storage

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/leatlog/leat/broker/internal/record"
	"github.com/leatlog/leat/broker/internal/vfs"
)

// keyed is a record of the model.
type keyed struct {
	offset  int64
	key     string
	value   string
	null    bool // a tombstone
	aborted bool
}

// cleanRun appends random keys, tombstones and transactions to a compacted log and
// keeps all of them, as the log would without compaction.
type cleanRun struct {
	t       testing.TB
	random  *rand.Rand
	now     time.Time
	cfg     Config
	mem     *vfs.Mem
	log     *Log
	cleaner *Cleaner

	records   []keyed
	tombstone map[int64]time.Time // when each was appended
	sequence  map[int64]int32
	open      map[int64]int // index in records of the first of an open transaction, by producer
	batches   map[int64][]cleanBatch
}

type cleanBatch struct {
	sequence, count int32
	base            int64
}

func newCleanRun(t testing.TB, seed uint64, cleaner CleanerConfig) *cleanRun {
	cfg := smallConfig()
	cfg.Compact, cfg.Delete = true, false
	cfg.DeleteRetention = time.Minute
	cfg.MinCleanableRatio = 0.01
	cfg.TimestampAfterMax = -1
	return &cleanRun{t: t, random: rand.New(rand.NewPCG(seed, 77)), now: epochStart, cfg: cfg, mem: vfs.NewMem(), cleaner: NewCleaner(cleaner),
		tombstone: map[int64]time.Time{}, sequence: map[int64]int32{}, open: map[int64]int{}, batches: map[int64][]cleanBatch{}}
}

func (r *cleanRun) openLog(fs vfs.FS) *Log {
	r.t.Helper()
	env := testEnv(fs)
	env.Now = func() time.Time { return r.now }
	env.Files = NewFileCache(3)
	l, err := Open(env, testDir, r.cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	return l
}

// append writes one batch: plain, idempotent or of a transaction.
func (r *cleanRun) append() {
	producer := int64(r.random.IntN(5)) - 1
	b := record.NewBuilder(record.Codec(r.random.IntN(5)))
	count := 1 + r.random.IntN(4)
	if producer >= 0 {
		b.SetProducer(producer, 0, r.sequence[producer])
	}
	if producer >= 2 {
		b.SetTransactional()
		if _, open := r.open[producer]; !open {
			r.open[producer] = len(r.records)
		}
	}
	base := r.log.EndOffset()
	for i := range count {
		k := keyed{offset: base + int64(i), key: fmt.Sprintf("%d/%d", max(producer-1, 0), r.random.IntN(12)), value: fmt.Sprintf("%d at %d", producer, base+int64(i))}
		k.null = r.random.IntN(5) == 0
		value := []byte(k.value)
		if k.null {
			value, k.value = nil, ""
			r.tombstone[k.offset] = r.now
		}
		b.Append(r.now.UnixMilli(), []byte(k.key), value, nil)
		r.records = append(r.records, k)
	}
	info := mustAppend(r.t, r.log, b.Build(nil))
	if producer >= 0 {
		r.batches[producer] = append(r.batches[producer], cleanBatch{r.sequence[producer], int32(count), info.BaseOffset})
		r.sequence[producer] += int32(count)
	}
}

// end ends a transaction, if one is open.
func (r *cleanRun) end() {
	for id := int64(2); id < 4; id++ {
		from, open := r.open[id]
		if !open || r.random.IntN(2) == 0 {
			continue
		}
		kind := uint16(r.random.IntN(2))
		if kind == markerAbort {
			for i := from; i < len(r.records); i++ {
				if r.ofProducer(i, id) {
					r.records[i].aborted = true
				}
			}
		}
		mustAppend(r.t, r.log, marker(id, 0, 1, kind))
		delete(r.open, id)
	}
}

// ofProducer reports whether a record was written by a transactional producer,
// which has its own keys.
func (r *cleanRun) ofProducer(i int, id int64) bool {
	return r.records[i].key[0] == byte('0'+id-1)
}

func (r *cleanRun) lastStable(l *Log) int64 {
	if first, ok := l.FirstUnstableOffset(l.SyncedOffset()); ok {
		return first
	}
	return l.SyncedOffset()
}

// readCommitted reads all records as a read_committed consumer, by their offsets.
func readCommitted(l *Log, end int64) ([]keyed, error) {
	var out []keyed
	for next := l.StartOffset(); next < end; {
		chunk, err := l.Read(nil, next, end, 3000, true)
		if err != nil {
			return nil, err
		}
		if len(chunk) == 0 {
			break
		}
		// As in clients, of one response: each lists all transactions that it needs, and
		// a marker may go between two.
		aborted := map[int64]bool{}
		last := record.Batch(nil)
		for rest := chunk; len(rest) > 0; {
			var b record.Batch
			if b, rest, err = record.Parse(rest); err != nil {
				return nil, err
			}
			last = b
		}
		list, err := l.AbortedTransactions(nil, next, last.NextOffset())
		if err != nil {
			return nil, err
		}
		slices.SortFunc(list, func(a, b AbortedTxn) int { return int(a.FirstOffset - b.FirstOffset) })
		for rest := chunk; len(rest) > 0; {
			var b record.Batch
			b, rest, _ = record.Parse(rest)
			if err := b.Validate(); err != nil {
				return nil, err
			}
			if b.NextOffset() <= next {
				return nil, fmt.Errorf("batch of %d to %d at offset %d", b.BaseOffset(), b.LastOffset(), next)
			}
			next = b.NextOffset()
			for len(list) > 0 && list[0].FirstOffset <= b.LastOffset() {
				aborted[list[0].ProducerID] = true
				list = list[1:]
			}
			if b.IsControl() {
				if m, ok, err := parseMarker(b); err == nil && ok && !m.commit {
					delete(aborted, b.ProducerID())
				}
				continue
			}
			if b.IsTransactional() && aborted[b.ProducerID()] {
				continue
			}
			err := b.Iterate(func(rec *record.Record) error {
				out = append(out, keyed{offset: rec.Offset, key: string(rec.Key), value: string(rec.Value), null: rec.Value == nil})
				return nil
			})
			if err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// check holds what a consumer sees against the model: no record that was not
// written, none with another offset or value, none aborted, and the last of each key.
func (r *cleanRun) check(l *Log) error {
	end := r.lastStable(l)
	got, err := readCommitted(l, end)
	if err != nil {
		return err
	}
	written, newest := map[int64]keyed{}, map[string]keyed{}
	for _, k := range r.records {
		if k.offset < end && !k.aborted {
			written[k.offset] = k
			newest[k.key] = k
		}
	}
	seen := map[string]keyed{}
	for _, g := range got {
		if w, ok := written[g.offset]; !ok || w != g {
			return fmt.Errorf("read %+v, written %+v (%v)", g, w, ok)
		}
		seen[g.key] = g
	}
	for key, w := range newest {
		g, ok := seen[key]
		if !ok && w.null && r.now.Sub(r.tombstone[w.offset]) >= r.cfg.DeleteRetention {
			continue
		}
		if g != w {
			return fmt.Errorf("the last of %q is %+v (%v), want %+v", key, g, ok, w)
		}
	}
	return nil
}

func (r *cleanRun) fill(batches int) {
	for range batches {
		r.append()
		if r.random.IntN(3) == 0 {
			r.end()
		}
		if r.random.IntN(8) == 0 {
			r.now = r.now.Add(time.Duration(r.random.IntN(20)) * time.Second)
		}
	}
	if err := r.log.Sync(); err != nil {
		r.t.Fatal(err)
	}
}

func (r *cleanRun) clean() {
	if err := r.cleaner.Clean(r.log, r.now, r.lastStable(r.log)); err != nil {
		r.t.Fatal(err)
	}
}

// TestCompactionAgainstModel compacts random logs again and again, with maps that
// hold everything or little, while readers read, and over restarts.
func TestCompactionAgainstModel(t *testing.T) {
	for seed := range uint64(12) {
		r := newCleanRun(t, seed, CleanerConfig{DedupeBytes: []int64{0, 15 * offsetSlotBytes, 400}[seed%3]})
		r.log = r.openLog(r.mem)
		for round := range 6 {
			r.fill(60)
			stop := make(chan struct{})
			var readers sync.WaitGroup
			for range 2 {
				readers.Go(func() {
					for {
						select {
						case <-stop:
							return
						default:
						}
						if err := r.check(r.log); err != nil {
							t.Errorf("seed %d, round %d, while compacting: %v", seed, round, err)
							return
						}
					}
				})
			}
			readers.Go(func() {
				for verifier := r.log.Verifier(); ; {
					if _, done, err := verifier.Step(2000); err != nil {
						t.Errorf("seed %d, round %d, verified while compacting: %v", seed, round, err)
						return
					} else if !done {
						continue
					}
					select {
					case <-stop:
						return
					default:
						verifier = r.log.Verifier()
					}
				}
			})
			before := r.log.Size()
			r.clean()
			close(stop)
			readers.Wait()
			if r.log.Size() >= before && round > 0 {
				t.Fatalf("seed %d: %d bytes after compaction, %d before", seed, r.log.Size(), before)
			}
			if err := r.check(r.log); err != nil {
				t.Fatalf("seed %d, round %d: %v", seed, round, err)
			}
			if round%2 == 1 {
				if err := r.log.Close(); err != nil {
					t.Fatal(err)
				}
				r.log = r.openLog(r.mem)
				if err := r.check(r.log); err != nil {
					t.Fatalf("seed %d, round %d, after a restart: %v", seed, round, err)
				}
				for id, batches := range r.batches {
					r.retry(id, batches[max(len(batches)-rememberedBatches, 0):])
				}
			}
		}
		r.shrinks(t)
	}
}

// retry sends a producer's last batches again.
func (r *cleanRun) retry(id int64, batches []cleanBatch) {
	r.t.Helper()
	for _, old := range batches {
		b := record.NewBuilder(record.CodecNone)
		b.SetProducer(id, 0, old.sequence)
		for range old.count {
			b.Append(r.now.UnixMilli(), []byte("retried"), nil, nil)
		}
		if info, err := r.log.Append(b.Build(nil), 0); err != nil || !info.Duplicate || info.BaseOffset != old.base {
			r.t.Fatalf("retry of producer %d, %+v: %+v, %v", id, old, info, err)
		}
	}
}

// shrinks ends all transactions and makes sure that time alone takes tombstones and
// markers away, and leaves nothing that is not needed.
func (r *cleanRun) shrinks(t *testing.T) {
	for len(r.open) > 0 {
		r.end()
	}
	for range 3 {
		r.now = r.now.Add(2 * r.cfg.DeleteRetention)
		r.fill(40)
		for len(r.open) > 0 {
			r.end()
		}
		if err := r.log.Sync(); err != nil {
			t.Fatal(err)
		}
		r.clean()
	}
	if err := r.check(r.log); err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	err := readUpTo(r.log, r.log.cleanedTo, func(b record.Batch) error {
		if b.IsControl() || b.Count() == 0 {
			return nil
		}
		return b.Iterate(func(rec *record.Record) error {
			count[string(rec.Key)]++
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	for key, n := range count {
		if n > 1 {
			t.Errorf("%d records of %q below %d, up to which the log is compacted", n, key, r.log.cleanedTo)
		}
	}
}

func readUpTo(l *Log, end int64, visit func(record.Batch) error) error {
	for next := l.StartOffset(); next < end; {
		chunk, err := l.Read(nil, next, end, 3000, true)
		if err != nil || len(chunk) == 0 {
			return err
		}
		for rest := chunk; len(rest) > 0; {
			var b record.Batch
			if b, rest, err = record.Parse(rest); err != nil {
				return err
			}
			if err := visit(b); err != nil {
				return err
			}
			next = b.NextOffset()
		}
	}
	return nil
}

// TestCrashWhileCompacting crashes before every operation of compactions and
// restarts from what is left, with all, nothing and parts of it lost.
func TestCrashWhileCompacting(t *testing.T) {
	clones := 0
	for seed := range uint64(2) {
		r := newCleanRun(t, seed, CleanerConfig{DedupeBytes: 30 * offsetSlotBytes})
		var before func(vfs.Operation) error
		r.log = r.openLog(vfs.NewFaulty(r.mem, func(o vfs.Operation) error {
			if before == nil {
				return nil
			}
			return before(o)
		}))
		for range 2 {
			r.fill(80)
			operations := 0
			checking := false
			before = func(o vfs.Operation) error {
				if !o.Mutates() || checking {
					return nil
				}
				checking = true
				defer func() { checking = false }()
				operations++
				for loss := range 4 {
					var random *rand.Rand
					if loss == 1 {
						random = newAll()
					} else if loss > 1 {
						random = rand.New(rand.NewPCG(uint64(operations), uint64(loss)))
					}
					clones++
					disk := r.mem.Crash(random)
					l := r.openLog(disk)
					if err := l.Damaged(); err != nil {
						t.Fatalf("seed %d, before %s of %s, loss %d: %v", seed, o.Kind, o.Path, loss, err)
					}
					if l.EndOffset() != r.log.EndOffset() {
						t.Fatalf("seed %d, before %s of %s, loss %d: the log ends at %d, want %d", seed, o.Kind, o.Path, loss, l.EndOffset(), r.log.EndOffset())
					}
					if err := r.check(l); err != nil {
						t.Fatalf("seed %d, before %s of %s, loss %d: %v", seed, o.Kind, o.Path, loss, err)
					}
					// It can be compacted on, and names nothing that is left over.
					if err := NewCleaner(CleanerConfig{}).Clean(l, r.now, r.lastStable(l)); err != nil {
						t.Fatal(err)
					}
					if err := r.check(l); err != nil {
						t.Fatalf("seed %d, before %s of %s, loss %d, compacted again: %v", seed, o.Kind, o.Path, loss, err)
					}
					checkNames(t, disk)
				}
				return nil
			}
			r.clean()
			before = nil
		}
	}
	t.Logf("%d crashes", clones)
}

func checkNames(t *testing.T, disk *vfs.Mem) {
	t.Helper()
	names, err := disk.List(testDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, cleanedSuffix) || strings.HasSuffix(name, swapSuffix) {
			t.Fatalf("%s is left over", name)
		}
	}
}

// TestCompactionOnAFullDisk makes sure that a full disk leaves the log as it was.
func TestCompactionOnAFullDisk(t *testing.T) {
	r := newCleanRun(t, 5, CleanerConfig{})
	full := false
	r.log = r.openLog(vfs.NewFaulty(r.mem, func(o vfs.Operation) error {
		if full && o.Kind == vfs.KindWrite && strings.Contains(o.Path, cleanedSuffix) {
			return vfs.ErrNoSpace
		}
		return nil
	}))
	r.fill(100)
	size := r.log.Size()
	full = true
	if err := r.cleaner.Clean(r.log, r.now, r.lastStable(r.log)); !errors.Is(err, vfs.ErrNoSpace) {
		t.Fatal(err)
	}
	if r.log.Size() != size || r.log.Damaged() != nil {
		t.Fatalf("%d bytes, %d before, %v", r.log.Size(), size, r.log.Damaged())
	}
	checkNames(t, r.mem)
	full = false
	r.clean()
	if r.log.Size() >= size {
		t.Errorf("%d bytes after compaction, %d before", r.log.Size(), size)
	}
	if err := r.check(r.log); err != nil {
		t.Fatal(err)
	}
}
