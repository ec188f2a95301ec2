package task

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/leatlog/leat/state"
	"github.com/leatlog/leat/topology/plan"
)

// script is a processor that writes down what it is asked to do.
type script struct {
	ctx    plan.Context
	lines  []string
	fail   string // value at which Process fails
	emit   bool
	closed bool
}

func (s *script) Process(source int, records []plan.Record) error {
	var values []string
	for i := range records {
		r := &records[i]
		s.ctx.Advance(source, r.Timestamp)
		if s.fail != "" && string(r.Value) == s.fail {
			return &plan.OperatorError{Operator: "map-it", Topic: s.ctx.TopicName(source), Partition: s.ctx.Task().Partition, Offset: r.Offset, Err: errors.New("boom")}
		}
		values = append(values, string(r.Value))
		if s.emit {
			if err := s.ctx.Emit(0, r); err != nil {
				return err
			}
		}
	}
	s.lines = append(s.lines, fmt.Sprintf("%d:%s", source, strings.Join(values, ",")))
	return nil
}
func (s *script) Punctuate() error { return nil }
func (s *script) Flush() error     { s.lines = append(s.lines, "flush"); return nil }
func (s *script) Close() error     { s.closed = true; return nil }

// topic is an output in memory.
type topic struct {
	partitions int32
	got        [][]string
}

func (o *topic) Partitions() int32 { return o.partitions }
func (o *topic) Append(p int32, ts int64, key, value []byte, _ []plan.Header) error {
	if o.got == nil {
		o.got = make([][]string, o.partitions)
	}
	o.got[p] = append(o.got[p], fmt.Sprintf("%s=%s@%d", key, value, ts))
	return nil
}

// fixture is a task of n sources with one sink of three partitions.
type fixture struct {
	*Task
	script *script
	out    *topic
	now    int64
}

