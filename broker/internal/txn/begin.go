package txn

import (
	"maps"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/leatlog/leat/broker/internal/coordinator"
)

// InitRequest asks for the producer id and epoch of a transactional id.
type InitRequest struct {
	TransactionalID string
	Timeout         time.Duration
	// ProducerID and Epoch are what the client had before (KIP-360), -1 nothing.
	ProducerID int64
	Epoch      int16
	// Fresh is a producer id that nobody has, -1 when none was fetched yet.
	Fresh int64
}

// InitAnswer answers an InitRequest.
type InitAnswer struct {
	// Err is nil, a code for the client, or errNeedsID.
	Err        *kerr.Error
	ProducerID int64
	Epoch      int16
}

// errNeedsID says that a request has to be repeated with a fresh producer id.
var errNeedsID = &kerr.Error{Message: "NEEDS_PRODUCER_ID", Code: -2, Description: "a producer id has to be fetched first"}

// InitProducerID gives a transactional id its producer id and a new epoch, which
// fences whoever had it before. An open transaction is aborted first: the answer is
// CONCURRENT_TRANSACTIONS until that is done.
func (s *Shard) InitProducerID(r *InitRequest, now time.Time, answer func(InitAnswer)) coordinator.Result {
	refuse := func(err *kerr.Error) coordinator.Result {
		return say(func(err *kerr.Error) { answer(InitAnswer{Err: err, ProducerID: -1, Epoch: -1}) }, err)
	}
	if r.Timeout <= 0 || r.Timeout > s.cfg.MaxTimeout {
		return refuse(kerr.InvalidTransactionTimeout)
	}
	t := s.ids[r.TransactionalID]
	switch {
	case t == nil:
		return s.newID(r, now, answer, refuse)
	case r.ProducerID >= 0 && !t.knows(r.ProducerID, r.Epoch):
		return refuse(kerr.ProducerFenced)
	case t.state.preparing():
		return refuse(kerr.ConcurrentTransactions)
	case t.state == Ongoing:
		return s.fence(t, now, func(err *kerr.Error) {
			if err == nil {
				err = kerr.ConcurrentTransactions
			}
			answer(InitAnswer{Err: err, ProducerID: -1, Epoch: -1})
		})
	}
	next := t.with(Empty, now)
	next.timeout, next.started, next.partitions, next.nextID = r.Timeout, -1, nil, -1
	last := int16(-1)
	switch {
	case r.ProducerID < 0 || r.ProducerID == t.producerID && r.Epoch == t.epoch:
		if t.exhausted() && r.Fresh < 0 {
			return refuse(errNeedsID)
		}
		if r.ProducerID >= 0 {
			last = t.epoch
		}
		if t.exhausted() {
			next.previousID, next.producerID, next.epoch = t.producerID, r.Fresh, 0
		} else {
			next.epoch++
		}
	case r.Epoch == t.lastEpoch:
		last = t.lastEpoch // a repetition: the answer is that of before
	default:
		return refuse(kerr.ProducerFenced)
	}
	t.lastEpoch = last
	return s.give(next, answer)
}

// knows says that a client's producer id is that of the transactional id, or was until
// its epochs ran out.
func (t *transaction) knows(producerID int64, epoch int16) bool {
	return producerID == t.producerID || producerID == t.previousID && epoch >= lastUsableEpoch
}

func (s *Shard) newID(r *InitRequest, now time.Time, answer func(InitAnswer), refuse func(*kerr.Error) coordinator.Result) coordinator.Result {
	if r.Fresh < 0 {
		return refuse(errNeedsID)
	}
	return s.give(transaction{id: r.TransactionalID, producerID: r.Fresh, previousID: -1, nextID: -1, timeout: r.Timeout,
		state: Empty, started: -1, updated: now.UnixMilli()}, answer)
}

func (s *Shard) give(t transaction, answer func(InitAnswer)) coordinator.Result {
	return record(t, func(err *kerr.Error) {
		if err != nil {
			answer(InitAnswer{Err: err, ProducerID: -1, Epoch: -1})
			return
		}
		answer(InitAnswer{ProducerID: t.producerID, Epoch: t.epoch})
	})
}

// owner returns the transactional id that a producer may act for.
func (s *Shard) owner(id string, producerID int64, epoch int16) (*transaction, *kerr.Error) {
	t := s.ids[id]
	switch {
	case t == nil || t.producerID != producerID:
		return nil, kerr.InvalidProducerIDMapping
	case t.epoch != epoch:
		return nil, kerr.ProducerFenced
	case t.state.preparing():
		return nil, kerr.ConcurrentTransactions
	}
	return t, nil
}

// AddRequest adds partitions to a transaction, which begins with the first.
type AddRequest struct {
	TransactionalID string
	ProducerID      int64
	Epoch           int16
	Partitions      []TopicPartition
	// Version is the protocol that the client speaks.
	Version int16
}

// AddPartitions adds partitions to a producer's transaction.
func (s *Shard) AddPartitions(r *AddRequest, now time.Time, answer func(*kerr.Error)) coordinator.Result {
	t, err := s.owner(r.TransactionalID, r.ProducerID, r.Epoch)
	if err != nil {
		return say(answer, err)
	}
	next := t.with(Ongoing, now)
	next.version = r.Version
	if t.state == Ongoing {
		next.partitions = maps.Clone(t.partitions)
	} else {
		next.started, next.partitions = now.UnixMilli(), map[TopicPartition]struct{}{}
	}
	for _, p := range r.Partitions {
		next.partitions[p] = struct{}{}
	}
	if t.state == Ongoing && len(next.partitions) == len(t.partitions) {
		return say(answer, nil)
	}
	return record(next, answer)
}

// VerifyPartitions says for each partition whether it is part of the producer's open
// transaction: nil, or TRANSACTION_ABORTABLE. The first result is for all of them.
func (s *Shard) VerifyPartitions(r *AddRequest, answer func(err *kerr.Error, each []*kerr.Error)) coordinator.Result {
	t, err := s.owner(r.TransactionalID, r.ProducerID, r.Epoch)
	each := make([]*kerr.Error, len(r.Partitions))
	for i, p := range r.Partitions {
		if err != nil {
			break
		}
		if _, ok := t.partitions[p]; !ok || t.state != Ongoing {
			each[i] = kerr.TransactionAbortable
		}
	}
	return say(func(err *kerr.Error) { answer(err, each) }, err)
}
