package topology

import (
	"fmt"
	"reflect"

	"github.com/leatlog/leat/state"
	"github.com/leatlog/leat/topology/internal/graph"
	"github.com/leatlog/leat/topology/plan"
)

// GlobalTable is the latest value of each key of a topic, all of it in every process of the
// app, whatever partitions the topic has. It is for tables that are small beside the streams
// that look them up by other keys than their own: a join with it needs no repartition and no
// equal numbers of partitions.
type GlobalTable[K, V any] struct {
	t     *Topology
	topic Topic[K, V]
}

// Global makes a table of a whole topic; a null value removes its key, records without a
// key are left out. The table is held in memory and read from its topic at each start of
// the app, before the first record is processed; from then on it follows the topic, on its
// own and not in the order of the timestamps, so that what a join finds depends on when it
// looks. The topic must exist.
func Global[K, V any](t *Topology, topic Topic[K, V]) *GlobalTable[K, V] {
	topic.check(t, topic.Name)
	if !t.globals[topic.Name] {
		if t.globals == nil {
			t.globals = map[string]bool{}
		}
		t.globals[topic.Name] = true
		t.globalTopics = append(t.globalTopics, topic.Name)
	}
	return &GlobalTable[K, V]{t, topic}
}

// JoinGlobal makes a record of each record of the stream and what the global table has at
// that moment for the key that key finds in it; records for whose key the table has nothing
// are left out. Records without a value, and those for which key finds null, are dropped and
// counted; those without a key are joined as others are. What f gets must not be changed.
func JoinGlobal[K, V, G, T, R any](s *Stream[K, V], table *GlobalTable[G, T], key func(K, V) G, f func(V, T) R, opts ...StreamOption) *Stream[K, R] {
	return joinGlobal(s, table, "join-global-table", key, f != nil, func(r *Record[K, V], of side[T]) (result R, emit bool) {
		if !of.found {
			return result, false
		}
		return f(r.Value, of.value), true
	}, opts)
}

// LeftJoinGlobal is JoinGlobal that keeps records for whose key the table has nothing, and
// those for which key finds null: for them found is false and the table's value is zero.
func LeftJoinGlobal[K, V, G, T, R any](s *Stream[K, V], table *GlobalTable[G, T], key func(K, V) G, f func(value V, of T, found bool) R, opts ...StreamOption) *Stream[K, R] {
	return joinGlobal(s, table, "left-join-global-table", key, f != nil, func(r *Record[K, V], of side[T]) (R, bool) {
		return f(r.Value, of.value, of.found), true
	}, opts)
}

func joinGlobal[K, V, G, T, R any](s *Stream[K, V], table *GlobalTable[G, T], kind graph.Kind, key func(K, V) G, given bool,
	f func(*Record[K, V], side[T]) (R, bool), opts []StreamOption) *Stream[K, R] {
	n := graph.Node{Kind: kind, Detail: fmt.Sprintf("global table of %s", table.topic.Name)}
	left := kind == "left-join-global-table"
	id := s.stateless(n, given && key != nil, opts, func(st stage[K, V]) sink[K, V] {
		next, out := next[K, R](st.i, st.node), new(Record[K, R])
		nullValue, nullKey := nullCheck[V](), nullCheck[G]()
		rows := globalRows[G, T]{rows: st.i.ctx.Global(table.topic.Name), topic: table.topic}
		return func(r *Record[K, V]) error {
			if r.nullValue || nullValue.isNull(r.Value) {
				return st.dropNullValue()
			}
			var of side[T]
			mapped := key(r.Key, r.Value)
			switch null := nullKey.isNull(mapped); {
			case null && !left:
				st.i.ctx.Dropped(st.node.Name, plan.DropNullKey, nil)
				return nil
			case !null:
				var failure, err error
				if of, failure, err = rows.find(mapped); err != nil {
					return broken(st.i, st.node.Name, err)
				} else if failure != nil {
					return st.failures.handle(failure, r)
				}
			}
			result, emit := f(r, of)
			if !emit {
				return nil
			}
			*out = Record[K, R]{Key: r.Key, nullKey: r.nullKey, Value: result, Timestamp: r.Timestamp, Headers: r.Headers}
			return next(out)
		}
	})
	if table.t != s.t {
		s.t.mistake(s.t.graph.Nodes[id].Name, "it joins with a global table of another topology: declare both in one")
	}
	return &Stream[K, R]{t: s.t, node: id, key: s.key}
}

// globalRows looks up a global table, in one task.
type globalRows[K, V any] struct {
	rows   state.Reader
	topic  Topic[K, V]
	key    []byte
	stored []byte
}

// find returns what the table has for a key. failure is about the key or its row alone.
func (g *globalRows[K, V]) find(key K) (of side[V], failure, err error) {
	if g.key, failure = g.topic.Key.Append(g.key[:0], key); failure != nil {
		return of, fmt.Errorf("key for the global table of %q: %w", g.topic.Name, failure), nil
	}
	if g.stored, of.found, err = g.rows.Get(g.stored[:0], g.key); err != nil || !of.found {
		return of, nil, err
	}
	if of.value, failure = g.topic.Value.Decode(g.stored); failure != nil {
		return side[V]{}, fmt.Errorf("value in the global table of %q, as a %s: %w", g.topic.Name, reflect.TypeFor[V](), failure), nil
	}
	return of, nil, nil
}
