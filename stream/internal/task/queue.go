package task

import (
	"math"
	"strconv"
	"strings"

	"github.com/leatlog/leat/topology/plan"
)

// queue holds the records of one source partition that wait to run: one chunk
// of the owner's memory at a time.
type queue struct {
	topic      string
	reads      bool
	records    []plan.Record // the owner's; untouched until the queue is empty
	at         int           // next to run
	next       int64         // offset after the chunk; -1 before Begin
	epoch      int32         // leader epoch of the chunk
	committed  int64
	caughtUp   bool  // the log holds no more than was added
	emptySince int64 // wall time at which it ran empty
	idle       int64 // ms that it may hold back others while empty
}

// position is the offset of the next record to run.
func (q *queue) position() int64 {
	if q.at < len(q.records) {
		return q.records[q.at].Offset
	}
	return q.next
}

func (q *queue) empty(now int64) {
	q.records, q.at, q.caughtUp, q.emptySince = nil, 0, false, now
}

// Needs says that the queue of a source is empty: Add may be called.
func (t *Task) Needs(source int) bool {
	q := &t.queues[source]
	return q.reads && q.at == len(q.records)
}

// Add hands over the next records of a source, in order. next is the offset
// after them, epoch the leader epoch of the last. The memory stays the owner's
// but must not change until Needs says true again. No records just move the
// position, over control records or others that are of no use.
func (t *Task) Add(source int, records []plan.Record, next int64, epoch int32) {
	q := &t.queues[source]
	q.caughtUp = false
	q.epoch = epoch
	if len(records) == 0 {
		if next > q.next {
			q.next = next
			t.dirty = true
		}
		return
	}
	q.records, q.at, q.next = records, 0, next
}

// CaughtUp says that the log of a source had no more than what was added, so
// that the queue does not hold back others while it is empty.
func (t *Task) CaughtUp(source int) { t.queues[source].caughtUp = true }

// choose returns the queue with the lowest timestamp at its head; -1 when there
// is none, or when an empty queue may still bring a lower one.
func (t *Task) choose() int {
	best, holds := -1, false
	lowest := int64(math.MaxInt64)
	for i := range t.queues {
		q := &t.queues[i]
		if !q.reads {
			continue
		}
		if q.at == len(q.records) {
			holds = holds || t.holdsBack(q)
			continue
		}
		if ts := q.records[q.at].Timestamp; best < 0 || ts < lowest {
			best, lowest = i, ts
		}
	}
	if holds {
		return -1
	}
	return best
}

// holdsBack says whether an empty queue makes the others wait.
func (t *Task) holdsBack(q *queue) bool {
	return !q.caughtUp && len(t.queues) > 1 && t.cfg.WallTime()-q.emptySince < q.idle
}

// WaitsUntil returns the wall time (ms) at which Process will go on without the
// queues that hold it back; false when nothing waits for that.
func (t *Task) WaitsUntil() (int64, bool) {
	until, waiting := int64(0), false
	for i := range t.queues {
		q := &t.queues[i]
		switch {
		case !q.reads:
		case q.at < len(q.records):
			waiting = true
		case t.holdsBack(q):
			until = max(until, q.emptySince+q.idle)
		}
	}
	return until, waiting && until > 0
}

// runLength is how many records of queue i may run before another queue's head
// is lower, at most limit.
func (t *Task) runLength(i, limit int) int {
	q := &t.queues[i]
	bound := int64(math.MaxInt64)
	for j := range t.queues {
		if o := &t.queues[j]; j != i && o.at < len(o.records) {
			bound = min(bound, o.records[o.at].Timestamp)
		}
	}
	limit = min(limit, len(q.records)-q.at)
	if bound == math.MaxInt64 {
		return limit
	}
	n := 1
	for n < limit && q.records[q.at+n].Timestamp <= bound {
		n++
	}
	return n
}

// Offset is what to commit for a source.
type Offset struct {
	// Topic is the source's topic, by its full name.
	Topic string
	// Offset is the next record to process; LeaderEpoch that of the one before, -1
	// when not known.
	Offset      int64
	LeaderEpoch int32
	// Note goes with the commit and comes back at Begin: it carries stream time over
	// a restart.
	Note string
}

// Offsets appends what to commit: the sources that have moved since the last
// commit.
func (t *Task) Offsets(dst []Offset) []Offset {
	for i := range t.queues {
		q := &t.queues[i]
		if position := q.position(); q.reads && position >= 0 && position != q.committed {
			dst = append(dst, Offset{Topic: q.topic, Offset: position, LeaderEpoch: q.epoch, Note: note(t.streamTime)})
		}
	}
	return dst
}

// Position returns the next offset to process of a source.
func (t *Task) Position(source int) int64 { return t.queues[source].position() }

// noteVersion leads the note of a commit: "leat1:<stream time>".
const noteVersion = "leat1:"

func note(streamTime int64) string { return noteVersion + strconv.FormatInt(streamTime, 10) }

// parseNote returns the stream time of a note; -1 for notes of others, such as a
// tool that has moved the offset.
func parseNote(s string) int64 {
	digits, ok := strings.CutPrefix(s, noteVersion)
	if !ok {
		return -1
	}
	streamTime, err := strconv.ParseInt(digits, 10, 64)
	if err != nil {
		return -1
	}
	return streamTime
}
