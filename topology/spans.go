package topology

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/leatlog/leat/state"
	"github.com/leatlog/leat/topology/internal/graph"
)

// span is a window of one key whose bounds come from the records: a session, or a
// sliding window.
type span[K, A any] struct {
	of     *spansOf[K, A]
	window Window
	// timestamp is that of the result: the latest of its records.
	timestamp int64
	value     A
	// size is the last known size of the encoded value.
	size int
	// loaded: value is what it is. used: it was since the cache last looked for what to
	// forget. dirty: the store does not have it yet, and it is in the list of dirty ones.
	// closed: it changes no more. gone: it was removed or merged into another one.
	loaded, used, dirty, closed, gone bool
	// row is the window under which the store has it, if stored.
	row    Window
	stored bool
	// replaced are rows of spans that were merged into it.
	replaced []Window
}

// spansOf are the spans of a key, by start.
type spansOf[K, A any] struct {
	// raw is the key's bytes.
	raw  string
	key  K
	list []*span[K, A]
}

// dueSpan is a span in the order in which they close. It has the bounds that the span
// had when it was noted.
type dueSpan[K, A any] struct {
	window Window
	span   *span[K, A]
}

func (d dueSpan[K, A]) before(other dueSpan[K, A]) bool {
	return cmp.Or(cmp.Compare(d.window.End, other.window.End), cmp.Compare(d.window.Start, other.window.Start),
		strings.Compare(d.span.of.raw, other.span.of.raw)) < 0
}

// spans are the windows of an aggregation that may still change, over a write-back
// cache of their aggregates. Which windows there are is always in memory, so that the
// store is read for values only, one at a time; aggregates that are not in use are
// forgotten when the cache outgrows its share.
//
// Rows of the store hold what cache.go says, under state.SessionKey for sessions and
// state.WindowKey for sliding windows; and there is a mark, see markStart.
type spans[R, K, A any] struct {
	i      *instance
	name   string
	kind   state.Kind
	store  state.Store
	clock  eventClock
	key    Serde[K]
	value  Serde[A]
	null   nulls[A]
	next   sink[R, A]
	result func(K, Window) R
	out    Record[R, A]
	// onClose says that results wait until their windows are closed.
	onClose bool
	// A window is closed when time has passed its end plus closing, and is of no more use
	// when it has passed its end plus keep. Its row goes when time has passed retention,
	// behind the end of a session and the start of a sliding window.
	closing, keep, retention int64
	keys                     map[string]*spansOf[K, A]
	// due are the windows that are open, old those that are closed and still of use, by
	// end.
	due minHeap[dueSpan[K, A]]
	old []*span[K, A]
	// dirty and loaded spans, in the order in which they became so; held of the latter are
	// loaded still.
	dirty, loaded []*span[K, A]
	held          int
	// bytes are what the aggregates in memory weigh, limit is the share of the budget.
	bytes, limit, overhead int
	// expired is the time before which rows were removed.
	expired  int64
	keyBuf   []byte
	valueBuf []byte
	// storeName is the store's, counted what the metrics tell.
	storeName string
	counted   figures
}

func (spec aggregation[R, K, V, A]) spans(i *instance, n *graph.Node) spans[R, K, A] {
	windows := spec.windows
	s := spans[R, K, A]{
		i: i, name: n.Name, kind: n.Store.Kind, store: i.ctx.Store(n.Store.Name), storeName: n.Store.Name, key: spec.key, value: spec.value, null: nullCheck[A](),
		next: next[R, A](i, n), result: spec.result, onClose: spec.onClose,
		closing: windows.closing().Milliseconds(), keep: windows.keep().Milliseconds(), retention: spec.retention.Milliseconds(),
		keys: map[string]*spansOf[K, A]{}, limit: i.ctx.CacheBytes() / len(i.part.Stores),
		overhead: int(reflect.TypeFor[span[K, A]]().Size()),
	}
	s.clock = newEventClock(i, s.store, n.Lags, slices.Clone(s.rowKey(Window{Start: markStart, End: markStart}, "")))
	return s
}

func (s *spans[R, K, A]) broken(err error) error { return broken(s.i, s.name, err) }

// rowKey returns the store's key of a window, valid until the next call.
func (s *spans[R, K, A]) rowKey(w Window, raw string) []byte {
	s.keyBuf = binary.BigEndian.AppendUint64(s.keyBuf[:0], uint64(s.order(w)))
	if s.kind == state.Session {
		s.keyBuf = binary.BigEndian.AppendUint64(s.keyBuf, uint64(w.Start))
	}
	s.keyBuf = append(s.keyBuf, raw...)
	return s.keyBuf
}

// order is the time by which the store orders windows.
func (s *spans[R, K, A]) order(w Window) int64 {
	if s.kind == state.Session {
		return w.End
	}
	return w.Start
}

// closed tells whether a window is closed.
func (s *spans[R, K, A]) closed(w Window, now int64) bool { return w.End+s.closing < now }

