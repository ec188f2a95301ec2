package topology

import (
	"github.com/leatlog/leat/state"
	"github.com/leatlog/leat/topology/internal/graph"
	"github.com/leatlog/leat/topology/plan"
)

// TableOption is an option of ToTable, ToVersionedTable and Decide: InMemory, OnError, Formerly.
type TableOption = AggregateOption

// ToTable keeps the latest value of each key of a stream; a null value removes the
// key. name names the store, whose changelog is <app>-<name>-changelog. Records
// without a key are dropped and counted. Behind an operator that changed the keys it needs a
// Repartition. Updates count in the order in which they arrive, whatever their
// timestamps say; ToVersionedTable goes by those.
func ToTable[K, V any](name string, s *Stream[K, V], opts ...TableOption) *Table[K, V] {
	return tableOf(name, s, graph.Node{Kind: "to-table", Store: &state.Spec{}}, latest[K, V], opts)
}

// tableOf adds a table of a stream's values.
func tableOf[K, V any](name string, s *Stream[K, V], n graph.Node, run func(aggregation[K, K, V, V], *instance, *graph.Node) any, opts []TableOption) *Table[K, V] {
	t, o := s.t, aggregateOptions(opts)
	if complaint := s.unwritable(); complaint != "" {
		t.mistake(name, "%s", complaint)
	}
	if o.aggregates() {
		t.mistake(name, "OnWindowClose, Retention, Initial and Merger are for aggregations, this is a table of a stream: leave them out")
	}
	policy := t.policyOf(o)
	spec := aggregation[K, K, V, V]{policy: policy, key: s.key, value: s.value, input: s.value, result: func(key K, _ Window) K { return key }}
	n.Name, n.Durable, n.ByKey, n.Inputs, n.DeadLetter = name, true, true, []int{s.node}, policy.deadLetter
	n.Store.Name, n.Store.InMemory = name, o.inMemory
	t.durable(&n, o)
	if s.key != nil && s.value != nil {
		n.Store.KeyFormat, n.Store.ValueFormat = s.key.Name(), s.value.Name()
	}
	return &Table[K, V]{t: t, node: t.add(n, code{compile: func(i *instance, n *graph.Node) any { return run(spec, i, n) }}),
		key: s.key, value: s.value, stored: s.value}
}

// latest runs a table whose values are those of the records.
func latest[K, V any](spec aggregation[K, K, V, V], i *instance, n *graph.Node) any {
	a := spec.table(i, n)
	failures := newFailures(i, n, spec.policy, spec.key, spec.input)
	nullKey, nullValue := nullCheck[K](), nullCheck[V]()
	return sink[K, V](func(r *Record[K, V]) error {
		if r.nullKey || nullKey.isNull(r.Key) {
			i.ctx.Dropped(n.Name, plan.DropNullKey, nil)
			return nil
		}
		e, failure, err := a.entry(r.Key)
		switch {
		case failure != nil:
			return failures.handle(failure, r)
		case err != nil:
			return err
		case r.nullValue || nullValue.isNull(r.Value):
			a.cache.remove(e, r.Timestamp)
		default:
			a.cache.set(e, r.Value, r.Timestamp)
		}
		e.timestamp = r.Timestamp // also when it is earlier: the value is this record's alone
		if a.cache.full() {
			return a.relieve()
		}
		return nil
	})
}

// lookup is a table that other operators of its task look up.
type lookup[K, V any] interface {
	// lookup returns what the table has for a key. failure is about the key alone; an err
	// stops the task.
	lookup(key K) (value V, found bool, failure, err error)
}

// asOfLookup is a lookup that knows what was.
type asOfLookup[K, V any] interface {
	// lookupAsOf is lookup of what the table had for a key at a time, in ms since the Unix
	// epoch.
	lookupAsOf(key K, at int64) (value V, found bool, failure, err error)
}

