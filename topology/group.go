package topology

import (
	"reflect"

	"github.com/leatlog/leat/topology/internal/graph"
	"github.com/leatlog/leat/topology/plan"
	"github.com/leatlog/leat/topology/serde"
)

// Repartition writes the stream to an internal topic, <app>-<name>-repartition,
// and reads it back, so that records lie where their keys belong. Groupings do so
// by themselves when they must; an explicit one is shared by all that follow.
func (s *Stream[K, V]) Repartition(name string, opts ...RepartitionOption) *Stream[K, V] {
	var o options
	for _, opt := range opts {
		opt.ofRepartition(&o)
	}
	policy := s.t.policyOf(o)
	n := graph.Node{
		Name: name, Kind: graph.Repartition, Durable: true, Topic: name, Inputs: []int{s.node},
		Partitions: s.t.partitionsOf(name, o), DeadLetter: policy.deadLetter, Unwritable: s.unwritable(),
	}
	s.t.durable(&n, o)
	id := s.t.add(n, code{ends: ends[K, V]{key: s.key, value: s.value, policy: policy}})
	return &Stream[K, V]{s.t, id, s.key, s.value}
}

func (t *Topology) partitionsOf(operator string, o options) int32 {
	if o.partitions < 0 {
		t.mistake(operator, "Partitions is %d: it must be at least 1", o.partitions)
	}
	return o.partitions
}

// Grouping is what Count, Reduce and Aggregate work on: a *Grouped by key or a
// *WindowedGroup by key and window. R is the key of the results.
type Grouping[R, K, V any] interface {
	grouped() (*Grouped[K, V], *Windows)
	resultSerde() Serde[R]
	result(key K, window Window) R
	// closesAt is the event time at which a result's window is closed.
	closesAt(R) int64
}

// Grouped is a stream grouped by its key.
type Grouped[K, V any] struct{ stream *Stream[K, V] }

// GroupBy groups the stream by a new key that f finds in the value. name names
// the repartition topic, <app>-<name>-repartition, through which the records
// reach the task of their new key. Values in it are written with the stream's
// serde: that of the topic, or what WithValueSerde said.
func GroupBy[K, V, K2 any](name string, s *Stream[K, V], key Serde[K2], f func(V) K2, opts ...RepartitionOption) *Grouped[K2, V] {
	return groupBy(name, s, key, f != nil, func(r *Record[K, V]) (K2, error) { return f(r.Value), nil }, opts)
}

// GroupByRecord is GroupBy with the whole record.
func GroupByRecord[K, V, K2 any](name string, s *Stream[K, V], key Serde[K2], f func(*Record[K, V]) (K2, error), opts ...RepartitionOption) *Grouped[K2, V] {
	return groupBy(name, s, key, f != nil, f, opts)
}

func groupBy[K, V, K2 any](name string, s *Stream[K, V], key Serde[K2], given bool, f func(*Record[K, V]) (K2, error), opts []RepartitionOption) *Grouped[K2, V] {
	var o options
	for _, opt := range opts {
		opt.ofRepartition(&o)
	}
	if !given {
		s.t.mistake(name, "the function of this %s is nil", graph.GroupBy)
	}
	if key == nil {
		s.t.mistake(name, "the serde of the new key is nil: give it one for %s", reflect.TypeFor[K2]())
	}
	policy := s.t.policyOf(o)
	out := &Stream[K2, V]{s.t, graph.None, key, s.value}
	compile := func(i *instance, n *graph.Node) any {
		next, out := next[K2, V](i, n), new(Record[K2, V])
		failures := newFailures(i, n, policy, s.key, s.value)
		nullKey, nullValue := nullCheck[K2](), nullCheck[V]()
		return sink[K, V](func(r *Record[K, V]) error {
			if r.nullValue || nullValue.isNull(r.Value) {
				i.ctx.Dropped(n.Name, plan.DropNullValue, nil)
				return nil
			}
			key, err := f(r)
			if err != nil {
				return failures.handle(err, r)
			}
			if nullKey.isNull(key) {
				i.ctx.Dropped(n.Name, plan.DropNullKey, nil)
				return nil
			}
			*out = Record[K2, V]{Key: key, Value: r.Value, Timestamp: r.Timestamp, Headers: r.Headers}
			return next(out)
		})
	}
	n := graph.Node{
		Name: name, Kind: graph.GroupBy, Durable: true, ChangesKey: true, Inputs: []int{s.node},
		Partitions: s.t.partitionsOf(name, o), DeadLetter: policy.deadLetter,
	}
	if s.value == nil {
		n.Unwritable = s.unwritable()
	}
	s.t.durable(&n, o)
	out.node = s.t.add(n, code{compile: compile, ends: ends[K2, V]{key: key, value: s.value, policy: policy}})
	return &Grouped[K2, V]{out}
}

