package topology_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/leatlog/leat/state"
	"github.com/leatlog/leat/topology"
	"github.com/leatlog/leat/topology/plan"
)

// driver runs a plan with one partition per topic, by hand: records go in, run
// at once, and what comes out is text.
type driver struct {
	t     testing.TB
	plan  *plan.Plan
	tasks []*fakeTask
	// cacheBytes is what the next start gives each task.
	cacheBytes int
	output     []string
	dropped    []string
	offset     int64
	wallTime   int64
}

// fakeTask is the plan.Context of one sub-topology.
type fakeTask struct {
	d          *driver
	part       *plan.SubTopology
	processor  plan.Processor
	stores     map[string]*fakeStore
	streamTime int64
	committed  int64 // stream time at the last commit
	internal   []internalRecord
	changed    bool
}

func (f *fakeTask) Global(topic string) state.Reader { panic("no global table of " + topic) }

type internalRecord struct {
	topic  string
	record plan.Record
}

func newDriver(t testing.TB, top *topology.Topology) *driver {
	t.Helper()
	p, err := top.Build()
	if err != nil {
		t.Fatal(err)
	}
	d := &driver{t: t, plan: p, cacheBytes: 1 << 20}
	for i := range p.SubTopologies {
		task := &fakeTask{d: d, part: &p.SubTopologies[i], stores: map[string]*fakeStore{}}
		for _, spec := range task.part.Stores {
			task.stores[spec.Name] = newFakeStore()
		}
		task.committed = -1
		d.tasks = append(d.tasks, task)
	}
	d.restart()
	return d
}

// restart makes new processors over the same stores, at the stream time of the
// last commit.
func (d *driver) restart() {
	d.t.Helper()
	for _, task := range d.tasks {
		task.streamTime = task.committed
		var err error
		if task.processor, err = task.part.New(task); err != nil {
			d.t.Fatal(err)
		}
	}
}

func rec(key, value string, timestamp int64) plan.Record {
	return plan.Record{Key: []byte(key), Value: []byte(value), Timestamp: timestamp}
}

// send runs records of a topic, and what they put into internal topics.
func (d *driver) send(topic string, records ...plan.Record) {
	d.t.Helper()
	if err := d.try(topic, records...); err != nil {
		d.t.Fatal(err)
	}
}

func (d *driver) try(topic string, records ...plan.Record) error {
	for i := range records {
		records[i].Offset = d.offset
		d.offset++
	}
	for _, task := range d.tasks {
		for i, source := range task.part.Sources {
			if source.Name != topic {
				continue
			}
			if err := task.processor.Process(i, records); err != nil {
				return err
			}
			if err := task.processor.Punctuate(); err != nil {
				return err
			}
		}
	}
	return d.settle()
}

// settle moves the records of internal topics.
func (d *driver) settle() error {
	for _, task := range d.tasks {
		moved := task.internal
		task.internal = nil
		for _, m := range moved {
			if err := d.try(m.topic, m.record); err != nil {
				return err
			}
		}
	}
	return nil
}

// commit flushes every task and keeps its stream time.
func (d *driver) commit() {
	d.t.Helper()
	d.flush()
	for _, task := range d.tasks {
		task.committed = task.streamTime
	}
}

// flush is a commit that does not get to its end.
func (d *driver) flush() {
	d.t.Helper()
	for _, task := range d.tasks {
		if err := task.processor.Flush(); err != nil {
			d.t.Fatal(err)
		}
		if err := d.settle(); err != nil {
			d.t.Fatal(err)
		}
	}
}

