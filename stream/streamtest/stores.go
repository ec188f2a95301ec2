package streamtest

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/leatlog/leat/state"
	"github.com/leatlog/leat/stream/internal/task"
	"github.com/leatlog/leat/topology"
	"github.com/leatlog/leat/topology/plan"
)

// stampSize is what a stored value is led by: its timestamp, 8 bytes.
const stampSize = 8

// Store looks into a key-value store of the topology, such as that of a Count.
// It sees what is committed; with ManualCommit, what caches have flushed as well.
type Store[K, V any] struct {
	driver *Driver
	name   string
	key    topology.Serde[K]
	value  topology.Serde[V]
}

// NewStore returns a view of a store by its operator's name.
func NewStore[K, V any](d *Driver, name string, key topology.Serde[K], value topology.Serde[V]) *Store[K, V] {
	d.t.Helper()
	d.storesOf(name, state.KeyValue)
	return &Store[K, V]{d, name, key, value}
}

// storesOf returns a store's instances, by partition.
func (d *Driver) storesOf(name string, kind state.Kind) []*task.LoggedStore {
	d.t.Helper()
	var list []*task.LoggedStore
	for _, r := range d.tasks {
		for i, spec := range r.sub.Stores {
			if spec.Name != name && !slices.ContainsFunc(r.sub.Operators, func(o plan.Operator) bool {
				return o.Name == name && o.Store == spec.Name // it has a former name
			}) {
				continue
			}
			if spec.Kind != kind {
				d.t.Fatalf("streamtest: store %q is a %s store, not a %s store", name, spec.Kind, kind)
			}
			list = append(list, r.stores[i])
		}
	}
	if len(list) == 0 {
		d.t.Fatalf("streamtest: the topology has no store %q", name)
	}
	return list
}

// Get returns a key's value; false when it has none. It looks on every partition
// and fails the test when more than one has the key: partitioning is broken then.
func (s *Store[K, V]) Get(key K) (V, bool) {
	s.driver.t.Helper()
	raw, err := s.key.Append(nil, key)
	if err != nil {
		s.driver.t.Fatalf("streamtest: store %q: key %v: %v", s.name, key, err)
	}
	return lookUp(s.driver, s.name, state.KeyValue, raw, s.value)
}

func lookUp[V any](d *Driver, name string, kind state.Kind, raw []byte, serde topology.Serde[V]) (v V, found bool) {
	d.t.Helper()
	for _, s := range d.storesOf(name, kind) {
		stored, ok, err := s.Get(nil, raw)
		if err == nil && ok {
			if found {
				d.t.Fatalf("streamtest: store %q has key %x on two partitions", name, raw)
			}
			found = true
			v, err = decodeStored(serde, stored)
		}
		if err != nil {
			d.t.Fatalf("streamtest: store %q: key %x: %v", name, raw, err)
		}
	}
	return v, found
}

func decodeStored[V any](serde topology.Serde[V], stored []byte) (v V, err error) {
	if len(stored) < stampSize {
		return v, errors.New("the stored value has no timestamp")
	}
	return serde.Decode(stored[stampSize:])
}

// Entry is a key and its value in a store.
type Entry[K, V any] struct {
	Key   K
	Value V
	// Window is set in window and session stores.
	Window topology.Window
}

// All returns everything in the store, in order of the keys' bytes within each
// partition.
func (s *Store[K, V]) All() []Entry[K, V] {
	s.driver.t.Helper()
	var list []Entry[K, V]
	s.driver.scan(s.name, state.KeyValue, func(key, stored []byte) error {
		k, err := s.key.Decode(key)
		if err != nil {
			return err
		}
		v, err := decodeStored(s.value, stored)
		list = append(list, Entry[K, V]{Key: k, Value: v})
		return err
	})
	return list
}

func (d *Driver) scan(name string, kind state.Kind, fn func(key, stored []byte) error) {
	d.t.Helper()
	for _, s := range d.storesOf(name, kind) {
		var failed error
		err := s.Scan(nil, nil, false, func(key, stored []byte) bool {
			if failed = fn(key, stored); failed != nil {
				failed = fmt.Errorf("key %x: %w", key, failed)
			}
			return failed == nil
		})
		if err = cmp.Or(err, failed); err != nil {
			d.t.Fatalf("streamtest: store %q: %v", name, err)
		}
	}
}

