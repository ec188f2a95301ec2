package topology

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/leatlog/leat/state"
	"github.com/leatlog/leat/topology/internal/graph"
	"github.com/leatlog/leat/topology/plan"
)

// A window store has one row that is no window: the mark, at window start -1 (the
// last place in the store's order) with an empty key. Its value tells how far the
// operator was when it last flushed, each 8 bytes big-endian in ms:
//
//	| -1 (8) |  ->  | time (8) | stream time (8) | time before (8) |
//
// All windows that were closed at the operator's time have been emitted, so after
// a restart they are neither emitted again nor opened again by late records.
//
// Without transactions a crash in the middle of a commit can leave the mark in the
// changelog though what it tells of was not written out. The task's stream time
// comes from the last complete commit: when the mark's is later, the time before
// counts, and results are emitted twice rather than never.
const markStart = -1

// windowedAggregation runs an aggregation by key and window.
type windowedAggregation[R, K, V, A any] struct {
	i        *instance
	name     string
	spec     aggregation[R, K, V, A]
	failures *failures[K, V]
	cache    cache[K, A]
	next     sink[R, A]
	out      Record[R, A]
	// in milliseconds
	size, advance, grace, retention int64
	onClose, lags                   bool
	// windows that are open, by start; last is the one used last.
	windows []*page[K, A]
	last    *page[K, A]
	// observed is the operator's time as far as it knows it by itself: the greatest
	// timestamp it saw, when it lags, and the mark's.
	observed int64
	// mark is the time of the last flush.
	mark int64
	// expired is the start of the last window that was removed from the store.
	expired int64
	markKey []byte
	raw     []byte
	// staged are the new values of a record's windows when all or none count, because a
	// record that the user function fails on is left out.
	staged []stagedValue[K, A]
	atomic bool
	copier copier[A]
	late   sink[K, V]
}

// stagedValue is what an entry's value is to be.
type stagedValue[K, A any] struct {
	e     *entry[K, A]
	value A
}

func (spec aggregation[R, K, V, A]) windowed(i *instance, n *graph.Node) any {
	a := &windowedAggregation[R, K, V, A]{
		i: i, name: n.Name, spec: spec, next: next[R, A](i, n), late: lateSink[K, V](i, n),
		failures: newFailures(i, n, spec.policy, spec.key, spec.input),
		size:     spec.windows.size.Milliseconds(), advance: spec.windows.advance.Milliseconds(),
		grace: spec.windows.grace.Milliseconds(), retention: spec.retention.Milliseconds(),
		onClose: spec.onClose, lags: n.Lags,
		observed: -1, mark: -1, expired: -1,
		markKey: state.WindowKey(nil, markStart, nil), raw: make([]byte, 0, 64),
	}
	a.atomic, a.copier = spec.policy.skip && a.advance < a.size, newCopier(spec.value, spec.mutable)
	a.cache = newCache[K, A](i.ctx, n.Store.Name, len(i.part.Stores), spec.value,
		func(dst []byte, start int64, raw string) []byte {
			return append(binary.BigEndian.AppendUint64(dst, uint64(start)), raw...)
		})
	i.stateful = append(i.stateful, a)
	return sink[K, V](a.process)
}

// open reads the mark and finds the open windows that the store has. Every other
// window is new when it opens, and complete in the cache.
func (a *windowedAggregation[R, K, V, A]) open() error {
	value, found, err := a.cache.store.Get(nil, a.markKey)
	if err != nil {
		return a.broken(err)
	}
	if found {
		if a.mark, err = decodeMark(value, a.i.ctx.StreamTime()); err != nil {
			return a.broken(err)
		}
		a.observed = a.mark
	}
	for start := max(0, a.mark-a.size-a.grace+1); ; start++ {
		more := false
		err := a.cache.store.Scan(state.WindowKey(nil, start, nil), a.markKey, false, func(key, _ []byte) bool {
			start, _, more = state.SplitWindowKey(key)
			return false
		})
		if err != nil || !more {
			return a.broken(err)
		}
		a.windows = append(a.windows, newPage[K, A](start, false))
	}
}

func (a *windowedAggregation[R, K, V, A]) broken(err error) error { return broken(a.i, a.name, err) }

// now is the operator's time.
func (a *windowedAggregation[R, K, V, A]) now() int64 {
	if a.lags {
		return a.observed
	}
	return max(a.observed, a.i.ctx.StreamTime())
}

