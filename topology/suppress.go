package topology

import (
	"errors"
	"fmt"
	"time"

	"github.com/leatlog/leat/state"
	"github.com/leatlog/leat/topology/internal/graph"
)

// Suppression says which updates of a table are held back, and for how long. Begin with
// UntilWindowCloses or UntilTimeLimit.
type Suppression struct {
	untilClose bool
	limit      time.Duration
	// records and bytes bound what is held back; 0 for no bound.
	records, bytes int64
	early          bool
}

// UntilWindowCloses holds updates back until the window that is their key is closed, so
// that each window has one result: the last one. A key that was removed by then has none.
func UntilWindowCloses() Suppression { return Suppression{untilClose: true} }

// UntilTimeLimit holds a key's updates back until event time has gone on by limit since the
// first of them, and then lets the last one through. 0 lets each update through.
func UntilTimeLimit(limit time.Duration) Suppression { return Suppression{limit: limit} }

// MaxRecords bounds how many keys of each partition have an update held back. When there
// are more, the task stops with ErrSuppressionFull, or does what EmitEarly says. By
// default there is no bound: what is held back lies in the store, and a part of it in the
// cache.
func (s Suppression) MaxRecords(n int64) Suppression {
	s.records = bound(n)
	return s
}

// MaxBytes is MaxRecords that counts the bytes of keys and values.
func (s Suppression) MaxBytes(n int64) Suppression {
	s.bytes = bound(n)
	return s
}

func bound(n int64) int64 {
	if n < 1 {
		return -1
	}
	return n
}

// EmitEarly lets the oldest updates through when there are more than the bounds allow.
// Only UntilTimeLimit has it: the other one promises one result for each window.
func (s Suppression) EmitEarly() Suppression {
	s.early = true
	return s
}

// ErrSuppressionFull says that a suppression holds back more than it may.
var ErrSuppressionFull = errors.New("more updates are held back than MaxRecords or MaxBytes allow: raise the bound, or use EmitEarly")

// String describes the suppression, as in "until window closes, at most 1000 records".
func (s Suppression) String() string {
	text := "until window closes"
	if !s.untilClose {
		text = fmt.Sprintf("until time limit %v", s.limit)
	}
	if s.records > 0 {
		text += fmt.Sprintf(", at most %d records", s.records)
	}
	if s.bytes > 0 {
		text += fmt.Sprintf(", at most %d bytes", s.bytes)
	}
	if s.early {
		text += ", then early"
	}
	return text
}

// complaint says what is wrong with the suppression, "" when nothing is.
func (s Suppression) complaint() string {
	switch {
	case s.limit < 0 || s.limit%time.Millisecond != 0:
		return fmt.Sprintf("the time limit is %v: it must be whole milliseconds, and not negative", s.limit)
	case s.records < 0 || s.bytes < 0:
		return "MaxRecords and MaxBytes must be at least 1: leave them out for no bound"
	case s.early && s.untilClose:
		return "EmitEarly is for UntilTimeLimit: until a window closes nothing can go early"
	case s.early && s.records == 0 && s.bytes == 0:
		return "EmitEarly needs MaxRecords or MaxBytes"
	}
	return ""
}

// SuppressOption is an option of Suppress: InMemory, OnError, Formerly.
type SuppressOption = AggregateOption

// Suppress is the table with updates held back. name names the store that has them,
// whose changelog is <app>-<name>-changelog. Time is that of the updates which arrive: what
// is due leaves when a later one has come. Versioned tables cannot be suppressed.
func (table *Table[K, V]) Suppress(name string, s Suppression, opts ...SuppressOption) *Table[K, V] {
	t, o := table.t, aggregateOptions(opts)
	if o.aggregates() {
		t.mistake(name, "OnWindowClose, Retention, Initial and Merger are for aggregations, this is a suppression: leave them out")
	}
	if complaint := s.complaint(); complaint != "" {
		t.mistake(name, "%s", complaint)
	}
	if table.versioned {
		t.mistake(name, "it holds updates of %q back, whose versions could not be looked up any more: make a ToTable of the stream, and suppress that",
			t.graph.Nodes[table.node].Name)
	}
	if s.untilClose && table.closesAt == nil {
		t.mistake(name, "it waits until windows close, and the keys of %q are no windows: use UntilTimeLimit, or group with Window first",
			t.graph.Nodes[table.node].Name)
	}
	if complaint := (&Stream[K, V]{t, table.node, table.key, table.value}).unwritable(); complaint != "" {
		t.mistake(name, "%s", complaint)
	}
	policy := t.policyOf(o)
	spec := suppression[K, V]{Suppression: s, policy: policy, key: table.key, value: table.value, closesAt: table.closesAt}
	n := graph.Node{
		Name: name, Kind: "suppress", Durable: true, Inputs: []int{table.node}, DeadLetter: policy.deadLetter, Detail: s.String(),
		Store: &state.Spec{Name: name, InMemory: o.inMemory},
	}
	t.durable(&n, o)
	if table.key != nil && table.value != nil {
		n.Store.KeyFormat, n.Store.ValueFormat = table.key.Name(), "suppressed("+table.value.Name()+")"
	}
	suppressed := *table
	suppressed.node, suppressed.suppressed = t.add(n, code{compile: spec.compile}), true
	return &suppressed
}
