package topology

import (
	"slices"

	"github.com/leatlog/leat/topology/internal/graph"
)

// kindLate is the kind of a stream of late records.
const kindLate graph.Kind = "late"

// Late returns the records that a windowed aggregation of the group leaves out because
// their windows are closed, as they were. They are counted as dropped all the same. With
// hopping windows a record is late when all of its windows are closed.
//
//	windows := hits.GroupByKey().Window(topology.Tumbling(time.Minute))
//	counts := topology.Count("hits-per-minute", windows)
//	topology.To(topology.Late(windows, counts), lateHits)
func Late[K, V, A any](group *WindowedGroup[K, V], table *Table[WindowedKey[K], A]) *Stream[K, V] {
	s := group.group.stream
	t, name := table.t, table.t.graph.Nodes[table.node].Name
	if s.t != t || !slices.Contains(t.graph.Nodes[table.node].Inputs, s.node) {
		t.mistake(name, "Late wants its late records by a group that it does not aggregate: give it the group and the table that Count, Reduce or Aggregate made of it")
	}
	id := t.add(graph.Node{Name: t.defaultName(name + ".late"), Kind: kindLate, Inputs: []int{table.node}, Lookups: 1},
		code{compile: func(i *instance, n *graph.Node) any { return next[K, V](i, n) }})
	return &Stream[K, V]{t, id, s.key, s.value}
}

// lateSink is where an aggregation hands its late records.
func lateSink[K, V any](i *instance, n *graph.Node) sink[K, V] {
	var readers []sink[K, V]
	for _, id := range i.graph.Readers(n.ID) {
		if i.graph.Nodes[id].Kind == kindLate {
			if reader, fits := i.inputs[id].(sink[K, V]); fits {
				readers = append(readers, reader)
			}
		}
	}
	return func(r *Record[K, V]) error {
		for _, reader := range readers {
			if err := reader(r); err != nil {
				return err
			}
		}
		return nil
	}
}
