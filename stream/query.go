package stream

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"time"

	"github.com/leatlog/leat/state"
	"github.com/leatlog/leat/stream/client"
	"github.com/leatlog/leat/topology"
	"github.com/leatlog/leat/topology/plan"
)

// Errors of interactive queries that callers branch on. All but ErrNoStore and
// ErrNotRunning may go away by themselves: ask again.
var (
	// ErrNotRunning says that the App does not run: Run was not called, has not
	// connected yet, or has ended.
	ErrNotRunning = errors.New("stream: the app does not run")
	// ErrNoStore says that the App's plan has no such store.
	ErrNoStore = errors.New("stream: the app has no such store")
	// ErrNotOwner says that the task which has the key runs elsewhere and cannot be asked
	// there, or nowhere while it moves. It comes as a *NotOwnerError.
	ErrNotOwner = errors.New("stream: the task does not run in this process")
	// ErrRestoring says that the task is this process's and its stores are not restored
	// yet.
	ErrRestoring = errors.New("stream: the store is being restored")
	// ErrStale says that what the store has is older than MaxStaleness allows.
	ErrStale = errors.New("stream: the store is too far behind its input")
)

// NotOwnerError is an ErrNotOwner that says who is.
type NotOwnerError struct {
	Task plan.TaskID
	// Address is where the owner listens for queries; "" when it does not, or when the
	// task has no owner at the moment.
	Address string
}

// Error implements error.
func (e *NotOwnerError) Error() string {
	if e.Address == "" {
		return fmt.Sprintf("%v: task %s moves, or its owner has no Config.QueryListen", ErrNotOwner, e.Task)
	}
	return fmt.Sprintf("%v: task %s runs at %s", ErrNotOwner, e.Task, e.Address)
}

// Is makes it an ErrNotOwner.
func (e *NotOwnerError) Is(target error) bool { return target == ErrNotOwner }

// Entry is a row of a store.
type Entry[K, V any] struct {
	Key   K
	Value V
	// Timestamp is the event time of the result.
	Timestamp time.Time
}

// QueryOption is an option of a query: MaxStaleness, InPartition, Reverse, Here.
type QueryOption func(*queryOptions)

type queryOptions struct {
	staleness time.Duration // 0: any
	partition int32         // -1: where the key belongs, or all
	reverse   bool
	here      bool
}

// MaxStaleness refuses answers that lack what was in the task's input longer ago than d,
// with ErrStale. Input is what the task itself reads: behind a repartition topic, that
// topic. A task learns where its input ends with every fetch, which may take half a second
// when there is nothing to read: smaller bounds refuse what is as fresh as can be. Without
// the option any committed state is an answer.
func MaxStaleness(d time.Duration) QueryOption {
	return func(o *queryOptions) { o.staleness = max(d, time.Nanosecond) }
}

// InPartition asks one partition alone. Without it Get asks the one where Kafka's clients
// put the key, which is wrong for input whose producers use another partitioner, and
// ranges ask all.
func InPartition(p int32) QueryOption { return func(o *queryOptions) { o.partition = p } }

// Reverse has ranges come in the reverse order.
func Reverse() QueryOption { return func(o *queryOptions) { o.reverse = true } }

// Here asks this process alone: what others have is an ErrNotOwner.
func Here() QueryOption { return func(o *queryOptions) { o.here = true } }

func queryOptionsOf(opts []QueryOption) queryOptions {
	o := queryOptions{partition: -1}
	for _, opt := range opts {
		opt(&o)
	}
	return o
}

// View reads a key-value store of a running App, over all of its partitions: those of
// other processes through their Config.QueryListen. Answers are committed state: what a
// reader of committed records of the changelog sees. Ranges are read in pages, each of one
// moment. Safe for concurrent use; it stays valid over rebalances, during which queries may
// fail with ErrNotOwner, ErrRestoring or ErrUnreachable for a while.
type View[K, V any] struct{ storeView[K, V] }

