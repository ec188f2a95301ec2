package topology

import (
	"time"

	"github.com/leatlog/leat/topology/internal/graph"
)

// The families of options. An option of another family does not compile.
type (
	// SourceOption is an option of From: Named, OnError, EventTime, StartLatest,
	// IdleTimeout.
	SourceOption interface{ ofSource(*options) }
	// SinkOption is an option of To: Named, OnError.
	SinkOption interface{ ofSink(*options) }
	// StreamOption is an option of a stateless operator: Named, OnError.
	StreamOption interface{ ofStream(*options) }
	// RepartitionOption is an option of Repartition and GroupBy: Partitions, OnError, Formerly.
	RepartitionOption interface{ ofRepartition(*options) }
	// GroupOption is an option of GroupByKey: Named, Partitions, OnError, Formerly.
	GroupOption interface{ ofGroup(*options) }
	// AggregateOption is an option of Count, Reduce and Aggregate: OnUpdate,
	// OnWindowClose, Retention, InMemory, Initial, Merger, OnError, Formerly.
	AggregateOption interface{ ofAggregate(*options) }
)

// options is what all options together can set.
type options struct {
	name        string
	formerly    *string
	policy      *ErrorPolicy
	eventTime   any
	latest      bool
	idleTimeout time.Duration
	partitions  int32
	onClose     bool
	retention   time.Duration
	inMemory    bool
	initial     any
	merger      any
}

// aggregates tells whether an option is set that only aggregations have.
func (o options) aggregates() bool {
	return o.onClose || o.retention != 0 || o.initial != nil || o.merger != nil
}

// NameOption is what Named returns.
type NameOption struct{ name string }

// Named names an operator, in errors, metrics and Describe; by default it is
// named after its input and kind, as in "orders.filter". The name of a
// GroupByKey also names its repartition topic.
func Named(name string) NameOption { return NameOption{name} }

func (o NameOption) ofSource(s *options) { s.name = o.name }
func (o NameOption) ofSink(s *options)   { s.name = o.name }
func (o NameOption) ofStream(s *options) { s.name = o.name }
func (o NameOption) ofGroup(s *options)  { s.name = o.name }

// PartitionsOption is what Partitions returns.
type PartitionsOption struct{ count int32 }

// Partitions sets the number of partitions of a repartition topic. By default it
// has as many as the topics that feed it.
func Partitions(count int32) PartitionsOption { return PartitionsOption{count} }

func (o PartitionsOption) ofRepartition(s *options) { s.partitions = o.count }
func (o PartitionsOption) ofGroup(s *options)       { s.partitions = o.count }

// FormerlyOption is what Formerly returns.
type FormerlyOption struct{ name string }

// Formerly says that an operator was renamed: it goes on with the store, or the internal
// topic, that it has left in the cluster, and on disk, under its former name. These keep that
// name, so the option stays as long as they are to be used. An operator that was renamed
// twice is given the first name. No other operator may have the former name.
func Formerly(name string) FormerlyOption { return FormerlyOption{name} }

func (o FormerlyOption) set(s *options)           { s.formerly = &o.name }
func (o FormerlyOption) ofRepartition(s *options) { o.set(s) }
func (o FormerlyOption) ofGroup(s *options)       { o.set(s) }
func (o FormerlyOption) ofAggregate(s *options)   { o.set(s) }

// durable gives a node the former name, and what it leaves behind the name that it has there.
func (t *Topology) durable(n *graph.Node, o options) {
	if o.formerly != nil {
		t.formerly(n, *o.formerly)
	}
}

func (t *Topology) formerly(n *graph.Node, name string) {
	if name == "" {
		t.mistake(n.Name, "Formerly is empty: give it the former name, or leave it out")
	}
	n.Formerly = name
	if n.Store != nil {
		n.Store.Name = n.DurableName()
	}
	if n.Kind == graph.Repartition {
		n.Topic = n.DurableName()
	}
}

type sourceFunc func(*options)

func (f sourceFunc) ofSource(s *options) { f(s) }

// EventTime takes a record's event time from its value instead of from its
// timestamp. V must be the value type of the topic; Build reports it if not.
// A time before 1970 is an error of the record.
func EventTime[V any](f func(V) time.Time) SourceOption {
	return sourceFunc(func(s *options) { s.eventTime = f })
}

// StartLatest begins at the end of the topic when the app has no committed
// offset; by default it begins at the oldest record.
func StartLatest() SourceOption {
	return sourceFunc(func(s *options) { s.latest = true })
}

