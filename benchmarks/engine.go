package main

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"github.com/leatlog/leat/state"
	"github.com/leatlog/leat/topology"
	"github.com/leatlog/leat/topology/plan"
	"github.com/leatlog/leat/topology/serde"
)

// engine runs one task of a topology over records in memory: what the operators
// cost, serdes and write-back cache included, without a network.
type engine struct {
	processor plan.Processor
	runs      [][]plan.Record
	next      int
}

const (
	runRecords = 1000 // records of one call, as of one fetched batch
	keptRuns   = 100  // runs between two flushes
)

// newEngine compiles the topology's first sub-topology. record makes the input.
func newEngine(top *topology.Topology, record func(i int) plan.Record) (*engine, error) {
	compiled, err := top.Build()
	if err != nil {
		return nil, err
	}
	processor, err := compiled.SubTopologies[0].New(&sink{store: &mapStore{values: map[string][]byte{}}, streamTime: -1})
	if err != nil {
		return nil, err
	}
	e := &engine{processor: processor}
	for run := range keptRuns {
		var records []plan.Record
		for i := range runRecords {
			records = append(records, record(run*runRecords+i))
		}
		e.runs = append(e.runs, records)
	}
	return e, nil
}

// step runs runRecords records and flushes now and then.
func (e *engine) step() error {
	if err := e.processor.Process(0, e.runs[e.next%keptRuns]); err != nil {
		return err
	}
	e.next++
	if err := e.processor.Punctuate(); err != nil {
		return err
	}
	if e.next%keptRuns == 0 {
		return e.processor.Flush()
	}
	return nil
}

// stateless filters and maps strings.
func stateless() (*engine, error) {
	in := topology.NewTopic("requests", serde.String, serde.String)
	out := topology.NewTopic("paths", serde.String, serde.String)
	top := topology.New()
	gets := topology.From(top, in).Filter(func(v string) bool { return v[0] == 'G' })
	topology.To(topology.MapValues(gets, func(v string) string { return v[4:] }), out)
	return newEngine(top, request)
}

// counting counts by key into a store with a warm cache.
func counting() (*engine, error) {
	in := topology.NewTopic("requests", serde.String, serde.String)
	out := topology.NewTopic("counts", serde.String, serde.Int64)
	top := topology.New()
	topology.To(topology.Count("by-user", topology.From(top, in).GroupByKey()).Stream(), out)
	return newEngine(top, request)
}

// windowed counts by key and 10-second window, one window open.
func windowed() (*engine, error) {
	in := topology.NewTopic("requests", serde.String, serde.String)
	out := topology.NewTopic("counts", serde.Windowed(serde.String, 10*time.Second), serde.Int64)
	top := topology.New()
	windows := topology.From(top, in).GroupByKey().Window(topology.Tumbling(10 * time.Second).Grace(time.Second))
	topology.To(topology.Count("by-user-window", windows).Stream(), out)
	return newEngine(top, request)
}

func request(i int) plan.Record {
	return plan.Record{
		Key: fmt.Appendf(nil, "user-%04d", i*7919%1000), Value: []byte("GET /index.html"),
		Timestamp: 1_700_000_000_000 + int64(i%1000),
	}
}

// sink is a task whose output is thrown away.
type sink struct {
	store      state.Store
	streamTime int64
}

func (s *sink) Task() plan.TaskID              { return plan.TaskID{} }
func (s *sink) TopicName(int) string           { return "requests" }
func (*sink) Global(topic string) state.Reader { panic("no global table of " + topic) }

func (s *sink) Store(string) state.Store               { return s.store }
func (s *sink) Emit(int, *plan.Record) error           { return nil }
func (s *sink) Advance(_ int, timestamp int64)         { s.streamTime = max(s.streamTime, timestamp) }
func (s *sink) StreamTime() int64                      { return s.streamTime }
func (s *sink) WallTime() int64                        { return 0 }
func (s *sink) Changed()                               {}
func (s *sink) CacheBytes() int                        { return 64 << 20 }
func (s *sink) Dropped(string, plan.DropReason, error) {}

// mapStore is a store without a medium: the benchmark is of the engine.
type mapStore struct{ values map[string][]byte }

func (s *mapStore) Get(dst, key []byte) ([]byte, bool, error) {
	v, ok := s.values[string(key)]
	return append(dst, v...), ok, nil
}

func (s *mapStore) Put(key, value []byte, _ int64) error {
	s.values[string(key)] = bytes.Clone(value)
	return nil
}

func (s *mapStore) Delete(key []byte, _ int64) error {
	delete(s.values, string(key))
	return nil
}

func (s *mapStore) DeleteBefore(bound []byte) error {
	for key := range s.values {
		if key < string(bound) {
			delete(s.values, key)
		}
	}
	return nil
}

func (s *mapStore) Scan(from, to []byte, reverse bool, visit func(key, value []byte) bool) error {
	var keys []string
	for key := range s.values {
		if (from == nil || key >= string(from)) && (to == nil || key < string(to)) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	if reverse {
		slices.Reverse(keys)
	}
	for _, key := range keys {
		if !visit([]byte(key), s.values[key]) {
			return nil
		}
	}
	return nil
}
