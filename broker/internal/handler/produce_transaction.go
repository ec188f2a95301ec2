package handler

import (
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/metadata"
	"github.com/leatlog/leat/broker/internal/record"
)

// implicitAddVersion is the version of Produce from which on the broker adds the
// partition to the transaction; before, the client has done so with AddPartitionsToTxn
// (KIP-890).
const implicitAddVersion = 12

// transactionalAppend is a transactional batch on its way into its partition. A
// partition that has no transaction of the producer open asks the coordinator first:
// without that a late batch could begin one that nobody ends (KIP-890).
type transactionalAppend struct {
	op        *produceOp
	partition Partition
	id        string // transactional
	topic     string
	place     producerPlace
	batch     record.Batch
	acks      int16
	deadline  time.Time
	tag       int
	add       bool   // the coordinator is to add the partition
	ended     uint32 // of the producer when its transaction was last verified
	verified  bool
	tries     int
}

// producerPlace is a producer in a partition. Its batches stay in order while one of
// them waits for the coordinator.
type producerPlace struct {
	topic      metadata.UUID
	partition  int32
	producerID int64
}

// verifying holds the batches that wait for a coordinator, and those behind them.
type verifying struct {
	mu     sync.Mutex
	queues map[producerPlace][]*transactionalAppend
}

// verifyTries bounds how often a batch is verified because a transaction ended while
// it was.
const verifyTries = 5

func (op *produceOp) appendTransactional(body *kmsg.ProduceRequest, name string, id metadata.UUID, partition Partition, p *kmsg.ProduceRequestTopicPartition, tag int, deadline time.Time) {
	if body.TransactionID == nil || *body.TransactionID == "" {
		op.refuse(tag, kerr.TransactionalIDAuthorizationFailed, "transactional records need a transactional id")
		return
	}
	batch := record.Batch(p.Records)
	a := &transactionalAppend{op: op, partition: partition, id: *body.TransactionID, topic: name, batch: batch, acks: body.Acks,
		deadline: deadline, tag: tag, tries: verifyTries, add: body.Version >= implicitAddVersion,
		place: producerPlace{id, p.Partition, batch.ProducerID()}}
	v := &op.h.verifying
	v.mu.Lock()
	if v.queues == nil {
		v.queues = map[producerPlace][]*transactionalAppend{}
	}
	waiting := v.queues[a.place]
	v.queues[a.place] = append(waiting, a)
	v.mu.Unlock()
	if len(waiting) == 0 {
		op.h.appendWaiting(a.place)
	}
}

// appendWaiting appends a producer's batches up to the first that the coordinator has
// to be asked for. Only who knows that nobody else does may call it.
func (h *Handler) appendWaiting(place producerPlace) {
	v := &h.verifying
	v.mu.Lock()
	defer v.mu.Unlock()
	for queue := v.queues[place]; len(queue) > 0; queue = v.queues[place] {
		v.mu.Unlock()
		settled := queue[0].try()
		v.mu.Lock()
		if !settled {
			return
		}
		queue = v.queues[place] // it may have grown
		queue[0] = nil
		v.queues[place] = queue[1:]
	}
	delete(v.queues, place)
}

// try appends the batch, or asks the coordinator and returns false.
func (a *transactionalAppend) try() bool {
	for {
		if !a.verified {
			state := a.partition.TransactionState(a.place.producerID, a.batch.ProducerEpoch())
			if a.ended = state.Ended; !state.Open {
				break
			}
		}
		if a.partition.AppendVerified(a.batch, a.ended, a.acks, a.deadline, a.tag, a.op) {
			return true
		}
		// A transaction has ended meanwhile: this may be a batch of it that is late.
		a.verified = false
		if a.tries--; a.tries == 0 {
			a.op.refuse(a.tag, a.refusal(kerr.ConcurrentTransactions), "the producer's transactions ended again and again")
			return true
		}
	}
	place, h := a.place, a.op.h // the request may be gone once it is answered
	h.Verifier.VerifyPartition(a.id, a.place.producerID, a.batch.ProducerEpoch(), a.topic, a.place.partition, a.add, func(err *kerr.Error) {
		if err == nil {
			a.verified = true
			h.appendWaiting(place)
			return
		}
		a.op.refuse(a.tag, a.refusal(err), "")
		h.skipWaiting(place)
	})
	return false
}

// skipWaiting goes on behind a batch that was refused.
func (h *Handler) skipWaiting(place producerPlace) {
	v := &h.verifying
	v.mu.Lock()
	v.queues[place][0] = nil
	v.queues[place] = v.queues[place][1:]
	v.mu.Unlock()
	h.appendWaiting(place)
}

// refusal is what a producer is told when the coordinator refuses or cannot be asked.
func (a *transactionalAppend) refusal(err *kerr.Error) *kerr.Error {
	switch err {
	case kerr.ProducerFenced:
		return kerr.InvalidProducerEpoch
	case kerr.ConcurrentTransactions:
		if a.add {
			return err
		}
		return kerr.NotEnoughReplicas
	case kerr.NetworkException, kerr.CoordinatorLoadInProgress, kerr.CoordinatorNotAvailable, kerr.NotCoordinator:
		return kerr.NotEnoughReplicas // which every producer tries again for
	case kerr.TransactionAbortable:
		if a.op.response.Version < 11 {
			return kerr.InvalidTxnState
		}
	}
	return err
}
