package topology

import (
	"errors"
	"reflect"
	"time"

	"github.com/leatlog/leat/state"
	"github.com/leatlog/leat/topology/internal/graph"
	"github.com/leatlog/leat/topology/plan"
	"github.com/leatlog/leat/topology/serde"
)

// Table is the latest value of each key: the result of an aggregation, of ToTable or
// ToVersionedTable, or of what is made of tables.
type Table[K, V any] struct {
	t     *Topology
	node  int
	key   Serde[K]
	value Serde[V]
	// windowed says that the keys are windows, which cannot be looked up; closesAt is the
	// event time at which a key's window is closed, nil for other tables.
	windowed bool
	closesAt func(K) int64
	// suppressed says that updates are held back, so that it cannot be looked up.
	suppressed bool
	// versioned says that it can be looked up as of a time.
	versioned bool
	// stored is how values are written to the table's own store, nil when it has none;
	// computed tells the rows of a table that is made of another one's.
	stored   Serde[V]
	computed func() (Rows[K, V], error)
}

// Stream returns the table's updates as a stream: the new value of each key that
// changed, at most once per key and commit, or each result once with
// OnWindowClose. A key that was removed has a null value.
func (table *Table[K, V]) Stream() *Stream[K, V] {
	t := table.t
	id := t.add(graph.Node{
		Name: t.defaultName(t.graph.Nodes[table.node].Name + ".stream"), Kind: "stream", Inputs: []int{table.node},
	}, code{compile: func(i *instance, n *graph.Node) any { return next[K, V](i, n) }})
	return &Stream[K, V]{t, id, table.key, table.value}
}

// step makes the next aggregate of the last and a record; found is false, and the
// aggregate A's zero value, when the record is the first.
type step[K, V, A any] func(aggregate A, found bool, r *Record[K, V]) (A, error)

// Count counts the records of each key, or of each key and window. name names
// the store, whose changelog is <app>-<name>-changelog.
func Count[R, K, V any](name string, g Grouping[R, K, V], opts ...AggregateOption) *Table[R, int64] {
	return aggregate(name, "count", g, serde.Int64, true, func(n int64, _ bool, _ *Record[K, V]) (int64, error) {
		return n + 1, nil
	}, func(a, b int64, _ *Record[K, V]) (int64, error) { return a + b, nil }, opts)
}

// Reduce combines the values of each key, or of each key and window, in the order
// in which they arrive; the first is taken as it is. Sessions that become one are
// combined in the same way. name names the store. f must
// return a new value and not change its arguments in place: the first one may be a
// record's value, which other operators share. Aggregate is for that.
func Reduce[R, K, V any](name string, g Grouping[R, K, V], f func(V, V) V, opts ...AggregateOption) *Table[R, V] {
	return reduce(name, g, f != nil, func(v V, r *Record[K, V]) (V, error) { return f(v, r.Value), nil }, opts)
}

// ReduceRecord is Reduce with the whole record.
func ReduceRecord[R, K, V any](name string, g Grouping[R, K, V], f func(V, *Record[K, V]) (V, error), opts ...AggregateOption) *Table[R, V] {
	return reduce(name, g, f != nil, f, opts)
}

func reduce[R, K, V any](name string, g Grouping[R, K, V], given bool, f func(V, *Record[K, V]) (V, error), opts []AggregateOption) *Table[R, V] {
	group, _ := g.grouped()
	return aggregate(name, "reduce", g, group.stream.value, given, func(v V, found bool, r *Record[K, V]) (V, error) {
		if !found {
			return r.Value, nil
		}
		return f(v, r)
	}, func(a, b V, r *Record[K, V]) (V, error) {
		return f(a, &Record[K, V]{Key: r.Key, Value: b, Timestamp: r.Timestamp})
	}, opts)
}

// Aggregate folds the values of each key, or of each key and window, into an
// aggregate, in the order in which they arrive. It begins with A's zero value, or
// with what Initial makes. name names the store, value is how aggregates are
// written to it.
//
// The aggregate belongs to the operator: between commits it stays in a cache as
// it is, so an A with pointers, such as *Sketch, is neither copied nor encoded per
// record. f may change it in place and return it, but must not keep it, nor return
// one that it gave away elsewhere. What reaches the operators behind is the same
// value, to be read during the call and not kept or changed. When f fails and the
// policy is to go on, it must have left the aggregate as it was. A nil aggregate
// removes the key.
func Aggregate[R, K, V, A any](name string, g Grouping[R, K, V], value Serde[A], f func(A, V) A, opts ...AggregateOption) *Table[R, A] {
	return fold(name, g, value, f != nil, func(a A, r *Record[K, V]) (A, error) { return f(a, r.Value), nil }, opts)
}

// AggregateRecord is Aggregate with the whole record.
func AggregateRecord[R, K, V, A any](name string, g Grouping[R, K, V], value Serde[A], f func(A, *Record[K, V]) (A, error), opts ...AggregateOption) *Table[R, A] {
	return fold(name, g, value, f != nil, f, opts)
}

