package topology

import (
	"github.com/leatlog/leat/topology/internal/graph"
)

// side is what one of two tables has for a key.
type side[V any] struct {
	value V
	found bool
}

// JoinTables is the table of the keys that both tables have. Like all that is made of
// tables it keeps no store of its own: f runs for each update of either side, and again
// when the result is looked up. The topics of both must have equally many partitions, which
// the app checks at its start. What f gets is to be read during the call and not kept or
// changed.
func JoinTables[K, A, B, R any](a *Table[K, A], b *Table[K, B], f func(A, B) R, opts ...StreamOption) *Table[K, R] {
	return joinTables(a, b, "join-tables", f != nil, func(a side[A], b side[B]) (R, bool) {
		if !a.found || !b.found {
			var none R
			return none, false
		}
		return f(a.value, b.value), true
	}, opts)
}

// LeftJoinTables is the table of the keys that a has: found tells whether b has the key,
// too.
func LeftJoinTables[K, A, B, R any](a *Table[K, A], b *Table[K, B], f func(a A, b B, found bool) R, opts ...StreamOption) *Table[K, R] {
	return joinTables(a, b, "left-join-tables", f != nil, func(a side[A], b side[B]) (R, bool) {
		if !a.found {
			var none R
			return none, false
		}
		return f(a.value, b.value, b.found), true
	}, opts)
}

// OuterJoinTables is the table of the keys that any of the two has, hasA and hasB tell
// which.
func OuterJoinTables[K, A, B, R any](a *Table[K, A], b *Table[K, B], f func(a A, hasA bool, b B, hasB bool) R, opts ...StreamOption) *Table[K, R] {
	return joinTables(a, b, "outer-join-tables", f != nil, func(a side[A], b side[B]) (R, bool) {
		if !a.found && !b.found {
			var none R
			return none, false
		}
		return f(a.value, a.found, b.value, b.found), true
	}, opts)
}

func joinTables[K, A, B, R any](a *Table[K, A], b *Table[K, B], kind graph.Kind, given bool, f func(side[A], side[B]) (R, bool), opts []StreamOption) *Table[K, R] {
	t := a.t
	n, _ := tableNode(a, kind, given, opts)
	n.ByKey = true
	if b.t == t {
		n.Inputs = append(n.Inputs, b.node)
	}
	compile := func(i *instance, n *graph.Node) any {
		j := &joinedTables[K, A, B, R]{i: i, left: a.node, right: b.node, f: f}
		i.tables[n.ID] = j
		emit := emitTo[K, R](i, n)
		null := nullCheck[A]()
		nullB := nullCheck[B]()
		return ports{
			sink[K, A](func(r *Record[K, A]) error {
				other, err := j.b(r.Key)
				if err != nil {
					return broken(i, n.Name, err)
				}
				now := side[A]{r.Value, !r.nullValue && !null.isNull(r.Value)}
				result, found := f(now, other)
				return emit(r.Key, r.Timestamp, result, found, !now.found)
			}),
			sink[K, B](func(r *Record[K, B]) error {
				other, err := j.a(r.Key)
				if err != nil {
					return broken(i, n.Name, err)
				}
				now := side[B]{r.Value, !r.nullValue && !nullB.isNull(r.Value)}
				result, found := f(other, now)
				return emit(r.Key, r.Timestamp, result, found, !now.found)
			}),
		}
	}
	id := t.add(n, code{compile: compile})
	a.mustBeJoinable(t, n.Name)
	b.mustBeJoinable(t, n.Name)
	return &Table[K, R]{t: t, node: id, key: a.key}
}

// tableNode is the node of an operator on a table.
func tableNode[K, V any](table *Table[K, V], kind graph.Kind, given bool, opts []StreamOption) (graph.Node, ErrorPolicy) {
	var o options
	for _, opt := range opts {
		opt.ofStream(&o)
	}
	t := table.t
	name := o.name
	if name == "" {
		name = t.defaultName(t.graph.Nodes[table.node].Name + "." + string(kind))
	}
	if !given {
		t.mistake(name, "the function of this %s is nil", kind)
	}
	policy := t.policyOf(o)
	return graph.Node{Name: name, Kind: kind, Inputs: []int{table.node}, DeadLetter: policy.deadLetter}, policy
}

// emitTo returns what emits the updates of a table that has no store. What it does not
// have now it may have had before, if a side was removed: then its key is removed, once too
// often rather than never.
func emitTo[K, R any](i *instance, n *graph.Node) func(key K, timestamp int64, result R, found, removed bool) error {
	next, out := next[K, R](i, n), new(Record[K, R])
	null := nullRecord[K, R]()
	return func(key K, timestamp int64, result R, found, removed bool) error {
		switch {
		case found:
			*out = Record[K, R]{Value: result}
		case removed:
			*out = null
		default:
			return nil
		}
		out.Key, out.Timestamp = key, timestamp
		return next(out)
	}
}

// joinedTables looks up the join of two tables.
type joinedTables[K, A, B, R any] struct {
	i           *instance
	left, right int
	f           func(side[A], side[B]) (R, bool)
}

func (j *joinedTables[K, A, B, R]) a(key K) (side[A], error) { return lookUp[K, A](j.i, j.left, key) }
func (j *joinedTables[K, A, B, R]) b(key K) (side[B], error) { return lookUp[K, B](j.i, j.right, key) }

// lookUp looks up a table for a key that comes from one: a key that cannot be written
// is an error.
func lookUp[K, V any](i *instance, node int, key K) (side[V], error) {
	value, found, failure, err := i.tables[node].(lookup[K, V]).lookup(key)
	if err == nil {
		err = failure
	}
	return side[V]{value, found}, err
}

func (j *joinedTables[K, A, B, R]) lookup(key K) (result R, found bool, failure, err error) {
	a, err := j.a(key)
	if err != nil {
		return result, false, nil, err
	}
	b, err := j.b(key)
	if err != nil {
		return result, false, nil, err
	}
	result, found = j.f(a, b)
	return result, found, nil, nil
}
