package topology

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/leatlog/leat/state"
	"github.com/leatlog/leat/topology/internal/graph"
)

// The store of a suppression has a row for each key whose update it holds back, and a
// mark, see markStart. Numbers are big-endian, times in ms since the Unix epoch.
//
//	mark  | 0 (1) |
//	row   | 1 (1) | key (n) |  ->  | due (8) | timestamp (8) | kind (1) | stream time (8) | value (n) |
//
// Without transactions a crash in the middle of a commit can leave in the changelog that an
// update left, though it was not written out. So the row of one that left is kept for
// another commit, and tells at which stream time of the task it left: if the last complete
// commit was before that, it is held back again, and leaves twice rather than never.
const (
	markRow byte = iota
	updateRow
)

// Kinds of rows.
const (
	// heldValue and heldNull are updates that are held back.
	heldValue byte = iota
	heldNull
	// leftValue and leftNull are updates that left.
	leftValue
	leftNull
)

const suppressedHeader = 8 + 8 + 1 + 8

// suppression is what the engine of a suppression needs to know.
type suppression[K, V any] struct {
	Suppression
	policy   ErrorPolicy
	key      Serde[K]
	value    Serde[V]
	closesAt func(K) int64
}

// heldUpdate is an update that is held back.
type heldUpdate[K any] struct {
	// raw is the key's bytes.
	raw string
	key K
	// due is the time at which it leaves.
	due, timestamp int64
	null           bool
	// encoded is the value, nil when only the store has it; size is its length.
	encoded []byte
	size    int
	// stored: the store has a row for the key. dirty: the row is not this one, which is in
	// the list of dirty ones. gone: it left, or was removed.
	stored, dirty, gone bool
}

func (h *heldUpdate[K]) before(other *heldUpdate[K]) bool {
	return cmp.Or(cmp.Compare(h.due, other.due), strings.Compare(h.raw, other.raw)) < 0
}

// suppressor runs a suppression.
type suppressor[K, V any] struct {
	suppression[K, V]
	i        *instance
	name     string
	store    state.Store
	clock    eventClock
	failures *failures[K, V]
	null     nulls[V]
	nothing  Record[K, V]
	next     sink[K, V]
	out      Record[K, V]
	// held are the updates by key, due the same by time and those that are gone.
	held map[string]*heldUpdate[K]
	due  minHeap[*heldUpdate[K]]
	// dirty updates, in the order in which they became so.
	dirty []*heldUpdate[K]
	// left are rows of updates that left since the last flush, leaving those that left
	// before, which are to go.
	left, leaving []string
	// heldBytes are the bytes of the keys and values of all that is held; memory what the
	// encoded values in memory weigh, share what they may of the budget.
	heldBytes             int64
	memory, share         int
	raw, keyBuf, valueBuf []byte
}

func (spec suppression[K, V]) compile(i *instance, n *graph.Node) any {
	s := &suppressor[K, V]{
		suppression: spec, i: i, name: n.Name, store: i.ctx.Store(n.Store.Name),
		failures: newFailures(i, n, spec.policy, spec.key, spec.value),
		null:     nullCheck[V](), nothing: nullRecord[K, V](), next: next[K, V](i, n),
		held: map[string]*heldUpdate[K]{}, share: i.ctx.CacheBytes() / len(i.part.Stores),
	}
	s.clock = newEventClock(i, s.store, true, []byte{markRow})
	i.stateful = append(i.stateful, s)
	return sink[K, V](s.process)
}

func (s *suppressor[K, V]) broken(err error) error { return broken(s.i, s.name, err) }