func fold[R, K, V, A any](name string, g Grouping[R, K, V], value Serde[A], given bool, f func(A, *Record[K, V]) (A, error), opts []AggregateOption) *Table[R, A] {
	group, _ := g.grouped()
	o := aggregateOptions(opts)
	initial, merge := initialOf[A](group.stream.t, name, o), mergerOf[K, V, A](name, g, o)
	return aggregate(name, "aggregate", g, value, given, func(a A, found bool, r *Record[K, V]) (A, error) {
		if !found {
			a = initial()
		}
		return f(a, r)
	}, merge, opts)
}

// initialOf returns what makes the first value of an aggregate.
func initialOf[A any](t *Topology, name string, o options) func() A {
	initial := func() (zero A) { return zero }
	if o.initial == nil {
		return initial
	}
	chosen, fits := o.initial.(func() A)
	if !fits || chosen == nil {
		t.mistake(name, "Initial has a %T, but the aggregates are %s: give it a func() %[2]s that is not nil",
			o.initial, reflect.TypeFor[A]())
		return initial
	}
	return chosen
}

func aggregateOptions(opts []AggregateOption) options {
	var o options
	for _, opt := range opts {
		opt.ofAggregate(&o)
	}
	return o
}

// aggregate adds a stateful operator.
func aggregate[R, K, V, A any](name string, kind graph.Kind, g Grouping[R, K, V], value Serde[A], given bool, f step[K, V, A], merge merger[K, V, A], opts []AggregateOption) *Table[R, A] {
	group, windows := g.grouped()
	s, o := group.stream, aggregateOptions(opts)
	t := s.t
	if !given {
		t.mistake(name, "the function of this %s is nil", kind)
	}
	if s.key == nil {
		t.mistake(name, "there is no serde for its keys, of type %s: call WithKeySerde on the stream before it is grouped", reflect.TypeFor[K]())
	}
	if value == nil {
		t.mistake(name, "there is no serde for its values, of type %s: this %s needs one, from its argument or from WithValueSerde on the stream before it is grouped",
			reflect.TypeFor[A](), kind)
	}
	if o.initial != nil && kind != "aggregate" && kind != "aggregate-table" {
		t.mistake(name, "Initial is for Aggregate, this is a %s: leave it out", kind)
	}
	if o.merger != nil && kind != "aggregate" {
		t.mistake(name, "Merger is for Aggregate, this is a %s, which combines sessions by itself: leave it out", kind)
	}
	policy := t.policyOf(o)
	spec := aggregation[R, K, V, A]{
		step: f, merge: merge, policy: policy, key: s.key, value: value, input: s.value, result: g.result, onClose: o.onClose, mutable: kind == "aggregate",
	}
	n := graph.Node{
		Name: name, Kind: kind, Durable: true, ByKey: true, Inputs: []int{s.node}, DeadLetter: policy.deadLetter,
		Store: &state.Spec{Name: name, InMemory: o.inMemory},
	}
	if s.key != nil && value != nil {
		n.Store.KeyFormat, n.Store.ValueFormat = s.key.Name(), value.Name()
	}
	t.durable(&n, o)
	compile := spec.keyed
	var cut *plan.Windows
	switch {
	case windows == nil && (o.onClose || o.retention != 0):
		t.mistake(name, "OnWindowClose and Retention need windows: group with Window first, or leave them out")
	case windows == nil:
	case windows.complaint() != "":
		t.mistake(name, "%s", windows.complaint())
	case o.retention != 0 && o.retention < windows.retention():
		t.mistake(name, "the retention is %v: it must be at least %v", o.retention, windows.retentionText())
	default:
		spec.windows, spec.retention = *windows, max(o.retention, windows.retention())
		n.Store.Kind, n.Store.WindowSize = state.Window, windows.size
		// A restore may come after a commit that closed windows and did not get to its end:
		// without transactions it must find them once more.
		n.Store.Retention = spec.retention + windows.retention()
		n.Detail = windows.String() + ", emits on update"
		if o.onClose {
			n.Detail = windows.String() + ", emits on close"
		}
		compile, cut = spec.windowed, windows.plan(o.onClose)
		switch windows.kind {
		case sessionWindows:
			n.Store.Kind, n.Store.WindowSize = state.Session, 0
			compile = spec.sessions
		case slidingWindows:
			compile = spec.sliding
		}
	}
	id := t.add(n, code{compile: compile, windows: cut})
	table := &Table[R, A]{t: t, node: id, key: g.resultSerde(), value: value, stored: value}
	if windows != nil {
		table.windowed, table.closesAt = true, g.closesAt
	}
	return table
}

// aggregation is what the engine of an aggregation needs to know.
type aggregation[R, K, V, A any] struct {
	step    step[K, V, A]
	merge   merger[K, V, A]
	policy  ErrorPolicy
	key     Serde[K]
	value   Serde[A]
	input   Serde[V]
	result  func(K, Window) R
	onClose bool
	// mutable says that step may change an aggregate in place.
	mutable bool
	// windows and retention are set for windowed aggregations.
	windows   Windows
	retention time.Duration
}

// errUnchanged says that a step leaves the aggregate as it is, or that there is none.
var errUnchanged = errors.New("the aggregate stays as it is")

// errTooShort says that a stored aggregate lacks its timestamp.
var errTooShort = errors.New("a stored aggregate has fewer than 8 bytes")
