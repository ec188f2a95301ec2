package topology

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"

	"github.com/leatlog/leat/state"
	"github.com/leatlog/leat/topology/internal/graph"
	"github.com/leatlog/leat/topology/plan"
)

// streamJoin is what the engine of a stream-stream join needs to know.
type streamJoin[K, A, B, R any] struct {
	results joinsStreams[A, B, R]
	policy  ErrorPolicy
	key     Serde[K]
	a       Serde[A]
	b       Serde[B]
	// in milliseconds
	before, after, grace int64
}

// span is how long, at most, a record is kept for partners.
func (spec streamJoin[K, A, B, R]) span() int64 {
	return max(spec.before, 0) + max(spec.after, 0) + spec.grace
}

// bucket is the length of the spans of time that share a row. A record looks for partners
// in about five of them, and a row is written again for each of its records: longer spans
// would make keys with many records dear, shorter ones all others.
func (spec streamJoin[K, A, B, R]) bucket() int64 {
	return max(1, (spec.before+spec.after)/4, spec.span()/64)
}

// streamJoiner runs a stream-stream join. What it does with a record depends on the
// records before it and the operator's time alone, not on when it is told to punctuate: a
// record whose own result is due has no partners any more, emitted or not.
type streamJoiner[K, A, B, R any] struct {
	i    *instance
	name string
	spec streamJoin[K, A, B, R]
	// bucket and span are those of the spec, in milliseconds.
	bucket, span int64
	cache        cache[K, *joinRows[A, B]]
	// pages are the buckets that have records, by start, each followed by its further rows.
	pages []*page[K, *joinRows[A, B]]
	// full tells which row after the first is the last one of a key, where there are several.
	full map[fullKey]int64
	// due are the records whose own result is awaited.
	due  dueRecords
	next sink[K, R]
	out  Record[K, R]
	lags bool
	// observed is the operator's time as far as it knows it by itself, mark that of the
	// last flush; see windowedAggregation.
	observed, mark int64
	expired        int64
	markKey        []byte
	raw            []byte
}

// joinSide is what a join does with the records X of one stream, whose partners are Y.
type joinSide[A, B, X, Y, R any] struct {
	number int
	// before and after, in milliseconds, bound the partners of a record.
	before, after int64
	value         Serde[X]
	both          func(X, Y) R
	// only is nil when a record without a partner gives no result; theirs says the same of
	// the other stream.
	only       func(X) R
	theirsOnly bool
	mine       func(*joinRows[A, B]) *[]joinRecord[X]
	theirs     func(*joinRows[A, B]) []joinRecord[Y]
	null       nulls[X]
}

func (spec streamJoin[K, A, B, R]) compile(i *instance, n *graph.Node) any {
	j := &streamJoiner[K, A, B, R]{i: i, name: n.Name, spec: spec, bucket: spec.bucket(), span: spec.span(), next: next[K, R](i, n),
		lags: n.Lags, observed: -1, mark: -1, expired: -1, markKey: state.WindowKey(nil, markStart, nil), full: map[fullKey]int64{}}
	j.cache = newCache[K, *joinRows[A, B]](i.ctx, n.Store.Name, len(i.part.Stores), joinRowsSerde[A, B]{spec.a, spec.b},
		func(dst []byte, start int64, raw string) []byte {
			return append(binary.BigEndian.AppendUint64(dst, uint64(start)), raw...)
		})
	i.stateful = append(i.stateful, j)
	a, b := j.sides()
	failuresA := newFailures(i, n, spec.policy, spec.key, spec.a)
	failuresB := newFailures(i, n, spec.policy, spec.key, spec.b)
	return ports{
		sink[K, A](func(r *Record[K, A]) error { return processJoin(j, a, failuresA, r) }),
		sink[K, B](func(r *Record[K, B]) error { return processJoin(j, b, failuresB, r) }),
	}
}

