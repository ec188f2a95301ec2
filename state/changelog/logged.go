// Package changelog puts a store behind its changelog. Logged is the store that
// a task's operators see: writes go to the changelog at once and to the engine
// only after the commit, so that the engine is never ahead of the committed
// changelog (docs/architecture.md, "State and commits"). Restorer brings an engine
// up to its changelog when a task starts, or keeps a standby close to it.
//
// Both are pure: they read no clock and start no goroutine; time and records
// come in as arguments.
//
// The journey of a write:
//
//	Put, Delete     the overlay holds it, Append has it
//	(the changelog, the outputs and the offsets are committed)
//	Commit          the engine holds it
//	Checkpoint      the engine's files hold it, at a changelog offset
//
// A crash before Commit, or an abort, leaves the engine at an earlier commit; a
// crash after Commit and before Checkpoint leaves it at a position that is lower
// than its contents. In both cases replaying the committed changelog from the
// position gives the state of the last commit, because each record sets one key.
package changelog

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/leatlog/leat/state"
)

// Config is what a Logged is made of.
type Config struct {
	Spec   state.Spec
	Engine state.Engine
	// Append takes a changelog record; key and value must be copied before it returns.
	// A nil value is a tombstone, any other is not nil. timestamp is in milliseconds
	// since the epoch. Must be set unless Spec.NoChangelog.
	Append func(key, value []byte, timestamp int64) error
	// CheckpointBytes is how much is committed to the engine before a checkpoint is
	// due. It bounds what a restart replays. Default 16 MiB.
	CheckpointBytes int64
	// CheckpointInterval is how long after a commit a checkpoint is due, however
	// little was committed. Default 10 s.
	CheckpointInterval time.Duration
}

const (
	defaultCheckpointBytes    = 16 << 20
	defaultCheckpointInterval = 10 * time.Second
)

// Logged is a task's store over its engine and changelog. Not safe for
// concurrent use.
type Logged struct {
	cfg     Config
	overlay overlay
	batch   state.Batch // reused
	key     []byte      // reused

	uncheckpointed int64     // bytes committed since the last checkpoint
	checkpointed   time.Time // of the last checkpoint, or of the first look at the clock
	closed         bool
}

var _ state.Store = (*Logged)(nil)

// New returns the store over an engine that holds the committed state (see
// Restorer). It takes over the engine.
func New(cfg Config) (*Logged, error) {
	if err := cfg.Spec.Validate(); err != nil {
		return nil, err
	}
	if cfg.Append == nil && !cfg.Spec.NoChangelog {
		return nil, fmt.Errorf("changelog: store %q has a changelog and Config.Append is nil: set it or set Spec.NoChangelog", cfg.Spec.Name)
	}
	if cfg.CheckpointBytes == 0 {
		cfg.CheckpointBytes = defaultCheckpointBytes
	}
	if cfg.CheckpointInterval == 0 {
		cfg.CheckpointInterval = defaultCheckpointInterval
	}
	if cfg.CheckpointBytes < 0 || cfg.CheckpointInterval < 0 {
		return nil, fmt.Errorf("changelog: store %q: checkpoints every %d bytes and %v: neither may be negative",
			cfg.Spec.Name, cfg.CheckpointBytes, cfg.CheckpointInterval)
	}
	return &Logged{cfg: cfg, overlay: newOverlay()}, nil
}

// Engine returns the engine, for readers of the committed state.
func (l *Logged) Engine() state.Engine { return l.cfg.Engine }

// Get implements state.Reader.
func (l *Logged) Get(dst, key []byte) ([]byte, bool, error) {
	if l.closed {
		return dst, false, state.ErrClosed
	}
	if e := l.overlay.find(key); e != nil {
		if e.deleted {
			return dst, false, nil
		}
		return append(dst, e.value...), true, nil
	}
	if l.overlay.expired(key) {
		return dst, false, nil
	}
	return l.cfg.Engine.Get(dst, key)
}

// Scan implements state.Reader. fn must not write to the store.
func (l *Logged) Scan(from, to []byte, reverse bool, fn func(key, value []byte) bool) error {
	if l.closed {
		return state.ErrClosed
	}
	if from != nil && to != nil && bytes.Compare(from, to) >= 0 {
		return nil
	}
	m := merger{entries: l.overlay.within(from, to), reverse: reverse, fn: fn}
	if l.overlay.floor != nil && bytes.Compare(from, l.overlay.floor) < 0 {
		from = l.overlay.floor // the engine's keys below are expired
	}
	if to == nil || bytes.Compare(from, to) < 0 {
		if err := l.cfg.Engine.Scan(from, to, reverse, m.engine); err != nil {
			return err
		}
	}
	m.rest()
	return nil
}