func newFixture(t *testing.T, sources int, partition int32) *fixture {
	t.Helper()
	f := &fixture{script: new(script), out: &topic{partitions: 3}}
	sub := &plan.SubTopology{
		Sinks: []plan.Sink{{Topic: plan.Topic{Name: "out"}, Operator: "to-out"}},
		New: func(ctx plan.Context) (plan.Processor, error) {
			f.script.ctx = ctx
			return f.script, nil
		},
	}
	counts := make([]int32, sources)
	for i := range counts {
		sub.Sources = append(sub.Sources, plan.Source{Topic: plan.Topic{Name: fmt.Sprintf("in%d", i)}})
		counts[i] = 2
	}
	task, err := New(Config{
		App: "app", Sub: sub, ID: plan.TaskID{Partition: partition}, Partitions: counts, Outputs: []Output{f.out},
		PartitionOf: func(key []byte, n int32) int32 { return int32(key[0]) % n },
		WallTime:    func() int64 { return f.now }, IdleTimeout: time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	f.Task = task
	for i := range sources {
		task.Begin(i, 0, true, "")
	}
	if err := task.Start(); err != nil {
		t.Fatal(err)
	}
	return f
}

// records makes records at offsets from first; each is "timestamp" or
// "timestamp value".
func records(first int64, timestamps ...int64) []plan.Record {
	var out []plan.Record
	for i, ts := range timestamps {
		out = append(out, plan.Record{Offset: first + int64(i), Timestamp: ts, Key: []byte("k"), Value: fmt.Append(nil, ts)})
	}
	return out
}

func (f *fixture) process(t *testing.T, budget int) int {
	t.Helper()
	n, err := f.Process(budget)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (f *fixture) expect(t *testing.T, want ...string) {
	t.Helper()
	if !slices.Equal(f.script.lines, want) {
		t.Errorf("ran %q, want %q", f.script.lines, want)
	}
	f.script.lines = nil
}

func TestLowestTimestampFirst(t *testing.T) {
	f := newFixture(t, 2, 0)
	f.Add(0, records(0, 10, 11, 30, 31), 4, 1)
	f.Add(1, records(0, 20, 30, 40), 3, 1)
	f.process(t, 100)
	// The tie at 30 goes to the queue that is running; source 0 runs empty then.
	f.expect(t, "0:10,11", "1:20,30", "0:30,31")
	if n := f.process(t, 100); n != 0 {
		t.Errorf("%d records ran while source 0 may bring an older one", n)
	}
	f.CaughtUp(0)
	f.process(t, 100)
	f.expect(t, "1:40")
	if f.StreamTime() != 40 || f.Records() != 7 {
		t.Errorf("stream time %d, %d records", f.StreamTime(), f.Records())
	}
}

func TestEmptyPartitionHoldsBackForATime(t *testing.T) {
	f := newFixture(t, 2, 0)
	f.Add(0, records(0, 10), 1, 1)
	if until, waiting := f.WaitsUntil(); !waiting || until != 1000 {
		t.Errorf("waits until %d, %v", until, waiting)
	}
	if n := f.process(t, 10); n != 0 {
		t.Errorf("%d records ran", n)
	}
	f.now = 1000
	if n := f.process(t, 10); n != 1 {
		t.Errorf("%d records ran after the idle time", n)
	}
	if _, waiting := f.WaitsUntil(); waiting {
		t.Error("waits with nothing to run")
	}
}

func TestBudgetBoundsARun(t *testing.T) {
	f := newFixture(t, 1, 0)
	f.Add(0, records(0, 1, 2, 3, 4, 5), 5, 1)
	if n := f.process(t, 2); n != 2 || f.Needs(0) {
		t.Errorf("ran %d, needs more: %v", n, f.Needs(0))
	}
	if n := f.process(t, 100); n != 3 || !f.Needs(0) {
		t.Errorf("ran %d, needs more: %v", n, f.Needs(0))
	}
}

func TestPartitionsOfOutputs(t *testing.T) {
	f := newFixture(t, 1, 0)
	f.script.emit = true
	in := records(0, 1, 2, 3)
	in[0].Key, in[1].Key, in[2].Key = nil, []byte{1}, []byte{2}
	f.Add(0, in, 3, 1)
	f.process(t, 10)
	if err := f.Committed(); err != nil {
		t.Fatal(err)
	}
	f.Add(0, []plan.Record{{Offset: 3, Timestamp: 4}}, 4, 1) // no key: the next partition after a commit
	f.process(t, 10)
	want := [][]string{{"=1@1"}, {"\x01=2@2", "=@4"}, {"\x02=3@3"}}
	if !reflect.DeepEqual(f.out.got, want) {
		t.Errorf("out = %q, want %q", f.out.got, want)
	}
}

func TestOffsetsCoverWhatRan(t *testing.T) {
	f := newFixture(t, 2, 1)
	if f.Dirty() || len(f.Offsets(nil)) != 0 {
		t.Error("a fresh task has something to commit")
	}
	f.Add(0, records(5, 10, 20), 9, 7) // two control records behind
	f.Add(1, nil, 3, 2)                // only records of no use
	f.CaughtUp(1)
	f.process(t, 1)
	want := []Offset{{"in0", 6, 7, "leat1:10"}, {"in1", 3, 2, "leat1:10"}}
	if got := f.Offsets(nil); !reflect.DeepEqual(got, want) {
		t.Errorf("offsets = %v, want %v", got, want)
	}
	f.process(t, 1)
	if err := f.Prepare(); err != nil {
		t.Fatal(err)
	}
	f.expect(t, "0:10", "0:20", "flush")
	if got := f.Offsets(nil)[0]; got.Offset != 9 {
		t.Errorf("offset = %d, want 9", got.Offset)
	}
	if err := f.Committed(); err != nil || f.Dirty() || len(f.Offsets(nil)) != 0 {
		t.Errorf("after the commit: dirty %v, offsets %v, %v", f.Dirty(), f.Offsets(nil), err)
	}
}

func TestBeginSettlesTheStart(t *testing.T) {
	f := newFixture(t, 1, 0)
	f.Begin(0, 42, false, "")
	if got := f.Offsets(nil); !f.Dirty() || len(got) != 1 || got[0].Offset != 42 {
		t.Errorf("offsets = %v", got)
	}
	f.Begin(0, 50, true, "leat1:1234")
	if f.StreamTime() != 1234 {
		t.Errorf("stream time = %d", f.StreamTime())
	}
	f.Begin(0, 50, true, "moved by hand")
	if f.StreamTime() != 1234 {
		t.Errorf("stream time = %d", f.StreamTime())
	}
}

func TestErrorsNameTaskAndRecord(t *testing.T) {
	f := newFixture(t, 1, 1)
	f.script.fail = "20"
	f.Add(0, records(5, 10, 20), 7, 1)
	_, err := f.Process(10)
	var operator *plan.OperatorError
	if !errors.As(err, &operator) || operator.Offset != 6 || !strings.Contains(err.Error(), "task 0_1") {
		t.Fatalf("err = %v", err)
	}
	if err := f.Close(); err != nil || !f.script.closed {
		t.Errorf("close: %v, %v", err, f.script.closed)
	}
}

func TestNarrowSourcesAreNotRead(t *testing.T) {
	f := newFixture(t, 2, 1)
	cfg := f.cfg
	cfg.Partitions = []int32{2, 1}
	task, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if !task.Reads(0) || task.Reads(1) || task.Needs(1) {
		t.Error("the task reads a partition that is not there")
	}
}

// table is a store in memory for the benchmarks.
type table struct{ m map[string]uint64 }

func (s *table) Get(dst, key []byte) ([]byte, bool, error) {
	v, ok := s.m[string(key)]
	if !ok {
		return dst, false, nil
	}
	return binary.BigEndian.AppendUint64(dst, v), true, nil
}
func (s *table) Scan([]byte, []byte, bool, func(k, v []byte) bool) error { return nil }
func (s *table) Put(key, value []byte, _ int64) error {
	s.m[string(key)] = binary.BigEndian.Uint64(value)
	return nil
}
func (s *table) Delete([]byte, int64) error { return nil }
func (s *table) DeleteBefore([]byte) error  { return nil }
func (s *table) Commit() error              { return nil }
func (s *table) Close() error               { return nil }

// filter passes on records with an even first byte; count counts by key.
type filter struct{ script }

func (p *filter) Process(source int, records []plan.Record) error {
	for i := range records {
		r := &records[i]
		p.ctx.Advance(source, r.Timestamp)
		if r.Value[len(r.Value)-1]&1 == 0 {
			if err := p.ctx.Emit(0, r); err != nil {
				return err
			}
		}
	}
	return nil
}

type count struct {
	script
	store  state.Store
	buffer []byte
}

func (p *count) Process(source int, records []plan.Record) error {
	for i := range records {
		r := &records[i]
		p.ctx.Advance(source, r.Timestamp)
		v, found, err := p.store.Get(p.buffer[:0], r.Key)
		if err != nil {
			return err
		}
		n := uint64(1)
		if found {
			n += binary.BigEndian.Uint64(v)
		}
		p.buffer = binary.BigEndian.AppendUint64(p.buffer[:0], n)
		if err := p.store.Put(r.Key, p.buffer, r.Timestamp); err != nil {
			return err
		}
	}
	return nil
}

type discard struct{ bytes int }

func (d *discard) Partitions() int32 { return 4 }
func (d *discard) Append(_ int32, _ int64, key, value []byte, _ []plan.Header) error {
	d.bytes += len(key) + len(value)
	return nil
}

func benchmark(b *testing.B, processor func(plan.Context) plan.Processor, stores ...Store) {
	sub := &plan.SubTopology{
		Sources: []plan.Source{{Topic: plan.Topic{Name: "in"}}},
		Sinks:   []plan.Sink{{Topic: plan.Topic{Name: "out"}}},
		New:     func(ctx plan.Context) (plan.Processor, error) { return processor(ctx), nil },
	}
	for range stores {
		sub.Stores = append(sub.Stores, state.Spec{Name: "counts"})
	}
	task, err := New(Config{
		Sub: sub, Partitions: []int32{1}, Outputs: []Output{new(discard)}, Stores: stores,
		PartitionOf: func(key []byte, n int32) int32 { return int32(key[0]) % n }, WallTime: func() int64 { return 0 },
	})
	if err != nil {
		b.Fatal(err)
	}
	task.Begin(0, 0, true, "")
	if err := task.Start(); err != nil {
		b.Fatal(err)
	}
	const n = 1024
	rng := rand.New(rand.NewPCG(1, 1))
	chunk := make([]plan.Record, n)
	for i := range chunk {
		chunk[i] = plan.Record{Timestamp: int64(i), Key: fmt.Appendf(nil, "key-%d", rng.IntN(500)), Value: bytes.Repeat([]byte{byte(i)}, 64)}
	}
	b.ReportAllocs()
	for b.Loop() {
		task.Add(0, chunk, n, 0)
		if done, err := task.Process(n); err != nil || done != n {
			b.Fatal(done, err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/record")
}

func BenchmarkStateless(b *testing.B) {
	benchmark(b, func(ctx plan.Context) plan.Processor { p := new(filter); p.ctx = ctx; return p })
}

func BenchmarkCount(b *testing.B) {
	benchmark(b, func(ctx plan.Context) plan.Processor {
		p := &count{store: ctx.Store("counts")}
		p.ctx = ctx
		return p
	}, &table{m: make(map[string]uint64)})
}