// closed tells whether the window that begins at start is closed.
func (a *windowedAggregation[R, K, V, A]) closed(start, now int64) bool {
	return start+a.size+a.grace <= now
}

func (a *windowedAggregation[R, K, V, A]) process(r *Record[K, V]) error {
	if a.lags {
		a.observed = max(a.observed, r.Timestamp)
	}
	var err error
	if a.raw, err = a.spec.key.Append(a.raw[:0], r.Key); err != nil {
		return a.failures.handle(fmt.Errorf("key: %w", err), r)
	}
	now, late := a.now(), true
	for start := a.firstStart(r.Timestamp); start <= r.Timestamp; start += a.advance {
		if a.closed(start, now) {
			continue
		}
		late = false
		e, err := a.cache.find(a.window(start), a.raw, r.Key)
		if err != nil {
			return a.broken(err)
		}
		value, err := a.step(e, r, start+a.advance > r.Timestamp)
		if err != nil {
			a.unstage()
			if err := a.failures.handle(err, r); err != nil {
				return err
			}
			break
		}
		if a.atomic {
			a.staged = append(a.staged, stagedValue[K, A]{e, value})
		} else {
			a.cache.set(e, value, r.Timestamp)
		}
	}
	for _, staged := range a.staged {
		a.cache.set(staged.e, staged.value, r.Timestamp)
	}
	a.unstage()
	if late {
		a.i.ctx.Dropped(a.name, plan.DropLate, nil)
		if err := a.late(r); err != nil {
			return err
		}
	}
	if a.cache.full() {
		return a.relieve()
	}
	return nil
}

// step runs the user function for a window. Before the record's last window it works on
// a copy if the record may yet be left out of all.
func (a *windowedAggregation[R, K, V, A]) step(e *entry[K, A], r *Record[K, V], last bool) (A, error) {
	value := e.value
	if a.atomic && !last {
		var err error
		if value, err = a.copier.copy(value); err != nil {
			return value, fmt.Errorf("copy an aggregate: %w", err)
		}
	}
	return a.spec.step(value, e.present, r)
}

func (a *windowedAggregation[R, K, V, A]) unstage() {
	clear(a.staged)
	a.staged = a.staged[:0]
}

// firstStart returns the start of the first window that holds the timestamp.
func (a *windowedAggregation[R, K, V, A]) firstStart(timestamp int64) int64 {
	return max(0, timestamp-a.size+a.advance) / a.advance * a.advance
}

// window returns the page of the window that begins at start, opening it if need
// be.
func (a *windowedAggregation[R, K, V, A]) window(start int64) *page[K, A] {
	if a.last != nil && a.last.start == start {
		return a.last
	}
	index, found := slices.BinarySearchFunc(a.windows, start, func(p *page[K, A], start int64) int {
		return int(min(1, max(-1, p.start-start)))
	})
	if !found {
		a.windows = slices.Insert(a.windows, index, newPage[K, A](start, true))
	}
	a.last = a.windows[index]
	return a.last
}

// punctuate emits the windows that closed, in order, if results wait for that.
func (a *windowedAggregation[R, K, V, A]) punctuate() error {
	if !a.onClose {
		return nil
	}
	for now := a.now(); len(a.windows) > 0 && a.closed(a.windows[0].start, now); {
		p := a.windows[0]
		if err := a.emitWindow(p); err != nil {
			return err
		}
		if a.retention > a.size+a.grace {
			if err := a.flushDirty(); err != nil {
				return err
			}
		}
		p.closed = true
		a.dropFirst()
	}
	return nil
}

// dropFirst forgets the first window, which is closed.
func (a *windowedAggregation[R, K, V, A]) dropFirst() {
	p := a.windows[0]
	a.windows = slices.Delete(a.windows, 0, 1)
	if a.last == p {
		a.last = nil
	}
	a.cache.drop(p)
}

// emitWindow emits the results of a window by the order of the keys' bytes.
func (a *windowedAggregation[R, K, V, A]) emitWindow(p *page[K, A]) error {
	if !p.complete {
		return a.emitStored(p)
	}
	slices.SortFunc(p.list, func(x, y *entry[K, A]) int { return strings.Compare(x.raw, y.raw) })
	for _, e := range p.list {
		if !e.present {
			continue
		}
		if err := a.emit(e); err != nil {
			return err
		}
	}
	return nil
}