// Put implements state.Store. The changelog gets a record for each call; the
// operators' caches see to it that there is one call for each key and commit.
func (l *Logged) Put(key, value []byte, timestamp int64) error {
	if value == nil {
		return l.Delete(key, timestamp)
	}
	if err := l.log(key, value, timestamp); err != nil {
		return err
	}
	l.overlay.put(key, value)
	return nil
}

// Delete implements state.Store.
func (l *Logged) Delete(key []byte, timestamp int64) error {
	if err := l.log(key, nil, timestamp); err != nil {
		return err
	}
	l.overlay.remove(key)
	return nil
}

// DeleteBefore implements state.Store.
func (l *Logged) DeleteBefore(bound []byte) error {
	if l.closed {
		return state.ErrClosed
	}
	l.overlay.removeBefore(bound)
	return nil
}

func (l *Logged) log(key, value []byte, timestamp int64) error {
	if l.closed {
		return state.ErrClosed
	}
	var ok bool
	if l.key, ok = state.ChangelogKey(l.key[:0], l.cfg.Spec.Kind, key); !ok {
		return fmt.Errorf("changelog: store %q: key %x is too short for a %v store: build it with state.WindowKey or state.SessionKey",
			l.cfg.Spec.Name, key, l.cfg.Spec.Kind)
	}
	if l.cfg.Append == nil {
		return nil
	}
	if err := l.cfg.Append(l.key, value, timestamp); err != nil {
		return fmt.Errorf("changelog: store %q: %w", l.cfg.Spec.Name, err)
	}
	return nil
}

// Dirty says whether something was written since the last Commit or Abort.
func (l *Logged) Dirty() bool { return len(l.overlay.entries) > 0 || l.overlay.floor != nil }

// Commit applies what was written since the last Commit to the engine. Call it
// when the changelog's records are committed. After an error the task must start
// again: the store is restored from the changelog, which holds everything.
func (l *Logged) Commit() error {
	if l.closed {
		return state.ErrClosed
	}
	if !l.Dirty() {
		return nil
	}
	l.batch.Reset()
	l.overlay.appendTo(&l.batch)
	if err := l.cfg.Engine.Apply(&l.batch); err != nil {
		return fmt.Errorf("changelog: store %q: apply a commit: %w", l.cfg.Spec.Name, err)
	}
	l.uncheckpointed += int64(l.batch.Bytes()) + 1
	l.overlay.reset()
	return nil
}

// Abort forgets what was written since the last Commit.
func (l *Logged) Abort() { l.overlay.reset() }

// CheckpointDue says whether it is time for a checkpoint. Never when nothing was
// committed since the last one.
func (l *Logged) CheckpointDue(now time.Time) bool {
	if l.checkpointed.IsZero() {
		l.checkpointed = now
	}
	return l.uncheckpointed > 0 &&
		(l.uncheckpointed >= l.cfg.CheckpointBytes || now.Sub(l.checkpointed) >= l.cfg.CheckpointInterval)
}

// Checkpoint makes what was committed durable. All changelog records before
// p.Offset must be committed and applied: take the changelog's position when
// nothing is written, as after Commit.
func (l *Logged) Checkpoint(p state.Position, now time.Time) error {
	if l.closed {
		return state.ErrClosed
	}
	if err := l.cfg.Engine.Checkpoint(p); err != nil {
		return fmt.Errorf("changelog: store %q: checkpoint at offset %d: %w", l.cfg.Spec.Name, p.Offset, err)
	}
	l.uncheckpointed, l.checkpointed = 0, now
	return nil
}

// Close forgets what was not committed and closes the engine, without a
// checkpoint.
func (l *Logged) Close() error {
	if l.closed {
		return state.ErrClosed
	}
	l.closed = true
	l.overlay.reset()
	return l.cfg.Engine.Close()
}

// merger yields the entries of an overlay among those of the engine.
type merger struct {
	entries []*entry // in ascending order; what is left
	reverse bool
	fn      func(key, value []byte) bool
	stopped bool
}

// engine is called for each entry of the engine, in the order of the scan.
func (m *merger) engine(key, value []byte) bool {
	for len(m.entries) > 0 {
		e := m.next()
		order := bytes.Compare(e.key, key)
		if m.reverse {
			order = -order
		}
		if order > 0 {
			break
		}
		m.take()
		if !m.yield(e) {
			return false
		}
		if order == 0 {
			return true // the overlay's entry hides the engine's
		}
	}
	m.stopped = !m.fn(key, value)
	return !m.stopped
}

