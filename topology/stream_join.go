package topology

import (
	"fmt"
	"time"

	"github.com/leatlog/leat/state"
	"github.com/leatlog/leat/topology/internal/graph"
	"github.com/leatlog/leat/topology/plan"
)

// JoinWindows says how far apart in event time two records may be to be joined. The zero
// value joins records of the same millisecond: begin with Within.
type JoinWindows struct{ before, after, grace time.Duration }

// Within joins records whose timestamps differ by at most d, either way.
func Within(d time.Duration) JoinWindows { return JoinWindows{before: d, after: d} }

// Before sets how much earlier the record of the second stream may be than that of the
// first one.
func (w JoinWindows) Before(d time.Duration) JoinWindows {
	w.before = d
	return w
}

// After sets how much later the record of the second stream may be than that of the first
// one.
func (w JoinWindows) After(d time.Duration) JoinWindows {
	w.after = d
	return w
}

// Grace is how long after the last moment at which a record can find a partner, in event
// time, one that comes late is still joined; 0 by default. Later ones are dropped and
// counted.
func (w JoinWindows) Grace(grace time.Duration) JoinWindows {
	w.grace = grace
	return w
}

// String describes the windows, as in "from 1m0s before to 1m0s after, grace 10s".
func (w JoinWindows) String() string {
	return fmt.Sprintf("from %v before to %v after, grace %v", w.before, w.after, w.grace)
}

// complaint says what is wrong with the windows, "" when nothing is.
func (w JoinWindows) complaint() string {
	whole := func(d time.Duration) bool { return d%time.Millisecond == 0 }
	switch {
	case !whole(w.before) || !whole(w.after) || w.before+w.after < 0:
		return fmt.Sprintf("the window is from %v before to %v after: both must be whole milliseconds, and before plus after not negative", w.before, w.after)
	case w.grace < 0 || !whole(w.grace):
		return fmt.Sprintf("the grace is %v: it must be whole milliseconds, and not negative", w.grace)
	}
	return ""
}

// JoinOption is an option of stream-stream joins: InMemory, OnError, Formerly.
type JoinOption = AggregateOption

// JoinStreams makes a record of each two records, one of each stream, that have the same
// key and lie within the windows: f gets the values of the first and of the second
// stream. The result has the later timestamp of the two, and the headers of the record
// that came last. name names the store that keeps the records of both streams as long as
// they can be joined; its changelog is <app>-<name>-changelog. The topics of both must have
// equally many partitions, which the app checks at its start. Records without a key or a
// value are dropped and counted.
func JoinStreams[K, A, B, R any](name string, a *Stream[K, A], b *Stream[K, B], within JoinWindows, f func(A, B) R, opts ...JoinOption) *Stream[K, R] {
	return joinStreams(name, "join-streams", a, b, within, f != nil, joinsStreams[A, B, R]{
		both: func(a A, b B) R { return f(a, b) },
	}, opts)
}

// LeftJoinStreams is JoinStreams that also makes a record of each record of the first
// stream that found no partner, when it can find none any more: when event time has passed
// the end of its window plus grace. Then found is false and the value of the second
// stream is zero; the result has the record's timestamp and no headers. Records of the
// first stream that have no key find no partner.
func LeftJoinStreams[K, A, B, R any](name string, a *Stream[K, A], b *Stream[K, B], within JoinWindows, f func(a A, b B, found bool) R, opts ...JoinOption) *Stream[K, R] {
	var noB B
	return joinStreams(name, "left-join-streams", a, b, within, f != nil, joinsStreams[A, B, R]{
		both:  func(a A, b B) R { return f(a, b, true) },
		onlyA: func(a A) R { return f(a, noB, false) },
	}, opts)
}

// OuterJoinStreams is JoinStreams that also makes a record of each record of either stream
// that found no partner, as LeftJoinStreams does: hasA and hasB tell which of the two
// there is.
func OuterJoinStreams[K, A, B, R any](name string, a *Stream[K, A], b *Stream[K, B], within JoinWindows, f func(a A, hasA bool, b B, hasB bool) R, opts ...JoinOption) *Stream[K, R] {
	var noA A
	var noB B
	return joinStreams(name, "outer-join-streams", a, b, within, f != nil, joinsStreams[A, B, R]{
		both:  func(a A, b B) R { return f(a, true, b, true) },
		onlyA: func(a A) R { return f(a, true, noB, false) },
		onlyB: func(b B) R { return f(noA, false, b, true) },
	}, opts)
}

// joinsStreams are the results of a join; onlyA and onlyB are nil where a record without a
// partner gives none.
type joinsStreams[A, B, R any] struct {
	both  func(A, B) R
	onlyA func(A) R
	onlyB func(B) R
}

func joinStreams[K, A, B, R any](name string, kind graph.Kind, a *Stream[K, A], b *Stream[K, B], within JoinWindows, given bool,
	results joinsStreams[A, B, R], opts []JoinOption) *Stream[K, R] {
	t, o := a.t, aggregateOptions(opts)
	if !given {
		t.mistake(name, "the function of this %s is nil", kind)
	}
	if o.aggregates() {
		t.mistake(name, "OnWindowClose, Retention, Initial and Merger are for aggregations, this is a join of streams: leave them out")
	}
	if complaint := within.complaint(); complaint != "" {
		t.mistake(name, "%s", complaint)
	}
	if complaint := a.unwritable(); complaint != "" {
		t.mistake(name, "%s", complaint)
	}
	if b.value == nil {
		t.mistake(name, "%s", (&Stream[K, B]{b.t, b.node, a.key, nil}).unwritable())
	}
	policy := t.policyOf(o)
	n := graph.Node{Name: name, Kind: kind, Durable: true, ByKey: true, Inputs: []int{a.node}, DeadLetter: policy.deadLetter, Detail: within.String()}
	if b.t == t {
		n.Inputs = append(n.Inputs, b.node)
	} else {
		t.mistake(name, "it joins with a stream of another topology: declare both in one")
	}
	spec := streamJoin[K, A, B, R]{results: results, policy: policy, key: a.key, a: a.value, b: b.value,
		before: within.before.Milliseconds(), after: within.after.Milliseconds(), grace: within.grace.Milliseconds()}
	n.Store = &state.Spec{Name: name, Kind: state.Window, InMemory: o.inMemory,
		WindowSize: time.Duration(spec.bucket()) * time.Millisecond, Retention: time.Duration(spec.bucket()+spec.span()) * time.Millisecond}
	if a.key != nil && a.value != nil && b.value != nil {
		n.Store.KeyFormat, n.Store.ValueFormat = a.key.Name(), "joined("+a.value.Name()+","+b.value.Name()+")"
	}
	t.durable(&n, o)
	windows := &plan.Windows{Kind: "join", Before: within.before, After: within.after, Grace: within.grace, OnClose: kind != "join-streams"}
	return &Stream[K, R]{t: t, node: t.add(n, code{compile: spec.compile, windows: windows}), key: a.key}
}
