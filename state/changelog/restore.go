package changelog

import (
	"fmt"
	"time"

	"github.com/leatlog/leat/state"
)

// Record is a record of a changelog. A nil Value is a tombstone. The slices are
// copied.
type Record struct {
	Offset     int64
	Timestamp  int64 // ms since the epoch
	Key, Value []byte
}

// Bounds are the ends of a changelog partition.
type Bounds struct {
	// Start is the first offset there is, End the one after the last committed.
	Start, End int64
}

// Reason says where a restore began.
type Reason string

// The reasons.
const (
	// FromCheckpoint: the engine's position is in the changelog; the rest is replayed.
	FromCheckpoint Reason = "from its checkpoint"
	// NoCheckpoint: the engine has no position.
	NoCheckpoint Reason = "from the beginning: the store has no checkpoint"
	// BeforeStart: the changelog no longer holds what follows the position. Deleted
	// keys may be among it, so the engine was cleared.
	BeforeStart Reason = "from the beginning: the changelog no longer holds what follows the checkpoint"
	// AfterEnd: the changelog is not the one that the position is in: it was deleted
	// and made again, or has lost records. The engine was cleared.
	AfterEnd Reason = "from the beginning: the checkpoint is past the end of the changelog"
)

// loadBytes is how much is collected before it goes to the engine.
const loadBytes = 256 << 10

// Restorer replays a changelog into an engine. The owner fetches from Next until
// Done and calls Add, then Finish. Not safe for concurrent use.
type Restorer struct {
	spec   state.Spec
	engine state.Engine
	reason Reason

	from, next, end int64
	epoch           int32
	records         int64
	bytes           int64
	expired         int64

	newest int64 // highest timestamp of a record
	batch  state.Batch
	key    []byte
}

// NewRestorer decides where to begin. It clears the engine when its position is
// not in the changelog.
func NewRestorer(spec state.Spec, engine state.Engine, bounds Bounds) (*Restorer, error) {
	if bounds.Start < 0 || bounds.End < bounds.Start {
		return nil, fmt.Errorf("changelog: restore store %q: the changelog's offsets are %d to %d", spec.Name, bounds.Start, bounds.End)
	}
	r := &Restorer{spec: spec, engine: engine, end: bounds.End, epoch: -1, newest: -1}
	position, found := engine.Position()
	switch {
	case !found:
		r.reason = NoCheckpoint
	case position.Offset < bounds.Start:
		r.reason = BeforeStart
	case position.Offset > bounds.End:
		r.reason = AfterEnd
	default:
		r.reason, r.next, r.epoch = FromCheckpoint, position.Offset, position.LeaderEpoch
	}
	if r.reason != FromCheckpoint {
		r.next = bounds.Start
		// Without a position there may still be contents, of an engine that was in use
		// and never got to a checkpoint.
		if found || engine.Size() > 0 {
			if err := engine.Clear(); err != nil {
				return nil, fmt.Errorf("changelog: restore store %q: clear it: %w", spec.Name, err)
			}
		}
	}
	r.from = r.next
	return r, nil
}

// Reason says where the restore began and why.
func (r *Restorer) Reason() Reason { return r.reason }

// Next is the offset to fetch next.
func (r *Restorer) Next() int64 { return r.next }

// Done is true when all before the end was added. Finish is still to be called.
func (r *Restorer) Done() bool { return r.next >= r.end }

// Extend moves the end, for a changelog that has grown: how a standby follows.
func (r *Restorer) Extend(end int64) { r.end = max(r.end, end) }

// Add replays records, which must be committed and in order of their offsets.
// Those before Next and from the end on are left out. next is the offset that
// follows what was fetched, and epoch its leader epoch (-1 when not known): the
// end of a changelog may hold transaction markers or have been compacted, so
// that no record leads there.
func (r *Restorer) Add(records []Record, next int64, epoch int32) error {
	for i := range records {
		record := &records[i]
		if record.Offset < r.next || record.Offset >= r.end {
			continue
		}
		if err := r.add(record); err != nil {
			return err
		}
		r.next = record.Offset + 1
	}
	r.next = max(r.next, min(next, r.end))
	r.epoch = max(r.epoch, epoch)
	if r.batch.Bytes() >= loadBytes {
		return r.load()
	}
	return nil
}

