package storage

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/leatlog/leat/broker/internal/record"
	"github.com/leatlog/leat/broker/internal/vfs"
)

// modelBatch is a batch as it must be found at its place.
type modelBatch struct {
	base, next int64
	epoch      int32
	bytes      []byte
}

// crashRun drives a log through a workload and, before each operation that
// changes the disk, checks what a crash at that moment would leave.
type crashRun struct {
	t      *testing.T
	random *rand.Rand
	disk   *vfs.Mem
	fs     *vfs.Faulty
	log    *Log
	cfg    Config
	now    time.Time
	epoch  int32

	batches []modelBatch // what is or may be in the log, in order
	acked   int64        // below it, everything must survive
	start   int64        // a recovered log starts here or below ...
	// ... or, while an operation moves the start, up to here; while one removes the
	// newest batches, nothing above cut has to survive.
	startUpTo int64

	step       int
	operations int
	clones     int
	checking   bool
}

// all is the random source with which everything survives a crash, as when the
// process alone is killed.
type all struct{}

func (all) Uint64() uint64 { return 0 }

func (r *crashRun) before(o vfs.Operation) error {
	if !o.Mutates() || r.checking {
		return nil
	}
	r.operations++
	r.checking = true
	defer func() { r.checking = false }()
	for seed := range 4 {
		var random *rand.Rand
		switch seed {
		case 0: // all that was not synced is lost
		case 1:
			random = rand.New(all{})
		default:
			random = rand.New(rand.NewPCG(uint64(r.operations), uint64(seed)))
		}
		r.clones++
		if err := r.check(r.disk.Crash(random)); err != nil {
			r.t.Fatalf("step %d, crash before operation %d (%s of %s), loss %d: %v", r.step, r.operations, o.Kind, o.Path, seed, err)
		}
	}
	return nil
}

// check opens what a crash left and holds it against the model (I1 and I2).
func (r *crashRun) check(disk *vfs.Mem) error {
	env := testEnv(disk)
	env.Now = func() time.Time { return r.now }
	l, err := Open(env, testDir, r.cfg)
	if err != nil {
		return err
	}
	if err := l.Damaged(); err != nil {
		return err
	}
	start, end := l.StartOffset(), l.EndOffset()
	if end < r.acked {
		return fmt.Errorf("log ends at %d, acknowledged up to %d", end, r.acked)
	}
	if l.SyncedOffset() != end {
		return fmt.Errorf("synced to %d of %d after recovery", l.SyncedOffset(), end)
	}
	if start > r.startUpTo && end > start {
		return fmt.Errorf("log starts at %d, at most at %d", start, r.startUpTo)
	}
	if err := r.compare(l, start, end); err != nil {
		return err
	}
	// What was recovered survives the next crash, and the log goes on.
	b := record.Batch(batchOf(2, 30, "after"))
	b.SetBaseOffset(end)
	b.SetLeaderEpoch(r.epoch)
	if err := l.AppendFollower(b); err != nil {
		return fmt.Errorf("append after recovery: %w", err)
	}
	again, err := Open(env2(disk.Crash(nil), r), testDir, r.cfg)
	if err != nil {
		return err
	}
	if again.Damaged() != nil || again.EndOffset() < end || again.StartOffset() != start {
		return fmt.Errorf("second recovery: %d to %d after %d to %d, %v", again.StartOffset(), again.EndOffset(), start, end, again.Damaged())
	}
	if err := l.Sync(); err != nil {
		return err
	}
	again, err = Open(env2(disk.Crash(nil), r), testDir, r.cfg)
	if err != nil || again.EndOffset() != end+2 {
		return fmt.Errorf("after another append: ends at %d, want %d, %v", again.EndOffset(), end+2, err)
	}
	return nil
}

func env2(disk *vfs.Mem, r *crashRun) Env {
	env := testEnv(disk)
	env.Now = func() time.Time { return r.now }
	return env
}

// compare reads the log and compares it with the model.
func (r *crashRun) compare(l *Log, start, end int64) error {
	if start == end {
		return nil
	}
	epoch := int32(-1)
	covered := start
	for _, b := range r.batches {
		if b.next <= start || b.base >= end {
			continue
		}
		if b.next > end {
			return fmt.Errorf("log ends at %d within the batch of %d to %d", end, b.base, b.next)
		}
		got, err := l.Read(nil, max(b.base, start), b.next, len(b.bytes), false)
		if err != nil {
			return fmt.Errorf("batch of %d to %d: %w", b.base, b.next, err)
		}
		if !bytes.Equal(got, b.bytes) {
			return fmt.Errorf("batch of %d to %d has other bytes", b.base, b.next)
		}
		if b.epoch < epoch {
			return fmt.Errorf("epoch %d after %d", b.epoch, epoch)
		}
		if known := l.EpochAt(max(b.base, start)); known != b.epoch {
			return fmt.Errorf("batch of %d to %d: epoch %d, want %d", b.base, b.next, known, b.epoch)
		}
		epoch = b.epoch
		covered = b.next
	}
	if covered != max(end, start) {
		return fmt.Errorf("the log ends at %d, the model has batches up to %d", end, covered)
	}
	return r.compareProducers(l, start, end)
}

