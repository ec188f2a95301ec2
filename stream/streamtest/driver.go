// Package streamtest runs a topology in a test, without a broker: topics in
// memory, with as many partitions as the test says, a clock that the test moves,
// the stores and the tasks of the real thing.
//
//	d := streamtest.New(t, top, streamtest.Partitions(4))
//	requests := streamtest.NewInput(d, httpRequests)
//	rollups := streamtest.NewOutput(d, httpRollups)
//	requests.Send("host", HTTPRequest{...}, at)
//	d.Advance(time.Minute)
//	for _, r := range rollups.Read() { ... }
//
// Everything that one Send leads to has happened when it returns: the records
// have run through all sub-topologies and repartition topics, in the order of the
// tasks, and every task has committed. With ManualCommit records run at once but
// caches are flushed, and outputs and repartition topics written, by Commit only,
// which is how a cache that combines updates shows.
//
// Output and changelogs become visible with the commit, as they do exactly once.
// CrashInCommit shows what AtLeastOnce adds.
package streamtest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/leatlog/leat/state"
	"github.com/leatlog/leat/state/changelog"
	"github.com/leatlog/leat/state/memstore"
	"github.com/leatlog/leat/stream/client"
	"github.com/leatlog/leat/stream/internal/assign"
	"github.com/leatlog/leat/stream/internal/task"
	"github.com/leatlog/leat/topology"
	"github.com/leatlog/leat/topology/plan"
)

// appID names the app of a driver: internal topics are "test-<name>-...".
const appID = "test"

// Option is an option of New.
type Option func(*Driver)

// Partitions sets the number of partitions of these topics; without names, of
// every topic that is not internal and not named otherwise. The default is 1.
func Partitions(n int32, topics ...string) Option {
	return func(d *Driver) {
		if len(topics) == 0 {
			d.partitions = n
		}
		for _, name := range topics {
			d.counts[name] = n
		}
	}
}

// StartAt sets the clock. The default is 2000-01-01 00:00:00 UTC.
func StartAt(at time.Time) Option { return func(d *Driver) { d.now = at } }

// ManualCommit leaves committing to Commit.
func ManualCommit() Option { return func(d *Driver) { d.manual = true } }

// CacheBytes bounds the write-back cache of each task. The default is 1 MiB; 0
// makes every update come out.
func CacheBytes(n int) Option { return func(d *Driver) { d.cacheBytes = n } }

// Driver runs a topology. Used by one goroutine. Errors end the test, unless
// they are asked for (see Input.TrySend).
type Driver struct {
	t          testing.TB
	plan       *plan.Plan
	layout     *assign.Layout
	log        *cluster
	committed  map[string]commit // by topic and partition, see key
	tasks      []*driven
	backend    state.Backend
	now        time.Time
	partitions int32
	counts     map[string]int32
	manual     bool
	cacheBytes int
	dropped    map[string]int
	err        error
	globals    map[string]*global // by topic
}

type commit struct {
	offset int64
	note   string
}

// driven is a task and what it has read.
type driven struct {
	*task.Task
	sub     *plan.SubTopology
	stores  []*task.LoggedStore
	pending *pending
	next    []int64 // by source: what was added
}

// New starts a topology. It fails the test when the topology has mistakes.
func New(t testing.TB, top *topology.Topology, options ...Option) *Driver {
	t.Helper()
	p, err := top.Build()
	if err != nil {
		t.Fatal(err)
	}
	d := &Driver{
		t: t, plan: p, log: newCluster(), committed: make(map[string]commit), counts: make(map[string]int32),
		now: time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC), partitions: 1, cacheBytes: 1 << 20, dropped: make(map[string]int),
	}
	for _, o := range options {
		o(d)
	}
	d.layTopics()
	d.start()
	t.Cleanup(d.close)
	return d
}