func (r *Restorer) add(record *Record) error {
	var ok bool
	if r.key, ok = state.StoreKey(r.key[:0], r.spec.Kind, record.Key); !ok {
		return fmt.Errorf("%w: store %q, offset %d: key %x is too short for a %v store: check that nothing else writes to the topic",
			ErrChangelog, r.spec.Name, record.Offset, record.Key, r.spec.Kind)
	}
	r.records++
	r.bytes += int64(len(record.Key) + len(record.Value))
	r.newest = max(r.newest, record.Timestamp)
	if r.spec.Kind.Expires() {
		// A row before time zero is no window: operators keep notes of their own there. The
		// keys of window and of session stores lead with the time that counts.
		if start, _, _ := state.SplitWindowKey(r.key); start >= 0 && start < r.expiry() {
			r.expired++
			return nil
		}
	}
	if record.Value == nil {
		r.batch.Delete(r.key)
	} else {
		r.batch.Put(r.key, record.Value)
	}
	return nil
}

// expiry is the start, of sessions the end, before which windows are past their retention, by the
// newest record of the changelog, which stream time is not behind.
func (r *Restorer) expiry() int64 {
	return max(0, r.newest-r.spec.Retention.Milliseconds())
}

func (r *Restorer) load() error {
	if r.batch.Len() == 0 {
		return nil
	}
	if err := r.engine.Load(&r.batch); err != nil {
		return fmt.Errorf("changelog: restore store %q at offset %d: %w", r.spec.Name, r.next, err)
	}
	r.batch.Reset()
	return nil
}

// Finish makes the restored state readable and durable, with a checkpoint at
// Next. A standby calls it now and then and goes on.
func (r *Restorer) Finish() error {
	if err := r.load(); err != nil {
		return err
	}
	if bound := r.expiry(); r.spec.Kind.Expires() && bound > 0 {
		r.batch.DeleteBefore(state.WindowKey(nil, bound, nil))
		if err := r.load(); err != nil {
			return err
		}
	}
	if err := r.engine.Checkpoint(state.Position{Offset: r.next, LeaderEpoch: r.epoch}); err != nil {
		return fmt.Errorf("changelog: restore store %q: checkpoint at offset %d: %w", r.spec.Name, r.next, err)
	}
	return nil
}

// Progress is how far a restore is.
type Progress struct {
	// From, Next and End are changelog offsets: where it began, where it is, and where
	// it ends.
	From, Next, End int64
	// Records and Bytes were replayed; Expired of the records were windows past their
	// retention and were left out.
	Records, Bytes, Expired int64
}

// Progress returns how far the restore is.
func (r *Restorer) Progress() Progress {
	return Progress{From: r.from, Next: r.next, End: r.end, Records: r.records, Bytes: r.bytes, Expired: r.expired}
}

// Done returns the part that is restored, from 0 to 1.
func (p Progress) Done() float64 {
	if p.End <= p.From {
		return 1
	}
	return float64(p.Next-p.From) / float64(p.End-p.From)
}

// Rate returns the records per second, and the time that is left at this rate,
// when the restore has run for elapsed. Both are 0 when elapsed is.
func (p Progress) Rate(elapsed time.Duration) (recordsPerSecond float64, left time.Duration) {
	if elapsed <= 0 || p.Next <= p.From {
		return 0, 0
	}
	offsets := float64(p.Next-p.From) / elapsed.Seconds()
	return float64(p.Records) / elapsed.Seconds(), time.Duration(float64(p.End-p.Next) / offsets * float64(time.Second))
}