// compareProducers holds the producers against those that the batches make.
func (r *crashRun) compareProducers(l *Log, start, end int64) error {
	var want producers
	for _, b := range r.batches {
		if b.next > end {
			break
		}
		if _, _, err := want.replay(record.Batch(b.bytes)); err != nil {
			return err
		}
	}
	for _, p := range l.Producers() {
		w := want.byID[p.ID]
		if w == nil || w.lastSequence() != p.LastSequence || w.epoch != p.Epoch {
			return fmt.Errorf("producer %+v, want %+v (log %d to %d)", p, w, start, end)
		}
		delete(want.byID, p.ID)
	}
	for _, p := range want.byID {
		// One whose batches were deleted may be forgotten.
		if p.batches[p.count-1].lastOffset >= start {
			return fmt.Errorf("producer %d with offset %d is forgotten (log %d to %d)", p.id, p.batches[p.count-1].lastOffset, start, end)
		}
	}
	return nil
}

func (r *crashRun) open() {
	env := testEnv(r.fs)
	env.Now = func() time.Time { return r.now }
	env.Files = NewFileCache(r.random.IntN(6))
	l, err := Open(env, testDir, r.cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	r.log = l
}

func (r *crashRun) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatalf("step %d: %v", r.step, err)
	}
}

func (r *crashRun) append() {
	producer := int64(r.random.IntN(3)) - 1
	var b record.Batch
	if producer >= 0 {
		sequence := int32(0)
		for _, p := range r.log.Producers() {
			if p.ID == producer {
				sequence = p.LastSequence + 1
			}
		}
		b = idempotentBatch(producer, 0, sequence, 1+r.random.IntN(3))
	} else {
		size := 20 + r.random.IntN(300)
		if r.random.IntN(10) == 0 {
			size = 9000 // spans blocks
		}
		b = batchOf(1+r.random.IntN(3), size, strconv.Itoa(r.step))
	}
	b.SetBaseOffset(r.log.EndOffset())
	b.SetLeaderEpoch(r.epoch)
	r.batches = append(r.batches, modelBatch{b.BaseOffset(), b.NextOffset(), r.epoch, slices.Clone(b)})
	_, err := r.log.Append(b, r.epoch)
	r.must(err)
}

func (r *crashRun) sync() {
	end := r.log.EndOffset()
	r.must(r.log.Sync())
	r.acked = max(r.acked, end)
}

func (r *crashRun) truncate() {
	start, end := r.log.StartOffset(), r.log.EndOffset()
	to := end - r.random.Int64N(min(end-start, 12)+1)
	if r.random.IntN(4) == 0 {
		to = start + r.random.Int64N(end-start+1)
	}
	// Lands on the boundary before.
	bound := start
	for _, b := range r.batches {
		if b.next <= to {
			bound = max(bound, b.next)
		}
	}
	r.acked = min(r.acked, bound)
	r.must(r.log.TruncateTo(to))
	if r.log.EndOffset() != bound && bound > start {
		r.t.Fatalf("step %d: truncated to %d, ends at %d, want %d", r.step, to, r.log.EndOffset(), bound)
	}
	r.batches = slices.DeleteFunc(r.batches, func(b modelBatch) bool { return b.next > r.log.EndOffset() })
	r.acked = r.log.SyncedOffset()
	r.epoch++
}

func (r *crashRun) advanceStart() {
	to := r.log.StartOffset() + r.random.Int64N(r.log.EndOffset()-r.log.StartOffset()+1)
	r.startUpTo = to
	r.must(r.log.AdvanceStart(to))
	r.settleStart()
}

func (r *crashRun) retention() {
	cfg := r.cfg
	cfg.RetentionBytes = 8000
	r.must(r.log.SetConfig(cfg))
	r.startUpTo = r.log.SyncedOffset()
	_, err := r.log.ApplyRetention(r.now, r.log.SyncedOffset())
	r.must(err)
	r.must(r.log.SetConfig(r.cfg))
	r.settleStart()
}

func (r *crashRun) settleStart() {
	r.start = r.log.StartOffset()
	r.startUpTo = r.start
	r.acked = max(r.acked, r.log.SyncedOffset())
}

