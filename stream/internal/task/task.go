// Package task runs one partition of a sub-topology: it queues the records of
// its source partitions, runs them through the compiled operators lowest
// timestamp first, hands what they emit to outputs, and says which offsets a
// commit covers. It is pure: records, time and outputs come in as arguments, so
// that a test or a simulation can drive it step by step.
//
// The owner (a worker of package stream, or package streamtest) drives it so:
//
//	Restore          until every store has caught up with its changelog
//	Start            compiles the operators
//	Add, Process     as records come; Punctuate once a second at least
//	Prepare          before a commit: flushes caches into outputs and changelogs
//	Offsets          what to commit once all outputs have acknowledged
//	Committed        after the commit: the stores apply what was logged
//	Close            at the end, with or without a commit before
//
// After an error of any method but Close the task is closed and made anew: it
// goes on at its last commit.
package task

import (
	"errors"
	"fmt"
	"time"

	"github.com/leatlog/leat/state"
	"github.com/leatlog/leat/topology/plan"
)

// Output takes the records for one topic.
type Output interface {
	// Partitions is the topic's number of partitions.
	Partitions() int32
	// Append takes a record; everything is copied. timestamp is in milliseconds. An
	// error is final: the output has failed.
	Append(partition int32, timestamp int64, key, value []byte, headers []plan.Header) error
}

// Config is what a task is made of.
type Config struct {
	// App prefixes the names of internal topics.
	App string
	// Sub is the sub-topology; ID its partition.
	Sub *plan.SubTopology
	ID  plan.TaskID
	// Partitions is the number of partitions of each of Sub.Sources: the task reads
	// its partition of those that have it.
	Partitions []int32
	// Outputs take the records of Sub.Sinks, in their order.
	Outputs []Output
	// Stores are Sub.Stores, in their order. The task closes them.
	Stores []Store
	// Globals are the global tables, by topic.
	Globals map[string]state.Reader
	// PartitionOf spreads keys over n partitions.
	PartitionOf func(key []byte, n int32) int32
	// WallTime is the current time in milliseconds since the epoch.
	WallTime func() int64
	// CacheBytes bounds the write-back caches of the task's operators.
	CacheBytes int
	// IdleTimeout is how long an empty partition that may have more to come holds
	// back the others; a source's own goes first.
	IdleTimeout time.Duration
	// Dropped is told of every record that an operator leaves out.
	Dropped func(operator string, reason plan.DropReason, err error)
}

// Store is a store of a task over its changelog.
type Store interface {
	state.Store
	// Commit makes what was written since the last Commit part of the committed
	// state. Called when the changelog holds it.
	Commit() error
	// Close gives up what was not committed.
	Close() error
}

// Task is one partition of a sub-topology. Not safe for concurrent use.
type Task struct {
	cfg        Config
	processor  plan.Processor
	queues     []queue
	sinks      []sink
	stores     map[string]Store
	streamTime int64
	records    uint64 // processed since the start
	emitted    uint64
	dirty      bool // something happened since the last commit
}

// maxRun bounds how many records run between two punctuations.
const maxRun = 1024

// sink is an output and the partition that records without a key go to.
type sink struct {
	out        Output
	partitions int32
	sticky     int32
}

// New makes a task that has not started. It takes over the stores.
func New(cfg Config) (*Task, error) {
	t := &Task{cfg: cfg, streamTime: -1, stores: make(map[string]Store, len(cfg.Stores))}
	switch {
	case len(cfg.Partitions) != len(cfg.Sub.Sources):
		return nil, fmt.Errorf("task %s: %d counts of partitions for %d sources", cfg.ID, len(cfg.Partitions), len(cfg.Sub.Sources))
	case len(cfg.Outputs) != len(cfg.Sub.Sinks):
		return nil, fmt.Errorf("task %s: %d outputs for %d sinks", cfg.ID, len(cfg.Outputs), len(cfg.Sub.Sinks))
	case len(cfg.Stores) != len(cfg.Sub.Stores):
		return nil, fmt.Errorf("task %s: %d stores for %d specifications", cfg.ID, len(cfg.Stores), len(cfg.Sub.Stores))
	}
	for i, s := range cfg.Sub.Stores {
		t.stores[s.Name] = cfg.Stores[i]
	}
	for i, source := range cfg.Sub.Sources {
		idle := source.IdleTimeout
		if idle == 0 {
			idle = cfg.IdleTimeout
		}
		t.queues = append(t.queues, queue{
			topic: source.FullName(cfg.App), reads: cfg.ID.Partition < cfg.Partitions[i], idle: idle.Milliseconds(), next: -1,
		})
	}
	for _, out := range cfg.Outputs {
		n := out.Partitions()
		t.sinks = append(t.sinks, sink{out: out, partitions: n, sticky: cfg.ID.Partition % n})
	}
	return t, nil
}

