package txn

import (
	"maps"
	"math"
	"slices"
	"strings"
	"time"
)

// State is the state of a transactional id. The numbers are those of the records.
type State int8

// The states of a transactional id.
const (
	Empty          State = 0
	Ongoing        State = 1
	PrepareCommit  State = 2
	PrepareAbort   State = 3
	CompleteCommit State = 4
	CompleteAbort  State = 5
)

var stateNames = []string{"Empty", "Ongoing", "PrepareCommit", "PrepareAbort", "CompleteCommit", "CompleteAbort", "Dead", "PrepareEpochFence"}

// String returns Kafka's name of the state.
func (s State) String() string {
	if s < 0 || int(s) >= len(stateNames) {
		return "Unknown"
	}
	return stateNames[s]
}

// preparing says that the end is decided and the markers are being written.
func (s State) preparing() bool { return s == PrepareCommit || s == PrepareAbort }

// Versions of the protocol, as clients speak it.
const (
	// V1 keeps the producer's epoch when a transaction ends.
	V1 int16 = 0
	// V2 raises it (transaction.version 2).
	V2 int16 = 2
)

// lastUsableEpoch is the largest epoch that a producer is given: the one after it is
// left to fence it with.
const lastUsableEpoch = math.MaxInt16 - 1

// TopicPartition names a partition.
type TopicPartition struct {
	Topic     string
	Partition int32
}

func comparePartitions(a, b TopicPartition) int {
	if c := strings.Compare(a.Topic, b.Topic); c != 0 {
		return c
	}
	return int(a.Partition) - int(b.Partition)
}

// transaction is a transactional id with its producer and its transaction, if one is
// open. What is durable of it is replaced as a whole, by Replay.
type transaction struct {
	id         string
	producerID int64
	epoch      int16
	previousID int64 // the producer id before the last change of it, -1 none
	nextID     int64 // the producer id from the end of this transaction on, -1: the same
	timeout    time.Duration
	state      State
	version    int16 // of the protocol that the client speaks
	partitions map[TopicPartition]struct{}
	started    int64 // ms; -1 without a transaction
	updated    int64 // ms

	// lastEpoch is the epoch that the producer had before the newest one, -1 when that was
	// not its own wish. It is not durable: it serves to answer a repeated request.
	lastEpoch int16
	// raised says that the epoch was raised with this state, as an end of protocol V2 does.
	// It is not durable: the next coordinator has an epoch of its own to tell its markers by.
	raised bool

	deadline int64 // ms, of the open transaction
	heapAt   int   // in Shard.deadlines, -1 outside
}

// with returns a copy to be changed and recorded.
func (t *transaction) with(state State, now time.Time) transaction {
	next := *t
	next.state, next.updated, next.raised = state, now.UnixMilli(), false
	return next
}

// exhausted says that the producer id has no epoch left.
func (t *transaction) exhausted() bool { return t.epoch >= lastUsableEpoch }

// sorted returns the partitions in order.
func (t *transaction) sorted() []TopicPartition {
	return slices.SortedFunc(maps.Keys(t.partitions), comparePartitions)
}

// Prepared is a transaction whose end is decided and durable: its markers have to be
// written, and then Shard.Complete called.
type Prepared struct {
	TransactionalID string
	ProducerID      int64
	Epoch           int16
	Commit          bool
	// Raised says that no record of the transaction has Epoch: one that does belongs to the
	// next transaction, which the markers of this one must not end (KIP-1228).
	Raised     bool
	Partitions []TopicPartition
}

func (t *transaction) prepared() Prepared {
	return Prepared{TransactionalID: t.id, ProducerID: t.producerID, Epoch: t.epoch, Commit: t.state == PrepareCommit, Raised: t.raised, Partitions: t.sorted()}
}

// deadlines is a heap of open transactions by when they are aborted.
type deadlines []*transaction

func (d deadlines) Len() int           { return len(d) }
func (d deadlines) Less(i, j int) bool { return d[i].deadline < d[j].deadline }
func (d deadlines) Swap(i, j int) {
	d[i], d[j] = d[j], d[i]
	d[i].heapAt, d[j].heapAt = i, j
}

// Push implements heap.Interface.
func (d *deadlines) Push(x any) {
	t := x.(*transaction)
	t.heapAt = len(*d)
	*d = append(*d, t)
}

// Pop implements heap.Interface.
func (d *deadlines) Pop() any {
	old := *d
	t := old[len(old)-1]
	old[len(old)-1] = nil
	*d = old[:len(old)-1]
	t.heapAt = -1
	return t
}
