package topology

import (
	"fmt"
	"slices"

	"github.com/leatlog/leat/topology/internal/graph"
	"github.com/leatlog/leat/topology/plan"
)

// plan makes the physical plan of a graph that went through the passes.
func (t *Topology) plan(g *graph.Graph) *plan.Plan {
	p := &plan.Plan{Globals: slices.Clone(t.globalTopics)}
	for id := range g.SubTopologies {
		p.SubTopologies = append(p.SubTopologies, t.subTopology(g, id))
	}
	return p
}

func (t *Topology) subTopology(g *graph.Graph, id int) plan.SubTopology {
	part := &g.SubTopologies[id]
	s := plan.SubTopology{ID: id, Copartitioned: part.Copartitioned}
	for _, source := range part.Sources {
		n := g.Nodes[source]
		start := plan.Earliest
		if n.Latest {
			start = plan.Latest
		}
		s.Sources = append(s.Sources, plan.Source{Topic: t.topicOf(n), Operator: n.Name, Start: start, IdleTimeout: n.IdleTimeout})
	}
	sinks := map[int]int{}
	for _, sink := range part.Sinks {
		n := g.Nodes[sink]
		sinks[sink] = len(s.Sinks)
		s.Sinks = append(s.Sinks, plan.Sink{Topic: t.topicOf(n), Operator: n.Name})
	}
	deadLetters := map[string]int{}
	letters := func(n *graph.Node) {
		if _, known := deadLetters[n.DeadLetter]; known || n.DeadLetter == "" {
			return
		}
		deadLetters[n.DeadLetter] = len(s.Sinks)
		s.Sinks = append(s.Sinks, plan.Sink{Topic: plan.Topic{Name: n.DeadLetter}, Operator: n.Name, DeadLetter: true})
	}
	for _, source := range part.Sources {
		letters(g.Nodes[source])
		if g.Nodes[source].Kind == graph.Repartition && g.Nodes[source].SubTopology != id {
			s.Operators = append(s.Operators, t.describe(g, g.Nodes[source], id))
		}
	}
	for _, node := range part.Nodes {
		letters(g.Nodes[node])
		s.Operators = append(s.Operators, t.describe(g, g.Nodes[node], id))
	}
	for _, node := range part.Stores {
		s.Stores = append(s.Stores, *g.Nodes[node].Store)
	}
	code := t.code[:len(t.code):len(t.code)]
	s.New = func(ctx plan.Context) (plan.Processor, error) {
		return newInstance(ctx, g, part, code, sinks, deadLetters)
	}
	return s
}

func (t *Topology) topicOf(n *graph.Node) plan.Topic {
	topic := plan.Topic{Name: n.Topic, Internal: n.Kind == graph.Repartition, Partitions: n.Partitions}
	if ends := t.code[n.Origin].ends; ends != nil {
		topic.KeyFormat, topic.ValueFormat = ends.formats()
	}
	return topic
}

// describe tells about an operator of sub-topology id, which for a repartition is
// either the one that writes or the one that reads.
func (t *Topology) describe(g *graph.Graph, n *graph.Node, id int) plan.Operator {
	o := plan.Operator{Name: n.Name, Kind: string(n.Kind), Topic: n.Topic, Detail: n.Detail, Formerly: n.Formerly, Chain: g.Nodes[n.Chain].Name}
	for _, input := range n.Inputs {
		o.Inputs = append(o.Inputs, g.Nodes[input].Name)
	}
	if n.Store != nil {
		o.Store = n.Store.Name
	}
	if n.Origin == n.ID {
		o.Windows = t.code[n.ID].windows
	}
	if n.Kind == graph.Repartition {
		o.Detail = "write"
		if n.SubTopology != id {
			o.Detail, o.Inputs, o.Chain = "read", nil, n.Name
		}
	}
	if n.DeadLetter != "" {
		separator := ""
		if o.Detail != "" {
			separator = ", "
		}
		o.Detail += fmt.Sprintf("%sdead letters to %s", separator, n.DeadLetter)
	}
	return o
}
