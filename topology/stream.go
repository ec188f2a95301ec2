package topology

import (
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/leatlog/leat/topology/internal/graph"
)

// Topic is a topic and how its keys and values are encoded.
type Topic[K, V any] struct {
	Name  string
	Key   Serde[K]
	Value Serde[V]
}

// NewTopic describes a topic, to read it with From or write it with To.
func NewTopic[K, V any](name string, key Serde[K], value Serde[V]) Topic[K, V] {
	return Topic[K, V]{Name: name, Key: key, Value: value}
}

// Stream is a stream of records: each is an event of its own. It is a handle in a
// topology being declared, and may be read by any number of operators.
type Stream[K, V any] struct {
	t    *Topology
	node int
	// key and value are how records would be written, nil when not known.
	key   Serde[K]
	value Serde[V]
}

// From reads a topic. A topic is read once in a topology; its stream may be used
// many times.
func From[K, V any](t *Topology, topic Topic[K, V], opts ...SourceOption) *Stream[K, V] {
	var o options
	for _, opt := range opts {
		opt.ofSource(&o)
	}
	name := o.name
	if name == "" {
		name = t.defaultName(topic.Name)
	}
	var eventTime func(V) time.Time
	if o.eventTime != nil {
		f, fits := o.eventTime.(func(V) time.Time)
		switch {
		case !fits:
			t.mistake(name, "EventTime has a %T, but the values of topic %q are %s: give it a func(%[3]s) time.Time",
				o.eventTime, topic.Name, reflect.TypeFor[V]())
		case f == nil:
			t.mistake(name, "the function of EventTime is nil")
		}
		eventTime = f
	}
	topic.check(t, name)
	policy := t.policyOf(o)
	id := t.add(graph.Node{
		Name: name, Kind: graph.Source, Topic: topic.Name, Latest: o.latest, IdleTimeout: o.idleTimeout, DeadLetter: policy.deadLetter,
	}, code{ends: ends[K, V]{topic.Key, topic.Value, eventTime, policy}})
	return &Stream[K, V]{t, id, topic.Key, topic.Value}
}

// To writes the stream to a topic. The partition is murmur2 of the key's bytes,
// as with Kafka's clients.
func To[K, V any](s *Stream[K, V], topic Topic[K, V], opts ...SinkOption) {
	var o options
	for _, opt := range opts {
		opt.ofSink(&o)
	}
	name := o.name
	if name == "" {
		name = s.t.defaultName(s.name() + ".to." + topic.Name)
	}
	topic.check(s.t, name)
	policy := s.t.policyOf(o)
	s.t.add(graph.Node{
		Name: name, Kind: graph.Sink, Topic: topic.Name, Inputs: []int{s.node}, DeadLetter: policy.deadLetter,
	}, code{ends: ends[K, V]{key: topic.Key, value: topic.Value, policy: policy}})
}

func (topic Topic[K, V]) check(t *Topology, operator string) {
	if topic.Key == nil || topic.Value == nil {
		t.mistake(operator, "topic %q needs a serde for keys and one for values: use NewTopic", topic.Name)
	}
}

func (t *Topology) policyOf(o options) ErrorPolicy {
	if o.policy != nil {
		return *o.policy
	}
	return t.policy
}

func (s *Stream[K, V]) name() string { return s.t.graph.Nodes[s.node].Name }

// WithKeySerde says how keys are written when the stream must pass an internal
// topic or a store. It is needed behind operators that change the key's type.
func (s *Stream[K, V]) WithKeySerde(key Serde[K]) *Stream[K, V] {
	return &Stream[K, V]{s.t, s.node, key, s.value}
}

// WithValueSerde says how values are written when the stream must pass an
// internal topic or a store. It is needed behind operators that change the
// value's type.
func (s *Stream[K, V]) WithValueSerde(value Serde[V]) *Stream[K, V] {
	return &Stream[K, V]{s.t, s.node, s.key, value}
}

// unwritable says why the stream cannot be written, "" when it can.
func (s *Stream[K, V]) unwritable() string {
	switch {
	case s.key == nil:
		return "there is no serde for its keys, of type " + reflect.TypeFor[K]().String() +
			", behind \"" + s.name() + "\": call WithKeySerde on the stream first"
	case s.value == nil:
		return "there is no serde for its values, of type " + reflect.TypeFor[V]().String() +
			", behind \"" + s.name() + "\": call WithValueSerde on the stream first"
	}
	return ""
}

// stage is a stateless operator being compiled.
type stage[K, V any] struct {
	i        *instance
	node     *graph.Node
	failures *failures[K, V]
}

