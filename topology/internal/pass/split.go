package pass

import (
	"slices"

	"github.com/leatlog/leat/topology/internal/graph"
)

// fuse sets Chain: a node joins its input's chain when it is that node's only
// input, and neither a topic nor a store lies between.
func fuse(g *graph.Graph) []Problem {
	for _, id := range g.Order() {
		n := g.Nodes[id]
		n.Chain = id
		if len(n.Inputs) != 1 || n.Store != nil {
			continue
		}
		if before := g.Nodes[n.Inputs[0]]; before.Kind != graph.Repartition {
			n.Chain = before.Chain
		}
	}
	return nil
}

// split finds the connected parts of the graph, cut between repartitions and
// their readers, and numbers them in the order of their first source.
func split(g *graph.Graph) []Problem {
	parts := newUnion(len(g.Nodes))
	order := g.Order()
	for _, id := range order {
		for _, input := range g.Nodes[id].Inputs {
			if g.Nodes[input].Kind != graph.Repartition {
				parts.join(id, input)
			}
		}
	}
	// All that read one repartition topic read it in one sub-topology: a group
	// reads each of its topics once.
	for _, id := range order {
		if g.Nodes[id].Kind == graph.Repartition {
			readers := g.Readers(id)
			for _, reader := range readers {
				parts.join(readers[0], reader)
			}
		}
	}
	numbers := map[int]int{}
	number := func(id int) int {
		root := parts.find(id)
		if _, known := numbers[root]; !known {
			numbers[root] = len(g.SubTopologies)
			g.SubTopologies = append(g.SubTopologies, graph.SubTopology{})
		}
		return numbers[root]
	}
	for _, id := range order {
		n := g.Nodes[id]
		n.SubTopology = number(id)
		s := &g.SubTopologies[n.SubTopology]
		s.Nodes = append(s.Nodes, id)
		switch n.Kind {
		case graph.Source:
			s.Sources = append(s.Sources, id)
		case graph.Sink:
			s.Sinks = append(s.Sinks, id)
		case graph.Repartition:
			s.Sinks = append(s.Sinks, id)
			if readers := g.Readers(id); len(readers) > 0 {
				reading := number(readers[0])
				g.SubTopologies[reading].Sources = append(g.SubTopologies[reading].Sources, id)
			}
		}
	}
	return nil
}

// placeStores lists each sub-topology's stores and checks what they ask for.
func placeStores(g *graph.Graph) []Problem {
	var problems []Problem
	for i := range g.SubTopologies {
		s := &g.SubTopologies[i]
		for _, id := range s.Nodes {
			n := g.Nodes[id]
			if n.Store == nil {
				continue
			}
			s.Stores = append(s.Stores, id)
			if err := n.Store.Validate(); err != nil {
				problems = append(problems, Problem{n.Name, err.Error()})
			}
		}
	}
	return problems
}

// checkCopartitioning groups the sources that meet in an operator by key.
// Whether their counts are equal is known at start only.
func checkCopartitioning(g *graph.Graph) []Problem {
	for i := range g.SubTopologies {
		s := &g.SubTopologies[i]
		together := newUnion(len(s.Sources))
		for _, id := range s.Nodes {
			if !g.Nodes[id].ByKey {
				continue
			}
			met := sourcesOf(g, id)
			for _, source := range met {
				together.join(slices.Index(s.Sources, met[0]), slices.Index(s.Sources, source))
			}
		}
		s.Copartitioned = together.groups()
	}
	return nil
}

// sourcesOf returns the sources and repartition topics whose records reach a
// node within its sub-topology.
func sourcesOf(g *graph.Graph, id int) []int {
	var found []int
	seen := map[int]bool{}
	var visit func(id int)
	visit = func(id int) {
		for _, input := range g.Nodes[id].Inputs {
			if seen[input] {
				continue
			}
			seen[input] = true
			if kind := g.Nodes[input].Kind; kind == graph.Source || kind == graph.Repartition {
				found = append(found, input)
				continue
			}
			visit(input)
		}
	}
	visit(id)
	return found
}

// union is a union-find over 0..n-1 whose roots are the lowest members.
type union []int

func newUnion(n int) union {
	u := make(union, n)
	for i := range u {
		u[i] = i
	}
	return u
}

func (u union) find(i int) int {
	for u[i] != i {
		i = u[i]
	}
	return i
}

func (u union) join(i, j int) {
	i, j = u.find(i), u.find(j)
	u[max(i, j)] = min(i, j)
}

// groups returns the sets of two and more, each sorted, by their lowest member.
func (u union) groups() [][]int {
	members := make([][]int, len(u))
	for i := range u {
		root := u.find(i)
		members[root] = append(members[root], i)
	}
	return slices.DeleteFunc(members, func(m []int) bool { return len(m) < 2 })
}
