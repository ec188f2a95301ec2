package topology

import (
	"fmt"
	"time"

	"github.com/leatlog/leat/topology/internal/graph"
	"github.com/leatlog/leat/topology/plan"
)

// topicEnds are the typed ends of a topic: where a sub-topology reads or writes
// it.
type topicEnds interface {
	// read returns the function that runs records of the task's source index.
	read(i *instance, n *graph.Node, index int) func([]plan.Record) error
	// write returns the sink, a sink[K, V], that writes to the node's topic.
	write(i *instance, n *graph.Node) any
	// formats are the names of the serdes.
	formats() (key, value string)
}

// ends implements topicEnds for a topic of K and V.
type ends[K, V any] struct {
	key       Serde[K]
	value     Serde[V]
	eventTime func(V) time.Time
	policy    ErrorPolicy
}

func (e ends[K, V]) formats() (key, value string) {
	if e.key != nil {
		key = e.key.Name()
	}
	if e.value != nil {
		value = e.value.Name()
	}
	return key, value
}

func (e ends[K, V]) read(i *instance, n *graph.Node, index int) func([]plan.Record) error {
	next := next[K, V](i, n)
	failures := newFailures(i, n, e.policy, e.key, e.value)
	failures.lags = false // a record of a topic is what runs
	decode := e.decoder()
	r := new(Record[K, V])
	return func(records []plan.Record) error {
		i.source = index
		for j := range records {
			i.record = &records[j]
			if err := decode(&records[j], r); err != nil {
				if err := failures.handle(err, nil); err != nil {
					return err
				}
				continue
			}
			i.ctx.Advance(index, r.Timestamp)
			if err := next(r); err != nil {
				return err
			}
		}
		i.record = nil
		return nil
	}
}

// decoder returns the function that fills a typed record.
func (e ends[K, V]) decoder() func(*plan.Record, *Record[K, V]) error {
	nullKey, nullValue := nullCheck[K](), nullCheck[V]()
	return func(in *plan.Record, r *Record[K, V]) error {
		var err error
		*r = Record[K, V]{Timestamp: in.Timestamp, Headers: in.Headers}
		if in.Key == nil {
			r.nullKey = !nullKey.possible()
		} else if r.Key, err = e.key.Decode(in.Key); err != nil {
			return fmt.Errorf("key: %w", err)
		}
		if in.Value == nil {
			r.nullValue = !nullValue.possible()
		} else if r.Value, err = e.value.Decode(in.Value); err != nil {
			return fmt.Errorf("value: %w", err)
		} else if e.eventTime != nil {
			r.Timestamp = e.eventTime(r.Value).UnixMilli()
		}
		if r.Timestamp < 0 {
			return fmt.Errorf("event time %d ms is before 1970: the record has none, or EventTime found a wrong one", r.Timestamp)
		}
		return nil
	}
}

func (e ends[K, V]) write(i *instance, n *graph.Node) any {
	ctx, to := i.ctx, i.sinks[n.ID]
	failures := newFailures(i, n, e.policy, e.key, e.value)
	nullKey, nullValue := nullCheck[K](), nullCheck[V]()
	key, value := make([]byte, 0, 64), make([]byte, 0, 256)
	out := new(plan.Record)
	return sink[K, V](func(r *Record[K, V]) error {
		var err error
		*out = plan.Record{Timestamp: r.Timestamp, Headers: r.Headers}
		if !r.nullKey && !nullKey.isNull(r.Key) {
			if key, err = e.key.Append(key[:0], r.Key); err != nil {
				return failures.handle(fmt.Errorf("key: %w", err), r)
			}
			out.Key = notNil(key)
		}
		if !r.nullValue && !nullValue.isNull(r.Value) {
			if value, err = e.value.Append(value[:0], r.Value); err != nil {
				return failures.handle(fmt.Errorf("value: %w", err), r)
			}
			out.Value = notNil(value)
		}
		return ctx.Emit(to, out)
	})
}

// notNil keeps an empty encoding from being taken for null.
func notNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}