// IdleTimeout is how long, in wall time, an empty partition of this topic holds
// back others of its task; by default the app's setting counts.
func IdleTimeout(d time.Duration) SourceOption {
	return sourceFunc(func(s *options) { s.idleTimeout = d })
}

type aggregateFunc func(*options)

func (f aggregateFunc) ofAggregate(s *options) { f(s) }

// OnUpdate emits the changed results at every commit, one update per key: the
// default.
func OnUpdate() AggregateOption {
	return aggregateFunc(func(s *options) { s.onClose = false })
}

// OnWindowClose emits each result once, when its window is closed: when stream time
// reaches the end plus grace of a tumbling or hopping window, or has passed that of a sliding
// one, or the end plus gap plus grace of a session. They come in the order of windows and,
// within one, of the keys' bytes. Only windowed aggregations have it.
func OnWindowClose() AggregateOption {
	return aggregateFunc(func(s *options) { s.onClose = true })
}

// Retention is how long after its start a window, and after its end a session, stays in
// the store. It is at least, and by default, the window's size, or the session's gap,
// plus grace; of sliding windows twice the time difference, plus grace, plus 1 ms.
func Retention(d time.Duration) AggregateOption {
	return aggregateFunc(func(s *options) { s.retention = d })
}

// InMemory keeps the store in memory; its changelog restores it after a restart.
func InMemory() AggregateOption {
	return aggregateFunc(func(s *options) { s.inMemory = true })
}

// Initial makes the first value of an aggregate; by default it is A's zero value.
// A must be the aggregate's type; Build reports it if not.
func Initial[A any](f func() A) AggregateOption {
	return aggregateFunc(func(s *options) { s.initial = f })
}

// Merger combines the aggregates of two sessions that become one, the earlier one first.
// Aggregate over sessions needs it. f must return a new value, or one of the two, and not
// change them in place: what it made counts only if the record that joins the sessions
// does. The initial value must be neutral to it, since it is left out. A must be the
// aggregate's type; Build reports it if not.
func Merger[A any](f func(A, A) A) AggregateOption {
	return aggregateFunc(func(s *options) { s.merger = f })
}

// ErrorPolicy says what an operator does with a record that it fails on: because
// a user function returned an error, or bytes do not decode, or a value does not
// encode.
type ErrorPolicy struct {
	skip       bool
	deadLetter string
}

// Fail stops the task, which starts again from its last commit: the default.
func Fail() ErrorPolicy { return ErrorPolicy{} }

// Skip leaves the record out and counts it.
func Skip() ErrorPolicy { return ErrorPolicy{skip: true} }

// DeadLetter leaves the record out, counts it, and writes the source record to a
// topic, with the headers listed at HeaderOperator. Behind a store, where one
// result comes from many records, it writes the operator's input instead, as far
// as its serdes are known.
func DeadLetter(topic string) ErrorPolicy { return ErrorPolicy{skip: true, deadLetter: topic} }

// Headers that DeadLetter adds to those of the source record.
const (
	// HeaderOperator names the operator that failed.
	HeaderOperator = "leat.operator"
	// HeaderError is the error's text.
	HeaderError = "leat.error"
	// HeaderTopic, HeaderPartition and HeaderOffset tell the source record, the
	// numbers in decimal; behind a store the first and last are missing.
	HeaderTopic     = "leat.source.topic"
	HeaderPartition = "leat.source.partition"
	HeaderOffset    = "leat.source.offset"
)

// ErrorOption is what OnError returns.
type ErrorOption struct{ policy ErrorPolicy }

// OnError sets what an operator does with records it fails on, or, as an option
// of New, what all do that do not say themselves.
func OnError(policy ErrorPolicy) ErrorOption { return ErrorOption{policy} }

func (o ErrorOption) set(s *options)           { s.policy = &o.policy }
func (o ErrorOption) ofSource(s *options)      { o.set(s) }
func (o ErrorOption) ofSink(s *options)        { o.set(s) }
func (o ErrorOption) ofStream(s *options)      { o.set(s) }
func (o ErrorOption) ofRepartition(s *options) { o.set(s) }
func (o ErrorOption) ofGroup(s *options)       { o.set(s) }
func (o ErrorOption) ofAggregate(s *options)   { o.set(s) }
func (o ErrorOption) ofTopology(t *Topology)   { t.policy = o.policy }
