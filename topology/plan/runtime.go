package plan

import "github.com/leatlog/leat/state"

// Header is a record header.
type Header struct {
	Key   string
	Value []byte
}

// Record is one record as bytes. A nil Key or Value is null. The slices alias
// the buffer the record came in and are valid only during the call that hands
// the record over: copy what must outlive it.
type Record struct {
	// Offset is the record's offset in its partition; unused on output.
	Offset int64
	// Timestamp is in milliseconds since the Unix epoch.
	Timestamp  int64
	Key, Value []byte
	Headers    []Header
}

// TaskID names a task: one partition of one sub-topology.
type TaskID struct {
	SubTopology int
	Partition   int32
}

// Context is what a task offers to the operators compiled into it. It is used
// by the task's goroutine only.
type Context interface {
	// Task names the task.
	Task() TaskID
	// Store returns the store with this name; it panics when the sub-topology did
	// not declare it (a bug of the compiler, not of the user).
	Store(name string) state.Store
	// Emit hands a record to sink i of SubTopology.Sinks. Key and value are copied
	// before it returns. The partition is murmur2(key) modulo the topic's partition
	// count, round-robin by batch for null keys.
	Emit(sink int, r *Record) error
	// StreamTime is the highest timestamp that the task's sources have seen, in
	// milliseconds; -1 before the first record.
	StreamTime() int64
	// WallTime is the current time in milliseconds, from the injected clock.
	WallTime() int64
	// Dropped counts a record that an operator left out, and why.
	Dropped(operator string, reason DropReason)
	// CacheBytes is the share of the write-back cache that this task's operators may
	// fill before they flush early.
	CacheBytes() int
}

// DropReason says why an operator left a record out.
type DropReason string

// The reasons.
const (
	// DropLate: the record's window was closed: older than stream time less grace.
	DropLate DropReason = "late"
	// DropError: a user function or serde failed and the operator's policy is skip.
	DropError DropReason = "error"
	// DropDeadLetter: as DropError, and the record went to the dead-letter topic.
	DropDeadLetter DropReason = "dead-letter"
	// DropNullKey: the operator needs a key and the record had none.
	DropNullKey DropReason = "null-key"
	// DropNullValue: the operator needs a value and the record had none.
	DropNullValue DropReason = "null-value"
)

// Processor is a sub-topology compiled for one task: the fused operators behind
// its sources. It is pure: it starts no goroutine and reads no clock but
// Context's. Used by one goroutine.
type Processor interface {
	// Process runs records of source i of SubTopology.Sources, in order, through the
	// operators. The task has advanced stream time to each record's timestamp when
	// the record runs: it calls Process with runs, and the processor calls Advance
	// of the task's Context through Clock (see Clock). After an error the task is
	// stopped; it starts again from its last commit.
	Process(source int, records []Record) error
	// Flush writes every dirty cache entry to its store and forwards the updates
	// downstream, sources first. The task calls it before each commit.
	Flush() error
	// Punctuate runs what is due at stream time and wall time: windows that close.
	// The task calls it after each run of records and at least once a second.
	Punctuate() error
	// Close releases the processor.
	Close() error
}

// Clock is implemented by a task's Context: the processor tells it each record
// before the record runs, which advances stream time and remembers the record's
// position for error messages.
type Clock interface {
	// Observe notes that record r of source i is about to run.
	Observe(source int, r *Record)
}
