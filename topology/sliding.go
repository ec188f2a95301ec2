package topology

import (
	"fmt"
	"slices"

	"github.com/leatlog/leat/topology/internal/graph"
	"github.com/leatlog/leat/topology/plan"
)

// slidingAggregation runs an aggregation by key and sliding window (KIP-450).
//
// Of all windows that one could slide over a key's records, there are those that hold
// different records: for each record the one that ends with it, its left window, and the
// one that begins behind it, its right window, when that holds any. Each window's
// aggregate is kept, so a new one begins with a copy of that of a window which holds the
// same records but for the new one.
//
//	records        a     b  c
//	left of b   [--------]
//	right of a      [--------]   holds b, and then c
//	left of c       .  [--------]
type slidingAggregation[R, K, V, A any] struct {
	spans[R, K, A]
	spec     aggregation[R, K, V, A]
	failures *failures[K, V]
	copier   copier[A]
	// difference is how far apart the first and the last record of a window may be, grace
	// how late they may be.
	difference, grace int64
	raw               []byte
	near              nearWindows[K, A]
	targets           []slidingTarget[K, A]
	late              sink[K, V]
}

// nearWindows are the windows of a key that matter for a record at a time t.
type nearWindows[K, A any] struct {
	// holding are those that hold t and more behind it, the latest one first.
	holding []*span[K, A]
	// exact ends at t, before is the latest one that ends before t; nil for none.
	exact, before *span[K, A]
	// right says that the one that begins behind t is there.
	right bool
}

// slidingTarget is a window that takes a record.
type slidingTarget[K, A any] struct {
	// span is nil for a window that is new.
	span   *span[K, A]
	window Window
	value  A
	// found says that there is a value.
	found bool
}

func (spec aggregation[R, K, V, A]) sliding(i *instance, n *graph.Node) any {
	a := &slidingAggregation[R, K, V, A]{
		spans: spec.spans(i, n), spec: spec, failures: newFailures(i, n, spec.policy, spec.key, spec.input),
		copier: newCopier(spec.value, spec.mutable), late: lateSink[K, V](i, n), raw: make([]byte, 0, 64),
		difference: spec.windows.size.Milliseconds(), grace: spec.windows.grace.Milliseconds(),
	}
	i.stateful = append(i.stateful, a)
	return sink[K, V](a.process)
}

func (a *slidingAggregation[R, K, V, A]) open() error { return a.spans.open(a.difference) }

func (a *slidingAggregation[R, K, V, A]) punctuate() error { return a.close() }

func (a *slidingAggregation[R, K, V, A]) window(start int64) Window {
	return Window{Start: start, End: start + a.difference}
}

func (a *slidingAggregation[R, K, V, A]) process(r *Record[K, V]) error {
	a.clock.observe(r.Timestamp)
	var err error
	if a.raw, err = a.spec.key.Append(a.raw[:0], r.Key); err != nil {
		return a.failures.handle(fmt.Errorf("key: %w", err), r)
	}
	if a.closed(a.window(r.Timestamp), a.clock.now()) { // then so are all that hold it
		a.i.ctx.Dropped(a.name, plan.DropLate, nil)
		return a.late(r)
	}
	a.look(r.Timestamp)
	right, err := a.rightOf(r.Timestamp)
	if err != nil {
		return err
	}
	if err := a.target(r.Timestamp); err != nil {
		return err
	}
	for n := range a.targets {
		target := &a.targets[n]
		if a.spec.policy.skip && n+1 < len(a.targets) { // the record may yet be left out of all
			if target.value, err = a.copier.copy(target.value); err != nil {
				return a.broken(fmt.Errorf("copy an aggregate: %w", err))
			}
		}
		if target.value, err = a.spec.step(target.value, target.found, r); err != nil {
			return a.failures.handle(err, r)
		}
	}
	if right != nil {
		a.set(a.add(a.of(a.raw, r.Key), right.window), right.value, right.span.timestamp)
	}
	for _, target := range a.targets {
		p := target.span
		if p == nil {
			p = a.add(a.of(a.raw, r.Key), target.window)
		}
		a.set(p, target.value, r.Timestamp)
	}
	if len(a.targets) == 0 {
		a.i.ctx.Dropped(a.name, plan.DropLate, nil)
		if err := a.late(r); err != nil {
			return err
		}
	}
	if a.full() {
		return a.relieve()
	}
	return nil
}

