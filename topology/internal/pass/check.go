package pass

import (
	"fmt"
	"strings"

	"github.com/leatlog/leat/state"
	"github.com/leatlog/leat/topology/internal/graph"
)

// maxTopicLength is Kafka's limit for topic names.
const maxTopicLength = 249

// checkNames reports names that are not valid or not unique.
func checkNames(g *graph.Graph) []Problem {
	var problems []Problem
	first := map[string]*graph.Node{}
	for _, id := range g.Order() {
		n := g.Nodes[id]
		if n.Durable {
			if complaint := nameComplaint(n.Name, state.MaxNameLength); complaint != "" {
				problems = append(problems, Problem{n.Name, fmt.Sprintf("the name of this %s %s", n.Kind, complaint)})
			}
		}
		if other, taken := first[n.Name]; taken {
			problems = append(problems, Problem{n.Name,
				fmt.Sprintf("the name is taken by two operators, a %s and a %s: give each its own name", other.Kind, n.Kind)})
			continue
		}
		first[n.Name] = n
	}
	return append(problems, checkFormerNames(g, first)...)
}

// checkFormerNames reports former names that are not valid, or that another operator has:
// two would write the same topics. byName are the nodes by their present names.
func checkFormerNames(g *graph.Graph, byName map[string]*graph.Node) []Problem {
	var problems []Problem
	topics, stores := map[string]*graph.Node{}, map[string]*graph.Node{}
	claim := func(taken map[string]*graph.Node, n *graph.Node) *graph.Node {
		if other := taken[n.Formerly]; other != nil {
			return other
		}
		taken[n.Formerly] = n
		return nil
	}
	for _, id := range g.Order() {
		n := g.Nodes[id]
		if n.Formerly == "" {
			continue
		}
		other := byName[n.Formerly]
		if other != nil && !other.Durable && other.Store == nil {
			other = nil // it leaves nothing under its name
		}
		if n.Store != nil && other == nil {
			other = claim(stores, n)
		} else if other == nil {
			other = claim(topics, n)
		}
		switch complaint := nameComplaint(n.Formerly, state.MaxNameLength); {
		case complaint != "":
			problems = append(problems, Problem{n.Name, fmt.Sprintf("the former name of this %s %s", n.Kind, complaint)})
		case other == n:
			problems = append(problems, Problem{n.Name, fmt.Sprintf("Formerly(%q) is the name that it has: leave it out", n.Formerly)})
		case other != nil:
			problems = append(problems, Problem{n.Name, fmt.Sprintf(
				"Formerly(%q) is the name of the %s %q as well: only one can have what was left under it", n.Formerly, other.Kind, other.Name)})
		}
	}
	return problems
}

// nameComplaint says what is wrong with a name that becomes part of a topic's.
func nameComplaint(name string, limit int) string {
	switch {
	case name == "":
		return "is empty: choose one, because it names what the operator leaves in the cluster"
	case name == "." || name == "..":
		return "names a directory of the file system: choose another"
	case len(name) > limit:
		return fmt.Sprintf("has %d bytes: shorten it to %d", len(name), limit)
	}
	for _, r := range name {
		if !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-", r) {
			return fmt.Sprintf("has a %q: use letters, digits, '.', '_' and '-'", r)
		}
	}
	return ""
}

// checkTopics reports topics that cannot be what the operators take them for.
func checkTopics(g *graph.Graph) []Problem {
	var problems []Problem
	readBy := map[string]string{}
	for _, id := range g.Order() {
		n := g.Nodes[id]
		if n.Kind != graph.Source && n.Kind != graph.Sink {
			continue
		}
		if complaint := nameComplaint(n.Topic, maxTopicLength); complaint != "" {
			problems = append(problems, Problem{n.Name, fmt.Sprintf("the topic's name %s", complaint)})
		}
		if n.Kind != graph.Source {
			continue
		}
		if other, taken := readBy[n.Topic]; taken {
			problems = append(problems, Problem{n.Name,
				fmt.Sprintf("topic %q is read by %q already: read it once and use the stream twice", n.Topic, other)})
			continue
		}
		readBy[n.Topic] = n.Name
	}
	for _, id := range g.Order() {
		n := g.Nodes[id]
		if n.DeadLetter == "" {
			continue
		}
		if complaint := nameComplaint(n.DeadLetter, maxTopicLength); complaint != "" {
			problems = append(problems, Problem{n.Name, fmt.Sprintf("the dead-letter topic's name %s", complaint)})
		}
		if source, taken := readBy[n.DeadLetter]; taken {
			problems = append(problems, Problem{n.Name,
				fmt.Sprintf("its dead letters go to topic %q, which %q reads: they would come back for ever; choose another topic", n.DeadLetter, source)})
		}
	}
	if len(readBy) == 0 {
		problems = append(problems, Problem{"", "the topology reads no topic: begin with From"})
	}
	return problems
}