// expect compares what came out since the last call, drops included.
func (d *driver) expect(want ...string) {
	d.t.Helper()
	got := append(d.output, d.dropped...)
	d.output, d.dropped = nil, nil
	if !slices.Equal(got, want) {
		d.t.Errorf("got\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

func (f *fakeTask) Task() plan.TaskID { return plan.TaskID{SubTopology: f.part.ID} }

func (f *fakeTask) TopicName(source int) string { return f.part.Sources[source].FullName("app") }

func (f *fakeTask) Store(name string) state.Store {
	s, ok := f.stores[name]
	if !ok {
		panic("no store " + name)
	}
	return s
}

func (f *fakeTask) Emit(sink int, r *plan.Record) error {
	topic := f.part.Sinks[sink].Topic
	if topic.Internal {
		f.internal = append(f.internal, internalRecord{topic.Name, plan.Record{
			Key: bytes.Clone(r.Key), Value: bytes.Clone(r.Value), Timestamp: r.Timestamp, Headers: slices.Clone(r.Headers)}})
		return nil
	}
	line := fmt.Sprintf("%s: %s=%s @%d", topic.Name, text(r.Key), text(r.Value), r.Timestamp)
	for _, h := range r.Headers {
		line += fmt.Sprintf(" %s=%s", h.Key, h.Value)
	}
	f.d.output = append(f.d.output, line)
	return nil
}

func (f *fakeTask) Advance(_ int, timestamp int64) { f.streamTime = max(f.streamTime, timestamp) }
func (f *fakeTask) StreamTime() int64              { return f.streamTime }
func (f *fakeTask) WallTime() int64                { return f.d.wallTime }
func (f *fakeTask) Changed()                       { f.changed = true }
func (f *fakeTask) CacheBytes() int                { return f.d.cacheBytes }

func (f *fakeTask) Dropped(operator string, reason plan.DropReason, err error) {
	line := fmt.Sprintf("dropped by %s: %s", operator, reason)
	if err != nil {
		line += ": " + err.Error()
	}
	f.d.dropped = append(f.d.dropped, line)
}

// text shows bytes: text as it is, and eight bytes that are none, at the end, as
// a number behind a #.
func text(b []byte) string {
	if b == nil {
		return "null"
	}
	if len(b) >= 8 && b[len(b)-8] == 0 {
		return fmt.Sprintf("%s#%d", b[:len(b)-8], binary.BigEndian.Uint64(b[len(b)-8:]))
	}
	return string(b)
}

// fakeStore is an ordered store that counts its calls.
type fakeStore struct {
	keys          []string
	values        map[string][]byte
	gets, puts    int
	deletes, cuts int
	scans         int
}

func newFakeStore() *fakeStore { return &fakeStore{values: map[string][]byte{}} }

func (s *fakeStore) Get(dst, key []byte) ([]byte, bool, error) {
	s.gets++
	v, found := s.values[string(key)]
	return append(dst, v...), found, nil
}

func (s *fakeStore) Put(key, value []byte, _ int64) error {
	s.puts++
	if _, found := s.values[string(key)]; !found {
		i, _ := slices.BinarySearch(s.keys, string(key))
		s.keys = slices.Insert(s.keys, i, string(key))
	}
	s.values[string(key)] = bytes.Clone(value)
	return nil
}

func (s *fakeStore) Delete(key []byte, _ int64) error {
	s.deletes++
	delete(s.values, string(key))
	if i, found := slices.BinarySearch(s.keys, string(key)); found {
		s.keys = slices.Delete(s.keys, i, i+1)
	}
	return nil
}

func (s *fakeStore) DeleteBefore(bound []byte) error {
	s.cuts++
	i := sort.SearchStrings(s.keys, string(bound))
	for _, key := range s.keys[:i] {
		delete(s.values, key)
	}
	s.keys = slices.Delete(s.keys, 0, i)
	return nil
}

func (s *fakeStore) Scan(from, to []byte, reverse bool, fn func(key, value []byte) bool) error {
	s.scans++
	first, last := sort.SearchStrings(s.keys, string(from)), len(s.keys)
	if to != nil {
		last = sort.SearchStrings(s.keys, string(to))
	}
	for n := range last - first {
		key := s.keys[first+n]
		if reverse {
			key = s.keys[last-1-n]
		}
		if !fn([]byte(key), s.values[key]) {
			break
		}
	}
	return nil
}

// rows shows the store, without the mark of window stores.
func (s *fakeStore) rows() []string {
	var rows []string
	for _, key := range s.keys {
		if key[0] == 0xff {
			continue
		}
		if start, k, ok := state.SplitWindowKey([]byte(key)); ok && key[0] == 0 {
			key = fmt.Sprintf("%d/%s", start, k)
		}
		rows = append(rows, key)
	}
	return rows
}
