package pass

import (
	"fmt"
	"slices"

	"github.com/leatlog/leat/topology/internal/graph"
)

// mergeRepartitions merges groupings by key, and repartitions, that have the
// same name and the same input.
func mergeRepartitions(g *graph.Graph) []Problem {
	for _, n := range g.Nodes {
		if !n.Durable || n.Kind != graph.GroupByKey && n.Kind != graph.Repartition {
			continue
		}
		for _, earlier := range g.Nodes[:n.ID] {
			if earlier.MergedInto == graph.None && earlier.Kind == n.Kind && earlier.Name == n.Name && earlier.Formerly == n.Formerly &&
				earlier.Partitions == n.Partitions && slices.Equal(earlier.Inputs, n.Inputs) {
				g.Merge(n.ID, earlier.ID)
				break
			}
		}
	}
	return nil
}

// trackKeys sets KeyChangedBy. A source's records lie where their producers put
// them, by key as is assumed; a repartition's do by construction, and an
// aggregation's results do because its input did.
func trackKeys(g *graph.Graph) []Problem {
	for _, id := range g.Order() {
		n := g.Nodes[id]
		n.KeyChangedBy = graph.None
		switch {
		case n.Kind == graph.Repartition || n.ByKey:
			continue
		case n.ChangesKey:
			n.KeyChangedBy = id
			continue
		}
		for _, input := range n.Inputs {
			if by := g.Nodes[input].KeyChangedBy; by != graph.None {
				n.KeyChangedBy = by
				break
			}
		}
	}
	return nil
}

// insertRepartitions puts a repartition behind each named grouping whose keys are
// scattered and that an operator by key reads, and reports the unnamed ones.
func insertRepartitions(g *graph.Graph) []Problem {
	var problems []Problem
	scattered := map[int]bool{}
	for _, id := range g.Order() {
		n := g.Nodes[id]
		if n.Kind == graph.Repartition && n.Unwritable != "" {
			problems = append(problems, Problem{n.Name, "its topic cannot be written: " + n.Unwritable})
		}
		if !n.ByKey {
			continue
		}
		for _, input := range n.Inputs {
			group := g.Nodes[input]
			if group.KeyChangedBy == graph.None || scattered[input] {
				continue
			}
			scattered[input] = true
			switch {
			case group.Kind != graph.GroupBy && group.Kind != graph.GroupByKey:
				problems = append(problems, Problem{n.Name, fmt.Sprintf(
					"it works by key, but %q changed the keys, so a repartition topic is needed before it: Repartition(\"...\")",
					g.Nodes[group.KeyChangedBy].Name)})
			case !group.Durable:
				problems = append(problems, Problem{n.Name, fmt.Sprintf(
					"it works by key, but %q changed the keys, so a repartition topic is needed, and that needs a name: GroupByKey(topology.Named(\"...\"))",
					g.Nodes[group.KeyChangedBy].Name)})
			case group.Unwritable != "":
				problems = append(problems, Problem{group.Name, fmt.Sprintf(
					"it needs a repartition topic, because %q changed the keys, but the topic cannot be written: %s",
					g.Nodes[group.KeyChangedBy].Name, group.Unwritable)})
			}
		}
	}
	if len(problems) > 0 {
		return problems
	}
	for _, id := range g.Order() {
		if !scattered[id] {
			continue
		}
		group := g.Nodes[id]
		inserted := g.InsertAfter(id, graph.Node{
			Name: group.Name + ".repartition", Kind: graph.Repartition,
			Topic: group.DurableName(), Formerly: group.Formerly, Partitions: group.Partitions, DeadLetter: group.DeadLetter,
		})
		g.Nodes[inserted].Origin = id
	}
	return trackKeys(g)
}

// trackLag sets Lags.
func trackLag(g *graph.Graph) []Problem {
	for _, id := range g.Order() {
		n := g.Nodes[id]
		n.Lags = slices.ContainsFunc(n.Flows(), func(input int) bool {
			before := g.Nodes[input]
			return before.Kind != graph.Repartition && (before.Lags || before.Store != nil)
		})
		if len(n.Flows()) == 0 && n.Lookups > 0 {
			n.Lags = g.Nodes[n.Inputs[0]].Lags // what an operator says besides its results
		}
	}
	return nil
}
