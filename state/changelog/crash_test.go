package changelog

import (
	"bytes"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/leatlog/leat/state"
	"github.com/leatlog/leat/state/internal/statetest"
)

// crashEngine is an engine that can crash: what was applied since the checkpoint
// may survive, in whole batches, or not.
type crashEngine struct {
	statetest.Model
	position *state.Position
	durable  statetest.Model
	since    []state.Batch
}

func newCrashEngine() *crashEngine {
	return &crashEngine{Model: statetest.Model{}, durable: statetest.Model{}}
}

func (e *crashEngine) Get(dst, key []byte) ([]byte, bool, error) {
	v, ok := e.Model[string(key)]
	return append(dst, v...), ok, nil
}

func (e *crashEngine) Scan(from, to []byte, reverse bool, fn func(key, value []byte) bool) error {
	keys := slices.Sorted(maps.Keys(e.Model))
	if reverse {
		slices.Reverse(keys)
	}
	for _, k := range keys {
		if (from == nil || k >= string(from)) && (to == nil || k < string(to)) && !fn([]byte(k), []byte(e.Model[k])) {
			return nil
		}
	}
	return nil
}

func (e *crashEngine) Apply(b *state.Batch) error {
	e.Model.Apply(b)
	var copied state.Batch
	for i := range b.Len() {
		switch op, key, value := b.Entry(i); op {
		case state.OpPut:
			copied.Put(key, value)
		case state.OpDelete:
			copied.Delete(key)
		case state.OpDeleteBefore:
			copied.DeleteBefore(key)
		}
	}
	e.since = append(e.since, copied)
	return nil
}

func (e *crashEngine) Load(b *state.Batch) error { return e.Apply(b) }

func (e *crashEngine) Checkpoint(p state.Position) error {
	e.position, e.durable, e.since = &p, maps.Clone(e.Model), nil
	return nil
}

func (e *crashEngine) Position() (state.Position, bool) {
	if e.position == nil {
		return state.Position{}, false
	}
	return *e.position, true
}

func (e *crashEngine) Clear() error {
	*e = *newCrashEngine()
	return nil
}

func (e *crashEngine) Size() int64  { return int64(len(e.Model)) }
func (e *crashEngine) Close() error { return nil }

// crash returns the engine as it is found afterwards; the first survivors batches
// after the checkpoint are there.
func (e *crashEngine) crash(survivors int) *crashEngine {
	found := &crashEngine{Model: maps.Clone(e.durable), durable: maps.Clone(e.durable), position: e.position}
	if e.position == nil {
		return found
	}
	for i := range e.since[:survivors] {
		found.Model.Apply(&e.since[i])
	}
	return found
}

// topic is a changelog partition: records are pending until committed, and each
// commit may add a marker that takes an offset.
type topic struct {
	records []Record
	pending []Record
	end     int64
}

func (l *topic) append(key, value []byte, timestamp int64) error {
	l.pending = append(l.pending, Record{Key: bytes.Clone(key), Value: bytes.Clone(value), Timestamp: timestamp})
	return nil
}

func (l *topic) commit(marker bool) {
	for _, r := range l.pending {
		r.Offset = l.end
		l.end++
		l.records = append(l.records, r)
	}
	l.pending = nil
	if marker {
		l.end++
	}
}

// compact removes records that a later one replaces.
func (l *topic) compact() {
	latest := map[string]int64{}
	for _, r := range l.records {
		latest[string(r.Key)] = r.Offset
	}
	l.records = slices.DeleteFunc(l.records, func(r Record) bool { return latest[string(r.Key)] != r.Offset })
}

// machine runs a store through commits, aborts and crashes and compares it with
// two models: what is committed, and what the task sees.
type machine struct {
	spec      state.Spec
	topic     topic
	engine    *crashEngine
	store     *Logged
	committed statetest.Model
	seen      statetest.Model
	now       int64
	newest    int64 // timestamp of the newest committed record
	pending   int64 // of the newest one
}

const retention = 20

func (m *machine) open(t *rapid.T) {
	store, err := New(Config{Spec: m.spec, Engine: m.engine, Append: m.topic.append})
	if err != nil {
		t.Fatal(err)
	}
	m.store, m.seen = store, maps.Clone(m.committed)
	m.pending = m.newest
}

func (m *machine) drawKey(t *rapid.T) []byte {
	key := []byte(rapid.StringMatching(`[ab]{0,2}`).Draw(t, "key"))
	if m.spec.Kind == state.Window {
		return state.WindowKey(nil, max(0, m.now-rapid.Int64Range(0, retention).Draw(t, "age")), key)
	}
	if m.spec.Kind == state.Session {
		end := max(0, m.now-rapid.Int64Range(0, retention).Draw(t, "age"))
		return state.SessionKey(nil, max(0, end-rapid.Int64Range(0, 2).Draw(t, "length")), end, key)
	}
	return key
}

func (m *machine) put(t *rapid.T) {
	m.now += rapid.Int64Range(0, 5).Draw(t, "step")
	key, value := m.drawKey(t), []byte(rapid.StringMatching(`[0-9]{0,3}`).Draw(t, "value"))
	if err := m.store.Put(key, value, m.now); err != nil {
		t.Fatal(err)
	}
	m.seen[string(key)], m.pending = string(value), m.now
}

func (m *machine) remove(t *rapid.T) {
	key := m.drawKey(t)
	if err := m.store.Put(key, nil, m.now); err != nil {
		t.Fatal(err)
	}
	delete(m.seen, string(key))
	m.pending = m.now
}

