package topology

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"reflect"

	"github.com/leatlog/leat/state"
	"github.com/leatlog/leat/topology/internal/graph"
)

// JoinForeign is the table of the rows of a whose foreign key, which f finds in the row,
// is a key that b has: order by order with the customer it is of. It has a's keys, and
// changes when the row of a changes and when the row of b does. The tables may have
// different numbers of partitions.
//
// name names what it leaves in the cluster (KIP-213): a row subscribes at its foreign key
// through the topic <app>-<name>-subscriptions-repartition, is answered, now and when b's
// row changes, through <app>-<name>-responses-repartition, and the last answer is kept in
// the store of that name; a store <name>-subscriptions keeps who subscribed. Between a new
// foreign key and the answer the table still shows the old result, but has none to look up.
//
// A row whose foreign key is null joins with nothing.
func JoinForeign[K, A, FK, B, R any](name string, a *Table[K, A], b *Table[FK, B], foreignKey func(K, A) FK, f func(A, B) R, opts ...RepartitionOption) *Table[K, R] {
	return joinForeign(name, "join-foreign", a, b, foreignKey, f != nil, func(a A, b side[B]) (R, bool) {
		if !b.found {
			var none R
			return none, false
		}
		return f(a, b.value), true
	}, opts)
}

// LeftJoinForeign is JoinForeign that keeps all rows of a: found tells whether b has the
// foreign key.
func LeftJoinForeign[K, A, FK, B, R any](name string, a *Table[K, A], b *Table[FK, B], foreignKey func(K, A) FK, f func(a A, b B, found bool) R, opts ...RepartitionOption) *Table[K, R] {
	return joinForeign(name, "left-join-foreign", a, b, foreignKey, f != nil, func(a A, b side[B]) (R, bool) {
		return f(a, b.value, b.found), true
	}, opts)
}

// foreignJoin is what the engine of a foreign-key join needs to know.
type foreignJoin[K, A, FK, B, R any] struct {
	name       string
	a, b       int // the nodes of the tables
	key        Serde[K]
	foreign    Serde[FK]
	value      Serde[B]
	foreignKey func(K, A) FK
	f          func(A, side[B]) (R, bool)
	policy     ErrorPolicy
	result     int // the node of the result
}