// Query returns a view of the store of a table, or of a processor:
//
//	counts, err := stream.Query(app, table)
//	...
//	n, found, err := counts.Get(ctx, "key", stream.MaxStaleness(5*time.Second))
//
// The table must be of the topology that the App runs. For tables whose keys are windows
// there is QueryWindows, for versioned ones QueryVersions.
func Query[K, V any](app *App, of topology.Queryable[K, V]) (*View[K, V], error) {
	v, err := newStoreView(app, of)
	if err == nil && v.rows.Kind() != state.KeyValue {
		err = wrongQuery(v.rows.Store(), v.rows.Kind())
	}
	if err != nil {
		return nil, err
	}
	return &View[K, V]{*v}, nil
}

// Get returns what the store has for a key.
func (v *View[K, V]) Get(ctx context.Context, key K, opts ...QueryOption) (value V, found bool, err error) {
	e, found, err := v.get(ctx, key, queryOptionsOf(opts))
	return e.Value, found, err
}

// Range yields the rows with from <= key < to, in the order of the keys' bytes, over all
// partitions. An error ends it.
func (v *View[K, V]) Range(ctx context.Context, from, to K, opts ...QueryOption) iter.Seq2[Entry[K, V], error] {
	return func(yield func(Entry[K, V], error) bool) {
		low, err := v.rows.AppendKey([]byte{}, from)
		if err != nil {
			yield(Entry[K, V]{}, err)
			return
		}
		high, err := v.rows.AppendKey([]byte{}, to)
		if err != nil {
			yield(Entry[K, V]{}, err)
			return
		}
		v.scan(ctx, pageRequest{From: low, To: high}, queryOptionsOf(opts), yield)
	}
}

// All yields every row, in the order of the keys' bytes, over all partitions. An error
// ends it.
func (v *View[K, V]) All(ctx context.Context, opts ...QueryOption) iter.Seq2[Entry[K, V], error] {
	return func(yield func(Entry[K, V], error) bool) {
		v.scan(ctx, pageRequest{}, queryOptionsOf(opts), yield)
	}
}

// WindowView is a View of a store whose keys are windows or sessions.
type WindowView[K, V any] struct {
	storeView[topology.WindowedKey[K], V]
}

// QueryWindows returns a view of the store of a windowed aggregation. It has windows as
// long as they are retained, closed ones and, with OnWindowClose, open ones, too.
func QueryWindows[K, V any](app *App, of topology.Queryable[topology.WindowedKey[K], V]) (*WindowView[K, V], error) {
	v, err := newStoreView(app, of)
	if err == nil && !v.rows.Kind().Expires() {
		err = wrongQuery(v.rows.Store(), v.rows.Kind())
	}
	if err != nil {
		return nil, err
	}
	return &WindowView[K, V]{*v}, nil
}

// Get returns the result of one window of a key.
func (v *WindowView[K, V]) Get(ctx context.Context, key topology.WindowedKey[K], opts ...QueryOption) (value V, found bool, err error) {
	e, found, err := v.get(ctx, key, queryOptionsOf(opts))
	return e.Value, found, err
}

// Fetch yields the windows of a key that begin from from to to, both included, in the
// order of their start; for sessions, those that overlap this time, in the order of their
// end. An error ends it.
func (v *WindowView[K, V]) Fetch(ctx context.Context, key K, from, to time.Time, opts ...QueryOption) iter.Seq2[Entry[topology.WindowedKey[K], V], error] {
	return func(yield func(Entry[topology.WindowedKey[K], V], error) bool) {
		window := topology.Window{Start: 0, End: v.rows.WindowSize()}
		stored, err := v.rows.AppendKey(nil, topology.WindowedKey[K]{Key: key, Window: window})
		if err != nil {
			yield(Entry[topology.WindowedKey[K], V]{}, err)
			return
		}
		req := v.span(from, to)
		req.Key, req.OneKey = keyPart(v.rows.Kind(), stored), true
		v.scan(ctx, req, queryOptionsOf(opts), yield)
	}
}

// FetchAll is Fetch of every key. The order is that of time, then of the keys' bytes.
func (v *WindowView[K, V]) FetchAll(ctx context.Context, from, to time.Time, opts ...QueryOption) iter.Seq2[Entry[topology.WindowedKey[K], V], error] {
	return func(yield func(Entry[topology.WindowedKey[K], V], error) bool) {
		v.scan(ctx, v.span(from, to), queryOptionsOf(opts), yield)
	}
}

