package topology

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/leatlog/leat/state"
	"github.com/leatlog/leat/topology/internal/graph"
)

// ProcessorStore is a KeyValueStore or a VersionedStore of any types.
type ProcessorStore interface {
	// declare adds the store to a topology, once, and returns its node.
	declare(*Topology) int
	// open returns the store in a task.
	open(*instance, *graph.Node) any
}

// KeyValueStore is a store of a Processor, ordered by the keys' bytes. It is a name with
// types: each task has a store of its own, with the keys of its partition. Processors that
// declare the same one share it, and run in the same tasks. Writes are kept in the cache
// until the commit, take part in it, and come back after a restart.
type KeyValueStore[K, V any] struct {
	name    string
	key     Serde[K]
	value   Serde[V]
	options options
}

// StoreOption is an option of NewKeyValueStore and NewVersionedStore: InMemory, Formerly.
type StoreOption = AggregateOption

// NewKeyValueStore makes a store. Its changelog is <app>-<name>-changelog.
func NewKeyValueStore[K, V any](name string, key Serde[K], value Serde[V], opts ...StoreOption) *KeyValueStore[K, V] {
	return &KeyValueStore[K, V]{name: name, key: key, value: value, options: aggregateOptions(opts)}
}

func (s *KeyValueStore[K, V]) declare(t *Topology) int {
	n := graph.Node{Kind: "store", Store: &state.Spec{}}
	return declareStore(t, s, n, s.name, s.key, s.value, s.options)
}

// declareStore adds a processor's store to a topology, unless it is there.
func declareStore[K, V any](t *Topology, s ProcessorStore, n graph.Node, name string, key Serde[K], value Serde[V], o options) int {
	if id, known := t.stores[s]; known {
		return id
	}
	n.Name, n.Durable, n.Store.Name, n.Store.InMemory = name, true, name, o.inMemory
	t.durable(&n, o)
	if key == nil || value == nil {
		t.mistake(name, "the store needs a serde for keys and one for values")
	} else {
		n.Store.KeyFormat, n.Store.ValueFormat = key.Name(), value.Name()
	}
	if t.stores == nil {
		t.stores = map[ProcessorStore]int{}
	}
	// Records do not run through it: its processors open it.
	t.stores[s] = t.add(n, code{compile: func(*instance, *graph.Node) any { return nil }})
	return t.stores[s]
}

// open makes the store when the last of its processors is compiled, which is the first to
// be: so it is flushed behind all that lead to it.
func (s *KeyValueStore[K, V]) open(i *instance, n *graph.Node) any {
	if _, opened := i.tables[n.ID]; !opened {
		nobody := func(*Record[K, V]) error { return nil }
		i.tables[n.ID] = newKeyedAggregation(i, n, s.key, s.value, func(key K, _ Window) K { return key }, nobody)
	}
	return i.tables[n.ID]
}

func (s *KeyValueStore[K, V]) of(c *ProcessorContext) (*keyedAggregation[K, K, V], error) {
	j := slices.Index(c.stores, ProcessorStore(s))
	if j < 0 {
		return nil, c.undeclared("store", s.name)
	}
	return c.tables[j].(*keyedAggregation[K, K, V]), nil
}

// Get returns what the store has for a key. A value that is changed in place is to be Put.
func (s *KeyValueStore[K, V]) Get(c *ProcessorContext, key K) (value V, found bool, err error) {
	a, err := s.of(c)
	if err != nil {
		return value, false, err
	}
	value, found, failure, err := a.lookup(key)
	if err != nil {
		return value, false, c.fail(err)
	}
	return value, found, failure
}

// Put sets a key to a value, which the store keeps; null removes the key. The row's time
// is that of the record that runs, or what the timer was told.
func (s *KeyValueStore[K, V]) Put(c *ProcessorContext, key K, value V) error {
	return s.change(c, key, func(a *keyedAggregation[K, K, V], e *entry[K, V]) { a.cache.set(e, value, c.now) })
}

// Delete removes a key.
func (s *KeyValueStore[K, V]) Delete(c *ProcessorContext, key K) error {
	return s.change(c, key, func(a *keyedAggregation[K, K, V], e *entry[K, V]) { a.cache.remove(e, c.now) })
}

func (s *KeyValueStore[K, V]) change(c *ProcessorContext, key K, change func(*keyedAggregation[K, K, V], *entry[K, V])) error {
	a, err := s.of(c)
	if err != nil {
		return err
	}
	e, failure, err := a.entry(key)
	switch {
	case err != nil:
		return c.fail(err)
	case failure != nil:
		return failure
	}
	c.changed = true
	change(a, e)
	if a.cache.full() {
		if err := a.relieve(); err != nil {
			return c.fail(err)
		}
	}
	return nil
}

// Scan calls f for all keys, in the order of their bytes, until f returns false. f may
// change the store: whether the scan sees what it adds is open.
func (s *KeyValueStore[K, V]) Scan(c *ProcessorContext, f func(K, V) bool) error {
	return s.scan(c, nil, nil, f)
}

// Range is Scan for the keys whose bytes are between those of from and to, both included.
func (s *KeyValueStore[K, V]) Range(c *ProcessorContext, from, to K, f func(K, V) bool) error {
	first, err := s.key.Append(nil, from)
	if err != nil {
		return fmt.Errorf("key: %w", err)
	}
	last, err := s.key.Append(nil, to)
	if err != nil {
		return fmt.Errorf("key: %w", err)
	}
	return s.scan(c, notNil(first), append(last, 0), f)
}

// scanChunk is how many rows are read before they are shown.
const scanChunk = 256

func (s *KeyValueStore[K, V]) scan(c *ProcessorContext, from, to []byte, f func(K, V) bool) error {
	a, err := s.of(c)
	if err != nil {
		return err
	}
	var rows [][2][]byte
	for {
		rows = rows[:0]
		err := a.flush()
		if err == nil {
			err = a.broken(a.cache.store.Scan(from, to, false, func(key, value []byte) bool {
				rows = append(rows, [2][]byte{bytes.Clone(key), bytes.Clone(value)})
				return len(rows) < scanChunk
			}))
		}
		if err != nil {
			return c.fail(err)
		}
		for _, row := range rows {
			key, value, err := s.decode(row)
			if err != nil {
				return c.fail(a.broken(err))
			}
			if !f(key, value) {
				return nil
			}
		}
		if len(rows) < scanChunk {
			return nil
		}
		from = append(rows[len(rows)-1][0], 0)
	}
}

func (s *KeyValueStore[K, V]) decode(row [2][]byte) (key K, value V, err error) {
	if len(row[1]) < timestampSize {
		return key, value, errTooShort
	}
	if key, err = s.key.Decode(row[0]); err != nil {
		return key, value, fmt.Errorf("stored key: %w", err)
	}
	if value, err = s.value.Decode(row[1][timestampSize:]); err != nil {
		return key, value, fmt.Errorf("stored value: %w", err)
	}
	return key, value, nil
}