// WindowStore looks into a window store.
type WindowStore[K, V any] struct {
	Store[K, V]
	size time.Duration
}

// NewWindowStore returns a view of a window store by its operator's name.
func NewWindowStore[K, V any](d *Driver, name string, key topology.Serde[K], value topology.Serde[V]) *WindowStore[K, V] {
	d.t.Helper()
	d.storesOf(name, state.Window)
	w := &WindowStore[K, V]{Store: Store[K, V]{d, name, key, value}}
	for i := range d.plan.SubTopologies {
		for _, spec := range d.plan.SubTopologies[i].Stores {
			if spec.Name == name {
				w.size = spec.WindowSize
			}
		}
	}
	return w
}

// Get returns the value of a key in the window that begins at start.
func (w *WindowStore[K, V]) Get(key K, start time.Time) (V, bool) {
	w.driver.t.Helper()
	raw, err := w.key.Append(nil, key)
	if err != nil {
		w.driver.t.Fatalf("streamtest: store %q: key %v: %v", w.name, key, err)
	}
	return lookUp(w.driver, w.name, state.Window, state.WindowKey(nil, start.UnixMilli(), raw), w.value)
}

// All returns everything in the store, ordered by window.
func (w *WindowStore[K, V]) All() []Entry[K, V] {
	w.driver.t.Helper()
	var list []Entry[K, V]
	w.driver.scan(w.name, state.Window, func(key, stored []byte) error {
		start, raw, ok := state.SplitWindowKey(key)
		if !ok {
			return errors.New("the key has no window")
		}
		if start < 0 {
			return nil // a note of the operator's own
		}
		k, err := w.key.Decode(raw)
		if err != nil {
			return err
		}
		v, err := decodeStored(w.value, stored)
		list = append(list, Entry[K, V]{Key: k, Value: v, Window: topology.Window{Start: start, End: start + w.size.Milliseconds()}})
		return err
	})
	slices.SortStableFunc(list, func(a, b Entry[K, V]) int { return cmp.Compare(a.Window.Start, b.Window.Start) })
	return list
}

// SessionStore looks into a session store.
type SessionStore[K, V any] struct{ Store[K, V] }

// NewSessionStore returns a view of a session store by its operator's name.
func NewSessionStore[K, V any](d *Driver, name string, key topology.Serde[K], value topology.Serde[V]) *SessionStore[K, V] {
	d.t.Helper()
	d.storesOf(name, state.Session)
	return &SessionStore[K, V]{Store[K, V]{d, name, key, value}}
}

// Get returns the value of a key's session, from the time of its first record to that of
// its last one.
func (s *SessionStore[K, V]) Get(key K, start, end time.Time) (V, bool) {
	s.driver.t.Helper()
	raw, err := s.key.Append(nil, key)
	if err != nil {
		s.driver.t.Fatalf("streamtest: store %q: key %v: %v", s.name, key, err)
	}
	return lookUp(s.driver, s.name, state.Session, state.SessionKey(nil, start.UnixMilli(), end.UnixMilli(), raw), s.value)
}

// All returns everything in the store, ordered by the sessions' ends.
func (s *SessionStore[K, V]) All() []Entry[K, V] {
	s.driver.t.Helper()
	var list []Entry[K, V]
	s.driver.scan(s.name, state.Session, func(key, stored []byte) error {
		start, end, raw, ok := state.SplitSessionKey(key)
		if !ok {
			return errors.New("the key has no session")
		}
		if end < 0 {
			return nil // a note of the operator's own
		}
		k, err := s.key.Decode(raw)
		if err != nil {
			return err
		}
		v, err := decodeStored(s.value, stored)
		list = append(list, Entry[K, V]{Key: k, Value: v, Window: topology.Window{Start: start, End: end}})
		return err
	})
	slices.SortStableFunc(list, func(a, b Entry[K, V]) int { return cmp.Compare(a.Window.End, b.Window.End) })
	return list
}
