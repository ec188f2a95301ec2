package topology

import (
	"fmt"

	"github.com/leatlog/leat/topology/internal/graph"
	"github.com/leatlog/leat/topology/plan"
)

// keyedAggregation runs an aggregation by key.
type keyedAggregation[R, K, A any] struct {
	i      *instance
	name   string
	key    Serde[K]
	raw    []byte
	cache  cache[K, A]
	page   *page[K, A]
	next   sink[R, A]
	result func(K, Window) R
	out    Record[R, A]
	// flushing says that dirty entries are being written and emitted. Who gets them may
	// look this table up, which must not flush it once more.
	flushing bool
}

func (spec aggregation[R, K, V, A]) keyed(i *instance, n *graph.Node) any {
	a := spec.table(i, n)
	failures := newFailures(i, n, spec.policy, spec.key, spec.input)
	return sink[K, V](func(r *Record[K, V]) error {
		e, failure, err := a.entry(r.Key)
		switch {
		case failure != nil:
			return failures.handle(failure, r)
		case err != nil:
			return err
		}
		value, err := spec.step(e.value, e.present, r)
		switch {
		case err == errUnchanged:
			return nil
		case err != nil:
			return failures.handle(err, r)
		}
		a.cache.set(e, value, r.Timestamp)
		if a.cache.full() {
			return a.relieve()
		}
		return nil
	})
}

// table makes what keeps the aggregates.
func (spec aggregation[R, K, V, A]) table(i *instance, n *graph.Node) *keyedAggregation[R, K, A] {
	a := newKeyedAggregation(i, n, spec.key, spec.value, spec.result, next[R, A](i, n))
	i.tables[n.ID] = a
	return a
}

// newKeyedAggregation makes a cache over the store of a node, which hands what it flushes
// to next.
func newKeyedAggregation[R, K, A any](i *instance, n *graph.Node, key Serde[K], value Serde[A], result func(K, Window) R, next sink[R, A]) *keyedAggregation[R, K, A] {
	a := makeKeyedAggregation(i, n, key, value, result, next)
	i.stateful = append(i.stateful, a)
	return a
}

// makeKeyedAggregation is newKeyedAggregation for one that is a part of what has the store.
func makeKeyedAggregation[R, K, A any](i *instance, n *graph.Node, key Serde[K], value Serde[A], result func(K, Window) R, next sink[R, A]) *keyedAggregation[R, K, A] {
	a := &keyedAggregation[R, K, A]{i: i, name: n.Name, key: key, next: next, result: result}
	a.cache = newCache[K, A](i.ctx, n.Store.Name, len(i.part.Stores), value,
		func(dst []byte, _ int64, raw string) []byte { return append(dst, raw...) })
	a.page = newPage[K, A](0, false)
	return a
}

// entry returns a key's entry; failure says that the key cannot be written.
func (a *keyedAggregation[R, K, A]) entry(key K) (e *entry[K, A], failure, err error) {
	if a.raw, failure = a.key.Append(a.raw[:0], key); failure != nil {
		return nil, fmt.Errorf("key: %w", failure), nil
	}
	e, err = a.cache.find(a.page, a.raw, key)
	return e, nil, a.broken(err)
}

// lookup implements lookup: what the table has now for a key, flushed or not.
func (a *keyedAggregation[R, K, A]) lookup(key K) (value A, found bool, failure, err error) {
	e, failure, err := a.look(key)
	if failure != nil || err != nil {
		return value, false, failure, err
	}
	return e.value, e.present, nil, nil
}

// look returns the entry of a key that is only looked up: those weigh, too.
func (a *keyedAggregation[R, K, A]) look(key K) (e *entry[K, A], failure, err error) {
	if a.cache.full() && !a.flushing {
		if err := a.relieve(); err != nil {
			return nil, nil, err
		}
	}
	return a.entry(key)
}

// open finds out whether the store is empty: then what the cache does not have is
// new, and needs no look at the store.
func (a *keyedAggregation[R, K, A]) open() error {
	a.page.complete = true
	err := a.cache.store.Scan(nil, nil, false, func(_, _ []byte) bool {
		a.page.complete = false
		return false
	})
	return a.broken(err)
}

// broken names the operator in an error that no policy covers: its store failed,
// or holds, or would hold, what its serde does not know.
func (a *keyedAggregation[R, K, A]) broken(err error) error { return broken(a.i, a.name, err) }

func broken(i *instance, operator string, err error) error {
	if err == nil {
		return nil
	}
	return &plan.OperatorError{Operator: operator, Partition: i.ctx.Task().Partition, Offset: -1, Err: err}
}

func (a *keyedAggregation[R, K, A]) punctuate() error { return nil }

func (a *keyedAggregation[R, K, A]) flush() error {
	a.flushing = true
	defer func() { a.flushing = false }()
	for _, e := range a.cache.dirty {
		written, err := a.cache.write(e)
		if err != nil {
			return a.broken(err)
		}
		if !written {
			continue
		}
		a.out = Record[R, A]{Key: a.result(e.key, Window{}), Timestamp: e.timestamp}
		if e.present {
			a.out.Value = e.value
		} else {
			a.out.nullValue = !a.cache.null.possible()
		}
		if err := a.next(&a.out); err != nil {
			return err
		}
	}
	clear(a.cache.dirty)
	a.cache.dirty = a.cache.dirty[:0]
	return nil
}

// relieve makes room in a full cache: it flushes early, and forgets.
func (a *keyedAggregation[R, K, A]) relieve() error {
	if err := a.flush(); err != nil {
		return err
	}
	target := a.cache.limit / 4 * 3
	for range 2 {
		if a.cache.bytes > target {
			a.cache.forget(a.page, target)
		}
	}
	return nil
}
