package streamtest

import (
	"cmp"
	"math"
	"time"

	"github.com/leatlog/leat/state"
	"github.com/leatlog/leat/stream/internal/task"
	"github.com/leatlog/leat/topology"
)

// VersionedStore looks into a versioned store, such as that of a ToVersionedTable. Like the
// store itself it tells of the time before its history only what is still the latest.
type VersionedStore[K, V any] struct {
	driver *Driver
	name   string
	key    topology.Serde[K]
	rows   topology.Rows[K, V]
}

// NewVersionedStore returns a view of a versioned store by its operator's name.
func NewVersionedStore[K, V any](d *Driver, name string, key topology.Serde[K], value topology.Serde[V]) *VersionedStore[K, V] {
	d.t.Helper()
	d.storesOf(name, state.Versioned)
	var history time.Duration
	for i := range d.plan.SubTopologies {
		sub := &d.plan.SubTopologies[i]
		for _, o := range sub.Operators {
			for _, spec := range sub.Stores {
				if spec.Name == o.Store && (o.Name == name || o.Store == name) {
					history = spec.Retention
				}
			}
		}
	}
	rows, err := topology.NewVersionedStore(name, key, value, history).Rows()
	if err != nil {
		d.t.Fatalf("streamtest: %v", err)
	}
	return &VersionedStore[K, V]{d, name, key, rows}
}

// Get returns the latest version of a key; false when it has none, or was removed.
func (s *VersionedStore[K, V]) Get(key K) (topology.Version[V], bool) {
	s.driver.t.Helper()
	return s.find(key, math.MaxInt64)
}

// GetAsOf returns the version of a key that counts at a time, to the millisecond; false when
// the key had no value then.
func (s *VersionedStore[K, V]) GetAsOf(key K, at time.Time) (topology.Version[V], bool) {
	s.driver.t.Helper()
	return s.find(key, at.UnixMilli())
}

func (s *VersionedStore[K, V]) find(key K, at int64) (version topology.Version[V], found bool) {
	s.driver.t.Helper()
	raw, err := s.key.Append(nil, key)
	if err != nil {
		s.driver.t.Fatalf("streamtest: store %q: key %v: %v", s.name, key, err)
	}
	for _, store := range s.driver.storesOf(s.name, state.Versioned) {
		v, there, err := s.findIn(store, raw, at)
		switch {
		case err != nil:
			s.driver.t.Fatalf("streamtest: store %q: key %x: %v", s.name, raw, err)
		case there && found:
			s.driver.t.Fatalf("streamtest: store %q has key %x on two partitions", s.name, raw)
		case there:
			version, found = v, true
		}
	}
	return version, found
}

func (s *VersionedStore[K, V]) findIn(store *task.LoggedStore, raw []byte, at int64) (version topology.Version[V], found bool, err error) {
	var failed error
	there, err := state.VersionAsOf(store, raw, at, func(from int64, row []byte) {
		version.From = time.UnixMilli(from).UTC()
		_, version.Value, _, found, failed = s.rows.Decode(state.VersionKey(nil, raw, from), row)
	})
	if err = cmp.Or(err, failed); err != nil || !there || !found {
		return topology.Version[V]{}, false, err
	}
	next, more, err := state.VersionAfter(store, raw, at)
	if err != nil || !more {
		return version, err == nil, err
	}
	note, _, err := store.Get(nil, state.VersionNote())
	if err != nil || at < s.rows.Horizon(note) {
		return topology.Version[V]{}, false, err
	}
	version.To = time.UnixMilli(next).UTC()
	return version, true, nil
}

// VersionEntry is a version of a key in a store.
type VersionEntry[K, V any] struct {
	Key K
	topology.Version[V]
}

// All returns every version in the store, in order of the keys' bytes and then of the times,
// within each partition; those that may go and have not yet gone included.
func (s *VersionedStore[K, V]) All() []VersionEntry[K, V] {
	s.driver.t.Helper()
	var list []VersionEntry[K, V]
	var last []byte
	open := false // the last in the list counts until the next row of its key
	s.driver.scan(s.name, state.Versioned, func(row, stored []byte) error {
		raw, from, ok := state.SplitVersionKey(nil, row)
		if !ok {
			return nil // a note of the operator's own
		}
		at := time.UnixMilli(from).UTC()
		if open && string(raw) == string(last) {
			list[len(list)-1].To = at
		}
		key, value, _, found, err := s.rows.Decode(row, stored)
		if found {
			list = append(list, VersionEntry[K, V]{key, topology.Version[V]{Value: value, From: at}})
		}
		last, open = raw, found
		return err
	})
	return list
}
