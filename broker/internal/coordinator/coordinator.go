// Package coordinator runs sharded coordinators: state machines whose state is
// the content of one partition of an internal topic, as the group coordinator's
// is that of a partition of `__consumer_offsets`.
//
// A Shard decides: an event gives records to append and something to do once
// they are durable; what is durable of its state changes only by replaying
// records, so a shard that is loaded from the log ends up where its predecessor
// was. Runtime is the shell: it appends, replays at once, holds back the outcome
// until the log says that the records are committed, loads a partition when its
// leadership comes and drops it when that goes. The design is that of Kafka's
// CoordinatorRuntime, with one lock per shard in place of its event loop.
//
// An event that follows another in time sees the other's records applied though
// they are not committed yet. That is sound because its outcome is released after
// theirs, whether it has records, which come later in the same log, or none.
package coordinator

import (
	"errors"
	"time"
)

// Errors that Runtime.Do reports.
var (
	// ErrNotCoordinator says that this node does not lead the partition.
	ErrNotCoordinator = errors.New("coordinator: this node does not lead the partition")
	// ErrLoading says that the partition's state is still being read.
	ErrLoading = errors.New("coordinator: the partition is being loaded")
	// ErrTransactionEnded is given to Result.Done when a transaction of the producer has
	// ended since it was verified. Nothing was appended or replayed; whoever verifies it
	// again may try again.
	ErrTransactionEnded = errors.New("coordinator: the producer has ended a transaction since this one was verified")
	// ErrTooLarge is given to Result.Done when the records are larger than a batch
	// may be. Nothing was appended or replayed.
	ErrTooLarge = errors.New("coordinator: the records are larger than a batch may be")
)

// Record is a record of a coordinator's partition. A nil Value is a tombstone.
type Record struct{ Key, Value []byte }

// Result is what a shard made of an event.
type Result struct {
	// Records are to be appended as one batch; they may be none.
	Records []Record
	// Several says that the records may be appended as several batches.
	Several bool
	// Transaction, when not nil, is the transaction that the records belong to. Only a
	// TransactionalShard over a TransactionalLog may set it, and not with Several.
	Transaction *Transaction
	// Done, when not nil, is called once, under the shard's lock: with nil when the
	// records and all that were appended before are committed (at once when they
	// are), or with the reason why they are not. It may itself give a result.
	Done func(err error) Result
}

// Shard is the state of one partition. Its methods are called under one lock.
type Shard interface {
	// Replay applies a record of the log, while loading and after each append.
	Replay(r Record, timestamp int64) error
	// Loaded is called when the whole log was replayed.
	Loaded(now time.Time) Result
	// NextDeadline says when Expire should be called next; false for never.
	NextDeadline() (time.Time, bool)
	// Expire does what is due at now.
	Expire(now time.Time) Result
	// Unload answers everything that is parked: the shard is not used any more.
	Unload()
}

// Transaction is the transaction of a client's producer in which records are
// written.
type Transaction struct {
	ProducerID int64
	Epoch      int16
	// Ended is the count of Runtime.TransactionState from before the transaction was
	// verified with its coordinator.
	Ended uint32
}

// TransactionalShard is a Shard of which records may belong to transactions: they
// count only if a marker commits them.
type TransactionalShard interface {
	Shard
	// ReplayInTransaction is Replay for a record of a transaction that is open.
	ReplayInTransaction(r Record, producerID int64, epoch int16) error
	// ReplayMarker applies the end of a producer's transaction. There may be none.
	ReplayMarker(producerID int64, epoch int16, commit bool)
}

// TransactionalLog is a Log that takes batches of transactions.
type TransactionalLog interface {
	Log
	// AppendInTransaction is Append for a batch of a transaction. It returns why the batch
	// is refused, and then neither appends it nor calls done: because the producer is
	// fenced, or with ErrTransactionEnded because the count is not what it was and no
	// transaction is open.
	AppendInTransaction(batch []byte, ended uint32, done func(err error)) error
	// TransactionState says whether the producer has a transaction open here, in that
	// epoch, and how many of it have ended here.
	TransactionState(producerID int64, epoch int16) (open bool, ended uint32)
}

// Log is the partition that holds a shard's records.
type Log interface {
	// Append appends a record batch, which it does not keep. done is called once,
	// from any goroutine and perhaps before Append returns, when the batch is
	// committed (on disk on every in-sync replica) or failed. A batch whose append
	// failed may still be committed later.
	Append(batch []byte, done func(err error))
	// Read appends whole committed batches from offset on to dst, at most maxBytes of
	// them but at least one when there is one.
	Read(dst []byte, offset int64, maxBytes int) ([]byte, error)
	// Offsets returns the first offset and the end of the log, whether what is
	// before it is committed yet or not.
	Offsets() (start, end int64)
}