// span is the range of a store that has the windows of a time.
func (v *WindowView[K, V]) span(from, to time.Time) pageRequest {
	first, last := max(0, from.UnixMilli()), to.UnixMilli()
	req := pageRequest{From: state.WindowKey(nil, first, nil), LatestStart: last}
	switch {
	case last < 0:
		req.To = req.From
	case v.rows.Kind() == state.Window:
		req.To = state.WindowKey(nil, last+1, nil)
	}
	return req // of sessions, ends lead: those that begin too late are left out one by one
}

// storeView is what views have in common.
type storeView[K, V any] struct {
	app  *App
	rows topology.Rows[K, V]
	sub  int
}

func newStoreView[K, V any](app *App, of topology.Queryable[K, V]) (*storeView[K, V], error) {
	rows, err := of.Rows()
	if err != nil {
		return nil, err
	}
	for i := range app.plan.SubTopologies {
		for _, spec := range app.plan.SubTopologies[i].Stores {
			if spec.Name == rows.Store() && spec.Kind == rows.Kind() {
				return &storeView[K, V]{app: app, rows: rows, sub: i}, nil
			}
		}
	}
	return nil, fmt.Errorf("%w: %q: query a table of the topology that the app runs", ErrNoStore, rows.Store())
}

func (v *storeView[K, V]) get(ctx context.Context, key K, o queryOptions) (e Entry[K, V], found bool, err error) {
	q := v.app.queries.Load()
	if q == nil {
		return e, false, ErrNotRunning
	}
	stored, err := v.rows.AppendKey([]byte{}, key)
	if err != nil {
		return e, false, err
	}
	task := plan.TaskID{SubTopology: v.sub, Partition: o.partition}
	if o.partition < 0 {
		task.Partition = client.PartitionOf(keyPart(v.rows.Kind(), stored), q.counts[v.sub])
	}
	page, err := q.page(ctx, pageRequest{
		Task: task, Store: v.rows.Store(), From: stored, To: append(stored[:len(stored):len(stored)], 0), Limit: 1,
		LatestStart: math.MaxInt64, MaxStaleness: o.staleness, here: o.here,
	})
	if err != nil || len(page.Rows) == 0 {
		return e, false, err
	}
	return v.entry(page.Rows[0])
}

func (v *storeView[K, V]) entry(r row) (e Entry[K, V], found bool, err error) {
	var timestamp int64
	e.Key, e.Value, timestamp, found, err = v.rows.Decode(r.Key, r.Value)
	e.Timestamp = time.UnixMilli(timestamp).UTC()
	return e, found, err
}

// scan yields the rows of all partitions, or of one, in order.
func (v *storeView[K, V]) scan(ctx context.Context, req pageRequest, o queryOptions, yield func(Entry[K, V], error) bool) {
	fail := func(err error) { yield(Entry[K, V]{}, err) }
	q := v.app.queries.Load()
	if q == nil {
		fail(ErrNotRunning)
		return
	}
	req.Store, req.Reverse, req.MaxStaleness, req.here, req.Limit = v.rows.Store(), o.reverse, o.staleness, o.here, pageRows
	var partitions []int32
	switch {
	case o.partition >= 0:
		partitions = []int32{o.partition}
	case req.OneKey:
		partitions = []int32{client.PartitionOf(req.Key, q.counts[v.sub])}
	default:
		for p := range q.counts[v.sub] {
			partitions = append(partitions, p)
		}
	}
	m := rowMerger{reverse: o.reverse}
	for _, p := range partitions {
		r := req
		r.Task = plan.TaskID{SubTopology: v.sub, Partition: p}
		m.readers = append(m.readers, &pageReader{queries: q, request: r})
	}
	for {
		r, more, err := m.next(ctx)
		switch {
		case err != nil:
			fail(err)
			return
		case !more:
			return
		}
		e, found, err := v.entry(r)
		if err != nil {
			fail(err)
			return
		}
		if found && !yield(e, nil) {
			return
		}
	}
}