func joinForeign[K, A, FK, B, R any](name string, kind graph.Kind, a *Table[K, A], b *Table[FK, B], foreignKey func(K, A) FK, given bool,
	f func(A, side[B]) (R, bool), opts []RepartitionOption) *Table[K, R] {
	t := a.t
	var o options
	for _, opt := range opts {
		opt.ofRepartition(&o)
	}
	if !given || foreignKey == nil {
		t.mistake(name, "a function of this %s is nil", kind)
	}
	if o.partitions != 0 {
		t.mistake(name, "Partitions is %d, but the topics of a %s must have as many as those of the tables: leave it out", o.partitions, kind)
	}
	switch {
	case a.key == nil:
		t.mistake(name, "there is no serde for the keys of the first table, of type %s: call WithKeySerde on the stream that it is made of", reflect.TypeFor[K]())
	case b.key == nil:
		t.mistake(name, "there is no serde for the keys of the second table, of type %s: call WithKeySerde on the stream that it is made of", reflect.TypeFor[FK]())
	case b.value == nil:
		t.mistake(name, "there is no serde for the values of the second table, of type %s: call WithValueSerde on it", reflect.TypeFor[B]())
	}
	policy := t.policyOf(o)
	spec := &foreignJoin[K, A, FK, B, R]{name: name, a: a.node, b: b.node, key: a.key, foreign: b.key, value: b.value,
		foreignKey: foreignKey, f: f, policy: policy}
	rows := graph.Node{Name: name, Kind: kind, Durable: true, ByKey: true, Inputs: []int{a.node}, DeadLetter: policy.deadLetter,
		Store: &state.Spec{Name: name}}
	subscribers := graph.Node{Name: t.defaultName(name + ".subscribers"), Kind: "subscribers", ByKey: true, Store: &state.Spec{Name: name + "-subscriptions"}}
	var responses Serde[response[B]]
	if a.key != nil && b.key != nil && b.value != nil {
		responses = responseSerde[B]{b.value}
		rows.Store.KeyFormat, rows.Store.ValueFormat = a.key.Name(), foreignRowSerde[B]{b.value}.Name()
		subscribers.Store.KeyFormat, subscribers.Store.ValueFormat = "foreign-key("+b.key.Name()+","+a.key.Name()+")", "none"
	}
	requests := graph.Node{Name: name + "-subscriptions", Kind: graph.GroupBy, Durable: true, ChangesKey: true, DeadLetter: policy.deadLetter}
	answers := graph.Node{Name: name + "-responses", Kind: graph.GroupBy, Durable: true, ChangesKey: true, DeadLetter: policy.deadLetter}
	if o.formerly != nil {
		t.formerly(&rows, *o.formerly)
		for _, n := range []*graph.Node{&subscribers, &requests} {
			t.formerly(n, *o.formerly+"-subscriptions")
		}
		t.formerly(&answers, *o.formerly+"-responses")
	}
	left := t.add(rows, code{compile: spec.compileRows})
	requests.Inputs = []int{left}
	subscribed := t.add(requests,
		code{compile: func(i *instance, n *graph.Node) any { return next[FK, subscription](i, n) },
			ends: ends[FK, subscription]{key: b.key, value: subscriptionSerde{}, policy: policy}})
	subscribers.Inputs = []int{subscribed}
	if b.t == t {
		subscribers.Inputs = append(subscribers.Inputs, b.node)
	}
	right := t.add(subscribers, code{compile: spec.compileSubscribers})
	answers.Inputs = []int{right}
	answered := t.add(answers,
		code{compile: func(i *instance, n *graph.Node) any { return next[K, response[B]](i, n) },
			ends: ends[K, response[B]]{key: a.key, value: responses, policy: policy}})
	spec.result = t.add(graph.Node{Name: t.defaultName(name + ".result"), Kind: "join-foreign-result", ByKey: true,
		Inputs: []int{answered, a.node, left}, Lookups: 2}, code{compile: spec.compileResult})
	a.mustBeJoinable(t, name)
	b.mustBeJoinable(t, name)
	return &Table[K, R]{t: t, node: spec.result, key: a.key}
}

// foreignResult is the result, on the task of the rows.
type foreignResult[K, A, FK, B, R any] struct {
	*foreignJoin[K, A, FK, B, R]
	i    *instance
	rows *keyedAggregation[K, K, *foreignRow[B]] // compiled after this
	emit func(key K, timestamp int64, result R, found, removed bool) error
	null nulls[FK]
	raw  []byte
}

func (spec *foreignJoin[K, A, FK, B, R]) compileResult(i *instance, n *graph.Node) any {
	result := &foreignResult[K, A, FK, B, R]{foreignJoin: spec, i: i, emit: emitTo[K, R](i, n), null: nullCheck[FK]()}
	i.tables[n.ID] = result
	failures := newFailures[K, response[B]](i, n, spec.policy, spec.key, nil)
	return sink[K, response[B]](func(r *Record[K, response[B]]) error {
		// First, because it may flush the table, and so change the row's entry.
		a, err := lookUp[K, A](i, spec.a, r.Key)
		if err != nil {
			return broken(i, spec.name, err)
		}
		e, failure, err := result.rows.entry(r.Key)
		switch {
		case failure != nil:
			return failures.handle(failure, nil)
		case err != nil:
			return err
		case e.value == nil || !bytes.Equal(e.value.foreignKey, r.Value.foreignKey):
			return nil // the row has another foreign key by now
		}
		row := *e.value
		row.pending, row.found, row.value = false, r.Value.found, r.Value.value
		is, failure := result.isOf(r.Key, a, &row)
		if failure != nil || !is { // the change of the row is still to come
			result.rows.cache.set(e, &row, r.Timestamp)
			return nil
		}
		return result.show(e, a.value, row, r.Timestamp)
	})
}