// ID names the task.
func (t *Task) ID() plan.TaskID { return t.cfg.ID }

// Reads says whether the task reads source i: its topic has the partition.
func (t *Task) Reads(source int) bool { return t.queues[source].reads }

// Begin sets where a source begins. committed says that the offset comes from a
// commit, with its note (see Offsets); otherwise the next commit covers it even
// if no record comes, so that the beginning is settled once.
func (t *Task) Begin(source int, offset int64, committed bool, note string) {
	q := &t.queues[source]
	q.next, q.committed, q.epoch = offset, offset, -1
	q.emptySince = t.cfg.WallTime()
	if !committed {
		q.committed, t.dirty = -1, true
	}
	t.streamTime = max(t.streamTime, parseNote(note))
}

// Start compiles the operators. The stores must be restored.
func (t *Task) Start() error {
	p, err := t.cfg.Sub.New(taskContext{t})
	if err != nil {
		return t.wrap(err)
	}
	t.processor = p
	return nil
}

// Started says whether Start has succeeded.
func (t *Task) Started() bool { return t.processor != nil }

// StreamTime is the highest event time seen, in milliseconds; -1 for none.
func (t *Task) StreamTime() int64 { return t.streamTime }

// Records is the number of records processed since the start.
func (t *Task) Records() uint64 { return t.records }

// Emitted is the number of records handed to outputs since the start.
func (t *Task) Emitted() uint64 { return t.emitted }

// Caches tells of the caches of the operators.
func (t *Task) Caches(tell func(plan.CacheFigures)) {
	if c, ok := t.processor.(plan.Cached); ok {
		c.Caches(tell)
	}
}

// Dirty says whether there is something to commit.
func (t *Task) Dirty() bool { return t.dirty }

// Process runs up to budget records and returns how many ran. It returns early
// when a queue has run empty, so that the owner can fill it, and when an empty
// queue holds back the others.
func (t *Task) Process(budget int) (int, error) {
	done := 0
	for done < budget {
		i := t.choose()
		if i < 0 {
			return done, nil
		}
		q := &t.queues[i]
		run := q.records[q.at : q.at+t.runLength(i, min(budget-done, maxRun))]
		t.dirty = true
		if err := t.processor.Process(i, run); err != nil {
			return done, t.wrap(err)
		}
		q.at += len(run)
		done += len(run)
		t.records += uint64(len(run))
		if err := t.processor.Punctuate(); err != nil {
			return done, t.wrap(err)
		}
		if q.at == len(q.records) {
			q.empty(t.cfg.WallTime())
			return done, nil
		}
	}
	return done, nil
}

// Punctuate runs what is due though no record came.
func (t *Task) Punctuate() error {
	before := t.emitted
	if err := t.processor.Punctuate(); err != nil {
		return t.wrap(err)
	}
	t.dirty = t.dirty || t.emitted != before
	return nil
}

// Prepare writes the caches to stores, changelogs and outputs, so that what the
// outputs hold is all that the offsets stand for.
func (t *Task) Prepare() error {
	if t.processor == nil {
		return nil
	}
	if err := t.processor.Flush(); err != nil {
		return t.wrap(err)
	}
	return nil
}

// Committed tells the task that outputs, changelogs and offsets are committed.
func (t *Task) Committed() error {
	var failed []error
	for i, s := range t.cfg.Stores {
		if err := s.Commit(); err != nil {
			failed = append(failed, fmt.Errorf("task %s: commit of store %q: %w", t.cfg.ID, t.cfg.Sub.Stores[i].Name, err))
		}
	}
	for i := range t.queues {
		t.queues[i].committed = t.queues[i].position()
	}
	for i := range t.sinks {
		s := &t.sinks[i]
		s.sticky = (s.sticky + 1) % s.partitions
	}
	t.dirty = false
	return errors.Join(failed...)
}

// Close releases operators and stores; what was not committed is given up.
func (t *Task) Close() error {
	var failed []error
	if t.processor != nil {
		failed = append(failed, t.processor.Close())
		t.processor = nil
	}
	for _, s := range t.cfg.Stores {
		failed = append(failed, s.Close())
	}
	if err := errors.Join(failed...); err != nil {
		return fmt.Errorf("task %s: close: %w", t.cfg.ID, err)
	}
	return nil
}

// wrap names the task in errors that do not name their operator themselves.
func (t *Task) wrap(err error) error {
	return fmt.Errorf("task %s: %w", t.cfg.ID, err)
}