// emitStored is emitWindow for a window of which the cache has but a part.
func (a *windowedAggregation[R, K, V, A]) emitStored(p *page[K, A]) error {
	for _, e := range a.cache.dirty {
		if e.home == p && e.dirty {
			if _, err := a.cache.write(e); err != nil {
				return a.broken(err)
			}
		}
	}
	var failed error
	from, to := state.WindowKey(nil, p.start, nil), state.WindowKey(nil, p.start+1, nil)
	err := a.cache.store.Scan(from, to, false, func(key, value []byte) bool {
		raw := key[state.WindowStartSize:]
		e := p.entries[string(raw)]
		if e == nil {
			e = &entry[K, A]{home: p, timestamp: -1}
			if e.key, failed = a.spec.key.Decode(raw); failed == nil {
				failed = a.cache.decode(value, e)
			}
			failed = a.broken(failed)
		}
		if failed == nil {
			failed = a.emit(e)
		}
		return failed == nil
	})
	if failed != nil {
		return failed
	}
	return a.broken(err)
}

// emit hands an aggregate on, or that it was removed.
func (a *windowedAggregation[R, K, V, A]) emit(e *entry[K, A]) error {
	start := e.home.start
	a.out = Record[R, A]{Key: a.spec.result(e.key, Window{Start: start, End: start + a.size}), Timestamp: e.timestamp}
	if e.present {
		a.out.Value = e.value
	} else {
		a.out.nullValue = !a.cache.null.possible()
	}
	return a.next(&a.out)
}

func (a *windowedAggregation[R, K, V, A]) flush() error {
	if err := a.punctuate(); err != nil {
		return err
	}
	if err := a.flushDirty(); err != nil {
		return err
	}
	now := a.now()
	for len(a.windows) > 0 && a.closed(a.windows[0].start, now) {
		a.dropFirst()
	}
	if now > a.mark {
		value := appendMark(nil, now, a.i.ctx.StreamTime(), a.mark)
		a.mark = now
		if err := a.cache.store.Put(a.markKey, value, now); err != nil {
			return a.broken(err)
		}
	}
	return a.expire(now)
}

func appendMark(dst []byte, time, streamTime, before int64) []byte {
	dst = binary.BigEndian.AppendUint64(dst, uint64(time))
	dst = binary.BigEndian.AppendUint64(dst, uint64(streamTime))
	return binary.BigEndian.AppendUint64(dst, uint64(before))
}

// decodeMark returns the operator's time that a mark stands for when the last
// complete commit was at streamTime.
func decodeMark(mark []byte, streamTime int64) (int64, error) {
	if len(mark) != 3*timestampSize {
		return 0, fmt.Errorf("the mark of a store has %d bytes, want %d", len(mark), 3*timestampSize)
	}
	if int64(binary.BigEndian.Uint64(mark[timestampSize:])) > streamTime {
		return int64(binary.BigEndian.Uint64(mark[2*timestampSize:])), nil
	}
	return int64(binary.BigEndian.Uint64(mark)), nil
}

// flushDirty writes what is dirty and, unless results wait for the close, emits it.
func (a *windowedAggregation[R, K, V, A]) flushDirty() error {
	for _, e := range a.cache.dirty {
		if !e.dirty || e.home.closed {
			continue
		}
		written, err := a.cache.write(e)
		if err != nil {
			return a.broken(err)
		}
		if !written || a.onClose {
			continue
		}
		if err := a.emit(e); err != nil {
			return err
		}
	}
	clear(a.cache.dirty)
	a.cache.dirty = a.cache.dirty[:0]
	return nil
}

// expire removes the windows from the store that outlived their retention.
func (a *windowedAggregation[R, K, V, A]) expire(now int64) error {
	if now < a.retention {
		return nil
	}
	last := now - a.retention
	last -= last % a.advance
	if last <= a.expired {
		return nil
	}
	a.expired = last
	return a.broken(a.cache.store.DeleteBefore(state.WindowKey(nil, last+1, nil)))
}

// relieve makes room in a full cache: it closes what is due, flushes early, and
// forgets, oldest windows first.
func (a *windowedAggregation[R, K, V, A]) relieve() error {
	if err := a.punctuate(); err != nil {
		return err
	}
	if err := a.flushDirty(); err != nil {
		return err
	}
	target := a.cache.limit / 4 * 3
	for range 2 {
		for _, p := range a.windows {
			if a.cache.bytes > target {
				a.cache.forget(p, target)
			}
		}
	}
	return nil
}