// finder returns what looks a table up for the records of a stream, by their keys and times.
func (table *Table[K, V]) finder(i *instance) func(key K, at int64) (value V, found bool, failure, err error) {
	if table.versioned {
		return i.tables[table.node].(asOfLookup[K, V]).lookupAsOf
	}
	latest := i.tables[table.node].(lookup[K, V])
	return func(key K, _ int64) (V, bool, error, error) { return latest.lookup(key) }
}

// JoinTable makes a record of each record of the stream and what the table has for its key
// at that moment, a versioned table at the record's time; records whose key the table does not have are left out. The topics of
// both must have equally many partitions, which the app checks at its start. What f gets
// of an aggregated table is to be read during the call and not kept or changed.
func JoinTable[K, V, T, R any](s *Stream[K, V], table *Table[K, T], f func(V, T) R, opts ...StreamOption) *Stream[K, R] {
	return joinTable(s, table, "join-table", f != nil, func(r *Record[K, V], value T, found bool) (R, bool, error) {
		if !found {
			var none R
			return none, false, nil
		}
		return f(r.Value, value), true, nil
	}, opts)
}

// LeftJoinTable is JoinTable that keeps records whose key the table does not have: for
// them found is false and the table's value is zero.
func LeftJoinTable[K, V, T, R any](s *Stream[K, V], table *Table[K, T], f func(value V, of T, found bool) R, opts ...StreamOption) *Stream[K, R] {
	return joinTable(s, table, "left-join-table", f != nil, func(r *Record[K, V], value T, found bool) (R, bool, error) {
		return f(r.Value, value, found), true, nil
	}, opts)
}

func joinTable[K, V, T, R any](s *Stream[K, V], table *Table[K, T], kind graph.Kind, given bool,
	f func(*Record[K, V], T, bool) (result R, emit bool, err error), opts []StreamOption) *Stream[K, R] {
	n := graph.Node{Kind: kind, ByKey: true}
	if table.t == s.t {
		n.Inputs, n.Lookups = []int{table.node}, 1
	}
	left := kind == "left-join-table"
	id := s.stateless(n, given, opts, func(st stage[K, V]) sink[K, V] {
		next, out := next[K, R](st.i, st.node), new(Record[K, R])
		nullKey, nullValue := nullCheck[K](), nullCheck[V]()
		var find func(K, int64) (T, bool, error, error) // in what is compiled after this operator
		return func(r *Record[K, V]) error {
			if find == nil {
				find = table.finder(st.i)
			}
			null := r.nullKey || nullKey.isNull(r.Key)
			switch {
			case r.nullValue || nullValue.isNull(r.Value):
				return st.dropNullValue()
			case null && !left:
				st.i.ctx.Dropped(st.node.Name, plan.DropNullKey, nil)
				return nil
			}
			var value T
			var found bool
			if !null {
				var failure, err error
				value, found, failure, err = find(r.Key, r.Timestamp)
				switch {
				case err != nil:
					return err
				case failure != nil:
					return st.failures.handle(failure, r)
				}
			}
			result, emit, err := f(r, value, found)
			if err != nil {
				return st.failures.handle(err, r)
			}
			if !emit {
				return nil
			}
			*out = Record[K, R]{Key: r.Key, nullKey: r.nullKey, Value: result, Timestamp: r.Timestamp, Headers: r.Headers}
			return next(out)
		}
	})
	table.mustBeJoinable(s.t, s.t.graph.Nodes[id].Name)
	return &Stream[K, R]{t: s.t, node: id, key: s.key}
}

// mustBeJoinable notes why an operator of t cannot look the table up.
func (table *Table[K, V]) mustBeJoinable(t *Topology, operator string) {
	switch {
	case table.t != t:
		t.mistake(operator, "it joins with a table of another topology: declare both in one")
	case table.suppressed:
		t.mistake(operator, "it joins with %q, which holds updates back: join first, and suppress what comes of it",
			t.graph.Nodes[table.node].Name)
	case table.windowed:
		t.mistake(operator, "it joins with %q, whose keys are windows: only tables whose keys have one value can be joined",
			t.graph.Nodes[table.node].Name)
	}
}
