package stream

import (
	"context"
	"fmt"
	"iter"
	"math"
	"time"

	"github.com/leatlog/leat/state"
	"github.com/leatlog/leat/stream/client"
	"github.com/leatlog/leat/topology"
	"github.com/leatlog/leat/topology/plan"
)

// VersionView is a View of a versioned store (KIP-960, KIP-968). What it tells is bounded by
// the store's history as joins are: before that there is only what is still the latest.
type VersionView[K, V any] struct{ storeView[K, V] }

// QueryVersions returns a view of the store of a versioned table, of what Filter and MapTable
// make of one, or of a processor's VersionedStore.
func QueryVersions[K, V any](app *App, of topology.Queryable[K, V]) (*VersionView[K, V], error) {
	v, err := newStoreView(app, of)
	if err == nil && v.rows.Kind() != state.Versioned {
		err = wrongQuery(v.rows.Store(), v.rows.Kind())
	}
	if err != nil {
		return nil, err
	}
	return &VersionView[K, V]{*v}, nil
}

// wrongQuery says which function queries a kind of store.
func wrongQuery(store string, kind state.Kind) error {
	use := "Query"
	switch {
	case kind == state.Versioned:
		use = "QueryVersions"
	case kind.Expires():
		use = "QueryWindows"
	}
	return fmt.Errorf("stream: store %q is a %v store: use %s", store, kind, use)
}

// Get returns the latest version of a key; found is false when it has none, or was removed.
func (v *VersionView[K, V]) Get(ctx context.Context, key K, opts ...QueryOption) (version topology.Version[V], found bool, err error) {
	return v.asOf(ctx, key, math.MaxInt64, opts)
}

// GetAsOf returns the version of a key that counts at a time, to the millisecond; found is
// false when it had no value then.
func (v *VersionView[K, V]) GetAsOf(ctx context.Context, key K, at time.Time, opts ...QueryOption) (version topology.Version[V], found bool, err error) {
	return v.asOf(ctx, key, at.UnixMilli(), opts)
}

func (v *VersionView[K, V]) asOf(ctx context.Context, key K, at int64, opts []QueryOption) (version topology.Version[V], found bool, err error) {
	k, err := v.key(key, opts)
	if err != nil || at < 0 {
		return version, false, err
	}
	row, there, err := k.head(ctx, k.before(at))
	if err != nil || !there {
		return version, false, err
	}
	version, found, err = v.version(row)
	if err != nil || !found || at == math.MaxInt64 {
		return version, found, err
	}
	next, more, err := k.head(ctx, k.behind(at))
	switch {
	case err != nil:
		return topology.Version[V]{}, false, err
	case more && at < v.rows.Horizon(next.note):
		return topology.Version[V]{}, false, nil
	case more:
		version.To = next.time()
	}
	return version, true, nil
}

// Versions yields the versions of a key that count at any time from from to to, both
// included, the oldest first. An error ends it.
func (v *VersionView[K, V]) Versions(ctx context.Context, key K, from, to time.Time, opts ...QueryOption) iter.Seq2[topology.Version[V], error] {
	return func(yield func(topology.Version[V], error) bool) {
		k, err := v.key(key, opts)
		if err == nil {
			err = v.show(ctx, k, max(0, from.UnixMilli()), to.UnixMilli(), queryOptionsOf(opts).reverse, yield)
		}
		if err != nil {
			yield(topology.Version[V]{}, err)
		}
	}
}

// show yields the versions that count from first to last.
func (v *VersionView[K, V]) show(ctx context.Context, k *versionedKey, first, last int64, reverse bool, yield func(topology.Version[V], error) bool) error {
	if first > last {
		return nil
	}
	next, more, err := k.head(ctx, k.behind(last))
	if err != nil {
		return err
	}
	newest, there, err := k.head(ctx, k.before(last))
	if err != nil || !there {
		return err
	}
	switch horizon := v.rows.Horizon(newest.note); {
	case last >= horizon:
		first = max(first, horizon)
	case more: // the latest, or nothing
		return nil
	default:
		first = max(first, newest.from)
	}
	if first > last {
		return nil
	}
	if reverse {
		return v.backward(ctx, k.reader(k.before(last)), next, first, yield)
	}
	oldest, there, err := k.head(ctx, k.before(first))
	if err != nil {
		return err
	}
	if there {
		first = oldest.from
	}
	return v.forward(ctx, k.reader(k.since(first)), last, yield)
}