// look finds the windows near a record.
func (a *slidingAggregation[R, K, V, A]) look(timestamp int64) {
	a.near = nearWindows[K, A]{holding: a.near.holding[:0]}
	of := a.keys[string(a.raw)]
	if of == nil {
		return
	}
	for _, p := range slices.Backward(of.list) {
		switch w := p.window; {
		case w.Start > timestamp+1:
		case w.End+a.keep < a.clock.now(), w.Start < timestamp-2*a.difference:
			return
		case w.Start == timestamp+1:
			a.near.right = true
		case w.End > timestamp:
			a.near.holding = append(a.near.holding, p)
		case w.End == timestamp:
			a.near.exact = p
		default:
			a.near.before = p
			return
		}
	}
}

// rightOf returns the right window of a record if it is new and holds any: what the latest
// window around the record holds behind it. Its span is the one that it is a copy of.
func (a *slidingAggregation[R, K, V, A]) rightOf(timestamp int64) (*slidingTarget[K, A], error) {
	if a.near.right || len(a.near.holding) == 0 || a.near.holding[0].timestamp <= timestamp {
		return nil, nil
	}
	p := a.near.holding[0]
	value, err := a.copyOf(p)
	return &slidingTarget[K, A]{span: p, window: a.window(timestamp + 1), value: value}, err
}

func (a *slidingAggregation[R, K, V, A]) copyOf(p *span[K, A]) (A, error) {
	if err := a.load(p); err != nil {
		return p.value, err
	}
	value, err := a.copier.copy(p.value)
	if err != nil {
		return value, a.broken(fmt.Errorf("copy an aggregate: %w", err))
	}
	return value, nil
}

// target finds the windows that take a record: those that hold it, its left window, and
// the right window of the record before it.
func (a *slidingAggregation[R, K, V, A]) target(timestamp int64) error {
	clear(a.targets)
	a.targets = a.targets[:0]
	now := a.clock.now()
	existing := func(p *span[K, A]) error {
		if p == nil || a.closed(p.window, now) {
			return nil
		}
		if err := a.load(p); err != nil {
			return err
		}
		a.targets = append(a.targets, slidingTarget[K, A]{p, p.window, p.value, true})
		return nil
	}
	for _, p := range a.near.holding {
		if err := existing(p); err != nil {
			return err
		}
	}
	if err := existing(a.near.exact); err != nil {
		return err
	}
	left, previous := a.leftOf(timestamp)
	if start := previous + 1; previous >= 0 && start+a.difference >= timestamp && !a.begins(start) && !a.closed(a.window(start), now) {
		a.targets = append(a.targets, slidingTarget[K, A]{window: a.window(start)})
		if start == left {
			return nil // they are one
		}
	}
	if left < 0 || a.closed(a.window(left), now) {
		return nil
	}
	target := slidingTarget[K, A]{window: a.window(left)}
	if previous >= 0 && previous >= left && left > 0 {
		var err error
		if target.value, err = a.copyOf(a.near.before); err != nil {
			return err
		}
		target.found = true
	}
	a.targets = append(a.targets, target)
	return nil
}

// leftOf returns where the left window of a record begins if it is new, and the time of the
// record before; -1 for none. Records from before the first window that there can be have
// [0, difference] for their left window, all of them.
func (a *slidingAggregation[R, K, V, A]) leftOf(timestamp int64) (start, previous int64) {
	before := a.near.before
	start = timestamp - a.difference
	if start < 0 {
		start = 0
		if held := a.near.holding; len(held) > 0 && held[len(held)-1].window.Start == 0 {
			before, start = held[len(held)-1], -1
		}
	} else if a.near.exact != nil {
		before, start = a.near.exact, -1
	}
	if before == nil || before.timestamp >= timestamp {
		return start, -1
	}
	return start, before.timestamp
}

// begins tells whether a window near the record begins at start.
func (a *slidingAggregation[R, K, V, A]) begins(start int64) bool {
	of := a.keys[string(a.raw)]
	if of == nil {
		return false
	}
	_, found := slices.BinarySearchFunc(of.list, start, func(p *span[K, A], start int64) int {
		return int(min(1, max(-1, p.window.Start-start)))
	})
	return found
}
