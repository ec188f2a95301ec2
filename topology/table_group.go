package topology

import (
	"reflect"

	"github.com/leatlog/leat/state"
	"github.com/leatlog/leat/topology/internal/graph"
	"github.com/leatlog/leat/topology/serde"
)

// GroupedTable is a table whose rows are grouped by a new key.
type GroupedTable[K, V any] struct{ group *Grouped[K, change[V]] }

// GroupTable groups the rows of a table by a new key that f finds, with the value that f
// makes of each. An aggregation of the groups has each row once: when a row changes, what
// it counted for is taken out of the group it was in, and what it counts for now goes into
// the group it is in. name names the repartition topic, <app>-<name>-repartition, and
// the store that remembers what each row counted for, whose changelog is
// <app>-<name>-changelog. A row for which f gives a null key, or a null value, is in no
// group.
func GroupTable[K, V, K2, V2 any](name string, table *Table[K, V], key Serde[K2], value Serde[V2], f func(K, V) (K2, V2), opts ...RepartitionOption) *GroupedTable[K2, V2] {
	var o options
	for _, opt := range opts {
		opt.ofRepartition(&o)
	}
	t := table.t
	switch {
	case f == nil:
		t.mistake(name, "the function of this group-table is nil")
	case key == nil:
		t.mistake(name, "the serde of the new key is nil: give it one for %s", reflect.TypeFor[K2]())
	case value == nil:
		t.mistake(name, "the serde of the new value is nil: give it one for %s", reflect.TypeFor[V2]())
	case table.key == nil:
		t.mistake(name, "there is no serde for the keys of the table, of type %s: call WithKeySerde on the stream that the table is made of", reflect.TypeFor[K]())
	}
	policy := t.policyOf(o)
	spec := tableGrouping[K, V, K2, V2]{f: f, policy: policy, from: table.key, value: table.value, rows: contributionSerde[K2, V2]{key, value}}
	n := graph.Node{
		Name: t.defaultName(name + ".rows"), Kind: "group-table", ByKey: true, ChangesKey: true, Inputs: []int{table.node},
		DeadLetter: policy.deadLetter, Store: &state.Spec{Name: name},
	}
	t.durable(&n, o)
	changes := &Stream[K2, change[V2]]{t: t, key: key}
	if key != nil && value != nil && table.key != nil {
		n.Store.KeyFormat, n.Store.ValueFormat = table.key.Name(), spec.rows.Name()
		changes.value = changeSerde[V2]{value}
	}
	rows := t.add(n, code{compile: spec.compile})
	group := graph.Node{
		Name: name, Kind: graph.GroupBy, Durable: true, ChangesKey: true, Inputs: []int{rows},
		Partitions: t.partitionsOf(name, o), DeadLetter: policy.deadLetter,
	}
	t.durable(&group, o)
	changes.node = t.add(group, code{
		compile: func(i *instance, n *graph.Node) any { return next[K2, change[V2]](i, n) },
		ends:    ends[K2, change[V2]]{key: key, value: changes.value, policy: policy},
	})
	return &GroupedTable[K2, V2]{&Grouped[K2, change[V2]]{changes}}
}

// CountTable counts the rows of each group. A group that lost its last row has a count of
// 0. name names the store, whose changelog is <app>-<name>-changelog.
func CountTable[K, V any](name string, g *GroupedTable[K, V], opts ...AggregateOption) *Table[K, int64] {
	return aggregateTable(name, "count-table", g, serde.Int64, true, func(n int64, _ bool, c *change[V]) int64 {
		if c.hasOld && n > 0 {
			n--
		}
		if c.hasNew {
			n++
		}
		return n
	}, opts)
}

// ReduceTable combines the values of each group's rows: add takes a row in, subtract takes
// out what a row counted for before. The first value of a group is taken as it is. name
// names the store. Both must return a new value and not change their arguments in place.
func ReduceTable[K, V any](name string, g *GroupedTable[K, V], add, subtract func(V, V) V, opts ...AggregateOption) *Table[K, V] {
	var value Serde[V]
	if s, ok := g.group.stream.value.(changeSerde[V]); ok {
		value = s.value
	}
	return aggregateTable(name, "reduce-table", g, value, add != nil && subtract != nil, func(v V, found bool, c *change[V]) V {
		if c.hasOld && found {
			v = subtract(v, c.old)
		}
		switch {
		case c.hasNew && found:
			v = add(v, c.new)
		case c.hasNew:
			v = c.new
		}
		return v
	}, opts)
}