// layTopics makes every topic of the plan.
func (d *Driver) layTopics() {
	d.t.Helper()
	external := make(map[string]int32)
	add := func(t plan.Topic) {
		if t.Internal {
			return
		}
		external[t.Name] = d.partitions
		if n, ok := d.counts[t.Name]; ok {
			external[t.Name] = n
		}
	}
	for i := range d.plan.SubTopologies {
		for _, s := range d.plan.SubTopologies[i].Sources {
			add(s.Topic)
		}
		for _, s := range d.plan.SubTopologies[i].Sinks {
			add(s.Topic)
		}
	}
	for _, topic := range d.plan.Globals {
		add(plan.Topic{Name: topic})
	}
	for name := range d.counts {
		if _, ok := external[name]; !ok {
			d.t.Fatalf("streamtest: Partitions names topic %q, which the topology neither reads nor writes", name)
		}
	}
	layout, err := assign.NewLayout(d.plan, appID, external)
	if err != nil {
		d.t.Fatalf("streamtest: %v", err)
	}
	d.layout = layout
	for name, n := range layout.Partitions {
		d.log.create(name, n)
	}
	for _, topic := range d.plan.Globals {
		d.log.create(topic, external[topic])
	}
	for i := range d.plan.SubTopologies {
		sub := &d.plan.SubTopologies[i]
		var tasks int32
		for _, id := range layout.Tasks {
			if id.SubTopology == sub.ID {
				tasks++
			}
		}
		for _, spec := range sub.Stores {
			d.log.create(plan.ChangelogTopic(appID, spec.Name), tasks)
		}
	}
}

// start opens every task at the last commit, and restores its stores.
func (d *Driver) start() {
	d.t.Helper()
	d.backend = memstore.New()
	d.must(d.openGlobals())
	for _, id := range d.layout.Tasks {
		r, err := d.open(id)
		if err != nil {
			d.t.Fatalf("streamtest: task %s: %v", id, err)
		}
		d.tasks = append(d.tasks, r)
	}
}

func (d *Driver) open(id plan.TaskID) (*driven, error) {
	sub := &d.plan.SubTopologies[id.SubTopology]
	r := &driven{sub: sub, pending: &pending{cluster: d.log}, next: make([]int64, len(sub.Sources))}
	cfg := task.Config{
		App: appID, Sub: sub, ID: id, PartitionOf: client.PartitionOf, CacheBytes: d.cacheBytes,
		WallTime: func() int64 { return d.now.UnixMilli() }, Globals: make(map[string]state.Reader),
		Dropped: func(operator string, reason plan.DropReason, _ error) {
			d.dropped[operator+" "+string(reason)]++
		},
	}
	for topic, g := range d.globals {
		cfg.Globals[topic] = g.Reader()
	}
	for _, s := range sub.Sources {
		cfg.Partitions = append(cfg.Partitions, d.layout.Partitions[s.FullName(appID)])
	}
	for _, s := range sub.Sinks {
		cfg.Outputs = append(cfg.Outputs, output{r.pending, s.FullName(appID)})
	}
	for _, spec := range sub.Stores {
		s, err := d.restore(id, spec, r.pending)
		if err != nil {
			return nil, fmt.Errorf("store %q: %w", spec.Name, err)
		}
		r.stores = append(r.stores, s)
		cfg.Stores = append(cfg.Stores, s)
	}
	t, err := task.New(cfg)
	if err != nil {
		return nil, err
	}
	r.Task = t
	for i, s := range sub.Sources {
		if !t.Reads(i) {
			continue
		}
		c, ok := d.committed[key(s.FullName(appID), id.Partition)]
		t.Begin(i, c.offset, ok, c.note)
		r.next[i] = c.offset
	}
	return r, t.Start()
}

// restore opens a store and replays its changelog.
func (d *Driver) restore(id plan.TaskID, spec state.Spec, p *pending) (*task.LoggedStore, error) {
	if spec.NoChangelog {
		return task.OpenStore(context.Background(), d.backend, id, spec, nil, changelog.Bounds{}, time.Hour)
	}
	topic := plan.ChangelogTopic(appID, spec.Name)
	records := d.log.partition(topic, id.Partition)
	end := int64(len(records))
	w := changelogWriter{output{p, topic}, id.Partition}
	s, err := task.OpenStore(context.Background(), d.backend, id, spec, w, changelog.Bounds{End: end}, time.Hour)
	if err != nil {
		return nil, err
	}
	if err := s.Restore(records, end, -1); err != nil {
		return nil, err
	}
	return s, s.Restored()
}

