package topology

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/leatlog/leat/state"
	"github.com/leatlog/leat/topology/internal/graph"
	"github.com/leatlog/leat/topology/plan"
)

// Decider is the behaviour of something whose state is what its events made of it:
// event sourcing. All functions are pure: no clock, no randomness, no I/O.
type Decider[S, C, E any] struct {
	// Initial makes the state before the first event; nil stands for S's zero value.
	Initial func() S
	// Decide says which events a command leads to, none if there is nothing to do, or
	// refuses it with Reject. Another error is a failure, to which the operator's policy
	// applies.
	Decide func(S, C) ([]E, error)
	// Evolve makes the next state of a state and an event. It cannot refuse: the event has
	// happened.
	Evolve func(S, E) S
	// Expects, if it is set, says for which version of the state a command was meant; false
	// for any. A command for another version is rejected with ReasonVersion.
	Expects func(C) (version int64, ok bool)
}

// Versioned is a state and how many events made it.
type Versioned[S any] struct {
	State   S
	Version int64
}

// Rejection is a command that was refused.
type Rejection[C any] struct {
	Command C
	Reason  string
	// Version is that of the state which refused it.
	Version int64
}

// ReasonVersion is why a command was rejected whose expected version is not the state's.
const ReasonVersion = "the state has another version than the command expects"

// rejection is the error of Reject.
type rejection struct{ reason string }

func (r *rejection) Error() string { return "rejected: " + r.reason }

// Reject is what Decider.Decide returns to refuse a command, for a reason that whoever
// sent it is told.
func Reject(format string, arguments ...any) error {
	return &rejection{fmt.Sprintf(format, arguments...)}
}

// Decisions is what becomes of commands.
type Decisions[K, S, C, E any] struct {
	// Events are those of all commands, in order; write them to a topic, which is the record
	// of what happened.
	Events *Stream[K, E]
	// Rejections are the commands that were refused.
	Rejections *Stream[K, Rejection[C]]
	// State is the present state of each key.
	State *Table[K, Versioned[S]]
}

// Decide runs a decider: commands in, events and rejections out, each key by itself and its
// commands one after the other. name names the store of the states, whose changelog is
// <app>-<name>-changelog. With exactly-once a command, its events and the state it leaves
// count together or not at all. Commands without a key or value are dropped and counted.
func Decide[K, S, C, E any](name string, commands *Stream[K, C], of Serde[S], d Decider[S, C, E], opts ...TableOption) *Decisions[K, S, C, E] {
	t, o := commands.t, aggregateOptions(opts)
	switch {
	case d.Decide == nil || d.Evolve == nil:
		t.mistake(name, "the decider needs Decide and Evolve")
	case of == nil:
		t.mistake(name, "the serde of the states is nil")
	case commands.key == nil:
		t.mistake(name, "there is no serde for the keys of the commands: call WithKeySerde on the stream first")
	}
	if o.aggregates() {
		t.mistake(name, "OnWindowClose, Retention, Initial and Merger are for aggregations, this is a decider: leave them out")
	}
	policy := t.policyOf(o)
	var value Serde[Versioned[S]]
	n := graph.Node{
		Name: name, Kind: "decide", Durable: true, ByKey: true, Inputs: []int{commands.node}, DeadLetter: policy.deadLetter,
		Store: &state.Spec{Name: name, InMemory: o.inMemory},
	}
	t.durable(&n, o)
	if of != nil && commands.key != nil {
		value = versionedSerde[S]{of}
		n.Store.KeyFormat, n.Store.ValueFormat = commands.key.Name(), value.Name()
	}
	spec := aggregation[K, K, C, Versioned[S]]{policy: policy, key: commands.key, value: value, input: commands.value,
		result: func(key K, _ Window) K { return key }}
	out := &Decisions[K, S, C, E]{Events: &Stream[K, E]{t: t, key: commands.key}, Rejections: &Stream[K, Rejection[C]]{t: t, key: commands.key}}
	id := t.add(n, code{compile: func(i *instance, n *graph.Node) any {
		return (&decisions[K, S, C, E]{
			Decider: d, i: i, n: n, table: spec.table(i, n), failures: newFailures(i, n, spec.policy, spec.key, spec.input),
			events: i.inputs[out.Events.node].(sink[K, E]), rejections: i.inputs[out.Rejections.node].(sink[K, Rejection[C]]),
		}).sink()
	}})
	out.State = &Table[K, Versioned[S]]{t: t, node: id, key: commands.key, value: value, stored: value}
	// The two streams are fed by the decider itself, besides the updates of its table.
	out.Events.node = t.add(graph.Node{Name: t.defaultName(name + ".events"), Kind: "events", Inputs: []int{id}, Lookups: 1},
		code{compile: func(i *instance, n *graph.Node) any { return next[K, E](i, n) }})
	out.Rejections.node = t.add(graph.Node{Name: t.defaultName(name + ".rejections"), Kind: "rejections", Inputs: []int{id}, Lookups: 1},
		code{compile: func(i *instance, n *graph.Node) any { return next[K, Rejection[C]](i, n) }})
	return out
}

