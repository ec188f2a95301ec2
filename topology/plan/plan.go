// Package plan is the physical plan of a topology: sub-topologies, the topics
// between them, and the contract (Context, Processor) between the operators
// that package topology compiles and the tasks that package stream runs; and
// the Manifest of a plan, by which Compare tells whether another plan of the
// same app can go on with what the first has left behind.
package plan

import (
	"time"

	"github.com/leatlog/leat/state"
)

// Plan is a compiled topology. It is immutable and may be shared.
type Plan struct {
	// SubTopologies are numbered from 0 in the order of their first source.
	SubTopologies []SubTopology
	// Globals are the topics of global tables, which every process has whole.
	Globals []string
}

// SubTopology is a connected part of the topology: one task per partition of
// its sources runs it.
type SubTopology struct {
	// ID is its place in Plan.SubTopologies.
	ID int
	// Sources are the topics it reads. It has as many tasks as the largest of them
	// has partitions.
	Sources []Source
	// Copartitioned lists groups of indexes into Sources that must have the same
	// number of partitions, because one keyed operator reads them all. The runtime
	// checks it at start, when it knows the counts; a source that is an internal
	// topic takes the count of the others.
	Copartitioned [][]int
	// Sinks are the topics it writes.
	Sinks []Sink
	// Stores are the stores it keeps; each gets the changelog of its name.
	Stores []state.Spec
	// Operators describe it for Describe, metrics and the manifest, in the order in
	// which records reach them.
	Operators []Operator
	// New compiles the processor of one task. Safe for concurrent use.
	New func(Context) (Processor, error)
}

// Topic names a topic of the plan.
type Topic struct {
	// Name is the topic's name; for an internal topic the operator's name, which the
	// runtime turns into <app>-<Name>-repartition (RepartitionTopic).
	Name string
	// Internal topics are created, and owned, by the app.
	Internal bool
	// Partitions is the count an internal topic asks for; 0 takes that of the
	// sub-topology that writes it.
	Partitions int32
	// KeyFormat and ValueFormat are the names of the serdes, "" when the topology does not
	// say, as of dead letters.
	KeyFormat, ValueFormat string
}

// FullName returns the topic's name in the cluster for this app.
func (t Topic) FullName(app string) string {
	if t.Internal {
		return RepartitionTopic(app, t.Name)
	}
	return t.Name
}

// Offset is where a source begins when its group has no committed offset.
type Offset int8

// The beginnings.
const (
	// Earliest begins with the oldest record.
	Earliest Offset = iota
	// Latest begins with the next record.
	Latest
)

// Source is a topic that a sub-topology reads.
type Source struct {
	Topic
	// Operator is the name of the source operator.
	Operator string
	// Start is where it begins without a committed offset.
	Start Offset
	// IdleTimeout is how long an empty partition holds back the others, in wall
	// time; 0 takes the app's default.
	IdleTimeout time.Duration
}

// Sink is a topic that a sub-topology writes.
type Sink struct {
	Topic
	// Operator is the name of the sink operator, of the first one for a dead-letter
	// topic.
	Operator string
	// DeadLetter says that the topic takes records that operators failed on.
	DeadLetter bool
}

// Operator describes one operator.
type Operator struct {
	// Name is unique in the topology.
	Name string
	// Kind is the DSL's word: "filter", "aggregate", ...
	Kind string
	// Inputs are the names of the operators it reads.
	Inputs []string
	// Topic is the topic a source reads or a sink writes, "" for the others.
	Topic string
	// Store is the store it keeps, "" for none.
	Store string
	// Detail is what else is worth telling, such as the window; may be "".
	Detail string
	// Windows are how it cuts event time, nil when it does not.
	Windows *Windows
	// Formerly is the name under which it has left its store or topic, "" when that is Name.
	Formerly string
	// Chain is the operator at the head of the chain that this one is fused into:
	// the operators of a chain run as one call.
	Chain string
}

// Windows are how an operator cuts event time. What a kind of windows does not have is 0.
type Windows struct {
	// Kind is "tumbling", "hopping", "sliding", "session" or, of a join of streams, "join".
	Kind string
	// Size is the length of a window, of sliding windows the time difference.
	Size time.Duration
	// Before and After are how far apart the records of a join may be.
	Before, After time.Duration
	// Advance is the distance between the starts of tumbling and hopping windows.
	Advance time.Duration
	// Gap ends a session.
	Gap time.Duration
	// Grace is how long after its end a window takes late records.
	Grace time.Duration
	// OnClose says that results, of a join those without a partner, come once, when their
	// window is closed.
	OnClose bool
}

// RepartitionTopic returns the name of an internal repartition topic.
func RepartitionTopic(app, name string) string { return app + "-" + name + "-repartition" }

// ChangelogTopic returns the name of a store's changelog topic.
func ChangelogTopic(app, store string) string { return app + "-" + store + "-changelog" }
