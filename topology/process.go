package topology

import (
	"fmt"
	"slices"
	"time"

	"github.com/leatlog/leat/topology/internal/graph"
	"github.com/leatlog/leat/topology/plan"
)

// Processor is code of one's own between streams: a function that gets each record, with
// the stores, outputs and timers that it declares. What is not declared it cannot use, so
// that the topology is known though the code is free. One Processor runs in many tasks at
// once: what it remembers belongs into its stores.
type Processor[K, V any] struct {
	// Process gets each record, those with a null key or value too: see Record.HasKey and
	// HasValue. An error is subject to the operator's policy; what was put and forwarded
	// before it stays.
	Process func(*ProcessorContext, *Record[K, V]) error
	// Stores are what Process and the timers may use.
	Stores []ProcessorStore
	// Outputs are where they may forward records to; Output.Of gives their streams.
	Outputs []ProcessorOutput
	// Punctuations are the timers.
	Punctuations []Punctuation
}

// ValuesProcessor is a Processor whose records keep their keys.
type ValuesProcessor[K, V, V2 any] struct {
	// Process gets each record; forward hands on a value with the record's key, time and
	// headers, any number of times, during the call.
	Process func(c *ProcessorContext, r *Record[K, V], forward func(V2) error) error
	// Stores and Punctuations are those of Processor. Timers have no key to forward by.
	Stores       []ProcessorStore
	Punctuations []Punctuation
}

// Processed is a Processor in a topology: Output.Of finds its streams.
type Processed struct {
	t       *Topology
	name    string
	outputs []ProcessorOutput
	nodes   []int
}

// Process runs a processor over a stream. The operator itself leaves nothing behind in the
// cluster, its stores do. Records stay in the partitions where they are: when an operator
// before it changed the keys, and the stores are by key, put a Repartition between.
func Process[K, V any](s *Stream[K, V], p Processor[K, V], opts ...StreamOption) *Processed {
	return process(s, "process", true, processorParts{p.Stores, p.Outputs, p.Punctuations}, p.Process, opts)
}

// ProcessValues runs a processor that keeps the keys, so that no repartition is needed
// behind it.
func ProcessValues[K, V, V2 any](s *Stream[K, V], p ValuesProcessor[K, V, V2], opts ...StreamOption) *Stream[K, V2] {
	values := NewOutput[K, V2]("values", s.key, nil)
	var f func(*ProcessorContext, *Record[K, V]) error
	if p.Process != nil {
		f = func(c *ProcessorContext, r *Record[K, V]) error {
			return p.Process(c, r, func(value V2) error {
				return values.send(c, &Record[K, V2]{Key: r.Key, nullKey: r.nullKey, Value: value, Timestamp: r.Timestamp, Headers: r.Headers})
			})
		}
	}
	return values.Of(process(s, "process-values", false, processorParts{p.Stores, []ProcessorOutput{values}, p.Punctuations}, f, opts))
}

// processorParts are what a processor declares.
type processorParts struct {
	stores       []ProcessorStore
	outputs      []ProcessorOutput
	punctuations []Punctuation
}

func process[K, V any](s *Stream[K, V], kind graph.Kind, changesKey bool, parts processorParts,
	f func(*ProcessorContext, *Record[K, V]) error, opts []StreamOption) *Processed {
	t := s.t
	n := graph.Node{Kind: kind, Detail: punctuationText(parts.punctuations)}
	for _, store := range parts.stores {
		if store != nil {
			n.Inputs = append(n.Inputs, store.declare(t))
		}
	}
	stores := slices.Clone(n.Inputs)
	n.Lookups = len(stores)
	out := &Processed{t: t, outputs: parts.outputs}
	id := s.stateless(n, f != nil, opts, func(st stage[K, V]) sink[K, V] {
		r := &processing[K, V]{stage: st, f: f, timers: newTimers(st.i.ctx, parts.punctuations)}
		r.c = ProcessorContext{i: st.i, operator: st.node.Name, stores: parts.stores, outputs: parts.outputs}
		st.i.stateful = append(st.i.stateful, r)
		for j, store := range parts.stores {
			r.c.tables = append(r.c.tables, store.open(st.i, st.i.graph.Nodes[stores[j]]))
		}
		for _, node := range out.nodes {
			r.c.sinks = append(r.c.sinks, st.i.inputs[node])
		}
		return r.process
	})
	out.name = t.graph.Nodes[id].Name
	parts.check(t, out.name)
	for _, output := range parts.outputs {
		if output == nil {
			continue
		}
		out.nodes = append(out.nodes, t.add(graph.Node{
			Name: t.defaultName(out.name + "." + output.outputName()), Kind: "output", Inputs: []int{id}, ChangesKey: changesKey,
		}, code{compile: output.compile}))
	}
	return out
}

// check notes the mistakes of a declaration.
func (parts processorParts) check(t *Topology, operator string) {
	for j, store := range parts.stores {
		if store == nil || slices.Index(parts.stores, store) < j {
			t.mistake(operator, "its store %d is nil or declared twice: declare each store that it uses once", j)
		}
	}
	names := map[string]bool{}
	for j, output := range parts.outputs {
		switch {
		case output == nil || slices.Index(parts.outputs, output) < j:
			t.mistake(operator, "its output %d is nil or declared twice: declare each output that it uses once", j)
		case output.outputName() == "" || names[output.outputName()]:
			t.mistake(operator, "two of its outputs are called %q, or it has no name: give each its own", output.outputName())
		default:
			names[output.outputName()] = true
		}
	}
	for _, p := range parts.punctuations {
		if p.interval < time.Millisecond || p.interval%time.Millisecond != 0 || p.f == nil {
			t.mistake(operator, "a punctuation runs every %v: it needs whole milliseconds, at least one, and a function that is not nil", p.interval)
		}
	}
}