func (s *suppressor[K, V]) process(r *Record[K, V]) error {
	if err := s.settle(); err != nil {
		return err
	}
	s.clock.observe(r.Timestamp)
	var err error
	if s.raw, err = s.key.Append(s.raw[:0], r.Key); err != nil {
		return s.failures.handle(fmt.Errorf("key: %w", err), r)
	}
	null := r.nullValue || s.null.isNull(r.Value)
	h := s.held[string(s.raw)]
	if null && s.untilClose {
		if h != nil {
			s.remove(h)
			s.soil(h)
		}
		return nil
	}
	var encoded []byte
	if !null {
		if encoded, err = s.value.Append([]byte{}, r.Value); err != nil {
			return s.failures.handle(fmt.Errorf("value: %w", err), r)
		}
	}
	if h == nil {
		h = &heldUpdate[K]{raw: string(s.raw), key: r.Key, due: r.Timestamp + s.limit.Milliseconds()}
		if s.untilClose {
			h.due = s.closesAt(r.Key)
		}
		s.held[h.raw] = h
		s.due.push(h)
		s.heldBytes += int64(len(h.raw))
	}
	s.heldBytes += int64(len(encoded) - h.size)
	s.memory += len(encoded) - len(h.encoded)
	h.encoded, h.size, h.null, h.timestamp = encoded, len(encoded), null, r.Timestamp
	s.soil(h)
	if !s.untilClose {
		// What waits for windows leaves when all updates of a flush are there: the last one of
		// a window may come behind one that closes it.
		if err := s.emitDue(); err != nil {
			return err
		}
	}
	return s.bound()
}

// bound keeps what is held within the bounds, and what is in memory in its share.
func (s *suppressor[K, V]) bound() error {
	for s.early && s.over() {
		if err := s.emitNext(); err != nil {
			return err
		}
	}
	if s.memory <= s.share {
		return nil
	}
	if err := s.write(); err != nil {
		return err
	}
	target := s.share / 4 * 3
	for _, h := range slices.Backward(s.due) { // those that leave last, more or less
		if s.memory <= target {
			break
		}
		if !h.gone && h.stored && !h.dirty {
			s.memory -= len(h.encoded)
			h.encoded = nil
		}
	}
	return nil
}

// over tells whether more is held than the bounds allow.
func (s *suppressor[K, V]) over() bool {
	return s.records > 0 && int64(len(s.held)) > s.records || s.bytes > 0 && s.heldBytes > s.bytes
}

func (s *suppressor[K, V]) soil(h *heldUpdate[K]) {
	if !h.dirty {
		h.dirty = true
		s.dirty = append(s.dirty, h)
	}
}

// remove forgets an update; its row stays.
func (s *suppressor[K, V]) remove(h *heldUpdate[K]) {
	h.gone = true
	delete(s.held, h.raw)
	s.heldBytes -= int64(len(h.raw) + h.size)
	s.memory -= len(h.encoded)
}

// emitDue lets through what is due, by time and key.
func (s *suppressor[K, V]) emitDue() error {
	for len(s.due) > 0 && (s.due[0].gone || s.due[0].due <= s.clock.now()) {
		if err := s.emitNext(); err != nil {
			return err
		}
	}
	return nil
}

// emitNext lets the next update through.
func (s *suppressor[K, V]) emitNext() error {
	h := s.due.pop()
	if h.gone {
		return nil
	}
	s.remove(h)
	h.dirty = false
	if h.encoded == nil && !h.null {
		row, found, err := s.store.Get(nil, s.rowKey(h.raw))
		if err != nil {
			return s.broken(err)
		}
		if !found || len(row) < suppressedHeader {
			return s.broken(errSuppressedRow)
		}
		h.encoded = row[suppressedHeader:]
	}
	if h.stored {
		if err := s.writeRow(h, leftValue); err != nil {
			return s.broken(err)
		}
		s.left = append(s.left, h.raw)
	}
	if h.null {
		s.out = s.nothing
	} else {
		value, err := s.value.Decode(h.encoded)
		if err != nil {
			return s.broken(fmt.Errorf("an update that was held back: %w", err))
		}
		s.out = Record[K, V]{Value: value}
	}
	s.out.Key, s.out.Timestamp = h.key, h.timestamp
	return s.next(&s.out)
}