// AggregateTable folds the values of each group's rows into an aggregate, as Aggregate
// does: add takes a row in, subtract takes out what a row counted for before.
func AggregateTable[K, V, A any](name string, g *GroupedTable[K, V], value Serde[A], add, subtract func(A, V) A, opts ...AggregateOption) *Table[K, A] {
	initial := initialOf[A](g.group.stream.t, name, aggregateOptions(opts))
	return aggregateTable(name, "aggregate-table", g, value, add != nil && subtract != nil, func(a A, found bool, c *change[V]) A {
		if !found {
			a = initial()
		}
		if c.hasOld && found {
			a = subtract(a, c.old)
		}
		if c.hasNew {
			a = add(a, c.new)
		}
		return a
	}, opts)
}

func aggregateTable[K, V, A any](name string, kind graph.Kind, g *GroupedTable[K, V], value Serde[A], given bool, f func(A, bool, *change[V]) A, opts []AggregateOption) *Table[K, A] {
	return aggregate(name, kind, Grouping[K, K, change[V]](g.group), value, given, func(a A, found bool, r *Record[K, change[V]]) (A, error) {
		if !found && !r.Value.hasNew {
			return a, errUnchanged // nothing can be taken out of a group that has no aggregate
		}
		return f(a, found, &r.Value), nil
	}, nil, opts)
}

// tableGrouping is what the engine of a GroupTable needs to know.
type tableGrouping[K, V, K2, V2 any] struct {
	f      func(K, V) (K2, V2)
	policy ErrorPolicy
	from   Serde[K]
	value  Serde[V]
	rows   contributionSerde[K2, V2]
}

// compile makes changes of groups of the changes of rows. They leave when the row changes,
// not when its store is flushed: the table in front has combined what it could.
func (spec tableGrouping[K, V, K2, V2]) compile(i *instance, n *graph.Node) any {
	next, out := next[K2, change[V2]](i, n), new(Record[K2, change[V2]])
	same := func(key K, _ Window) K { return key }
	ignore := func(*Record[K, *contribution[K2, V2]]) error { return nil }
	rows := newKeyedAggregation[K, K, *contribution[K2, V2]](i, n, spec.from, spec.rows, same, ignore)
	failures := newFailures(i, n, spec.policy, spec.from, spec.value)
	null, nullKey, nullValue := nullCheck[V](), nullCheck[K2](), nullCheck[V2]()
	emit := func(key K2, c change[V2], r *Record[K, V]) error {
		*out = Record[K2, change[V2]]{Key: key, Value: c, Timestamp: r.Timestamp}
		return next(out)
	}
	return sink[K, V](func(r *Record[K, V]) error {
		e, failure, err := rows.entry(r.Key)
		switch {
		case failure != nil:
			return failures.handle(failure, r)
		case err != nil:
			return err
		}
		var now *contribution[K2, V2]
		if !r.nullValue && !null.isNull(r.Value) {
			key, value := spec.f(r.Key, r.Value)
			if !nullKey.isNull(key) && !nullValue.isNull(value) {
				now = &contribution[K2, V2]{key: key, value: value}
				if err := spec.rows.encode(now); err != nil {
					return failures.handle(err, r)
				}
			}
		}
		before := e.value
		rows.cache.set(e, now, r.Timestamp)
		switch {
		case before == nil && now == nil:
		case before == nil:
			err = emit(now.key, change[V2]{new: now.value, hasNew: true}, r)
		case now == nil:
			err = emit(before.key, change[V2]{old: before.value, hasOld: true}, r)
		case now.sameKey(before):
			// One record, so that no commit comes between the two (KIP-904).
			err = emit(now.key, change[V2]{before.value, now.value, true, true}, r)
		default:
			if err = emit(before.key, change[V2]{old: before.value, hasOld: true}, r); err == nil {
				err = emit(now.key, change[V2]{new: now.value, hasNew: true}, r)
			}
		}
		if err == nil && rows.cache.full() {
			err = rows.relieve()
		}
		return err
	})
}