func (j *streamJoiner[K, A, B, R]) sides() (*joinSide[A, B, A, B, R], *joinSide[A, B, B, A, R]) {
	spec := &j.spec
	a := &joinSide[A, B, A, B, R]{number: 0, before: spec.before, after: spec.after, value: spec.a, both: spec.results.both,
		only: spec.results.onlyA, theirsOnly: spec.results.onlyB != nil, null: nullCheck[A](),
		mine:   func(rows *joinRows[A, B]) *[]joinRecord[A] { return &rows.a },
		theirs: func(rows *joinRows[A, B]) []joinRecord[B] { return rows.b }}
	b := &joinSide[A, B, B, A, R]{number: 1, before: spec.after, after: spec.before, value: spec.b,
		both: func(b B, a A) R { return spec.results.both(a, b) },
		only: spec.results.onlyB, theirsOnly: spec.results.onlyA != nil, null: nullCheck[B](),
		mine:   func(rows *joinRows[A, B]) *[]joinRecord[B] { return &rows.b },
		theirs: func(rows *joinRows[A, B]) []joinRecord[A] { return rows.a }}
	return a, b
}

// deadline is the last moment at which a record of the side may find a partner that is not
// late.
func (s *joinSide[A, B, X, Y, R]) deadline(timestamp, grace int64) int64 {
	return timestamp + max(s.after, 0) + grace
}

// theirDeadline is deadline for a partner.
func (s *joinSide[A, B, X, Y, R]) theirDeadline(timestamp, grace int64) int64 {
	return timestamp + max(s.before, 0) + grace
}

func processJoin[K, A, B, X, Y, R any](j *streamJoiner[K, A, B, R], s *joinSide[A, B, X, Y, R], failures *failures[K, X], r *Record[K, X]) error {
	if j.lags {
		j.observed = max(j.observed, r.Timestamp)
	}
	switch {
	case r.nullValue || s.null.isNull(r.Value):
		j.i.ctx.Dropped(j.name, plan.DropNullValue, nil)
		return nil
	case !r.HasKey():
		if s.only == nil {
			j.i.ctx.Dropped(j.name, plan.DropNullKey, nil)
			return nil
		}
		j.out = Record[K, R]{nullKey: r.nullKey, Key: r.Key, Value: s.only(r.Value), Timestamp: r.Timestamp, Headers: r.Headers}
		return j.next(&j.out)
	}
	now := j.now()
	if s.deadline(r.Timestamp, j.spec.grace) < now {
		j.i.ctx.Dropped(j.name, plan.DropLate, nil)
		return nil
	}
	var err error
	if j.raw, err = j.spec.key.Append(j.raw[:0], r.Key); err != nil {
		return failures.handle(fmt.Errorf("key: %w", err), r)
	}
	encoded, err := s.value.Append([]byte{}, r.Value)
	if err != nil {
		return failures.handle(fmt.Errorf("value: %w", err), r)
	}
	joined, err := joinPartners(j, s, r, now)
	if err != nil {
		return err
	}
	record := joinRecord[X]{r.Timestamp, r.Value, encoded, joined}
	e, err := j.rowFor(r.Timestamp, r.Key, record.size())
	if err != nil {
		return j.broken(err)
	}
	rows := e.value
	if rows == nil {
		rows = &joinRows[A, B]{}
	}
	mine := s.mine(rows)
	*mine = insert(*mine, record)
	rows.size += record.size()
	j.cache.set(e, rows, r.Timestamp)
	if !joined && s.only != nil {
		j.due.push(dueRecord{s.deadline(r.Timestamp, j.spec.grace), r.Timestamp, s.number, e.home.start, e.raw})
	}
	if j.cache.full() {
		return j.relieve()
	}
	return nil
}

// fullKey is a key that has more records in a span of time than fit in a row.
type fullKey struct {
	start int64
	raw   string
}

// rowFor returns the row that a record of j.raw goes to: the first of its span of time that
// is not full.
func (j *streamJoiner[K, A, B, R]) rowFor(timestamp int64, key K, size int) (*entry[K, *joinRows[A, B]], error) {
	first := max(0, timestamp) / j.bucket * j.bucket
	start := first
	if len(j.full) > 0 {
		start += j.full[fullKey{first, string(j.raw)}]
	}
	for {
		e, err := j.cache.find(j.page(start), j.raw, key)
		if err != nil || e.value == nil || e.value.size+size <= fullJoinRow || e.value.size == 0 || start+1 == first+j.bucket {
			return e, err
		}
		start++
		j.full[fullKey{first, e.raw}] = start - first
	}
}

