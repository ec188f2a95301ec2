package nexmark

import (
	"context"
	"fmt"
	"slices"

	"github.com/leatlog/leat/state"
	"github.com/leatlog/leat/state/changelog"
	"github.com/leatlog/leat/state/memstore"
	"github.com/leatlog/leat/topology"
	"github.com/leatlog/leat/topology/plan"
)

// Run is a topology that runs in memory: one task of each sub-topology on the caller's
// goroutine, topics of one partition, stores in memory behind their changelogs.
type Run struct {
	tasks      []*task
	cacheBytes int // the write-back cache of each task
	out        func(topic string, r *plan.Record)
	// Changes counts the records of changelogs, Dropped the records left out.
	Changes, Dropped int64
}

// NewRun starts a topology. out gets what it writes, or is nil.
func NewRun(top *topology.Topology, cacheBytes int, out func(topic string, r *plan.Record)) (*Run, error) {
	p, err := top.Build()
	if err != nil {
		return nil, err
	}
	r := &Run{cacheBytes: cacheBytes, out: out}
	backend := memstore.New()
	for i := range p.SubTopologies {
		t := &task{run: r, part: &p.SubTopologies[i], stores: map[string]*changelog.Logged{}, streamTime: -1}
		for _, spec := range t.part.Stores {
			engine, err := backend.Open(context.Background(), fmt.Sprint(i), spec)
			if err != nil {
				return nil, err
			}
			if t.stores[spec.Name], err = changelog.New(changelog.Config{Spec: spec, Engine: engine, Append: func(_, _ []byte, _ int64) error {
				r.Changes++
				return nil
			}}); err != nil {
				return nil, err
			}
		}
		for range t.part.Sources {
			t.arrived = append(t.arrived, &queue{})
		}
		if t.processor, err = t.part.New(t); err != nil {
			return nil, err
		}
		r.tasks = append(r.tasks, t)
	}
	for _, t := range r.tasks {
		for _, sink := range t.part.Sinks {
			t.sinks = append(t.sinks, r.queue(sink.Topic))
		}
	}
	return r, nil
}

// queue finds who reads an internal topic; nil for others.
func (r *Run) queue(topic plan.Topic) *queue {
	for _, t := range r.tasks {
		for i, source := range t.part.Sources {
			if topic.Internal && source.Name == topic.Name {
				return t.arrived[i]
			}
		}
	}
	return nil
}

// Reads tells whether the topology reads a topic.
func (r *Run) Reads(topic string) bool {
	return slices.ContainsFunc(r.tasks, func(t *task) bool {
		return slices.ContainsFunc(t.part.Sources, func(s plan.Source) bool { return s.Name == topic && !s.Internal })
	})
}

// Feed runs records of a topic, as far as the repartition topics. Records are fed in order
// of their time: a task takes what waits for it in repartition topics before them.
func (r *Run) Feed(topic string, records []plan.Record) error {
	for _, t := range r.tasks {
		for i, source := range t.part.Sources {
			if source.Name == topic && !source.Internal {
				if _, err := t.arrivals(); err != nil {
					return err
				}
				if err := t.processor.Process(i, records); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// Turn runs what is in repartition topics, and what is due.
func (r *Run) Turn() error {
	for {
		moved := false
		for _, t := range r.tasks {
			some, err := t.arrivals()
			if err != nil {
				return err
			}
			moved = moved || some
			if err := t.processor.Punctuate(); err != nil {
				return err
			}
		}
		if !moved {
			return nil
		}
	}
}

// Commit flushes the caches, runs what comes of that, and commits the stores.
func (r *Run) Commit() error {
	if err := r.Turn(); err != nil {
		return err
	}
	for _, t := range r.tasks {
		if err := t.processor.Flush(); err != nil {
			return err
		}
		if err := r.Turn(); err != nil {
			return err
		}
	}
	for _, t := range r.tasks {
		for _, s := range t.stores {
			if err := s.Commit(); err != nil {
				return err
			}
		}
	}
	return nil
}

// queue is a repartition topic: two buffers, one that is written while the other is read.
type queue struct {
	records, reading []plan.Record
	bytes, spare     []byte
}

func (q *queue) put(r *plan.Record) {
	key, value := q.copy(r.Key), q.copy(r.Value)
	q.records = append(q.records, plan.Record{Timestamp: r.Timestamp, Key: key, Value: value, Headers: slices.Clone(r.Headers)})
}

// copy copies bytes into the buffer; what lay in one that it outgrew stays valid.
func (q *queue) copy(b []byte) []byte {
	if b == nil {
		return nil
	}
	at := len(q.bytes)
	q.bytes = append(q.bytes, b...)
	return q.bytes[at:len(q.bytes):len(q.bytes)]
}

// take returns what was put, valid until the next take.
func (q *queue) take() []plan.Record {
	q.records, q.reading = q.reading[:0], q.records
	q.bytes, q.spare = q.spare[:0], q.bytes
	return q.reading
}

// task is the plan.Context of a sub-topology.
type task struct {
	run        *Run
	part       *plan.SubTopology
	processor  plan.Processor
	stores     map[string]*changelog.Logged
	arrived    []*queue // by source
	sinks      []*queue // by sink; nil for topics that nobody reads
	streamTime int64
}

// arrivals runs what is in the task's repartition topics.
func (t *task) arrivals() (some bool, err error) {
	for i, q := range t.arrived {
		if len(q.records) == 0 {
			continue
		}
		some = true
		if err := t.processor.Process(i, q.take()); err != nil {
			return some, err
		}
	}
	return some, nil
}

func (t *task) Task() plan.TaskID                      { return plan.TaskID{SubTopology: t.part.ID} }
func (t *task) TopicName(source int) string            { return t.part.Sources[source].FullName("nexmark") }
func (t *task) Store(name string) state.Store          { return t.stores[name] }
func (t *task) Advance(_ int, timestamp int64)         { t.streamTime = max(t.streamTime, timestamp) }
func (t *task) StreamTime() int64                      { return t.streamTime }
func (t *task) WallTime() int64                        { return 0 }
func (t *task) Changed()                               {}
func (t *task) CacheBytes() int                        { return t.run.cacheBytes }
func (t *task) Dropped(string, plan.DropReason, error) { t.run.Dropped++ }

func (t *task) Emit(sink int, r *plan.Record) error {
	if q := t.sinks[sink]; q != nil {
		q.put(r)
	} else if t.run.out != nil {
		t.run.out(t.part.Sinks[sink].Name, r)
	}
	return nil
}

func (t *task) Global(topic string) state.Reader { panic("no global table of " + topic) }
