package topology

import (
	"github.com/leatlog/leat/topology/internal/graph"
	"github.com/leatlog/leat/topology/plan"
)

// Map makes a record with another key and value of each record.
func Map[K, V, K2, V2 any](s *Stream[K, V], f func(K, V) (K2, V2), opts ...StreamOption) *Stream[K2, V2] {
	return mapRecord(s, "map", f != nil, func(r *Record[K, V]) (K2, V2, error) {
		key, value := f(r.Key, r.Value)
		return key, value, nil
	}, opts)
}

// MapRecord is Map with the whole record.
func MapRecord[K, V, K2, V2 any](s *Stream[K, V], f func(*Record[K, V]) (K2, V2, error), opts ...StreamOption) *Stream[K2, V2] {
	return mapRecord(s, "map", f != nil, f, opts)
}

func mapRecord[K, V, K2, V2 any](s *Stream[K, V], kind graph.Kind, given bool, f func(*Record[K, V]) (K2, V2, error), opts []StreamOption) *Stream[K2, V2] {
	id := s.stateless(graph.Node{Kind: kind, ChangesKey: true}, given, opts, func(st stage[K, V]) sink[K, V] {
		next, out := next[K2, V2](st.i, st.node), new(Record[K2, V2])
		return func(r *Record[K, V]) error {
			if r.nullValue {
				return st.dropNullValue()
			}
			var err error
			if out.Key, out.Value, err = f(r); err != nil {
				return st.failures.handle(err, r)
			}
			out.Timestamp, out.Headers = r.Timestamp, r.Headers
			return next(out)
		}
	})
	return &Stream[K2, V2]{t: s.t, node: id}
}

// dropNullValue counts a record that has no value where one is needed.
func (st stage[K, V]) dropNullValue() error {
	st.i.ctx.Dropped(st.node.Name, plan.DropNullValue, nil)
	return nil
}

// MapValues makes another value of each record's value and keeps the key.
func MapValues[K, V, V2 any](s *Stream[K, V], f func(V) V2, opts ...StreamOption) *Stream[K, V2] {
	return mapValues(s, f != nil, func(r *Record[K, V]) (V2, error) { return f(r.Value), nil }, opts)
}

// MapValuesRecord is MapValues with the whole record.
func MapValuesRecord[K, V, V2 any](s *Stream[K, V], f func(*Record[K, V]) (V2, error), opts ...StreamOption) *Stream[K, V2] {
	return mapValues(s, f != nil, f, opts)
}

func mapValues[K, V, V2 any](s *Stream[K, V], given bool, f func(*Record[K, V]) (V2, error), opts []StreamOption) *Stream[K, V2] {
	id := s.stateless(graph.Node{Kind: "map-values"}, given, opts, func(st stage[K, V]) sink[K, V] {
		next, out := next[K, V2](st.i, st.node), new(Record[K, V2])
		null := nullRecord[K, V2]()
		return func(r *Record[K, V]) error {
			if r.nullValue {
				*out = null
				out.Key, out.nullKey = r.Key, r.nullKey
			} else {
				value, err := f(r)
				if err != nil {
					return st.failures.handle(err, r)
				}
				out.Key, out.nullKey, out.Value, out.nullValue = r.Key, r.nullKey, value, false
			}
			out.Timestamp, out.Headers = r.Timestamp, r.Headers
			return next(out)
		}
	})
	return &Stream[K, V2]{t: s.t, node: id, key: s.key}
}

// nullRecord returns a record whose value is null.
func nullRecord[K, V any]() Record[K, V] { return Record[K, V]{nullValue: !nullCheck[V]().possible()} }

// FlatMap makes any number of records of each record.
func FlatMap[K, V, K2, V2 any](s *Stream[K, V], f func(K, V) []KeyValue[K2, V2], opts ...StreamOption) *Stream[K2, V2] {
	return flatMap(s, f != nil, func(r *Record[K, V]) ([]KeyValue[K2, V2], error) { return f(r.Key, r.Value), nil }, opts)
}

