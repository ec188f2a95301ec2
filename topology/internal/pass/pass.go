// Package pass compiles the logical graph of a topology step by step: a table
// of passes, each with the reason for its place, from the graph that the DSL
// declared to sub-topologies that can be planned. Passes change the graph or
// report problems; a pass that reported some stops those that need it, because
// they would only repeat them.
package pass

import (
	"slices"

	"github.com/leatlog/leat/topology/internal/graph"
)

// Problem is one mistake of the program: which operator, what is wrong and what
// to do.
type Problem struct {
	Operator string
	Message  string
}

// Pass is one step.
type Pass struct {
	// Name is what traces call it.
	Name string
	// After are the passes that must run before it.
	After []string
	// Reason says what it does, and why after those.
	Reason string
	// Run changes the graph and returns the mistakes it found, in the order of the
	// operators.
	Run func(*graph.Graph) []Problem
}

// Passes returns the table, in order.
func Passes() []Pass {
	return []Pass{
		{"merge-repartitions", nil,
			"the same repartition asked for twice is one; first, because names are only then unique", mergeRepartitions},
		{"check-names", []string{"merge-repartitions"},
			"names become topics, directories and metrics: they must be valid and unique", checkNames},
		{"check-topics", nil,
			"a topic read twice or a dead letter read back would process records again and again", checkTopics},
		{"track-keys", []string{"merge-repartitions"},
			"finds where records of one key may lie in several partitions", trackKeys},
		{"insert-repartitions", []string{"track-keys"},
			"where keys are scattered before an operator by key; tracks the keys again behind the new topics", insertRepartitions},
		{"track-lag", []string{"insert-repartitions"},
			"finds what is fed by flushes and so cannot trust stream time; a topic between ends the lag", trackLag},
		{"fuse", []string{"insert-repartitions"},
			"names the chains of stateless operators that run as one call; new topics and stores cut them", fuse},
		{"split", []string{"insert-repartitions"},
			"what no topic separates must run in one task: connected parts become sub-topologies", split},
		{"place-stores", []string{"split", "check-names"},
			"gives each store to the sub-topology of its operator and checks its specification", placeStores},
		{"check-copartitioning", []string{"split"},
			"sources that meet in one operator by key need equal partition counts; per sub-topology", checkCopartitioning},
	}
}

// Run runs the passes and returns all problems. trace, when not nil, is called
// after each with the graph as it then is.
func Run(g *graph.Graph, trace func(pass string, g *graph.Graph)) []Problem {
	var problems []Problem
	var stopped []string
	for _, p := range Passes() {
		if slices.ContainsFunc(p.After, func(needed string) bool { return slices.Contains(stopped, needed) }) {
			stopped = append(stopped, p.Name)
			continue
		}
		found := p.Run(g)
		if len(found) > 0 {
			stopped = append(stopped, p.Name)
			problems = append(problems, found...)
		}
		if trace != nil {
			trace(p.Name, g)
		}
	}
	return problems
}