// decisions runs a decider.
type decisions[K, S, C, E any] struct {
	Decider[S, C, E]
	i          *instance
	n          *graph.Node
	table      *keyedAggregation[K, K, Versioned[S]]
	failures   *failures[K, C]
	events     sink[K, E]
	rejections sink[K, Rejection[C]]
}

func (d *decisions[K, S, C, E]) sink() sink[K, C] {
	nullKey, nullValue := nullCheck[K](), nullCheck[C]()
	return func(r *Record[K, C]) error {
		switch {
		case r.nullKey || nullKey.isNull(r.Key):
			d.i.ctx.Dropped(d.n.Name, plan.DropNullKey, nil)
			return nil
		case r.nullValue || nullValue.isNull(r.Value):
			d.i.ctx.Dropped(d.n.Name, plan.DropNullValue, nil)
			return nil
		}
		e, failure, err := d.table.entry(r.Key)
		switch {
		case failure != nil:
			return d.failures.handle(failure, r)
		case err != nil:
			return err
		}
		now := e.value
		if !e.present && d.Initial != nil {
			now.State = d.Initial()
		}
		if d.Expects != nil {
			if version, ok := d.Expects(r.Value); ok && version != now.Version {
				return d.reject(r, ReasonVersion, now.Version)
			}
		}
		events, err := d.Decide(now.State, r.Value)
		var refused *rejection
		switch {
		case errors.As(err, &refused):
			return d.reject(r, refused.reason, now.Version)
		case err != nil:
			return d.failures.handle(err, r)
		case len(events) == 0:
			return nil
		}
		return d.happen(r, e, now, events)
	}
}

// happen takes over events and tells of them.
func (d *decisions[K, S, C, E]) happen(r *Record[K, C], e *entry[K, Versioned[S]], now Versioned[S], events []E) error {
	for _, event := range events {
		now.State = d.Evolve(now.State, event)
		now.Version++
	}
	d.table.cache.set(e, now, r.Timestamp)
	for _, event := range events {
		if err := d.events(&Record[K, E]{Key: r.Key, Value: event, Timestamp: r.Timestamp, Headers: r.Headers}); err != nil {
			return err
		}
	}
	if d.table.cache.full() {
		return d.table.relieve()
	}
	return nil
}

func (d *decisions[K, S, C, E]) reject(r *Record[K, C], reason string, version int64) error {
	return d.rejections(&Record[K, Rejection[C]]{Key: r.Key, Value: Rejection[C]{r.Value, reason, version}, Timestamp: r.Timestamp, Headers: r.Headers})
}

// versionedSerde writes a version, 8 bytes big-endian, and the state as its own serde does.
type versionedSerde[S any] struct{ state Serde[S] }

// Name implements Serde.
func (s versionedSerde[S]) Name() string { return "versioned(" + s.state.Name() + ")" }

// Append implements Serde.
func (s versionedSerde[S]) Append(dst []byte, v Versioned[S]) ([]byte, error) {
	return s.state.Append(binary.BigEndian.AppendUint64(dst, uint64(v.Version)), v.State)
}

// Decode implements Serde.
func (s versionedSerde[S]) Decode(b []byte) (v Versioned[S], err error) {
	if len(b) < 8 {
		return v, fmt.Errorf("a versioned state has %d bytes, less than its version", len(b))
	}
	v.Version = int64(binary.BigEndian.Uint64(b))
	v.State, err = s.state.Decode(b[8:])
	return v, err
}
