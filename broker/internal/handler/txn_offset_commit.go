package handler

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/metadata"
	"github.com/leatlog/leat/broker/internal/wire"
)

// TransactionVerifier asks the coordinators of transactions, on whatever node they
// are (KIP-890). Safe for concurrent use.
type TransactionVerifier interface {
	// VerifyPartition has the coordinator say that a partition is part of the producer's
	// open transaction; with add it makes it so first, beginning the transaction if need
	// be. done is called exactly once, perhaps on another goroutine, and must not block: with nil,
	// or with the error that the client's request is refused with: TRANSACTION_ABORTABLE when
	// it is not part of it.
	VerifyPartition(transactionalID string, producerID int64, epoch int16, topic string, partition int32, add bool, done func(*kerr.Error))
}

// TxnOffsetCommit (key 28), versions 0 to 5: the offsets of a group as a part of a
// transaction (KIP-98), with the member and its generation from version 3 on
// (KIP-447). From version 5 on nobody called AddOffsetsToTxn first (KIP-890). Partitions
// that do not exist are refused here; the others go to the group coordinator.
func txnOffsetCommit(h *Handler, _ context.Context, request *wire.Request, respond wire.Responder) {
	body := request.Body.(*kmsg.TxnOffsetCommitRequest)
	wanted := make([]wantedTopic, len(body.Topics))
	for i := range body.Topics {
		t := &body.Topics[i]
		wanted[i].name = t.Topic
		for j := range t.Partitions {
			wanted[i].highest = max(wanted[i].highest, t.Partitions[j].Partition)
		}
	}
	h.whenKnown(wanted, func(image *metadata.Image) { h.commitTxnOffsets(body, image, respond) })
}

func (h *Handler) commitTxnOffsets(body *kmsg.TxnOffsetCommitRequest, image *metadata.Image, respond wire.Responder) {
	known := *body
	known.Topics = nil
	unknown := map[[2]int]bool{} // by place in the request
	for i := range body.Topics {
		t := &body.Topics[i]
		topic, ok := image.Topic(t.Topic)
		kept := kmsg.TxnOffsetCommitRequestTopic{Topic: t.Topic}
		for j := range t.Partitions {
			if p := t.Partitions[j]; ok && p.Partition >= 0 && int(p.Partition) < len(topic.Partitions) {
				kept.Partitions = append(kept.Partitions, p)
			} else {
				unknown[[2]int{i, j}] = true
			}
		}
		if len(kept.Partitions) > 0 {
			known.Topics = append(known.Topics, kept)
		}
	}
	answer := func(committed *kmsg.TxnOffsetCommitResponse) {
		respond(wire.Response{Body: mergeTxnCommitted(body, committed, unknown)})
	}
	if len(known.Topics) == 0 {
		answer(body.ResponseKind().(*kmsg.TxnOffsetCommitResponse))
		return
	}
	enlist := func(partition int32, add bool, done func(*kerr.Error)) {
		h.Verifier.VerifyPartition(body.TransactionalID, body.ProducerID, body.ProducerEpoch, metadata.OffsetsTopic, partition, add, done)
	}
	h.Groups.TxnOffsetCommit(&known, enlist, answer)
}

// mergeTxnCommitted is mergeCommitted for TxnOffsetCommit.
func mergeTxnCommitted(body *kmsg.TxnOffsetCommitRequest, committed *kmsg.TxnOffsetCommitResponse, unknown map[[2]int]bool) *kmsg.TxnOffsetCommitResponse {
	var codes []int16
	for _, t := range committed.Topics {
		for _, p := range t.Partitions {
			codes = append(codes, p.ErrorCode)
		}
	}
	out := body.ResponseKind().(*kmsg.TxnOffsetCommitResponse)
	for i, t := range body.Topics {
		topic := kmsg.NewTxnOffsetCommitResponseTopic()
		topic.Topic = t.Topic
		for j, p := range t.Partitions {
			one := kmsg.NewTxnOffsetCommitResponseTopicPartition()
			one.Partition = p.Partition
			if unknown[[2]int{i, j}] {
				one.ErrorCode = kerr.UnknownTopicOrPartition.Code
			} else {
				one.ErrorCode, codes = codes[0], codes[1:]
			}
			topic.Partitions = append(topic.Partitions, one)
		}
		out.Topics = append(out.Topics, topic)
	}
	return out
}