// backward yields versions, the newest first, until one counts at first. next is the version
// behind them, if there is one.
func (v *VersionView[K, V]) backward(ctx context.Context, rows *pageReader, next versionHead, first int64, yield func(topology.Version[V], error) bool) error {
	for {
		row, more, err := takeVersion(ctx, rows)
		if err != nil || !more {
			return err
		}
		version, found, err := v.version(row)
		if err != nil {
			return err
		}
		version.To = next.time()
		if found && !yield(version, nil) || row.from <= first {
			return nil
		}
		next = row
	}
}

// forward yields versions, the oldest first, until one counts from behind last on.
func (v *VersionView[K, V]) forward(ctx context.Context, rows *pageReader, last int64, yield func(topology.Version[V], error) bool) error {
	row, more, err := takeVersion(ctx, rows)
	for more && err == nil && row.from <= last {
		version, found, failed := v.version(row)
		if failed != nil {
			return failed
		}
		row, more, err = takeVersion(ctx, rows)
		if more {
			version.To = row.time()
		}
		if err == nil && found && !yield(version, nil) {
			return nil
		}
	}
	return err
}

func (v *VersionView[K, V]) version(head versionHead) (version topology.Version[V], found bool, err error) {
	e, found, err := v.entry(head.row)
	if err != nil || !found {
		return version, false, err
	}
	return topology.Version[V]{Value: e.Value, From: e.Timestamp}, true, nil
}

// versionedKey asks for the versions of a key, which are all in one partition.
type versionedKey struct {
	queries *queries
	request pageRequest
	raw     []byte
}

func (v *VersionView[K, V]) key(key K, opts []QueryOption) (*versionedKey, error) {
	q := v.app.queries.Load()
	if q == nil {
		return nil, ErrNotRunning
	}
	raw, err := v.rows.AppendKey([]byte{}, key)
	if err != nil {
		return nil, err
	}
	o := queryOptionsOf(opts)
	task := plan.TaskID{SubTopology: v.sub, Partition: o.partition}
	if o.partition < 0 {
		task.Partition = client.PartitionOf(raw, q.counts[v.sub])
	}
	return &versionedKey{queries: q, raw: raw, request: pageRequest{
		Task: task, Store: v.rows.Store(), LatestStart: math.MaxInt64, MaxStaleness: o.staleness, here: o.here,
	}}, nil
}

// span asks for the versions from one time to another, both included.
func (k *versionedKey) span(from, to int64, reverse bool) pageRequest {
	r := k.request
	r.From, r.To, r.Reverse = state.VersionKey(nil, k.raw, from), append(state.VersionKey(nil, k.raw, to), 0), reverse
	return r
}

// before asks for those from a time on and before it, the newest first.
func (k *versionedKey) before(at int64) pageRequest { return k.span(0, at, true) }

// since asks for those from a time on, the oldest first.
func (k *versionedKey) since(at int64) pageRequest { return k.span(at, math.MaxInt64, false) }

// behind asks for those from after a time on.
func (k *versionedKey) behind(at int64) pageRequest {
	r := k.since(at)
	r.From = append(r.From, 0)
	return r
}

func (k *versionedKey) reader(r pageRequest) *pageReader {
	r.Limit = pageRows
	return &pageReader{queries: k.queries, request: r}
}

// head returns the first row of an answer.
func (k *versionedKey) head(ctx context.Context, r pageRequest) (versionHead, bool, error) {
	r.Limit = 1
	return takeVersion(ctx, &pageReader{queries: k.queries, request: r})
}

// versionHead is the row of a version, and the store's note that came with it.
type versionHead struct {
	row  row
	from int64
	note []byte
	ok   bool
}

// time is that from which on the version counts, the zero time for none.
func (h versionHead) time() time.Time {
	if !h.ok {
		return time.Time{}
	}
	return time.UnixMilli(h.from).UTC()
}

// takeVersion returns the next row of a reader.
func takeVersion(ctx context.Context, rows *pageReader) (h versionHead, found bool, err error) {
	next, found, err := rows.head(ctx)
	if err != nil || !found {
		return h, false, err
	}
	rows.page.Rows = rows.page.Rows[1:]
	_, from, ok := state.SplitVersionKey(nil, next.Key)
	if !ok {
		return h, false, fmt.Errorf("stream: store %q answers with key %x, which is no version's", rows.request.Store, next.Key)
	}
	return versionHead{row: next, from: from, note: rows.page.Note, ok: true}, true, nil
}
