package topology

import (
	"cmp"
	"errors"
	"fmt"
	"math"

	"github.com/leatlog/leat/state"
	"github.com/leatlog/leat/topology/internal/graph"
)

// A versioned store has a row for each version of a key, under state.VersionKey, and a mark,
// see markStart, under state.VersionNote. Rows of versions are
//
//	a value    | 1 (1) | value (n) |
//	a removal  | 0 (1) |
//
// A version counts until the next one of its key. A removal is a row, so that what comes
// late can be put in front of it.
const (
	removedVersion byte = iota
	valueVersion
)

// errVersion says that a row of a versioned store is damaged.
var errVersion = errors.New("a stored version is neither a value nor a removal")

// decodeVersion reads the row of a version.
func decodeVersion[V any](row []byte, serde Serde[V]) (value V, present bool, err error) {
	switch {
	case len(row) == 1 && row[0] == removedVersion:
		return value, false, nil
	case len(row) < 1 || row[0] != valueVersion:
		return value, false, errVersion
	}
	if value, err = serde.Decode(row[1:]); err != nil {
		return value, false, fmt.Errorf("stored version: %w", err)
	}
	return value, true, nil
}

// versions keeps the versions of keys. The latest of each are in the cache of a
// keyedAggregation, which emits them; rows are written as they come, since there is nothing
// to combine.
type versions[K, V any] struct {
	*keyedAggregation[K, K, V]
	// clock is the store's own time, the greatest of its versions (KIP-889), by which it
	// tells what is too old.
	clock   eventClock
	history int64
	sweeper versionSweeper
	row     []byte
}

func newVersions[K, V any](i *instance, n *graph.Node, key Serde[K], value Serde[V], next sink[K, V]) *versions[K, V] {
	v := &versions[K, V]{
		keyedAggregation: makeKeyedAggregation(i, n, key, value, func(key K, _ Window) K { return key }, next),
		history:          n.Store.Retention.Milliseconds(),
	}
	v.cache.load = v.load
	v.clock = newEventClock(i, v.cache.store, true, state.VersionNote())
	v.sweeper.store = v.cache.store
	i.stateful = append(i.stateful, v)
	i.tables[n.ID] = v
	return v
}

// load finds the latest version of a key. Its time is -1 when the key has none.
func (v *versions[K, V]) load(e *entry[K, V]) error {
	var failed error
	_, err := state.VersionAsOf(v.cache.store, []byte(e.raw), math.MaxInt64, func(from int64, row []byte) {
		e.timestamp, e.size = from, len(row)
		e.value, e.present, failed = decodeVersion(row, v.cache.value)
		e.stored = e.present
	})
	return cmp.Or(err, failed)
}

// horizon is the time before which only latest versions are known.
func (v *versions[K, V]) horizon() int64 { return v.clock.now() - v.history }

// put adds a version of a key that counts from at on, a removal if null, or replaces the one
// that does. stored is false when at is before the history. failure says that the key or
// the value cannot be written.
func (v *versions[K, V]) put(key K, value V, null bool, at int64) (stored bool, failure, err error) {
	if at < v.horizon() {
		return false, nil, nil
	}
	e, failure, err := v.entry(key)
	if failure != nil || err != nil {
		return false, failure, err
	}
	v.row = append(v.row[:0], removedVersion)
	if !null {
		v.row[0] = valueVersion
		if v.row, failure = v.cache.value.Append(v.row, value); failure != nil {
			return false, fmt.Errorf("value: %w", failure), nil
		}
	}
	v.cache.keyBuf = state.VersionKey(v.cache.keyBuf[:0], v.raw, at)
	if err := v.cache.store.Put(v.cache.keyBuf, v.row, at); err != nil {
		return false, nil, v.broken(err)
	}
	v.cache.counted.writes++
	v.sweeper.written++
	v.clock.observe(at)
	if at < e.timestamp {
		return true, nil, nil // it changes what was, and not what is: nobody is told (KIP-914)
	}
	v.cache.bytes += len(v.row) - e.size
	e.size = len(v.row)
	if null {
		v.cache.remove(e, at)
	} else {
		v.cache.set(e, value, at)
	}
	return true, nil, nil
}

// lookupAsOf implements asOfLookup.
func (v *versions[K, V]) lookupAsOf(key K, at int64) (value V, found bool, failure, err error) {
	_, value, found, failure, err = v.find(key, at)
	return value, found, failure, err
}

// find returns what a key's value was at a time, and since when. Before the history there is
// an answer only if it is the latest, as in Kafka Streams.
func (v *versions[K, V]) find(key K, at int64) (from int64, value V, found bool, failure, err error) {
	e, failure, err := v.look(key)
	switch {
	case failure != nil || err != nil:
		return 0, value, false, failure, err
	case at >= e.timestamp:
		return e.timestamp, e.value, e.present, nil, nil
	case at < v.horizon():
		return 0, value, false, nil, nil
	}
	from, value, found, err = v.back(v.raw, at)
	return from, value, found, nil, err
}

// back looks back in the store.
func (v *versions[K, V]) back(raw []byte, at int64) (from int64, value V, found bool, err error) {
	var failed error
	_, err = state.VersionAsOf(v.cache.store, raw, at, func(time int64, row []byte) {
		from = time
		value, found, failed = decodeVersion(row, v.cache.value)
	})
	return from, value, found, v.broken(cmp.Or(err, failed))
}

func (v *versions[K, V]) open() error {
	if err := v.clock.open(); err != nil {
		return v.broken(err)
	}
	return v.keyedAggregation.open()
}

func (v *versions[K, V]) flush() error {
	if err := v.keyedAggregation.flush(); err != nil {
		return err
	}
	// What the last complete commit had still in its history stays: without transactions the
	// records of this one may come again, over a store that has been swept.
	horizon := v.clock.mark - v.history
	err := v.clock.flush()
	if err == nil {
		err = v.sweeper.sweep(horizon, v.clock.now())
	}
	return v.broken(err)
}
