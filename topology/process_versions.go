package topology

import (
	"bytes"
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/leatlog/leat/state"
	"github.com/leatlog/leat/topology/internal/graph"
)

// Version is a value that a key had for a time.
type Version[V any] struct {
	Value V
	// From is the time from which on the key had the value, in UTC.
	From time.Time
	// To is the time from which on it had another one, or none; the zero time when it is the
	// latest.
	To time.Time
}

// VersionedStore is a store of a Processor that remembers what the value of each key was at
// a time (KIP-889). Like a KeyValueStore it is a name with types: each task has a store of its
// own, with the keys of its partition, processors that declare the same one share it, and
// writes take part in the commit and come back after a restart.
//
// Times are to the millisecond and not before 1970. The store's time is the greatest at which
// something was put, whatever the task's is; it reaches back from there as far as its history.
type VersionedStore[K, V any] struct {
	name    string
	key     Serde[K]
	value   Serde[V]
	history time.Duration
	options options
}

// NewVersionedStore makes a store that remembers values as far back as history, in whole
// milliseconds. Its changelog is <app>-<name>-changelog.
func NewVersionedStore[K, V any](name string, key Serde[K], value Serde[V], history time.Duration, opts ...StoreOption) *VersionedStore[K, V] {
	return &VersionedStore[K, V]{name: name, key: key, value: value, history: history, options: aggregateOptions(opts)}
}

func (s *VersionedStore[K, V]) declare(t *Topology) int {
	complaint := historyComplaint(s.history)
	if _, known := t.stores[s]; complaint != "" && !known {
		t.mistake(s.name, "%s", complaint)
	}
	n := graph.Node{Kind: "versioned-store", Detail: historyText(s.history), Store: &state.Spec{Kind: state.Versioned, Retention: s.history}}
	return declareStore(t, s, n, s.name, s.key, s.value, s.options)
}

// open makes the store when the last of its processors is compiled, as that of KeyValueStore
// does.
func (s *VersionedStore[K, V]) open(i *instance, n *graph.Node) any {
	if _, opened := i.tables[n.ID]; !opened {
		newVersions(i, n, s.key, s.value, func(*Record[K, V]) error { return nil })
	}
	return i.tables[n.ID]
}

func (s *VersionedStore[K, V]) of(c *ProcessorContext) (*versions[K, V], error) {
	j := slices.Index(c.stores, ProcessorStore(s))
	if j < 0 {
		return nil, c.undeclared("store", s.name)
	}
	return c.tables[j].(*versions[K, V]), nil
}

// Put says that a key has a value, which the store keeps, from a time on, until the next
// version of the key; a null value is a Delete. A version of the same time is replaced. stored
// is false when the time is before the store's history, and nothing was done.
func (s *VersionedStore[K, V]) Put(c *ProcessorContext, key K, value V, at time.Time) (stored bool, err error) {
	return s.put(c, key, value, nullCheck[V]().isNull(value), at)
}

// Delete is Put that says that a key has no value from a time on, until the next version.
func (s *VersionedStore[K, V]) Delete(c *ProcessorContext, key K, at time.Time) (stored bool, err error) {
	var none V
	return s.put(c, key, none, true, at)
}

func (s *VersionedStore[K, V]) put(c *ProcessorContext, key K, value V, null bool, at time.Time) (stored bool, err error) {
	v, err := s.of(c)
	if err != nil {
		return false, err
	}
	if at.UnixMilli() < 0 {
		return false, fmt.Errorf("a version of store %q is to count from %v on, which is before 1970", s.name, at)
	}
	stored, failure, err := v.put(key, value, null, at.UnixMilli())
	switch {
	case err != nil:
		return false, c.fail(err)
	case failure != nil:
		return false, failure
	}
	c.changed = c.changed || stored
	if v.cache.full() {
		if err := v.relieve(); err != nil {
			return stored, c.fail(err)
		}
	}
	return stored, nil
}