// FlatMapRecord is FlatMap with the whole record.
func FlatMapRecord[K, V, K2, V2 any](s *Stream[K, V], f func(*Record[K, V]) ([]KeyValue[K2, V2], error), opts ...StreamOption) *Stream[K2, V2] {
	return flatMap(s, f != nil, f, opts)
}

func flatMap[K, V, K2, V2 any](s *Stream[K, V], given bool, f func(*Record[K, V]) ([]KeyValue[K2, V2], error), opts []StreamOption) *Stream[K2, V2] {
	id := s.stateless(graph.Node{Kind: "flat-map", ChangesKey: true}, given, opts, func(st stage[K, V]) sink[K, V] {
		next, out := next[K2, V2](st.i, st.node), new(Record[K2, V2])
		return func(r *Record[K, V]) error {
			if r.nullValue {
				return st.dropNullValue()
			}
			pairs, err := f(r)
			if err != nil {
				return st.failures.handle(err, r)
			}
			out.Timestamp, out.Headers = r.Timestamp, r.Headers
			for i := range pairs {
				out.Key, out.Value = pairs[i].Key, pairs[i].Value
				if err := next(out); err != nil {
					return err
				}
			}
			return nil
		}
	})
	return &Stream[K2, V2]{t: s.t, node: id}
}

// FlatMapValues makes any number of values of each record's value, all with its
// key.
func FlatMapValues[K, V, V2 any](s *Stream[K, V], f func(V) []V2, opts ...StreamOption) *Stream[K, V2] {
	return flatMapValues(s, f != nil, func(r *Record[K, V]) ([]V2, error) { return f(r.Value), nil }, opts)
}

// FlatMapValuesRecord is FlatMapValues with the whole record.
func FlatMapValuesRecord[K, V, V2 any](s *Stream[K, V], f func(*Record[K, V]) ([]V2, error), opts ...StreamOption) *Stream[K, V2] {
	return flatMapValues(s, f != nil, f, opts)
}

func flatMapValues[K, V, V2 any](s *Stream[K, V], given bool, f func(*Record[K, V]) ([]V2, error), opts []StreamOption) *Stream[K, V2] {
	id := s.stateless(graph.Node{Kind: "flat-map-values"}, given, opts, func(st stage[K, V]) sink[K, V] {
		next, out := next[K, V2](st.i, st.node), new(Record[K, V2])
		return func(r *Record[K, V]) error {
			if r.nullValue {
				return st.dropNullValue()
			}
			values, err := f(r)
			if err != nil {
				return st.failures.handle(err, r)
			}
			out.Key, out.nullKey, out.Timestamp, out.Headers = r.Key, r.nullKey, r.Timestamp, r.Headers
			for i := range values {
				out.Value = values[i]
				if err := next(out); err != nil {
					return err
				}
			}
			return nil
		}
	})
	return &Stream[K, V2]{t: s.t, node: id, key: s.key}
}

// SelectKey gives each record the key that f finds in its value.
func SelectKey[K, V, K2 any](s *Stream[K, V], f func(V) K2, opts ...StreamOption) *Stream[K2, V] {
	return selectKey(s, f != nil, func(r *Record[K, V]) (K2, error) { return f(r.Value), nil }, opts)
}

// SelectKeyRecord is SelectKey with the whole record.
func SelectKeyRecord[K, V, K2 any](s *Stream[K, V], f func(*Record[K, V]) (K2, error), opts ...StreamOption) *Stream[K2, V] {
	return selectKey(s, f != nil, f, opts)
}

func selectKey[K, V, K2 any](s *Stream[K, V], given bool, f func(*Record[K, V]) (K2, error), opts []StreamOption) *Stream[K2, V] {
	selected := mapRecord(s, "select-key", given, func(r *Record[K, V]) (K2, V, error) {
		key, err := f(r)
		return key, r.Value, err
	}, opts)
	selected.value = s.value
	return selected
}
