// Package topology is the DSL: typed streams and tables, from topics to topics,
// compiled into a plan that package stream runs and package streamtest tests.
//
//	t := topology.New()
//	requests := topology.From(t, httpRequests, topology.EventTime(Request.Time))
//	byRoute := topology.GroupBy("by-route", requests, serde.String, Request.Route)
//	stats := topology.Aggregate("route-stats", byRoute.Window(topology.Tumbling(time.Minute).Grace(10*time.Second)),
//		serde.JSON[Stats](), Stats.Add, topology.OnWindowClose())
//	topology.To(stats.Stream(), rollups)
//
// # Operators
//
// Operators that keep the types are methods, those that change them functions.
// What leaves something durable in the cluster, a store or an internal topic,
// takes its name as the first argument, and nothing else is named by counting:
// adding an operator never renames a topic.
//
// Each operator with a user function has two forms. The plain form takes a
// function of the value (Map, FlatMap and Peek: of key and value). The Record
// form, FilterRecord for Filter, takes a function of the whole record, with key,
// time and headers, that may also fail; OnError says what happens then.
//
// # Mistakes
//
// Mistakes in the program, such as a name used twice or a missing serde, are
// collected and reported once, all together, by Build.
//
// # Null
//
// A type that can be nil (a pointer, an interface, []byte) holds null as nil, and
// user functions see it; a nil result is written as null. A null value of any
// other type is not shown to user functions: operators that do not need the value
// (Filter, Peek, MapValues, Merge, Repartition, To) hand the record on as it is;
// those that cannot go on without (Map, FlatMap, FlatMapValues, SelectKey, Branch)
// drop and count it; Process shows all records. Grouping drops and counts records whose key or value is null,
// of any type, as Kafka Streams does. A null key is a zero Key to user functions.
//
// # Time
//
// Results have the greatest timestamp of the records they come from, and the value of a
// ToTable or ToVersionedTable that of its record. A window is closed when the task's stream time reaches
// its end plus grace, a session or a sliding window, whose end belongs to it, when stream
// time has passed that, for a session by the gap; later records for it are dropped and
// counted as late; Late has them as a stream. Behind another aggregation in the same
// sub-topology, whose results arrive at commits, the time of the records that
// arrived counts instead.
//
// # Purity
//
// The compiled operators start no goroutine, read no clock and depend on no map's
// order: the same records in the same order give the same output. User functions
// should be the same. They run on the task's goroutine, tasks run in parallel.
package topology

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/leatlog/leat/topology/internal/graph"
	"github.com/leatlog/leat/topology/internal/pass"
	"github.com/leatlog/leat/topology/plan"
)

// Topology is a topology being declared. Not safe for concurrent use; what Build
// returns is.
type Topology struct {
	graph    graph.Graph
	code     []code
	names    map[string]bool
	problems []pass.Problem
	policy   ErrorPolicy
	// stores are those of processors, by their nodes.
	stores map[ProcessorStore]int
	// globalTopics are those of global tables, globals the same as a set.
	globalTopics []string
	globals      map[string]bool
}

// code is what runs a node.
type code struct {
	// compile returns the sink of the node's input, a sink[K, V] of its types; nil
	// for sources, sinks and repartitions.
	compile func(*instance, *graph.Node) any
	// ends reads and writes the node's topic, for a grouping that of the repartition
	// that may follow it; nil for the others.
	ends topicEnds
	// windows are for the plan, nil for operators without.
	windows *plan.Windows
}

// Option is an option of New: OnError.
type Option interface{ ofTopology(*Topology) }

// New begins a topology.
func New(opts ...Option) *Topology {
	t := &Topology{names: map[string]bool{}}
	for _, o := range opts {
		o.ofTopology(t)
	}
	return t
}

// Error lists the mistakes that Build found.
type Error struct {
	// Mistakes has one line for each, with the operator's name and what to do.
	Mistakes []string
}

// Error implements error.
func (e *Error) Error() string {
	count := "1 mistake"
	if len(e.Mistakes) != 1 {
		count = fmt.Sprintf("%d mistakes", len(e.Mistakes))
	}
	return fmt.Sprintf("topology: %s in the program:\n\t%s", count, strings.Join(e.Mistakes, "\n\t"))
}

// BuildOption is an option of Build: Trace.
type BuildOption func(*buildOptions)

type buildOptions struct{ trace io.Writer }

// Trace writes the graph after every compiler pass.
func Trace(w io.Writer) BuildOption { return func(b *buildOptions) { b.trace = w } }

// Build compiles the topology, which may be built again later. The error, if any,
// is an *Error.
func (t *Topology) Build(opts ...BuildOption) (*plan.Plan, error) {
	var b buildOptions
	for _, o := range opts {
		o(&b)
	}
	g := t.graph.Clone()
	var trace func(string, *graph.Graph)
	if b.trace != nil {
		trace = func(name string, g *graph.Graph) { fmt.Fprintf(b.trace, "after %s:\n%s\n", name, g) }
	}
	problems := append(t.problems[:len(t.problems):len(t.problems)], pass.Run(g, trace)...)
	if len(problems) > 0 {
		return nil, report(problems)
	}
	return t.plan(g), nil
}

func report(problems []pass.Problem) *Error {
	e := &Error{}
	for _, p := range problems {
		line := p.Message
		if p.Operator != "" {
			line = fmt.Sprintf("operator %q: %s", p.Operator, p.Message)
		}
		e.Mistakes = append(e.Mistakes, line)
	}
	return e
}

// Describe builds the topology and describes it as text; see plan.Plan.Describe.
func (t *Topology) Describe() (string, error) {
	p, err := t.Build()
	if err != nil {
		return "", err
	}
	return p.Describe(), nil
}

// DOT builds the topology and draws it for Graphviz; see plan.Plan.DOT.
func (t *Topology) DOT() (string, error) {
	p, err := t.Build()
	if err != nil {
		return "", err
	}
	return p.DOT(), nil
}

// Mermaid builds the topology and draws it as a Mermaid flowchart; see
// plan.Plan.Mermaid.
func (t *Topology) Mermaid() (string, error) {
	p, err := t.Build()
	if err != nil {
		return "", err
	}
	return p.Mermaid(), nil
}

// JSON builds the topology and describes it as indented JSON; see
// plan.Plan.MarshalJSON.
func (t *Topology) JSON() ([]byte, error) {
	p, err := t.Build()
	if err != nil {
		return nil, err
	}
	return json.MarshalIndent(p, "", "  ")
}

// add adds an operator.
func (t *Topology) add(n graph.Node, c code) int {
	t.names[n.Name] = true
	t.code = append(t.code, c)
	return t.graph.Add(n)
}

// mistake notes a mistake for Build.
func (t *Topology) mistake(operator, format string, arguments ...any) {
	t.problems = append(t.problems, pass.Problem{Operator: operator, Message: fmt.Sprintf(format, arguments...)})
}

// defaultName returns a name for an operator that was given none. Nothing durable
// has such a name, so that it may change when operators are added.
func (t *Topology) defaultName(name string) string {
	candidate := name
	for i := 2; t.names[candidate]; i++ {
		candidate = fmt.Sprintf("%s-%d", name, i)
	}
	return candidate
}