// open reads the mark and finds the windows that the store has and that are of use.
func (s *spans[R, K, A]) open(size int64) error {
	if err := s.clock.open(); err != nil {
		return s.broken(err)
	}
	var failed error
	from := max(0, s.clock.mark-s.keep)
	if s.kind == state.Window {
		from = max(0, from-size)
	}
	err := s.store.Scan(state.WindowKey(nil, from, nil), s.clock.key, false, func(key, value []byte) bool {
		failed = s.openRow(key, value, size)
		return failed == nil
	})
	return s.broken(cmp.Or(err, failed))
}

func (s *spans[R, K, A]) openRow(row, value []byte, size int64) error {
	var w Window
	var raw []byte
	if s.kind == state.Session {
		w.Start, w.End, raw, _ = state.SplitSessionKey(row)
	} else {
		w.Start, raw, _ = state.SplitWindowKey(row)
		w.End = w.Start + size
	}
	if len(value) < timestampSize {
		return errTooShort
	}
	of := s.keys[string(raw)]
	if of == nil {
		key, err := s.key.Decode(raw)
		if err != nil {
			return fmt.Errorf("stored key: %w", err)
		}
		of = s.of(raw, key)
	}
	p := &span[K, A]{of: of, window: w, timestamp: int64(binary.BigEndian.Uint64(value)), size: len(value), row: w, stored: true}
	s.insert(p)
	if p.closed = s.closed(w, s.clock.mark); p.closed {
		s.old = append(s.old, p)
	} else {
		s.due.push(dueSpan[K, A]{w, p})
	}
	return nil
}

// of returns the spans of a key.
func (s *spans[R, K, A]) of(raw []byte, key K) *spansOf[K, A] {
	of := s.keys[string(raw)]
	if of == nil {
		of = &spansOf[K, A]{raw: string(raw), key: key}
		s.keys[of.raw] = of
	}
	return of
}

// insert puts a span among those of its key.
func (s *spans[R, K, A]) insert(p *span[K, A]) {
	at := len(p.of.list)
	for at > 0 && p.of.list[at-1].window.Start > p.window.Start {
		at--
	}
	p.of.list = slices.Insert(p.of.list, at, p)
}

// add opens a window.
func (s *spans[R, K, A]) add(of *spansOf[K, A], w Window) *span[K, A] {
	p := &span[K, A]{of: of, window: w, timestamp: -1}
	s.insert(p)
	s.due.push(dueSpan[K, A]{w, p})
	s.hold(p)
	return p
}

// hold notes that a span's aggregate is in memory.
func (s *spans[R, K, A]) hold(p *span[K, A]) {
	p.loaded, p.used = true, true
	s.loaded = append(s.loaded, p)
	s.bytes += s.weight(p)
	s.held++
}

func (s *spans[R, K, A]) weight(p *span[K, A]) int { return s.overhead + len(p.of.raw) + p.size }

// load has a span's aggregate in memory.
func (s *spans[R, K, A]) load(p *span[K, A]) error {
	p.used = true
	if p.loaded {
		s.counted.hits++
		return nil
	}
	s.counted.misses++
	stored, found, err := s.store.Get(s.valueBuf[:0], s.rowKey(p.row, p.of.raw))
	if err != nil {
		return s.broken(err)
	}
	s.valueBuf = stored[:0]
	if !found || len(stored) < timestampSize {
		return s.broken(fmt.Errorf("window %v of key %x: %w", p.row, p.of.raw, errTooShort))
	}
	if p.value, err = s.value.Decode(stored[timestampSize:]); err != nil {
		return s.broken(fmt.Errorf("stored aggregate: %w", err))
	}
	s.hold(p)
	return nil
}

// set changes a span, which must be loaded; a null aggregate removes it.
func (s *spans[R, K, A]) set(p *span[K, A], value A, timestamp int64) {
	p.value, p.timestamp = value, max(p.timestamp, timestamp)
	if s.null.isNull(value) {
		s.drop(p)
	}
	s.soil(p)
}

func (s *spans[R, K, A]) soil(p *span[K, A]) {
	if !p.dirty {
		p.dirty = true
		s.dirty = append(s.dirty, p)
	}
}

// drop takes a span from those of its key.
func (s *spans[R, K, A]) drop(p *span[K, A]) {
	p.gone = true
	list := p.of.list
	at := slices.Index(list, p)
	p.of.list = slices.Delete(list, at, at+1)
	if len(p.of.list) == 0 {
		delete(s.keys, p.of.raw)
	}
	s.release(p)
}

// release forgets a span's aggregate; forget takes it from the list.
func (s *spans[R, K, A]) release(p *span[K, A]) {
	if p.loaded {
		var none A
		p.loaded, p.value = false, none
		s.bytes -= s.weight(p)
		s.held--
	}
}

// absorb merges a span into another one of its key: its rows are to go.
func (s *spans[R, K, A]) absorb(into, p *span[K, A]) {
	into.replaced = append(into.replaced, p.replaced...)
	if p.stored {
		into.replaced = append(into.replaced, p.row)
	}
	p.dirty = false
	s.drop(p)
}