// Get returns the latest version of a key; found is false when it has none, or was removed.
func (s *VersionedStore[K, V]) Get(c *ProcessorContext, key K) (version Version[V], found bool, err error) {
	return s.find(c, key, math.MaxInt64)
}

// GetAsOf returns the version of a key that counts at a time; found is false when it had no
// value then. Before the store's history only a version that is still the latest is found.
func (s *VersionedStore[K, V]) GetAsOf(c *ProcessorContext, key K, at time.Time) (version Version[V], found bool, err error) {
	return s.find(c, key, at.UnixMilli())
}

func (s *VersionedStore[K, V]) find(c *ProcessorContext, key K, at int64) (version Version[V], found bool, err error) {
	v, err := s.of(c)
	if err != nil {
		return version, false, err
	}
	from, value, found, failure, err := v.find(key, at)
	switch {
	case err != nil:
		return version, false, c.fail(err)
	case failure != nil || !found:
		return version, false, failure
	}
	to, err := v.until(v.raw, from)
	if err != nil {
		return version, false, c.fail(err)
	}
	return Version[V]{Value: value, From: time.UnixMilli(from).UTC(), To: to}, true, nil
}

// until returns the time of the next version of a key, the zero time when there is none.
func (v *versions[K, V]) until(raw []byte, at int64) (time.Time, error) {
	if e := v.page.entries[string(raw)]; e != nil && at >= e.timestamp {
		return time.Time{}, nil
	}
	next, found, err := state.VersionAfter(v.cache.store, raw, at)
	if err != nil || !found {
		return time.Time{}, v.broken(err)
	}
	return time.UnixMilli(next).UTC(), nil
}

// Versions calls f for the versions of a key that count at any time from from to to, both
// included, the newest first, until f returns false. Versions that ended before the store's
// history are left out. f may change the store: whether it is shown what it adds is open.
func (s *VersionedStore[K, V]) Versions(c *ProcessorContext, key K, from, to time.Time, f func(Version[V]) bool) error {
	v, err := s.of(c)
	if err != nil {
		return err
	}
	e, failure, err := v.look(key)
	switch {
	case err != nil:
		return c.fail(err)
	case failure != nil:
		return failure
	}
	first, last := max(0, from.UnixMilli()), to.UnixMilli()
	if first > last {
		return nil
	}
	if last < v.horizon() { // as for GetAsOf, there is the latest or nothing
		first = max(first, e.timestamp)
	} else {
		first = max(first, v.horizon())
	}
	if first > last {
		return nil
	}
	if err := v.show(bytes.Clone(v.raw), first, last, f); err != nil {
		return c.fail(err)
	}
	return nil
}

// versionRow is the row of a version, read before it is shown.
type versionRow[V any] struct {
	from    int64
	value   V
	present bool
}

// show calls f for the versions of a key that count from first to last, the newest first.
func (v *versions[K, V]) show(raw []byte, first, last int64, f func(Version[V]) bool) error {
	until, err := v.until(raw, last)
	if err != nil {
		return err
	}
	low, high := state.VersionKey(nil, raw, 0), append(state.VersionKey(nil, raw, last), 0)
	var rows []versionRow[V]
	for {
		rows = rows[:0]
		var failed error
		err := v.cache.store.Scan(low, high, true, func(key, stored []byte) bool {
			var row versionRow[V]
			_, row.from, _ = state.SplitVersionKey(nil, key)
			row.value, row.present, failed = decodeVersion(stored, v.cache.value)
			rows = append(rows, row)
			return failed == nil && row.from > first && len(rows) < scanChunk
		})
		if err := cmp.Or(err, failed); err != nil {
			return v.broken(err)
		}
		for _, row := range rows {
			at := time.UnixMilli(row.from).UTC()
			if row.present && !f(Version[V]{Value: row.value, From: at, To: until}) {
				return nil
			}
			until = at
		}
		if len(rows) < scanChunk || rows[len(rows)-1].from <= first {
			return nil
		}
		high = state.VersionKey(nil, raw, rows[len(rows)-1].from)
	}
}
