// Package graph is the logical graph of a topology: one node per operator, as
// the DSL declared it, and what the compiler passes found out about it. It
// holds no types and no user code: package topology keeps those by node id.
//
// Text form, one node per line in the order in which records flow; what passes
// found comes after the bar:
//
//	name: kind <- input, input attribute attribute=value | fact fact=value
package graph

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/leatlog/leat/state"
)

// None is the id of no node.
const None = -1

// Kind is what an operator does, in the DSL's words.
type Kind string

// The kinds that passes tell apart. All others are stateless or stateful
// operators as their attributes say.
const (
	// Source reads a topic.
	Source Kind = "from"
	// Sink writes a topic.
	Sink Kind = "to"
	// GroupBy chooses a new key for the aggregations that read it.
	GroupBy Kind = "group-by"
	// GroupByKey hands the records on to aggregations by the key they have.
	GroupByKey Kind = "group-by-key"
	// Repartition writes to an internal topic and reads from it again, so that
	// equal keys meet in one partition.
	Repartition Kind = "repartition"
)

// Node is one operator.
type Node struct {
	// ID is the node's index in Graph.Nodes.
	ID int
	// Name is unique in the topology.
	Name string
	Kind Kind
	// Inputs are the ids of the nodes it reads, in the order of its ports.
	Inputs []int
	// Lookups is how many of the last Inputs are tables that it looks up: their records
	// do not flow to it.
	Lookups int

	// Attributes, which the DSL declares.

	// Durable says that the name was given by the user and names something that
	// outlives the process: a store or an internal topic.
	Durable bool
	// Formerly is the name under which the node's store or internal topic lies in the
	// cluster, "" when that is Name.
	Formerly string
	// Topic is what a Source reads or a Sink writes.
	Topic string
	// Latest says that a Source without a committed offset begins at the end.
	Latest bool
	// IdleTimeout is how long an empty partition of a Source holds back the others;
	// 0 takes the app's default.
	IdleTimeout time.Duration
	// Partitions is the count a Repartition, or a group's, asks for; 0 lets the
	// runtime choose.
	Partitions int32
	// ChangesKey says that records may leave with another key.
	ChangesKey bool
	// ByKey says that all records of a key must reach the same task.
	ByKey bool
	// Store is the store it keeps, nil for none.
	Store *state.Spec
	// DeadLetter is the topic for records it fails on, "" for none.
	DeadLetter string
	// Unwritable says why records at its output cannot be written to an internal
	// topic, "" when they can.
	Unwritable string
	// Detail is for people.
	Detail string
	// Origin is the node whose code runs this one: itself, or for a node that a pass
	// inserted the one it was made from.
	Origin int

	// Facts, which passes find.

	// MergedInto is the node that does this one's work too, None when it does its own.
	// A merged node is read by nobody and left out of Order.
	MergedInto int
	// KeyChangedBy is the node because of which records of one key may be in any
	// partition, None when they are where their key belongs.
	KeyChangedBy int
	// Lags says that records arrive when a store's cache is flushed, later than the
	// task's stream time says.
	Lags bool
	// Chain is the node at the head of the chain it is fused into.
	Chain int
	// SubTopology is where it runs; a Repartition runs where it writes.
	SubTopology int
}

// SubTopology is a part that one task runs.
type SubTopology struct {
	// Nodes it runs, in the order in which records flow, Sources and Repartitions that
	// it reads included.
	Nodes []int
	// Sources are Source nodes and Repartition nodes that it reads.
	Sources []int
	// Sinks are Sink nodes and Repartition nodes that it writes.
	Sinks []int
	// Stores are the nodes that keep one.
	Stores []int
	// Copartitioned are groups of indexes into Sources.
	Copartitioned [][]int
}

// Graph is a topology. The zero value is empty and ready.
type Graph struct {
	Nodes []*Node
	// SubTopologies are found by a pass.
	SubTopologies []SubTopology
}

// Add adds a node, sets its ID and Origin and clears its facts.
func (g *Graph) Add(n Node) int {
	n.ID = len(g.Nodes)
	n.Origin = n.ID
	n.MergedInto, n.KeyChangedBy, n.Chain, n.SubTopology = None, None, None, None
	g.Nodes = append(g.Nodes, &n)
	return n.ID
}

// Clone returns a copy that passes may change.
func (g *Graph) Clone() *Graph {
	clone := &Graph{Nodes: make([]*Node, len(g.Nodes)), SubTopologies: slices.Clone(g.SubTopologies)}
	for i, n := range g.Nodes {
		c := *n
		c.Inputs = slices.Clone(n.Inputs)
		clone.Nodes[i] = &c
	}
	return clone
}