// GroupByKey groups the stream by the key it has. When an operator before it
// changed the key, it needs a repartition topic, and so a name: Named.
func (s *Stream[K, V]) GroupByKey(opts ...GroupOption) *Grouped[K, V] {
	var o options
	for _, opt := range opts {
		opt.ofGroup(&o)
	}
	name := o.name
	if name == "" {
		name = s.t.defaultName(s.name() + "." + string(graph.GroupByKey))
	}
	policy := s.t.policyOf(o)
	compile := func(i *instance, n *graph.Node) any {
		next := next[K, V](i, n)
		nullKey, nullValue := nullCheck[K](), nullCheck[V]()
		return sink[K, V](func(r *Record[K, V]) error {
			switch {
			case r.nullKey || nullKey.isNull(r.Key):
				i.ctx.Dropped(n.Name, plan.DropNullKey, nil)
				return nil
			case r.nullValue || nullValue.isNull(r.Value):
				i.ctx.Dropped(n.Name, plan.DropNullValue, nil)
				return nil
			}
			return next(r)
		})
	}
	n := graph.Node{
		Name: name, Kind: graph.GroupByKey, Durable: o.name != "", Inputs: []int{s.node},
		Partitions: s.t.partitionsOf(name, o), DeadLetter: policy.deadLetter, Unwritable: s.unwritable(),
	}
	s.t.durable(&n, o)
	if o.formerly != nil && !n.Durable {
		s.t.mistake(name, "Formerly(%q) is for a grouping with a name: Named(\"...\")", *o.formerly)
	}
	id := s.t.add(n, code{compile: compile, ends: ends[K, V]{key: s.key, value: s.value, policy: policy}})
	return &Grouped[K, V]{&Stream[K, V]{s.t, id, s.key, s.value}}
}

func (g *Grouped[K, V]) grouped() (*Grouped[K, V], *Windows) { return g, nil }
func (g *Grouped[K, V]) resultSerde() Serde[K]               { return g.stream.key }
func (g *Grouped[K, V]) result(key K, _ Window) K            { return key }
func (g *Grouped[K, V]) closesAt(K) int64                    { return 0 }

// WindowedGroup is a stream grouped by its key and by windows of event time.
type WindowedGroup[K, V any] struct {
	group   *Grouped[K, V]
	windows Windows
}

// Window cuts each key's records into windows.
func (g *Grouped[K, V]) Window(w Windows) *WindowedGroup[K, V] { return &WindowedGroup[K, V]{g, w} }

func (g *WindowedGroup[K, V]) grouped() (*Grouped[K, V], *Windows) { return g.group, &g.windows }

func (g *WindowedGroup[K, V]) result(key K, window Window) WindowedKey[K] {
	return WindowedKey[K]{Key: key, Window: window}
}

func (g *WindowedGroup[K, V]) closesAt(key WindowedKey[K]) int64 {
	return g.windows.closesAt(key.Window)
}

func (g *WindowedGroup[K, V]) resultSerde() Serde[WindowedKey[K]] {
	if g.group.stream.key == nil {
		return nil
	}
	if g.windows.kind == sessionWindows {
		return serde.Session(g.group.stream.key)
	}
	return serde.Windowed(g.group.stream.key, g.windows.size)
}