// joinPartners emits the results of a record with all its partners, and says whether there
// was one.
func joinPartners[K, A, B, X, Y, R any](j *streamJoiner[K, A, B, R], s *joinSide[A, B, X, Y, R], r *Record[K, X], now int64) (joined bool, err error) {
	from, to := max(0, r.Timestamp-s.before), r.Timestamp+s.after
	first, _ := slices.BinarySearchFunc(j.pages, from/j.bucket*j.bucket, pageOrder[K, *joinRows[A, B]])
	for at := first; at < len(j.pages) && j.pages[at].start/j.bucket*j.bucket <= to; at++ {
		p := j.pages[at]
		e := p.entries[string(j.raw)]
		if e == nil && p.complete {
			continue
		}
		if e, err = j.cache.find(p, j.raw, r.Key); err != nil {
			return false, j.broken(err)
		}
		if e.value == nil {
			continue
		}
		changed := false
		partners := between(s.theirs(e.value), from, to)
		for k := range partners {
			partner := &partners[k]
			if s.theirsOnly && !partner.joined {
				if s.theirDeadline(partner.timestamp, j.spec.grace) < now {
					continue
				}
				partner.joined, changed = true, true
			}
			joined = true
			j.out = Record[K, R]{Key: r.Key, Value: s.both(r.Value, partner.value), Timestamp: max(r.Timestamp, partner.timestamp), Headers: r.Headers}
			if err := j.next(&j.out); err != nil {
				return false, err
			}
		}
		if changed {
			j.cache.set(e, e.value, r.Timestamp)
		}
	}
	return joined, nil
}

func pageOrder[K, A any](p *page[K, A], start int64) int {
	return int(min(1, max(-1, p.start-start)))
}

// page returns the page of the bucket that begins at start.
func (j *streamJoiner[K, A, B, R]) page(start int64) *page[K, *joinRows[A, B]] {
	index, found := slices.BinarySearchFunc(j.pages, start, pageOrder[K, *joinRows[A, B]])
	if !found {
		j.pages = slices.Insert(j.pages, index, newPage[K, *joinRows[A, B]](start, true))
	}
	return j.pages[index]
}

// now is the operator's time.
func (j *streamJoiner[K, A, B, R]) now() int64 {
	if j.lags {
		return j.observed
	}
	return max(j.observed, j.i.ctx.StreamTime())
}

func (j *streamJoiner[K, A, B, R]) broken(err error) error { return broken(j.i, j.name, err) }

// open reads the mark, and finds the buckets and the records without partners that the
// store has.
func (j *streamJoiner[K, A, B, R]) open() error {
	value, found, err := j.cache.store.Get(nil, j.markKey)
	if err != nil {
		return j.broken(err)
	}
	if found {
		if j.mark, err = decodeMark(value, j.i.ctx.StreamTime()); err != nil {
			return j.broken(err)
		}
		j.observed = j.mark
	}
	var failed error
	serde := joinRowsSerde[A, B]{j.spec.a, j.spec.b}
	err = j.cache.store.Scan(nil, j.markKey, false, func(key, value []byte) bool {
		start, raw, _ := state.SplitWindowKey(key)
		if len(j.pages) == 0 || j.pages[len(j.pages)-1].start != start {
			j.pages = append(j.pages, newPage[K, *joinRows[A, B]](start, false))
		}
		if j.spec.results.onlyA == nil && j.spec.results.onlyB == nil {
			return true
		}
		if len(value) < timestampSize {
			failed = errTooShort
			return false
		}
		var rows *joinRows[A, B]
		if rows, failed = serde.Decode(value[timestampSize:]); failed == nil {
			j.await(rows, start, string(raw))
		}
		return failed == nil
	})
	if failed != nil {
		return j.broken(failed)
	}
	return j.broken(err)
}

// await notes the records of a row whose own result is awaited.
func (j *streamJoiner[K, A, B, R]) await(rows *joinRows[A, B], start int64, raw string) {
	a, b := j.sides()
	awaitSide(j, a, rows, start, raw)
	awaitSide(j, b, rows, start, raw)
}

