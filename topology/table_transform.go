package topology

import "github.com/leatlog/leat/topology/internal/graph"

// Filter is the table of the keys whose values f accepts. A key whose value it does not
// accept any more is removed. What is made of a versioned table is versioned.
func (table *Table[K, V]) Filter(f func(K, V) bool, opts ...StreamOption) *Table[K, V] {
	filtered := transformTable(table, "filter-table", f != nil, func(key K, v V) (V, bool, error) { return v, f(key, v), nil }, opts)
	filtered.value = table.value
	return filtered
}

// MapTable is the table with other values: f runs for each update, and again when the
// result is looked up. What is made of a versioned table is versioned.
func MapTable[K, V, R any](table *Table[K, V], f func(K, V) R, opts ...StreamOption) *Table[K, R] {
	return transformTable(table, "map-table", f != nil, func(key K, v V) (R, bool, error) { return f(key, v), true, nil }, opts)
}

func transformTable[K, V, R any](table *Table[K, V], kind graph.Kind, given bool, f func(K, V) (R, bool, error), opts []StreamOption) *Table[K, R] {
	n, policy := tableNode(table, kind, given, opts)
	id := table.t.add(n, code{compile: func(i *instance, n *graph.Node) any {
		i.tables[n.ID] = &transformedTable[K, V, R]{i: i, of: table.node, f: f}
		emit, null := emitTo[K, R](i, n), nullCheck[V]()
		failures := newFailures(i, n, policy, table.key, table.value)
		return sink[K, V](func(r *Record[K, V]) error {
			var result R
			found := !r.nullValue && !null.isNull(r.Value)
			if found {
				var err error
				if result, found, err = f(r.Key, r.Value); err != nil {
					return failures.handle(err, r)
				}
			}
			return emit(r.Key, r.Timestamp, result, found, true)
		})
	}})
	return &Table[K, R]{t: table.t, node: id, key: table.key, windowed: table.windowed, closesAt: table.closesAt, suppressed: table.suppressed,
		versioned: table.versioned, computed: mappedRows(table, f)}
}

// transformedTable looks up what is made of a table.
type transformedTable[K, V, R any] struct {
	i  *instance
	of int
	f  func(K, V) (R, bool, error)
}

func (m *transformedTable[K, V, R]) lookup(key K) (result R, found bool, failure, err error) {
	of, err := lookUp[K, V](m.i, m.of, key)
	if err != nil || !of.found {
		return result, false, nil, err
	}
	result, found, failure = m.f(key, of.value)
	return result, found, failure, nil
}

// lookupAsOf implements asOfLookup; it is called if the table in front has it.
func (m *transformedTable[K, V, R]) lookupAsOf(key K, at int64) (result R, found bool, failure, err error) {
	of, found, failure, err := m.i.tables[m.of].(asOfLookup[K, V]).lookupAsOf(key, at)
	if failure != nil || err != nil || !found {
		return result, false, failure, err
	}
	result, found, failure = m.f(key, of)
	return result, found, failure, nil
}

// WithValueSerde says how values are written when they must pass an internal topic or a
// store. It is needed for tables that are computed, such as those of MapTable.
func (table *Table[K, V]) WithValueSerde(value Serde[V]) *Table[K, V] {
	with := *table
	with.value = value
	return &with
}
