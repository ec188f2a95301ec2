package topology

import (
	"github.com/leatlog/leat/topology/internal/graph"
)

// Update is what a record of a group does to an aggregate. It is valid during the call
// that gets it.
type Update[A any] struct{ apply func(A) (A, error) }

// Cogroupable is a group of one type of values that goes into a common aggregate; Into
// makes it.
type Cogroupable[K, A any] struct {
	t    *Topology
	name string
	key  Serde[K]
	node int
}

// Into folds the values of a group into an aggregate of type A, together with those of
// other groups: see Cogroup. f is as Aggregate's.
func Into[K, V, A any](g *Grouped[K, V], f func(A, V) A) Cogroupable[K, A] {
	return into(g, f != nil, func(a A, r *Record[K, V]) (A, error) { return f(a, r.Value), nil })
}

// IntoRecord is Into with the whole record.
func IntoRecord[K, V, A any](g *Grouped[K, V], f func(A, *Record[K, V]) (A, error)) Cogroupable[K, A] {
	return into(g, f != nil, f)
}

func into[K, V, A any](g *Grouped[K, V], given bool, f func(A, *Record[K, V]) (A, error)) Cogroupable[K, A] {
	s := g.stream
	name := s.t.defaultName(s.name() + ".into")
	if !given {
		s.t.mistake(name, "the function of this into is nil")
	}
	compile := func(i *instance, n *graph.Node) any {
		next, out := next[K, Update[A]](i, n), new(Record[K, Update[A]])
		var current *Record[K, V]
		update := Update[A]{func(a A) (A, error) { return f(a, current) }} // one for all records
		return sink[K, V](func(r *Record[K, V]) error {
			current = r
			*out = Record[K, Update[A]]{Key: r.Key, Value: update, Timestamp: r.Timestamp, Headers: r.Headers}
			return next(out)
		})
	}
	node := s.t.add(graph.Node{Name: name, Kind: "into", ByKey: true, Inputs: []int{s.node}}, code{compile: compile})
	return Cogroupable[K, A]{s.t, name, s.key, node}
}

// Cogroup groups streams of several types by the same key: AggregateCogroup folds them
// into one aggregate, by key or, behind Window, by key and window. The topics of all must
// have equally many partitions, which the app checks at its start.
func Cogroup[K, A any](first Cogroupable[K, A], others ...Cogroupable[K, A]) *Grouped[K, Update[A]] {
	t := first.t
	n := graph.Node{Name: t.defaultName(first.name + ".cogroup"), Kind: "cogroup", ByKey: true, Inputs: []int{first.node}}
	for _, other := range others {
		if other.t != t {
			t.mistake(n.Name, "it groups with %q of another topology: declare both in one", other.name)
			continue
		}
		n.Inputs = append(n.Inputs, other.node)
	}
	node := t.add(n, code{compile: func(i *instance, n *graph.Node) any { return next[K, Update[A]](i, n) }})
	return &Grouped[K, Update[A]]{&Stream[K, Update[A]]{t: t, node: node, key: first.key}}
}

// AggregateCogroup folds the records of all the groups of a Cogroup into one aggregate for
// each key, or for each key and window, in the order in which they arrive. It is Aggregate
// otherwise.
func AggregateCogroup[R, K, A any](name string, g Grouping[R, K, Update[A]], value Serde[A], opts ...AggregateOption) *Table[R, A] {
	return fold(name, g, value, true, func(a A, r *Record[K, Update[A]]) (A, error) { return r.Value.apply(a) }, opts)
}
