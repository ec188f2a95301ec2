package topology

import (
	"fmt"
	"reflect"
	"slices"

	"github.com/leatlog/leat/topology/internal/graph"
	"github.com/leatlog/leat/topology/plan"
)

// merger makes one aggregate of those of two sessions, the earlier one first, that the
// record r joins.
type merger[K, V, A any] func(a, b A, r *Record[K, V]) (A, error)

// mergerOf returns what Merger says, as sessions need it and only they.
func mergerOf[K, V, A, R any](name string, g Grouping[R, K, V], o options) merger[K, V, A] {
	group, windows := g.grouped()
	t := group.stream.t
	needed := windows != nil && windows.kind == sessionWindows
	merge, fits := o.merger.(func(A, A) A)
	switch {
	case o.merger == nil && needed:
		t.mistake(name, "a record between two sessions makes one of them: say with Merger how their aggregates, %s, are combined", reflect.TypeFor[A]())
	case o.merger == nil:
	case !needed:
		t.mistake(name, "Merger is for sessions: group with Window(Session(...)) first, or leave it out")
	case !fits || merge == nil:
		t.mistake(name, "Merger has a %T, but the aggregates are %s: give it a func(%[2]s, %[2]s) %[2]s that is not nil", o.merger, reflect.TypeFor[A]())
	}
	return func(a, b A, _ *Record[K, V]) (A, error) { return merge(a, b), nil }
}

// sessionAggregation runs an aggregation by key and session.
//
// A session is closed when time has passed its end, plus the gap, plus the grace: a
// record that would prolong it then is late. Closed sessions are not merged any more.
type sessionAggregation[R, K, V, A any] struct {
	spans[R, K, A]
	spec     aggregation[R, K, V, A]
	failures *failures[K, V]
	gap      int64
	raw      []byte
	// joined are the sessions that a record joins.
	joined []*span[K, A]
	late   sink[K, V]
}

func (spec aggregation[R, K, V, A]) sessions(i *instance, n *graph.Node) any {
	a := &sessionAggregation[R, K, V, A]{
		spans: spec.spans(i, n), spec: spec, failures: newFailures(i, n, spec.policy, spec.key, spec.input),
		late: lateSink[K, V](i, n), gap: spec.windows.size.Milliseconds(), raw: make([]byte, 0, 64),
	}
	i.stateful = append(i.stateful, a)
	return sink[K, V](a.process)
}

func (a *sessionAggregation[R, K, V, A]) open() error { return a.spans.open(0) }

func (a *sessionAggregation[R, K, V, A]) punctuate() error { return a.close() }

func (a *sessionAggregation[R, K, V, A]) process(r *Record[K, V]) error {
	a.clock.observe(r.Timestamp)
	var err error
	if a.raw, err = a.spec.key.Append(a.raw[:0], r.Key); err != nil {
		return a.failures.handle(fmt.Errorf("key: %w", err), r)
	}
	w := a.join(r.Timestamp)
	if len(a.joined) == 0 && a.closed(w, a.clock.now()) {
		a.i.ctx.Dropped(a.name, plan.DropLate, nil)
		return a.late(r)
	}
	for _, p := range a.joined {
		if err := a.load(p); err != nil {
			return err
		}
	}
	value, err := a.aggregate(r)
	if err != nil {
		return a.failures.handle(err, r)
	}
	var p *span[K, A]
	if len(a.joined) == 0 {
		p = a.add(a.of(a.raw, r.Key), w)
	} else {
		p = a.joined[0]
		p.window = w
		for _, other := range a.joined[1:] {
			a.absorb(p, other)
		}
	}
	a.set(p, value, w.End)
	if a.full() {
		return a.relieve()
	}
	return nil
}

// join finds the open sessions that a record at this time joins, by start, and returns
// the bounds of what they become.
func (a *sessionAggregation[R, K, V, A]) join(timestamp int64) Window {
	a.joined = a.joined[:0]
	w := Window{Start: timestamp, End: timestamp}
	of := a.keys[string(a.raw)]
	if of == nil {
		return w
	}
	now := a.clock.now()
	for _, p := range slices.Backward(of.list) {
		if p.window.Start > timestamp+a.gap || a.closed(p.window, now) {
			continue
		}
		if p.window.End < timestamp-a.gap {
			break // open sessions do not overlap: those before it end earlier
		}
		a.joined = append(a.joined, p)
		w.Start, w.End = min(w.Start, p.window.Start), max(w.End, p.window.End)
	}
	slices.Reverse(a.joined)
	return w
}

// aggregate makes the aggregate of the sessions that the record joins, and of the record.
func (a *sessionAggregation[R, K, V, A]) aggregate(r *Record[K, V]) (value A, err error) {
	for n, p := range a.joined {
		if n == 0 {
			value = p.value
		} else if value, err = a.spec.merge(value, p.value, r); err != nil {
			return value, fmt.Errorf("merge sessions: %w", err)
		}
	}
	return a.spec.step(value, len(a.joined) > 0, r)
}