// expire does what a windowed operator does as stream time goes on.
func (m *machine) expire(t *rapid.T) {
	if !m.spec.Kind.Expires() || m.pending <= retention {
		return
	}
	bound := state.WindowKey(nil, m.pending-retention, nil)
	if err := m.store.DeleteBefore(bound); err != nil {
		t.Fatal(err)
	}
	maps.DeleteFunc(m.seen, func(key, _ string) bool { return key < string(bound) })
}

func (m *machine) logCommit(t *rapid.T) {
	m.expire(t)
	m.topic.commit(rapid.Bool().Draw(t, "marker"))
	m.committed, m.newest = maps.Clone(m.seen), m.pending
}

func (m *machine) commit(t *rapid.T) {
	m.logCommit(t)
	if err := m.store.Commit(); err != nil {
		t.Fatal(err)
	}
	if m.store.Dirty() {
		t.Fatal("dirty after Commit")
	}
	if !maps.Equal(m.engine.Model, m.committed) {
		t.Fatalf("the engine holds %q after Commit, want %q", m.engine.Model, m.committed)
	}
}

func (m *machine) abort(*rapid.T) {
	m.topic.pending = nil
	m.store.Abort()
	m.seen, m.pending = maps.Clone(m.committed), m.newest
}

func (m *machine) checkpoint(t *rapid.T) {
	m.commit(t)
	if err := m.store.Checkpoint(state.Position{Offset: m.topic.end}, time.Unix(0, 0)); err != nil {
		t.Fatal(err)
	}
}

// crash ends the process at some step of a commit and starts the task again.
func (m *machine) crash(t *rapid.T) {
	switch rapid.IntRange(0, 2).Draw(t, "step") {
	case 0: // before the commit
	case 1: // the changelog is committed, the engine does not know
		m.logCommit(t)
	case 2: // the engine has applied it
		m.commit(t)
	}
	m.topic.pending = nil
	m.engine = m.engine.crash(rapid.IntRange(0, len(m.engine.since)).Draw(t, "survivors"))
	if rapid.Bool().Draw(t, "compact") {
		m.topic.compact()
	}
	if rapid.IntRange(0, 9).Draw(t, "damaged") == 0 {
		m.engine = newCrashEngine()
	}
	m.restore(t)
	m.open(t)
}

func (m *machine) restore(t *rapid.T) {
	r, err := NewRestorer(m.spec, m.engine, Bounds{End: m.topic.end})
	if err != nil {
		t.Fatal(err)
	}
	rest := slices.Clone(m.topic.records)
	for !r.Done() {
		// A fetch answers with the batch that the offset is in, which may begin before.
		rest = slices.DeleteFunc(rest, func(rec Record) bool { return rec.Offset < r.Next()-2 })
		n := min(len(rest), rapid.IntRange(3, 9).Draw(t, "fetch"))
		next := m.topic.end
		if n < len(rest) {
			next = rest[n].Offset
		}
		if err := r.Add(rest[:n], next, 1); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Finish(); err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(m.engine.Model, m.committed) {
		t.Fatalf("restored %q, committed %q, reason %s", m.engine.Model, m.committed, r.Reason())
	}
	if p, ok := m.engine.Position(); !ok || p.Offset != m.topic.end {
		t.Fatalf("position after the restore = %v %v, want %d", p, ok, m.topic.end)
	}
}

func (m *machine) equal(t *rapid.T) {
	difference, err := statetest.Difference(m.store, m.seen)
	if err != nil || difference != "" {
		t.Fatal(difference, err)
	}
}

func (m *machine) scan(t *rapid.T) {
	bound := rapid.Custom(func(t *rapid.T) []byte {
		if rapid.Bool().Draw(t, "open") {
			return nil
		}
		return m.drawKey(t)
	})
	from, to, reverse := bound.Draw(t, "from"), bound.Draw(t, "to"), rapid.Bool().Draw(t, "reverse")
	limit := rapid.IntRange(1, 20).Draw(t, "limit")
	want := m.seen.Scan(from, to, reverse)
	want = want[:min(limit, len(want))]
	got := statetest.Model{}
	order := []string{}
	err := m.store.Scan(from, to, reverse, func(key, value []byte) bool {
		got[string(key)] = string(value)
		order = append(order, got.Scan(key, append(bytes.Clone(key), 0), false)...)
		return len(order) < limit
	})
	if err != nil || !slices.Equal(order, want) {
		t.Fatalf("scan [%q, %q) reverse %v limit %d = %v, %v, want %v", from, to, reverse, limit, order, err, want)
	}
}

func TestCrashAtEachStepRestoresWhatWasCommitted(t *testing.T) {
	for _, spec := range []state.Spec{
		{Name: "kv"},
		{Name: "w", Kind: state.Window, WindowSize: time.Millisecond, Retention: retention * time.Millisecond},
		{Name: "s", Kind: state.Session, Retention: retention * time.Millisecond},
	} {
		t.Run(spec.Kind.String(), rapid.MakeCheck(func(t *rapid.T) {
			m := &machine{spec: spec, engine: newCrashEngine(), committed: statetest.Model{}, newest: -1}
			m.open(t)
			t.Repeat(map[string]func(*rapid.T){
				"put": m.put, "put again": m.put, "remove": m.remove, "expire": m.expire, "commit": m.commit,
				"abort": m.abort, "checkpoint": m.checkpoint, "crash": m.crash, "scan": m.scan, "": m.equal,
			})
		}))
	}
}