// show emits the result of a row, or that it has none any more.
func (result *foreignResult[K, A, FK, B, R]) show(e *entry[K, *foreignRow[B]], a A, row foreignRow[B], timestamp int64) error {
	value, found := result.f(a, side[B]{row.value, row.found})
	removed := row.shown && !found
	row.shown = found
	result.rows.cache.set(e, &row, timestamp)
	return result.emit(e.key, timestamp, value, found, removed)
}

// isOf tells whether a row of the table has the foreign key that is noted for it.
func (result *foreignResult[K, A, FK, B, R]) isOf(key K, a side[A], row *foreignRow[B]) (bool, error) {
	if !a.found {
		return false, nil
	}
	raw, err := result.rawForeignKey(key, a.value)
	return err == nil && (raw == nil) == (row.foreignKey == nil) && bytes.Equal(raw, row.foreignKey), err
}

// rawForeignKey returns the bytes of a row's foreign key, valid until the next call, nil
// when it has none.
func (result *foreignResult[K, A, FK, B, R]) rawForeignKey(key K, a A) ([]byte, error) {
	foreign := result.foreignKey(key, a)
	if result.null.isNull(foreign) {
		return nil, nil
	}
	raw, err := result.foreign.Append(append(result.raw[:0], 0)[:0], foreign)
	if err != nil {
		return nil, fmt.Errorf("foreign key: %w", err)
	}
	result.raw = raw
	return notNil(raw), nil
}

// lookup implements lookup.
func (result *foreignResult[K, A, FK, B, R]) lookup(key K) (value R, found bool, failure, err error) {
	a, err := lookUp[K, A](result.i, result.a, key) // first, as above
	if err != nil {
		return value, false, nil, err
	}
	e, failure, err := result.rows.entry(key)
	if failure != nil || err != nil || e.value == nil || e.value.pending {
		return value, false, failure, err
	}
	if is, failure := result.isOf(key, a, e.value); failure != nil || !is {
		return value, false, failure, nil
	}
	value, found = result.f(a.value, side[B]{e.value.value, e.value.found})
	return value, found, nil, nil
}

// compileRows runs the changes of the first table.
func (spec *foreignJoin[K, A, FK, B, R]) compileRows(i *instance, n *graph.Node) any {
	subscribe := next[FK, subscription](i, n)
	result := i.tables[spec.result].(*foreignResult[K, A, FK, B, R])
	result.rows = newKeyedAggregation[K, K, *foreignRow[B]](i, n, spec.key, foreignRowSerde[B]{spec.value},
		func(key K, _ Window) K { return key }, func(*Record[K, *foreignRow[B]]) error { return nil })
	failures := newFailures(i, n, spec.policy, spec.key, Serde[A](nil))
	null := nullCheck[A]()
	out := new(Record[FK, subscription])
	tell := func(raw []byte, e *entry[K, *foreignRow[B]], subscribed bool, timestamp int64) error {
		foreign, err := spec.foreign.Decode(raw)
		if err != nil {
			return broken(i, n.Name, err)
		}
		*out = Record[FK, subscription]{Key: foreign, Value: subscription{[]byte(e.raw), subscribed}, Timestamp: timestamp}
		return subscribe(out)
	}
	return sink[K, A](func(r *Record[K, A]) error {
		e, failure, err := result.rows.entry(r.Key)
		switch {
		case failure != nil:
			return failures.handle(failure, r)
		case err != nil:
			return err
		}
		var before foreignRow[B]
		if e.value != nil {
			before = *e.value
		}
		removed := r.nullValue || null.isNull(r.Value)
		var raw []byte
		if !removed {
			if raw, err = result.rawForeignKey(r.Key, r.Value); err != nil {
				return failures.handle(err, r)
			}
		}
		if e.value != nil && !removed && raw != nil && bytes.Equal(raw, before.foreignKey) {
			if before.pending {
				return nil // the answer is on its way
			}
			return result.show(e, r.Value, before, r.Timestamp)
		}
		if before.foreignKey != nil {
			if err := tell(before.foreignKey, e, false, r.Timestamp); err != nil {
				return err
			}
		}
		var none R
		switch {
		case removed:
			result.rows.cache.remove(e, r.Timestamp)
			err = result.emit(r.Key, r.Timestamp, none, false, before.shown)
		case raw == nil:
			err = result.show(e, r.Value, foreignRow[B]{shown: before.shown}, r.Timestamp)
		default:
			row := &foreignRow[B]{foreignKey: bytes.Clone(raw), pending: true, shown: before.shown}
			result.rows.cache.set(e, row, r.Timestamp)
			err = tell(row.foreignKey, e, true, r.Timestamp)
		}
		if err == nil && result.rows.cache.full() {
			err = result.rows.relieve()
		}
		return err
	})
}