func (r *crashRun) reset() {
	to := r.log.EndOffset() + int64(r.random.IntN(50))
	if r.random.IntN(2) == 0 {
		to = r.log.StartOffset() / 2
	}
	r.acked, r.startUpTo = 0, max(to, r.start)
	r.must(r.log.ResetTo(to))
	r.batches = nil
	r.acked = to
	r.settleStart()
}

func (r *crashRun) run(steps int) {
	r.disk = vfs.NewMem()
	r.fs = vfs.NewFaulty(r.disk, r.before)
	r.now = epochStart
	r.open()
	for r.step = range steps {
		r.now = r.now.Add(time.Second)
		switch n := r.random.IntN(100); {
		case n < 60:
			r.append()
		case n < 85:
			r.sync()
		case n < 88:
			r.truncate()
		case n < 91:
			r.advanceStart()
		case n < 94:
			r.retention()
		case n < 95:
			r.reset()
		case n < 96:
			// The process is killed: the page cache survives, and with it all writes.
			// What is found counts as durable from then on.
			end := r.log.EndOffset()
			r.log.abandon()
			r.open()
			if r.log.EndOffset() != end {
				r.t.Fatalf("step %d: ends at %d after a kill, was %d", r.step, r.log.EndOffset(), end)
			}
			r.acked = end
		case n < 98:
			end := r.log.EndOffset()
			r.must(r.log.Close())
			r.acked = max(r.acked, end)
			r.open()
		default:
			r.epoch++
		}
		if r.log.SyncedOffset() > r.acked {
			r.acked = r.log.SyncedOffset() // a roll syncs
		}
		if err := r.compare(r.log, r.log.StartOffset(), r.log.EndOffset()); err != nil {
			r.t.Fatalf("step %d: %v", r.step, err)
		}
	}
	r.sync()
	r.must(r.log.Close())
	r.must(r.check(r.disk.Crash(nil)))
}

// TestCrashAtEveryOperation takes, before each operation of a workload that
// changes the disk, clones of what a crash then would leave: everything unsynced
// lost, nothing lost, and random subsets. LEAT_CRASH_SEEDS runs more workloads.
func TestCrashAtEveryOperation(t *testing.T) {
	seeds, steps := uint64(3), 150
	if testing.Short() {
		seeds, steps = 2, 80
	}
	if more, err := strconv.ParseUint(os.Getenv("LEAT_CRASH_SEEDS"), 10, 32); err == nil {
		seeds = more
	}
	for seed := range seeds {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			r := &crashRun{t: t, random: rand.New(rand.NewPCG(seed, 1)), cfg: smallConfig()}
			r.run(steps)
			t.Logf("%d operations, %d crashes", r.operations, r.clones)
		})
	}
}

func newAll() *rand.Rand { return rand.New(all{}) }

// A new log that loses power again and again before its first sync opens each time, and
// keeps what was synced once it was. One whose topic id was lost, though it had noted how
// far it was durable, namely not at all, could not be opened any more.
func TestNewLogOutlivesPowerCuts(t *testing.T) {
	for seed := range uint64(3000) {
		random := rand.New(rand.NewPCG(seed, 0))
		disk := vfs.NewMem()
		synced := int64(0)
		for life := range 5 {
			d := mustOpenDirectory(t, disk)
			l, err := d.Log(LogID{Topic: "orders", TopicID: [16]byte{1}}, smallConfig())
			if err != nil {
				t.Fatalf("seed %d, life %d: %v", seed, life, err)
			}
			if l.EndOffset() < synced || l.Damaged() != nil {
				t.Fatalf("seed %d, life %d: it ends at %d, %d was synced; %v", seed, life, l.EndOffset(), synced, l.Damaged())
			}
			for range random.IntN(3) {
				switch random.IntN(7) {
				case 5:
					synced = min(synced, random.Int64N(l.EndOffset()-l.StartOffset()+1)+l.StartOffset())
					if err := l.TruncateTo(max(synced, l.StartOffset())); err != nil {
						t.Fatal(err)
					}
				case 6:
					synced = 0
					if err := l.ResetTo(random.Int64N(5)); err != nil {
						t.Fatal(err)
					}
				case 0:
					if err := l.Sync(); err != nil {
						t.Fatal(err)
					}
					synced = l.EndOffset()
				case 1:
					l.AssignEpoch(l.LatestEpoch() + 1)
				default:
					mustAppend(t, l, batchOf(1, 100, "x"))
				}
			}
			switch random.IntN(4) {
			case 0:
				disk = disk.Kill()
			case 1:
				if err := d.Close(); err != nil {
					t.Fatal(err)
				}
				synced = l.EndOffset()
				fallthrough
			default:
				disk = disk.Crash(random)
			}
		}
	}
}