// close closes what is due, in the order of ends, starts and keys, and emits it if
// results wait for that.
func (s *spans[R, K, A]) close() error {
	for now := s.clock.now(); len(s.due) > 0 && s.closed(s.due[0].window, now); {
		d := s.due.pop()
		p := d.span
		switch {
		case p.gone:
			continue
		case p.window != d.window:
			s.due.push(dueSpan[K, A]{p.window, p})
			continue
		}
		p.closed = true
		s.old = append(s.old, p)
		if !s.onClose {
			continue
		}
		if err := s.load(p); err != nil {
			return err
		}
		if err := s.emit(p, p.window, p.timestamp, true); err != nil {
			return err
		}
		if s.retention <= s.closing {
			p.dirty = false // nobody will read its row
		}
	}
	return nil
}

// emit hands an aggregate on, or that it was removed.
func (s *spans[R, K, A]) emit(p *span[K, A], w Window, timestamp int64, present bool) error {
	s.out = Record[R, A]{Key: s.result(p.of.key, w), Timestamp: timestamp}
	if present {
		s.out.Value = p.value
	} else {
		s.out.nullValue = !s.null.possible()
	}
	return s.next(&s.out)
}

func (s *spans[R, K, A]) flush() error {
	if err := s.close(); err != nil {
		return err
	}
	if err := s.flushDirty(); err != nil {
		return err
	}
	now := s.clock.now()
	old := 0
	for ; old < len(s.old) && s.old[old].window.End+s.keep < now; old++ {
		if p := s.old[old]; !p.gone {
			s.drop(p)
		}
	}
	s.old = slices.Delete(s.old, 0, old)
	if err := s.clock.flush(); err != nil {
		return s.broken(err)
	}
	if len(s.loaded) > 64 && s.held < len(s.loaded)/2 {
		s.forget(s.limit) // most in the list are gone
	}
	return s.expire(now)
}

// flushDirty writes what is dirty and, unless results wait for the close, emits it:
// first that rows are gone, then what took their place.
func (s *spans[R, K, A]) flushDirty() error {
	for _, p := range s.dirty {
		if !p.dirty {
			continue
		}
		p.dirty = false
		if p.stored && (p.gone || p.row != p.window) {
			p.replaced = slices.Insert(p.replaced, 0, p.row)
			p.stored = false
		}
		for _, w := range p.replaced {
			if err := s.remove(p, w); err != nil {
				return err
			}
		}
		p.replaced = nil
		if p.gone {
			continue
		}
		if err := s.write(p); err != nil {
			return s.broken(err)
		}
		if s.onClose {
			continue
		}
		if err := s.emit(p, p.window, p.timestamp, true); err != nil {
			return err
		}
	}
	clear(s.dirty)
	s.dirty = s.dirty[:0]
	return nil
}

// remove removes a row.
func (s *spans[R, K, A]) remove(p *span[K, A], w Window) error {
	timestamp := w.End
	if s.kind == state.Window {
		timestamp = p.timestamp
	}
	if err := s.store.Delete(s.rowKey(w, p.of.raw), timestamp); err != nil {
		return s.broken(err)
	}
	if s.onClose {
		return nil
	}
	return s.emit(p, w, timestamp, false)
}

// write writes a span's row.
func (s *spans[R, K, A]) write(p *span[K, A]) error {
	s.valueBuf = binary.BigEndian.AppendUint64(s.valueBuf[:0], uint64(p.timestamp))
	var err error
	if s.valueBuf, err = s.value.Append(s.valueBuf, p.value); err != nil {
		return fmt.Errorf("aggregate: %w", err)
	}
	s.counted.writes++
	s.bytes += len(s.valueBuf) - p.size
	p.size, p.stored, p.row = len(s.valueBuf), true, p.window
	return s.store.Put(s.rowKey(p.window, p.of.raw), s.valueBuf, p.timestamp)
}

// expire removes the rows that outlived their retention, a sixteenth of it at a time.
func (s *spans[R, K, A]) expire(now int64) error {
	last := now - s.retention
	last -= last % max(1, s.retention/16)
	if last <= s.expired {
		return nil
	}
	s.expired = last
	return s.broken(s.store.DeleteBefore(state.WindowKey(nil, last, nil)))
}

// full tells whether the cache outgrew its share.
func (s *spans[R, K, A]) full() bool { return s.bytes > s.limit }

// relieve makes room in a full cache: it flushes early, and forgets.
func (s *spans[R, K, A]) relieve() error {
	if err := s.close(); err != nil {
		return err
	}
	if err := s.flushDirty(); err != nil {
		return err
	}
	target := s.limit / 4 * 3
	for range 2 {
		if s.bytes > target {
			s.forget(target)
		}
	}
	return nil
}

// forget forgets clean aggregates until the cache weighs at most target: those not used
// since the last time first come, first go; used ones get off with a warning.
func (s *spans[R, K, A]) forget(target int) {
	kept := s.loaded[:0]
	for _, p := range s.loaded {
		switch {
		case !p.loaded:
		case s.bytes <= target || p.dirty || p.used:
			p.used = p.used && s.bytes <= target
			kept = append(kept, p)
		default:
			s.release(p)
		}
	}
	clear(s.loaded[len(kept):])
	s.loaded = kept
}