// stateless adds a stateless operator that reads s. given tells that the user's
// function is not nil.
func (s *Stream[K, V]) stateless(n graph.Node, given bool, opts []StreamOption, compile func(stage[K, V]) sink[K, V]) int {
	var o options
	for _, opt := range opts {
		opt.ofStream(&o)
	}
	n.Name = o.name
	if n.Name == "" {
		n.Name = s.t.defaultName(s.name() + "." + string(n.Kind))
	}
	if !given {
		s.t.mistake(n.Name, "the function of this %s is nil", n.Kind)
	}
	policy := s.t.policyOf(o)
	n.Inputs, n.DeadLetter = append([]int{s.node}, n.Inputs...), policy.deadLetter
	return s.t.add(n, code{compile: func(i *instance, n *graph.Node) any {
		return compile(stage[K, V]{i, n, newFailures(i, n, policy, s.key, s.value)})
	}})
}

// Filter keeps the records for whose value f is true.
func (s *Stream[K, V]) Filter(f func(V) bool, opts ...StreamOption) *Stream[K, V] {
	return s.filter("filter", f != nil, func(r *Record[K, V]) (bool, error) { return f(r.Value), nil }, opts)
}

// FilterRecord keeps the records for which f is true.
func (s *Stream[K, V]) FilterRecord(f func(*Record[K, V]) (bool, error), opts ...StreamOption) *Stream[K, V] {
	return s.filter("filter", f != nil, f, opts)
}

func (s *Stream[K, V]) filter(kind graph.Kind, given bool, f func(*Record[K, V]) (bool, error), opts []StreamOption) *Stream[K, V] {
	id := s.stateless(graph.Node{Kind: kind}, given, opts, func(st stage[K, V]) sink[K, V] {
		next := next[K, V](st.i, st.node)
		return func(r *Record[K, V]) error {
			if r.nullValue {
				return next(r)
			}
			keep, err := f(r)
			if err != nil {
				return st.failures.handle(err, r)
			}
			if !keep {
				return nil
			}
			return next(r)
		}
	})
	return &Stream[K, V]{s.t, id, s.key, s.value}
}

// Peek calls f for every record and hands it on unchanged. Records may run again
// after a failure, so f may be called more than once for one.
func (s *Stream[K, V]) Peek(f func(K, V), opts ...StreamOption) *Stream[K, V] {
	return s.filter("peek", f != nil, func(r *Record[K, V]) (bool, error) { f(r.Key, r.Value); return true, nil }, opts)
}

// PeekRecord is Peek with the whole record.
func (s *Stream[K, V]) PeekRecord(f func(*Record[K, V]) error, opts ...StreamOption) *Stream[K, V] {
	return s.filter("peek", f != nil, func(r *Record[K, V]) (bool, error) { return true, f(r) }, opts)
}

// Merge joins streams of the same types into one; records of one task keep the
// order in which they arrive.
func (s *Stream[K, V]) Merge(others ...*Stream[K, V]) *Stream[K, V] {
	merged := &Stream[K, V]{s.t, graph.None, s.key, s.value}
	n := graph.Node{Name: s.t.defaultName(s.name() + ".merge"), Kind: "merge", Inputs: []int{s.node}}
	for _, other := range others {
		if other.t != s.t {
			s.t.mistake(n.Name, "it merges with a stream of another topology: declare both in one")
			continue
		}
		n.Inputs = append(n.Inputs, other.node)
	}
	merged.node = s.t.add(n, code{compile: func(i *instance, n *graph.Node) any { return next[K, V](i, n) }})
	return merged
}

// Branch splits the stream: each record goes to the stream of the first predicate
// that is true for its value, or to the last stream when none is. There is one
// stream more than there are predicates.
func (s *Stream[K, V]) Branch(predicates ...func(V) bool) []*Stream[K, V] {
	given := !slices.ContainsFunc(predicates, func(p func(V) bool) bool { return p == nil })
	id := s.stateless(graph.Node{Kind: "split"}, given, nil, func(st stage[K, V]) sink[K, V] {
		// The only readers are the branches below, which were added in order.
		var branches []sink[K, V]
		for _, reader := range st.i.graph.Readers(st.node.ID) {
			branches = append(branches, st.i.inputs[reader].(sink[K, V]))
		}
		return func(r *Record[K, V]) error {
			if r.nullValue {
				return st.dropNullValue()
			}
			chosen := slices.IndexFunc(predicates, func(p func(V) bool) bool { return p(r.Value) })
			if chosen < 0 {
				chosen = len(predicates)
			}
			return branches[chosen](r)
		}
	})
	name := s.t.graph.Nodes[id].Name
	branches := make([]*Stream[K, V], len(predicates)+1)
	for j := range branches {
		branch := s.t.add(graph.Node{
			Name: s.t.defaultName(fmt.Sprintf("%s.%d", name, j)), Kind: "branch", Inputs: []int{id},
		}, code{compile: func(i *instance, n *graph.Node) any { return next[K, V](i, n) }})
		branches[j] = &Stream[K, V]{s.t, branch, s.key, s.value}
	}
	return branches
}