// compileSubscribers runs the task of the second table: subscriptions, and its changes.
func (spec *foreignJoin[K, A, FK, B, R]) compileSubscribers(i *instance, n *graph.Node) any {
	next, out := next[K, response[B]](i, n), new(Record[K, response[B]])
	store, null := i.ctx.Store(n.Store.Name), nullCheck[B]()
	foreignFailures := newFailures(i, n, spec.policy, spec.foreign, Serde[subscription](subscriptionSerde{}))
	failures := newFailures(i, n, spec.policy, spec.foreign, spec.value)
	var prefix []byte
	begin := func(key FK) (err error) {
		if prefix, err = spec.foreign.Append(append(prefix[:0], 0, 0, 0, 0), key); err == nil {
			binary.BigEndian.PutUint32(prefix, uint32(len(prefix)-4))
		}
		return err
	}
	answer := func(row []byte, b side[B], timestamp int64) error {
		key, err := spec.key.Decode(row)
		if err != nil {
			return broken(i, n.Name, err)
		}
		foreign := prefix[4 : 4+binary.BigEndian.Uint32(prefix)]
		*out = Record[K, response[B]]{Key: key, Value: response[B]{foreign, b.value, b.found}, Timestamp: timestamp}
		return next(out)
	}
	return ports{
		sink[FK, subscription](func(r *Record[FK, subscription]) error {
			// First, because it may flush the table, and so answer others.
			b, err := lookUp[FK, B](i, spec.b, r.Key)
			if err != nil {
				return broken(i, n.Name, err)
			}
			if err := begin(r.Key); err != nil {
				return foreignFailures.handle(err, r)
			}
			key := append(prefix, r.Value.row...)
			prefix = key[:len(prefix):cap(key)] // which may have been too short
			if !r.Value.subscribed {
				return broken(i, n.Name, store.Delete(key, r.Timestamp))
			}
			if err := store.Put(key, subscribedValue, r.Timestamp); err != nil {
				return broken(i, n.Name, err)
			}
			return answer(r.Value.row, b, r.Timestamp)
		}),
		sink[FK, B](func(r *Record[FK, B]) error {
			if err := begin(r.Key); err != nil {
				return failures.handle(err, r)
			}
			var failed error
			b := side[B]{r.Value, !r.nullValue && !null.isNull(r.Value)}
			err := store.Scan(prefix, prefixEnd(prefix), false, func(key, _ []byte) bool {
				failed = answer(key[len(prefix):], b, r.Timestamp)
				return failed == nil
			})
			if failed != nil {
				return failed
			}
			return broken(i, n.Name, err)
		}),
	}
}

// subscribedValue is what the store of subscriptions has for each.
var subscribedValue = []byte{1}

// prefixEnd returns the first key behind those with a prefix, which is not all 0xff: it
// begins with a length.
func prefixEnd(prefix []byte) []byte {
	end := bytes.Clone(prefix)
	for n := len(end) - 1; n >= 0; n-- {
		if end[n]++; end[n] != 0 {
			return end[:n+1]
		}
	}
	return nil
}
