package graph_test

import (
	"slices"
	"testing"

	"github.com/leatlog/leat/state"
	"github.com/leatlog/leat/topology/internal/graph"
)

func TestInsertMergeAndOrder(t *testing.T) {
	var g graph.Graph
	in := g.Add(graph.Node{Name: "in", Kind: graph.Source, Topic: "orders"})
	left := g.Add(graph.Node{Name: "left", Kind: graph.GroupByKey, Inputs: []int{in}, Durable: true})
	right := g.Add(graph.Node{Name: "right", Kind: graph.GroupByKey, Inputs: []int{in}, Durable: true})
	count := g.Add(graph.Node{Name: "count", Kind: "count", Inputs: []int{right}, ByKey: true, Store: &state.Spec{Name: "counts"}})
	g.Add(graph.Node{Name: "both", Kind: "merge", Inputs: []int{count, left, left}})

	g.Merge(right, left)
	inserted := g.InsertAfter(left, graph.Node{Name: "again", Kind: graph.Repartition, Partitions: 3})

	want := `in: from topic=orders
left: group-by-key <- in durable
again: repartition <- left partitions=3
count: count <- again by-key store=counts
both: merge <- count, again, again
`
	if got := g.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if readers := g.Readers(inserted); !slices.Equal(readers, []int{count, 4}) {
		t.Errorf("readers of the inserted node: %v", readers)
	}
	if readers := g.Readers(right); readers != nil {
		t.Errorf("the merged node is read by %v", readers)
	}
}
