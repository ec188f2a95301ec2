package topology

import (
	"fmt"
	"time"

	"github.com/leatlog/leat/state"
	"github.com/leatlog/leat/topology/internal/graph"
	"github.com/leatlog/leat/topology/plan"
)

// ToVersionedTable is ToTable that goes by the records' timestamps, not by the order in which
// they come, and remembers each key's values as far back as history, in whole milliseconds
// (KIP-889, KIP-914). JoinTable and LeftJoinTable look it up as of the time of the stream's
// record, also through Filter and MapTable. What else is made of it, and its updates, have
// the latest values: a record that is older than the latest of its key changes what was and
// is told to nobody. Of records with the same key and timestamp the last counts.
//
// The table's time is the greatest timestamp of its records. A record before that time less
// history is dropped and counted as late; a look back further than that finds the latest
// value, if it is as old, or nothing.
func ToVersionedTable[K, V any](name string, s *Stream[K, V], history time.Duration, opts ...TableOption) *Table[K, V] {
	if complaint := historyComplaint(history); complaint != "" {
		s.t.mistake(name, "%s", complaint)
	}
	n := graph.Node{
		Kind: "to-versioned-table", Detail: historyText(history), Store: &state.Spec{Kind: state.Versioned, Retention: history},
	}
	table := tableOf(name, s, n, versionsOf[K, V], opts)
	table.versioned = true
	return table
}

func historyText(history time.Duration) string { return fmt.Sprintf("history %v", history) }

// historyComplaint says what is wrong with a history, "" when nothing is.
func historyComplaint(history time.Duration) string {
	if history >= time.Millisecond && history%time.Millisecond == 0 {
		return ""
	}
	return fmt.Sprintf("the history is %v: it must be whole milliseconds, at least one", history)
}

// versionsOf runs a table whose versions are the values of the records.
func versionsOf[K, V any](spec aggregation[K, K, V, V], i *instance, n *graph.Node) any {
	v := newVersions(i, n, spec.key, spec.value, next[K, V](i, n))
	failures := newFailures(i, n, spec.policy, spec.key, spec.input)
	nullKey, nullValue := nullCheck[K](), nullCheck[V]()
	return sink[K, V](func(r *Record[K, V]) error {
		if r.nullKey || nullKey.isNull(r.Key) {
			i.ctx.Dropped(n.Name, plan.DropNullKey, nil)
			return nil
		}
		stored, failure, err := v.put(r.Key, r.Value, r.nullValue || nullValue.isNull(r.Value), r.Timestamp)
		switch {
		case err != nil:
			return err
		case failure != nil:
			return failures.handle(failure, r)
		case !stored:
			i.ctx.Dropped(n.Name, plan.DropLate, nil)
			return nil
		case v.cache.full():
			return v.relieve()
		}
		return nil
	})
}
