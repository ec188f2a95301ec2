package topology

import (
	"errors"
	"slices"
	"strconv"

	"github.com/leatlog/leat/state"
	"github.com/leatlog/leat/topology/internal/graph"
	"github.com/leatlog/leat/topology/plan"
)

// sink takes the records that reach an operator. It does not keep the record.
// The operators of a sub-topology are fused by holding each other's sinks.
type sink[K, V any] func(*Record[K, V]) error

// stateful is an operator with a store.
type stateful interface {
	// open looks at the store, once, before the first record.
	open() error
	// punctuate emits what is due at the present time.
	punctuate() error
	// flush writes what is dirty to the store and emits it.
	flush() error
}

// instance is a sub-topology compiled for one task: plan.Processor.
type instance struct {
	ctx   plan.Context
	graph *graph.Graph
	part  *graph.SubTopology
	code  []code
	// inputs are the compiled sinks by node id, each a sink[K, V] or ports of them.
	inputs map[int]any
	// tables are those that operators look up, by node id, each a lookup[K, V].
	tables map[int]any
	// sinks tell the index in plan.SubTopology.Sinks: by node id for topics that
	// operators write, by topic for dead letters.
	sinks       map[int]int
	deadLetters map[string]int
	sources     []func([]plan.Record) error
	stateful    []stateful
	// source and record are what runs; record is nil when nothing does.
	source int
	record *plan.Record
}

// newInstance compiles the operators from the last to the first, so that each
// finds the sinks of those that read it.
func newInstance(ctx plan.Context, g *graph.Graph, part *graph.SubTopology, code []code, sinks map[int]int, deadLetters map[string]int) (*instance, error) {
	i := &instance{ctx: ctx, graph: g, part: part, code: code, inputs: map[int]any{}, tables: map[int]any{}, sinks: sinks, deadLetters: deadLetters}
	for _, id := range slices.Backward(part.Nodes) {
		n := g.Nodes[id]
		switch n.Kind {
		case graph.Source:
		case graph.Sink, graph.Repartition:
			i.inputs[id] = code[n.Origin].ends.write(i, n)
		default:
			i.inputs[id] = code[id].compile(i, n)
		}
	}
	slices.Reverse(i.stateful)
	for _, s := range i.stateful {
		if err := s.open(); err != nil {
			return nil, err
		}
	}
	for index, id := range part.Sources {
		n := g.Nodes[id]
		i.sources = append(i.sources, code[n.Origin].ends.read(i, n, index))
	}
	return i, nil
}

// Process implements plan.Processor.
func (i *instance) Process(source int, records []plan.Record) error {
	return i.sources[source](records)
}

// Punctuate implements plan.Processor.
func (i *instance) Punctuate() error {
	for _, s := range i.stateful {
		if err := s.punctuate(); err != nil {
			return err
		}
	}
	return nil
}

// Flush implements plan.Processor.
func (i *instance) Flush() error {
	for _, s := range i.stateful {
		if err := s.flush(); err != nil {
			return err
		}
	}
	return nil
}

// Close implements plan.Processor. There is nothing but memory to release.
func (i *instance) Close() error { return nil }

// ports are the compiled sinks of an operator whose inputs differ in type.
type ports []any

// next returns the sink of all that read node n in this sub-topology.
func next[K, V any](i *instance, n *graph.Node) sink[K, V] {
	var readers []sink[K, V]
	for _, id := range i.graph.Readers(n.ID) {
		if input, ours := i.inputs[id]; ours {
			// A node that reads n on two ports gets its records twice.
			for port, from := range i.graph.Nodes[id].Flows() {
				if from != n.ID {
					continue
				}
				reader := input
				if byPort, several := input.(ports); several {
					reader = byPort[port]
				}
				readers = append(readers, reader.(sink[K, V]))
			}
		}
	}
	switch len(readers) {
	case 0:
		return func(*Record[K, V]) error { return nil }
	case 1:
		return readers[0]
	}
	return func(r *Record[K, V]) error {
		for _, reader := range readers {
			if err := reader(r); err != nil {
				return err
			}
		}
		return nil
	}
}

// failures applies an operator's error policy.
type failures[K, V any] struct {
	i        *instance
	operator string
	policy   ErrorPolicy
	// sink is the dead-letter topic's.
	sink int
	// lags says that the operator's records are not the source record that runs.
	lags  bool
	key   Serde[K]
	value Serde[V]
	out   plan.Record
}

func newFailures[K, V any](i *instance, n *graph.Node, policy ErrorPolicy, key Serde[K], value Serde[V]) *failures[K, V] {
	f := &failures[K, V]{i: i, operator: n.Name, policy: policy, lags: n.Lags, key: key, value: value}
	if policy.deadLetter != "" {
		f.sink = i.deadLetters[policy.deadLetter]
	}
	return f
}

// handle returns the error that stops the task, or nil when the record is left
// out. r is the operator's input, nil at a source. A store that failed, which a user's
// function has passed on, is not the record's fault: no policy leaves that out.
func (f *failures[K, V]) handle(err error, r *Record[K, V]) error {
	ctx := f.i.ctx
	if !f.policy.skip || storeFailed(err) {
		e := &plan.OperatorError{Operator: f.operator, Partition: ctx.Task().Partition, Offset: -1, Err: err}
		if f.i.record != nil && !f.lags {
			e.Topic, e.Offset = ctx.TopicName(f.i.source), f.i.record.Offset
		}
		return e
	}
	if f.policy.deadLetter == "" {
		ctx.Dropped(f.operator, plan.DropError, err)
		return nil
	}
	if err := ctx.Emit(f.sink, f.letter(err, r)); err != nil {
		return err
	}
	ctx.Dropped(f.operator, plan.DropDeadLetter, err)
	return nil
}

func storeFailed(err error) bool {
	return errors.Is(err, state.ErrDamaged) || errors.Is(err, state.ErrNoSpace) ||
		errors.Is(err, state.ErrClosed) || errors.Is(err, state.ErrRestoring)
}

// letter makes the dead letter.
func (f *failures[K, V]) letter(err error, r *Record[K, V]) *plan.Record {
	f.out = plan.Record{}
	added := []Header{
		{Key: HeaderOperator, Value: []byte(f.operator)},
		{Key: HeaderError, Value: []byte(err.Error())},
		{Key: HeaderPartition, Value: strconv.AppendInt(nil, int64(f.i.ctx.Task().Partition), 10)},
	}
	if source := f.i.record; source != nil && !f.lags {
		f.out = *source
		added = append(added, Header{Key: HeaderTopic, Value: []byte(f.i.ctx.TopicName(f.i.source))},
			Header{Key: HeaderOffset, Value: strconv.AppendInt(nil, source.Offset, 10)})
	} else if r != nil {
		f.out.Timestamp, f.out.Headers = r.Timestamp, r.Headers
		f.out.Key = bestEffort(f.key, r.Key, r.nullKey)
		f.out.Value = bestEffort(f.value, r.Value, r.nullValue)
	}
	f.out.Headers = append(f.out.Headers[:len(f.out.Headers):len(f.out.Headers)], added...)
	return &f.out
}

// bestEffort encodes what can be encoded: a dead letter without its key is better
// than none, and the error it carries is the first one.
func bestEffort[T any](s Serde[T], v T, null bool) []byte {
	if s == nil || null || nullCheck[T]().isNull(v) {
		return nil
	}
	encoded, err := s.Append([]byte{}, v)
	if err != nil {
		return nil
	}
	return encoded
}
