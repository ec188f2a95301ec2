package handler

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Transactions is the transaction coordinator of this node. Methods return at once;
// respond and done are called exactly once, perhaps later and on another goroutine,
// and must not block.
type Transactions interface {
	// InitProducerID gets requests with a transactional id.
	InitProducerID(r *kmsg.InitProducerIDRequest, respond func(*kmsg.InitProducerIDResponse))
	// AddPartitions adds partitions to a transaction.
	AddPartitions(t Enlisting, done func(*kerr.Error))
	// VerifyPartitions says for each partition whether the transaction has it; the first
	// result is for all.
	VerifyPartitions(t Enlisting, done func(err *kerr.Error, each []*kerr.Error))
	EndTxn(r *kmsg.EndTxnRequest, respond func(*kmsg.EndTxnResponse))
	DescribeTransactions(r *kmsg.DescribeTransactionsRequest, respond func(*kmsg.DescribeTransactionsResponse))
	ListTransactions(r *kmsg.ListTransactionsRequest, respond func(*kmsg.ListTransactionsResponse))
	// WriteMarker ends a transaction in a partition that this node leads. done is called
	// when the marker is on disk on all in-sync replicas and applied.
	WriteMarker(topic string, partition int32, m Marker, done func(*kerr.Error))
}

// Enlisting names partitions of a transaction.
type Enlisting struct {
	TransactionalID string
	ProducerID      int64
	Epoch           int16
	Partitions      []EnlistedPartition
	// ByBroker says that a broker adds them, as records arrive (KIP-890).
	ByBroker bool
}

// EnlistedPartition names a partition.
type EnlistedPartition struct {
	Topic     string
	Partition int32
}

// Marker is the end of a transaction in one partition.
type Marker struct {
	ProducerID       int64
	Epoch            int16
	Commit           bool
	CoordinatorEpoch int32
	// Raised says that no record of the transaction has Epoch: the marker is refused with
	// INVALID_PRODUCER_EPOCH when one does (KIP-1228).
	Raised bool
}