// close ends the tasks.
func (d *Driver) close() {
	for _, r := range d.tasks {
		if err := r.Close(); err != nil {
			d.t.Errorf("streamtest: %v", err)
		}
	}
	d.tasks = nil
	for _, g := range d.globals {
		if err := g.Close(); err != nil {
			d.t.Errorf("streamtest: %v", err)
		}
	}
	d.globals = nil
	if err := d.backend.Close(); err != nil {
		d.t.Errorf("streamtest: %v", err)
	}
}

// Now is the driver's wall clock.
func (d *Driver) Now() time.Time { return d.now }

// Advance moves the wall clock; what is due runs and commits. Stream time, which
// closes windows, moves with the records and not with the clock.
func (d *Driver) Advance(by time.Duration) {
	d.t.Helper()
	d.now = d.now.Add(by)
	d.must(d.settle(true))
}

// Commit runs what is there and commits all tasks, also those that the results
// reach.
func (d *Driver) Commit() {
	d.t.Helper()
	d.must(d.commitAll())
}

// Restart stops the topology with a commit and starts it again: stores are
// restored from their changelogs.
func (d *Driver) Restart() {
	d.t.Helper()
	d.Commit()
	d.Crash()
}

// Crash drops everything that is not committed and starts again.
func (d *Driver) Crash() {
	d.t.Helper()
	d.close()
	d.err = nil
	d.start()
	if !d.manual {
		d.must(d.settle(false))
	}
}

// CrashInCommit crashes after outputs and changelogs are written and before the
// offsets are: what AtLeastOnce does not hide. The records since the last commit
// run again.
func (d *Driver) CrashInCommit() {
	d.t.Helper()
	for _, r := range d.tasks {
		d.must(r.Prepare())
		r.pending.write()
	}
	d.Crash()
}

// Dropped returns how many records an operator has left out for a reason.
func (d *Driver) Dropped(operator string, reason plan.DropReason) int {
	return d.dropped[operator+" "+string(reason)]
}

func (d *Driver) must(err error) {
	if err != nil {
		d.t.Helper()
		d.t.Fatalf("streamtest: %v", err)
	}
}

// settle runs records until there are none, and commits unless that is manual.
func (d *Driver) settle(punctuate bool) error {
	if d.err != nil {
		return fmt.Errorf("the topology has failed: call Crash to start it again: %w", d.err)
	}
	if punctuate {
		for _, r := range d.tasks {
			if err := r.Punctuate(); err != nil {
				return d.failed(err)
			}
		}
	}
	if d.manual {
		return d.runAll()
	}
	return d.commitAll()
}

func (d *Driver) failed(err error) error {
	d.err = err
	return err
}

// runAll runs what the topics hold; results reach other tasks by commits only.
func (d *Driver) runAll() error {
	if err := d.followGlobals(); err != nil {
		return d.failed(err)
	}
	for _, r := range d.tasks {
		if err := d.run(r); err != nil {
			return d.failed(err)
		}
	}
	return nil
}

// commitAll runs and commits until nothing is left to do.
func (d *Driver) commitAll() error {
	for {
		if err := d.runAll(); err != nil {
			return err
		}
		dirty := false
		for _, r := range d.tasks {
			if !r.Dirty() {
				continue
			}
			dirty = true
			if err := d.commitTask(r); err != nil {
				return d.failed(err)
			}
		}
		if !dirty {
			return nil
		}
	}
}

// run runs one task until it has read its topics to their ends.
func (d *Driver) run(r *driven) error {
	for {
		for i, s := range r.sub.Sources {
			if !r.Needs(i) {
				continue
			}
			records := d.log.partition(s.FullName(appID), r.ID().Partition)
			if end := int64(len(records)); r.next[i] < end {
				r.Add(i, records[r.next[i]:], end, -1)
				r.next[i] = end
			}
			r.CaughtUp(i)
		}
		n, err := r.Process(1 << 20)
		if err != nil || n == 0 {
			return err
		}
	}
}

// commitTask commits one task: outputs and changelogs, offsets, stores.
func (d *Driver) commitTask(r *driven) error {
	if err := r.Prepare(); err != nil {
		return err
	}
	r.pending.write()
	for _, o := range r.Offsets(nil) {
		d.committed[key(o.Topic, r.ID().Partition)] = commit{o.Offset, o.Note}
	}
	return r.Committed()
}
