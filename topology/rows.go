package topology

import (
	"encoding/binary"
	"fmt"

	"github.com/leatlog/leat/state"
)

// Queryable is what can be read from outside of its tasks, by interactive queries
// (stream.Query, stream.QueryWindows, stream.QueryVersions): a *Table, or a *KeyValueStore or
// *VersionedStore of a Processor.
type Queryable[K, V any] interface {
	// Rows tells how the store is read; the error says why it cannot be.
	Rows() (Rows[K, V], error)
}

// Rows tells what the rows of a store say. It is immutable and may be shared.
type Rows[K, V any] struct {
	spec   state.Spec
	key    Serde[K]
	decode func(key K, stored []byte) (V, bool, error)
}

// Store is the name of the store that has the rows.
func (r Rows[K, V]) Store() string { return r.spec.Name }

// Kind is the shape of the store.
func (r Rows[K, V]) Kind() state.Kind { return r.spec.Kind }

// WindowSize is the length of a window in milliseconds, 0 for sessions and stores
// without windows.
func (r Rows[K, V]) WindowSize() int64 { return r.spec.WindowSize.Milliseconds() }

// AppendKey appends the store's key to dst. That of a window or session leads with its
// time (see state.WindowKey and state.SessionKey). Of a versioned store it is the key alone,
// which state.VersionKey makes a store key of.
func (r Rows[K, V]) AppendKey(dst []byte, key K) ([]byte, error) {
	raw, err := r.key.Append(nil, key)
	if err != nil {
		return dst, fmt.Errorf("topology: key for store %q: %w", r.spec.Name, err)
	}
	out, ok := state.StoreKey(dst, r.spec.Kind, raw)
	if !ok {
		return dst, fmt.Errorf("topology: key for store %q: %d bytes are too few for a %v store", r.spec.Name, len(raw), r.spec.Kind)
	}
	return out, nil
}

// Decode reads a row of the store. timestamp is the result's, in milliseconds since the
// Unix epoch, of a versioned store that from which on the version counts. found is false when
// the row is none of a computed table, such as one that its Filter leaves out, or says that
// the key was removed.
func (r Rows[K, V]) Decode(storeKey, stored []byte) (key K, value V, timestamp int64, found bool, err error) {
	raw, timestamp, encoded, ok := r.split(storeKey, stored)
	if !ok {
		return key, value, 0, false, fmt.Errorf("topology: store %q holds a row of %d and %d bytes that is none of its own", r.spec.Name, len(storeKey), len(stored))
	}
	if key, err = r.key.Decode(raw); err != nil {
		return key, value, 0, false, fmt.Errorf("topology: key in store %q: %w", r.spec.Name, err)
	}
	if encoded == nil {
		return key, value, timestamp, false, nil
	}
	if value, found, err = r.decode(key, encoded); err != nil {
		return key, value, 0, false, fmt.Errorf("topology: value in store %q: %w", r.spec.Name, err)
	}
	return key, value, timestamp, found, nil
}

// split takes a row apart; value is nil for a removal.
func (r Rows[K, V]) split(storeKey, stored []byte) (key []byte, timestamp int64, value []byte, ok bool) {
	if r.spec.Kind == state.Versioned {
		key, timestamp, ok = state.SplitVersionKey(nil, storeKey)
		switch {
		case len(stored) == 1 && stored[0] == removedVersion:
		case len(stored) > 0 && stored[0] == valueVersion:
			value = stored[1:]
		default:
			ok = false
		}
		return key, timestamp, value, ok
	}
	key, ok = state.ChangelogKey(nil, r.spec.Kind, storeKey)
	if !ok || len(stored) < timestampSize {
		return nil, 0, nil, false
	}
	return key, int64(binary.BigEndian.Uint64(stored)), stored[timestampSize:], true
}

// Horizon is the time, in milliseconds since the Unix epoch, before which a versioned store
// tells only latest versions. note is what it has under state.VersionNote, nil for nothing.
func (r Rows[K, V]) Horizon(note []byte) int64 {
	if len(note) < timestampSize {
		return 0
	}
	return int64(binary.BigEndian.Uint64(note)) - r.spec.Retention.Milliseconds()
}

func rowsOf[K, V any](spec state.Spec, key Serde[K], value Serde[V]) Rows[K, V] {
	return Rows[K, V]{spec: spec, key: key, decode: func(_ K, stored []byte) (V, bool, error) {
		v, err := value.Decode(stored)
		return v, err == nil, err
	}}
}

// Rows implements Queryable. What MapTable and Filter make of a table is read from the
// store of that table; tables without a store, and what Suppress holds back, cannot be.
func (table *Table[K, V]) Rows() (Rows[K, V], error) {
	n := table.t.graph.Nodes[table.node]
	switch {
	case table.suppressed:
		return Rows[K, V]{}, fmt.Errorf("topology: table %q holds updates back and cannot be queried: query the one it is made of", n.Name)
	case table.computed != nil:
		return table.computed()
	case n.Store == nil || table.stored == nil || table.key == nil:
		return Rows[K, V]{}, fmt.Errorf("topology: table %q has no store to be queried: write it to a topic and read that with ToTable, or query what it is made of", n.Name)
	}
	return rowsOf(*n.Store, table.key, table.stored), nil
}

// mappedRows are those of a table that is computed from another.
func mappedRows[K, V, R any](of *Table[K, V], f func(K, V) (R, bool, error)) func() (Rows[K, R], error) {
	return func() (Rows[K, R], error) {
		rows, err := of.Rows()
		if err != nil {
			return Rows[K, R]{}, err
		}
		return Rows[K, R]{spec: rows.spec, key: rows.key, decode: func(key K, stored []byte) (result R, found bool, err error) {
			v, found, err := rows.decode(key, stored)
			if err != nil || !found {
				return result, false, err
			}
			return f(key, v)
		}}, nil
	}
}

// Rows implements Queryable.
func (s *KeyValueStore[K, V]) Rows() (Rows[K, V], error) {
	return rowsOfStore(state.Spec{Name: s.name}, s.key, s.value, s.options)
}

// Rows implements Queryable.
func (s *VersionedStore[K, V]) Rows() (Rows[K, V], error) {
	return rowsOfStore(state.Spec{Name: s.name, Kind: state.Versioned, Retention: s.history}, s.key, s.value, s.options)
}

func rowsOfStore[K, V any](spec state.Spec, key Serde[K], value Serde[V], o options) (Rows[K, V], error) {
	if key == nil || value == nil {
		return Rows[K, V]{}, fmt.Errorf("topology: store %q needs a serde for keys and one for values", spec.Name)
	}
	if o.formerly != nil {
		spec.Name = *o.formerly
	}
	return rowsOf(spec, key, value), nil
}
