package plan

import (
	"fmt"

	"github.com/leatlog/leat/state"
)

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

// String returns the id as "<sub-topology>_<partition>", as in Kafka Streams.
func (t TaskID) String() string { return fmt.Sprintf("%d_%d", t.SubTopology, t.Partition) }

// Context is what a task offers to the operators compiled into it. It is used
// by the task's goroutine only, and only during the calls of Processor's
// methods, SubTopology.New included.
type Context interface {
	// Task names the task.
	Task() TaskID
	// TopicName returns the full name of the topic of source i of
	// SubTopology.Sources, with the app's prefix when it is internal. Operators use
	// it to say where a record came from.
	TopicName(source int) string
	// Store returns the store with this name, restored: SubTopology.New reads it
	// already. It panics when the sub-topology did not declare it (a bug of the
	// compiler, not of the user).
	Store(name string) state.Store
	// Global returns the global table of a topic of Plan.Globals, to be looked up at any time
	// until the task is closed: it changes under the reader. It panics when there is none.
	Global(topic string) state.Reader
	// Emit hands a record to sink i of SubTopology.Sinks. Key, value and headers are
	// copied before it returns; r belongs to the caller. The partition is
	// murmur2(key) modulo the topic's partition count, round-robin by batch for null
	// keys.
	Emit(sink int, r *Record) error
	// Advance says that a record of source i with this event time is about to run.
	// The processor calls it once per record, before the operators, with the time
	// its extractor found (ms since the epoch). It never moves time backwards.
	Advance(source int, timestamp int64)
	// StreamTime is the task's event time: the highest timestamp given to Advance,
	// in milliseconds; -1 before the first record. The task stores it with each
	// commit's offsets and begins with what the last complete commit stored: windows
	// tell by it whether a changelog, which without transactions may have got further
	// than the offsets, is to be believed that results were emitted.
	StreamTime() int64
	// WallTime is the current time in milliseconds, from the injected clock.
	WallTime() int64
	// Dropped counts a record that an operator left out, and why. err is what failed
	// for DropError and DropDeadLetter, and nil otherwise; the task may log it.
	Dropped(operator string, reason DropReason, err error)
	// Changed says that Punctuate changed a store or an operator behind, at a time when
	// no record came: there is something to commit.
	Changed()
	// CacheBytes is the share of the write-back cache that this task's operators may
	// fill, all together, before they flush early.
	CacheBytes() int
}

// DropReason says why an operator left a record out.
type DropReason string

// The reasons.
const (
	// DropLate: the record's window was closed: its end plus grace is not after
	// stream time. Of a versioned table: the record is older than the table's history.
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
// Context's. Used by one goroutine. After any error the processor is not used
// again except for Close: the task starts anew from its last commit.
type Processor interface {
	// Process runs records of source i of SubTopology.Sources, in order, through the
	// operators. For each record the processor calls Context.Advance before the
	// operators see it. It does not keep the records or their bytes.
	// The error, when an operator's policy is to fail, is an *OperatorError.
	Process(source int, records []Record) error
	// Punctuate runs what is due at stream time and wall time, such as windows that
	// close. The task calls it after each run of records and at least once a second.
	Punctuate() error
	// Flush writes every dirty cache entry to its store and forwards the updates
	// downstream, in the order of the operators. The task calls it before each
	// commit, and commits what it wrote with the rest.
	Flush() error
	// Close releases the processor; it neither flushes nor emits.
	Close() error
}

// OperatorError says which operator failed on which record.
type OperatorError struct {
	// Operator is the operator's name in the topology.
	Operator string
	// Topic, Partition and Offset tell the source record that was running; the
	// offset is -1 when none was (a window that closed, a flush).
	Topic     string
	Partition int32
	Offset    int64
	// Err is what the user's function, the serde or the store returned.
	Err error
}

// Error implements error.
func (e *OperatorError) Error() string {
	if e.Offset < 0 {
		return fmt.Sprintf("topology: operator %q, partition %d: %v", e.Operator, e.Partition, e.Err)
	}
	return fmt.Sprintf("topology: operator %q failed on the record at %s-%d@%d: %v", e.Operator, e.Topic, e.Partition, e.Offset, e.Err)
}

// Unwrap returns the cause.
func (e *OperatorError) Unwrap() error { return e.Err }