// processing runs a processor in a task.
type processing[K, V any] struct {
	stage  stage[K, V]
	f      func(*ProcessorContext, *Record[K, V]) error
	c      ProcessorContext
	timers timers
}

func (p *processing[K, V]) process(r *Record[K, V]) error {
	p.c.now, p.c.headers = r.Timestamp, r.Headers
	err := p.f(&p.c, r)
	p.c.headers = nil
	switch {
	case p.c.failed != nil:
		return p.c.failed
	case err != nil:
		if err := p.stage.failures.handle(err, r); err != nil {
			return err
		}
	}
	return p.timers.run(&p.c, false)
}

// ProcessorContext is what a processor sees of its task. It is lent: use it during the
// call, on the goroutine that calls.
type ProcessorContext struct {
	i        *instance
	operator string
	stores   []ProcessorStore
	tables   []any // of the stores
	outputs  []ProcessorOutput
	sinks    []any // of the outputs
	// now and headers are those of what is forwarded.
	now     int64
	headers []Header
	// changed says that a store or a stream got something.
	changed bool
	// failed stops the task, whatever the processor makes of it: a store or an operator
	// behind failed.
	failed error
}

// Task names the task.
func (c *ProcessorContext) Task() plan.TaskID { return c.i.ctx.Task() }

// StreamTime is the task's event time, the greatest so far, in UTC; the zero time before
// the first record.
func (c *ProcessorContext) StreamTime() time.Time {
	if ms := c.i.ctx.StreamTime(); ms >= 0 {
		return time.UnixMilli(ms).UTC()
	}
	return time.Time{}
}

// WallTime is the present time, in UTC, to the millisecond. What depends on it may come
// out otherwise when records run again after a failure.
func (c *ProcessorContext) WallTime() time.Time { return time.UnixMilli(c.i.ctx.WallTime()).UTC() }

// fail remembers an error that no policy covers.
func (c *ProcessorContext) fail(err error) error {
	if c.failed == nil {
		c.failed = err
	}
	return err
}

// undeclared is the error for a handle that the processor does not declare.
func (c *ProcessorContext) undeclared(what, name string) error {
	return c.fail(broken(c.i, c.operator, fmt.Errorf("it uses the %s %q without declaring it: add it to the processor's %[1]ss", what, name)))
}

// ProcessorOutput is an Output of any types.
type ProcessorOutput interface {
	outputName() string
	compile(*instance, *graph.Node) any
}

// Output is one of the streams that a Processor forwards records to. It is a name with
// types, to be declared by any number of processors.
type Output[K, V any] struct {
	name  string
	key   Serde[K]
	value Serde[V]
}

// NewOutput makes an output. The serdes are those of its stream, needed when that must
// pass an internal topic or a store, and may be nil.
func NewOutput[K, V any](name string, key Serde[K], value Serde[V]) *Output[K, V] {
	return &Output[K, V]{name, key, value}
}

func (o *Output[K, V]) outputName() string { return o.name }

func (o *Output[K, V]) compile(i *instance, n *graph.Node) any { return next[K, V](i, n) }

// Of returns the stream of what a processor forwards to the output.
func (o *Output[K, V]) Of(p *Processed) *Stream[K, V] {
	j := slices.Index(p.outputs, ProcessorOutput(o))
	if j < 0 || j >= len(p.nodes) {
		p.t.mistake(p.name, "it has no output %q: add it to the processor's Outputs", o.name)
		return &Stream[K, V]{p.t, p.t.add(graph.Node{Name: p.t.defaultName(p.name + "." + o.name), Kind: "output"}, code{compile: o.compile}), o.key, o.value}
	}
	return &Stream[K, V]{p.t, p.nodes[j], o.key, o.value}
}

// Forward hands a record on, with the time and headers of the record that runs; in a
// timer with the time that the timer was told, and without headers.
func (o *Output[K, V]) Forward(c *ProcessorContext, key K, value V) error {
	return o.send(c, &Record[K, V]{Key: key, Value: value, Timestamp: c.now, Headers: c.headers})
}

// ForwardNull is Forward with a null value, which removes the key from a table.
func (o *Output[K, V]) ForwardNull(c *ProcessorContext, key K) error {
	r := nullRecord[K, V]()
	r.Key, r.Timestamp, r.Headers = key, c.now, c.headers
	return o.send(c, &r)
}

// ForwardRecord hands a record on with a time and headers of its own.
func (o *Output[K, V]) ForwardRecord(c *ProcessorContext, r *Record[K, V]) error {
	if r.Timestamp < 0 {
		return fmt.Errorf("a record is forwarded with timestamp %d ms, before 1970", r.Timestamp)
	}
	return o.send(c, r)
}

func (o *Output[K, V]) send(c *ProcessorContext, r *Record[K, V]) error {
	j := slices.Index(c.outputs, ProcessorOutput(o))
	if j < 0 {
		return c.undeclared("output", o.name)
	}
	c.changed = true
	if err := c.sinks[j].(sink[K, V])(r); err != nil {
		return c.fail(err)
	}
	return nil
}