// rest yields what comes after the engine's last entry.
func (m *merger) rest() {
	for !m.stopped && len(m.entries) > 0 {
		e := m.next()
		m.take()
		m.yield(e)
	}
}

func (m *merger) next() *entry {
	if m.reverse {
		return m.entries[len(m.entries)-1]
	}
	return m.entries[0]
}

func (m *merger) take() {
	if m.reverse {
		m.entries = m.entries[:len(m.entries)-1]
	} else {
		m.entries = m.entries[1:]
	}
}

// yield passes an entry on; false when the scan is to stop.
func (m *merger) yield(e *entry) bool {
	if !e.deleted {
		m.stopped = !m.fn(e.key, e.value)
	}
	return !m.stopped
}

// overlay holds uncommitted writes: the latest of each key, and a bound below
// which the engine's keys are deleted.
type overlay struct {
	byKey   map[string]*entry
	entries []*entry // the first sorted are in order of their keys
	sorted  int
	floor   []byte // nil for none
}

type entry struct {
	key, value []byte
	deleted    bool
}

func newOverlay() overlay { return overlay{byKey: map[string]*entry{}} }

func (o *overlay) find(key []byte) *entry { return o.byKey[string(key)] }

// expired is true when the engine's value of key is deleted by removeBefore.
func (o *overlay) expired(key []byte) bool { return o.floor != nil && bytes.Compare(key, o.floor) < 0 }

func (o *overlay) put(key, value []byte) {
	e := o.at(key)
	e.value, e.deleted = append(e.value[:0], value...), false
}

func (o *overlay) remove(key []byte) {
	e := o.at(key)
	e.value, e.deleted = e.value[:0], true
}

func (o *overlay) at(key []byte) *entry {
	if e := o.find(key); e != nil {
		return e
	}
	e := &entry{key: bytes.Clone(key)}
	o.byKey[string(key)] = e
	n := len(o.entries)
	if o.sorted == n && (n == 0 || bytes.Compare(o.entries[n-1].key, key) < 0) {
		o.sorted++ // writes often come in order
	}
	o.entries = append(o.entries, e)
	return e
}

func (o *overlay) removeBefore(bound []byte) {
	if o.floor == nil || bytes.Compare(bound, o.floor) > 0 {
		o.floor = bytes.Clone(bound)
		if o.floor == nil {
			o.floor = []byte{}
		}
	}
	gone, _ := o.search(bound)
	for _, e := range o.entries[:gone] {
		delete(o.byKey, string(e.key))
	}
	o.entries = slices.Delete(o.entries, 0, gone)
	o.sorted = len(o.entries)
}

// search returns the index of the first entry that is not below key.
func (o *overlay) search(key []byte) (int, bool) {
	o.sort()
	return slices.BinarySearchFunc(o.entries, key, func(e *entry, key []byte) int { return bytes.Compare(e.key, key) })
}

// sort brings the entries in order of their keys. A scan between two writes costs
// one insertion, not a sort.
func (o *overlay) sort() {
	const few = 8
	if len(o.entries)-o.sorted > few {
		slices.SortFunc(o.entries, func(a, b *entry) int { return bytes.Compare(a.key, b.key) })
		o.sorted = len(o.entries)
		return
	}
	for ; o.sorted < len(o.entries); o.sorted++ {
		e := o.entries[o.sorted]
		at, _ := slices.BinarySearchFunc(o.entries[:o.sorted], e.key, func(e *entry, key []byte) int { return bytes.Compare(e.key, key) })
		copy(o.entries[at+1:o.sorted+1], o.entries[at:o.sorted])
		o.entries[at] = e
	}
}

// within returns the entries in [from, to) in order; nil bounds are open.
func (o *overlay) within(from, to []byte) []*entry {
	o.sort()
	first, end := 0, len(o.entries)
	if from != nil {
		first, _ = o.search(from)
	}
	if to != nil {
		end, _ = o.search(to)
	}
	return o.entries[first:max(first, end)]
}

// appendTo adds the writes to a batch, in order of their keys.
func (o *overlay) appendTo(b *state.Batch) {
	o.sort()
	if o.floor != nil {
		b.DeleteBefore(o.floor)
	}
	for _, e := range o.entries {
		switch {
		case !e.deleted:
			b.Put(e.key, e.value)
		case !o.expired(e.key):
			b.Delete(e.key)
		}
	}
}

func (o *overlay) reset() {
	clear(o.byKey)
	clear(o.entries)
	o.entries, o.sorted, o.floor = o.entries[:0], 0, nil
}

// ErrChangelog says that a changelog holds what is not the store's.
var ErrChangelog = errors.New("changelog: the topic holds a record that is not the store's")