// settle removes the rows of updates that left before the last commit.
func (s *suppressor[K, V]) settle() error {
	for _, raw := range s.leaving {
		if s.held[raw] != nil {
			continue // the row is of another update, or is going to be
		}
		if err := s.store.Delete(s.rowKey(raw), s.clock.now()); err != nil {
			return s.broken(err)
		}
	}
	s.leaving = s.leaving[:0]
	return nil
}

func (s *suppressor[K, V]) punctuate() error {
	if err := s.settle(); err != nil {
		return err
	}
	if err := s.emitDue(); err != nil {
		return err
	}
	if !s.early && s.over() {
		return s.broken(fmt.Errorf("%d updates of %d bytes: %w", len(s.held), s.heldBytes, ErrSuppressionFull))
	}
	return nil
}

func (s *suppressor[K, V]) flush() error {
	if err := s.punctuate(); err != nil {
		return err
	}
	s.left, s.leaving = s.leaving, s.left
	if err := s.write(); err != nil {
		return err
	}
	return s.broken(s.clock.flush())
}

// write writes what is dirty to the store.
func (s *suppressor[K, V]) write() error {
	for _, h := range s.dirty {
		if !h.dirty {
			continue
		}
		h.dirty = false
		switch {
		case !h.gone:
			if err := s.writeRow(h, heldValue); err != nil {
				return s.broken(err)
			}
			h.stored = true
		case h.stored && s.held[h.raw] == nil:
			if err := s.store.Delete(s.rowKey(h.raw), s.clock.now()); err != nil {
				return s.broken(err)
			}
		}
	}
	clear(s.dirty)
	s.dirty = s.dirty[:0]
	return nil
}

var errSuppressedRow = errors.New("a stored row of a suppression is missing or cut")

func (s *suppressor[K, V]) rowKey(raw string) []byte {
	s.keyBuf = append(append(s.keyBuf[:0], updateRow), raw...)
	return s.keyBuf
}

// writeRow writes an update's row, of kind heldValue or leftValue.
func (s *suppressor[K, V]) writeRow(h *heldUpdate[K], kind byte) error {
	if h.null {
		kind++
	}
	row := binary.BigEndian.AppendUint64(s.valueBuf[:0], uint64(h.due))
	row = binary.BigEndian.AppendUint64(row, uint64(h.timestamp))
	row = binary.BigEndian.AppendUint64(append(row, kind), uint64(s.i.ctx.StreamTime()))
	s.valueBuf = append(row, h.encoded...)
	return s.store.Put(s.rowKey(h.raw), s.valueBuf, h.timestamp)
}

// open reads the mark, and what is held back.
func (s *suppressor[K, V]) open() error {
	if err := s.clock.open(); err != nil {
		return s.broken(err)
	}
	var failed error
	err := s.store.Scan([]byte{updateRow}, []byte{updateRow + 1}, false, func(key, row []byte) bool {
		failed = s.openRow(key[1:], row)
		return failed == nil
	})
	return s.broken(cmp.Or(err, failed))
}

func (s *suppressor[K, V]) openRow(raw, row []byte) error {
	if len(row) < suppressedHeader {
		return errSuppressedRow
	}
	kind, streamTime := row[16], int64(binary.BigEndian.Uint64(row[17:]))
	left := kind == leftValue || kind == leftNull
	if left && streamTime <= s.i.ctx.StreamTime() {
		s.leaving = append(s.leaving, string(raw))
		return nil
	}
	key, err := s.key.Decode(raw)
	if err != nil {
		return fmt.Errorf("stored key: %w", err)
	}
	h := &heldUpdate[K]{
		raw: string(raw), key: key, due: int64(binary.BigEndian.Uint64(row)), timestamp: int64(binary.BigEndian.Uint64(row[8:])),
		null: kind == heldNull || kind == leftNull, size: len(row) - suppressedHeader, stored: true,
	}
	s.held[h.raw] = h
	s.due.push(h)
	s.heldBytes += int64(len(h.raw) + h.size)
	if left { // its row says that it did
		h.encoded = slices.Clone(row[suppressedHeader:])
		s.memory += h.size
		s.soil(h)
	}
	return nil
}