func awaitSide[K, A, B, X, Y, R any](j *streamJoiner[K, A, B, R], s *joinSide[A, B, X, Y, R], rows *joinRows[A, B], start int64, raw string) {
	if s.only == nil {
		return
	}
	for _, r := range *s.mine(rows) {
		// What was due at the last flush was emitted then: a changelog may still have it.
		if deadline := s.deadline(r.timestamp, j.spec.grace); !r.joined && deadline >= j.mark {
			j.due.push(dueRecord{deadline, r.timestamp, s.number, start, raw})
		}
	}
}

// punctuate emits the records that can find no partner any more.
func (j *streamJoiner[K, A, B, R]) punctuate() error {
	now := j.now()
	if len(j.due) == 0 || j.due[0].deadline >= now {
		return nil
	}
	a, b := j.sides()
	for len(j.due) > 0 && j.due[0].deadline < now {
		d := j.due.pop()
		var err error
		if d.side == 0 {
			err = emitAlone(j, a, d)
		} else {
			err = emitAlone(j, b, d)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// emitAlone emits, and forgets, the records that d stands for, unless they found a partner.
func emitAlone[K, A, B, X, Y, R any](j *streamJoiner[K, A, B, R], s *joinSide[A, B, X, Y, R], d dueRecord) error {
	p := j.page(d.start)
	e := p.entries[d.raw]
	if e == nil {
		key, err := j.spec.key.Decode([]byte(d.raw))
		if err != nil {
			return j.broken(err)
		}
		if e, err = j.cache.find(p, []byte(d.raw), key); err != nil {
			return j.broken(err)
		}
	}
	if e.value == nil {
		return nil
	}
	mine := s.mine(e.value)
	kept, alone := (*mine)[:0:0], 0
	for _, r := range *mine {
		if r.joined || r.timestamp != d.timestamp {
			kept = append(kept, r)
			continue
		}
		alone++
		j.out = Record[K, R]{Key: e.key, Value: s.only(r.value), Timestamp: r.timestamp}
		if err := j.next(&j.out); err != nil {
			return err
		}
	}
	if alone == 0 {
		return nil
	}
	for k := range *mine {
		e.value.size -= (*mine)[k].size()
	}
	for k := range kept {
		e.value.size += kept[k].size()
	}
	*mine = kept
	if len(e.value.a)+len(e.value.b) == 0 {
		j.cache.remove(e, d.timestamp)
	} else {
		j.cache.set(e, e.value, d.timestamp)
	}
	return nil
}

func (j *streamJoiner[K, A, B, R]) flush() error {
	if err := j.punctuate(); err != nil {
		return err
	}
	now := j.now()
	for len(j.pages) > 0 && j.pages[0].start+j.bucket-1+j.span < now {
		p := j.pages[0]
		p.closed = true
		j.cache.drop(p)
		maps.DeleteFunc(j.full, func(k fullKey, _ int64) bool { return k.start <= p.start-j.bucket })
		j.pages = slices.Delete(j.pages, 0, 1)
	}
	if err := j.flushDirty(); err != nil {
		return err
	}
	if now > j.mark {
		value := appendMark(nil, now, j.i.ctx.StreamTime(), j.mark)
		j.mark = now
		if err := j.cache.store.Put(j.markKey, value, now); err != nil {
			return j.broken(err)
		}
	}
	last := (now - j.span - j.bucket) / j.bucket * j.bucket // the start of the last bucket that is of no more use
	if now < j.span+j.bucket || last <= j.expired {
		return nil
	}
	j.expired = last
	return j.broken(j.cache.store.DeleteBefore(state.WindowKey(nil, last+1, nil)))
}

func (j *streamJoiner[K, A, B, R]) flushDirty() error {
	for _, e := range j.cache.dirty {
		if !e.dirty || e.home.closed {
			continue
		}
		if _, err := j.cache.write(e); err != nil {
			return j.broken(err)
		}
	}
	clear(j.cache.dirty)
	j.cache.dirty = j.cache.dirty[:0]
	return nil
}

// relieve makes room in a full cache: it flushes early, and forgets, oldest first.
func (j *streamJoiner[K, A, B, R]) relieve() error {
	if err := j.flushDirty(); err != nil {
		return err
	}
	target := j.cache.limit / 4 * 3
	for range 2 {
		for _, p := range j.pages {
			if j.cache.bytes > target {
				j.cache.forget(p, target)
			}
		}
	}
	return nil
}