// Flows are the inputs whose records flow to the node.
func (n *Node) Flows() []int { return n.Inputs[:len(n.Inputs)-n.Lookups] }

// DurableName is the name of what the node leaves in the cluster.
func (n *Node) DurableName() string {
	if n.Formerly != "" {
		return n.Formerly
	}
	return n.Name
}

// InsertAfter adds n between node and all that read node.
func (g *Graph) InsertAfter(node int, n Node) int {
	readers := g.Readers(node)
	n.Inputs = []int{node}
	id := g.Add(n)
	g.redirect(readers, node, id)
	return id
}

// Merge makes node into do the work of node id too.
func (g *Graph) Merge(id, into int) {
	g.redirect(g.Readers(id), id, into)
	g.Nodes[id].MergedInto = into
}

func (g *Graph) redirect(readers []int, from, to int) {
	for _, reader := range readers {
		inputs := g.Nodes[reader].Inputs
		for port := range inputs {
			if inputs[port] == from {
				inputs[port] = to
			}
		}
	}
}

// Readers returns the nodes that read a node, each once, by id.
func (g *Graph) Readers(id int) []int {
	var readers []int
	for _, n := range g.Nodes {
		if n.MergedInto == None && slices.Contains(n.Inputs, id) {
			readers = append(readers, n.ID)
		}
	}
	return readers
}

// Order returns all nodes that do work, so that each comes after its inputs, the
// lowest id first among those that could come next. Inputs always exist before
// their readers in the DSL, so there are no circles.
func (g *Graph) Order() []int {
	done := make([]bool, len(g.Nodes))
	ready := func(n *Node) bool {
		return n.MergedInto == None && !done[n.ID] &&
			!slices.ContainsFunc(n.Inputs, func(input int) bool { return !done[input] })
	}
	var order []int
	for {
		next := slices.IndexFunc(g.Nodes, ready)
		if next < 0 {
			return order
		}
		done[next] = true
		order = append(order, next)
	}
}

// String returns the text form.
func (g *Graph) String() string {
	var b strings.Builder
	for _, id := range g.Order() {
		n := g.Nodes[id]
		fmt.Fprintf(&b, "%s: %s", n.Name, n.Kind)
		for i, input := range n.Inputs {
			separator := ", "
			if i == 0 {
				separator = " <- "
			}
			b.WriteString(separator + g.Nodes[input].Name)
		}
		for _, word := range n.attributes() {
			b.WriteString(" " + word)
		}
		if facts := g.facts(n); len(facts) > 0 {
			b.WriteString(" | " + strings.Join(facts, " "))
		}
		b.WriteByte('\n')
	}
	for i, s := range g.SubTopologies {
		fmt.Fprintf(&b, "sub-topology %d: sources %s; sinks %s; stores %s", i, g.names(s.Sources), g.names(s.Sinks), g.names(s.Stores))
		for _, group := range s.Copartitioned {
			sources := make([]int, len(group))
			for j, index := range group {
				sources[j] = s.Sources[index]
			}
			b.WriteString("; co-partitioned " + g.names(sources))
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func (n *Node) attributes() []string {
	var words []string
	flag := func(name string, set bool) {
		if set {
			words = append(words, name)
		}
	}
	value := func(name, v string) {
		if v != "" {
			words = append(words, name+"="+v)
		}
	}
	value("topic", n.Topic)
	flag("durable", n.Durable)
	value("formerly", n.Formerly)
	flag("changes-key", n.ChangesKey)
	flag("by-key", n.ByKey)
	if n.Store != nil {
		value("store", n.Store.Name)
	}
	value("dead-letter", n.DeadLetter)
	flag("unwritable", n.Unwritable != "")
	if n.Partitions > 0 {
		value("partitions", fmt.Sprint(n.Partitions))
	}
	return words
}

func (g *Graph) facts(n *Node) []string {
	var words []string
	if n.KeyChangedBy != None {
		words = append(words, "key-changed-by="+g.Nodes[n.KeyChangedBy].Name)
	}
	if n.Lags {
		words = append(words, "lags")
	}
	if n.Chain != None {
		words = append(words, "chain="+g.Nodes[n.Chain].Name)
	}
	if n.SubTopology != None {
		words = append(words, fmt.Sprintf("sub-topology=%d", n.SubTopology))
	}
	return words
}

func (g *Graph) names(ids []int) string {
	names := make([]string, len(ids))
	for i, id := range ids {
		names[i] = g.Nodes[id].Name
	}
	return "[" + strings.Join(names, " ") + "]"
}
