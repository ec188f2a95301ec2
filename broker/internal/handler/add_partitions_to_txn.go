package handler

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/metadata"
	"github.com/leatlog/leat/broker/internal/wire"
)

// AddPartitionsToTxn (key 24), versions 0 to 5: KIP-98; from version 4 on brokers ask,
// for several transactions at once, and may only want to know (KIP-890).
func addPartitionsToTxn(h *Handler, _ context.Context, request *wire.Request, respond wire.Responder) {
	body := request.Body.(*kmsg.AddPartitionsToTxnRequest)
	out := body.ResponseKind().(*kmsg.AddPartitionsToTxnResponse)
	if body.Version < 4 {
		topics := make([]kmsg.AddPartitionsToTxnRequestTransactionTopic, len(body.Topics))
		for i, t := range body.Topics {
			topics[i].Topic, topics[i].Partitions = t.Topic, t.Partitions
		}
		one := kmsg.AddPartitionsToTxnRequestTransaction{TransactionalID: body.TransactionalID, ProducerID: body.ProducerID, ProducerEpoch: body.ProducerEpoch, Topics: topics}
		h.enlist(&one, body.Version, func(err *kerr.Error, each []*kerr.Error) {
			if err == kerr.ProducerFenced && body.Version < 2 {
				err = kerr.InvalidProducerEpoch
			}
			for _, t := range enlistedTopics(&one, err, each) {
				topic := kmsg.NewAddPartitionsToTxnResponseTopic()
				topic.Topic = t.Topic
				for _, p := range t.Partitions {
					topic.Partitions = append(topic.Partitions, kmsg.AddPartitionsToTxnResponseTopicPartition{Partition: p.Partition, ErrorCode: p.ErrorCode})
				}
				out.Topics = append(out.Topics, topic)
			}
			respond(wire.Response{Body: out})
		})
		return
	}
	out.Transactions = make([]kmsg.AddPartitionsToTxnResponseTransaction, len(body.Transactions))
	each := gather(len(body.Transactions), func() { respond(wire.Response{Body: out}) })
	for i := range body.Transactions {
		one := &body.Transactions[i]
		h.enlist(one, body.Version, func(err *kerr.Error, codes []*kerr.Error) {
			topics := enlistedTopics(one, err, codes)
			each(func() {
				out.Transactions[i] = kmsg.AddPartitionsToTxnResponseTransaction{TransactionalID: one.TransactionalID, Topics: topics}
			})
		})
	}
}

// enlist adds or verifies the partitions of one transaction. A partition that does not
// exist is refused, and then the others are not added.
func (h *Handler) enlist(r *kmsg.AddPartitionsToTxnRequestTransaction, version int16, done func(err *kerr.Error, each []*kerr.Error)) {
	if r.VerifyOnly { // which needs no topic
		h.enlistIn(r, version, h.Image(), done)
		return
	}
	wanted := make([]wantedTopic, len(r.Topics))
	for i := range r.Topics {
		wanted[i].name = r.Topics[i].Topic
		for _, p := range r.Topics[i].Partitions {
			wanted[i].highest = max(wanted[i].highest, p)
		}
	}
	h.whenKnown(wanted, func(image *metadata.Image) { h.enlistIn(r, version, image, done) })
}

func (h *Handler) enlistIn(r *kmsg.AddPartitionsToTxnRequestTransaction, version int16, image *metadata.Image, done func(err *kerr.Error, each []*kerr.Error)) {
	t := Enlisting{TransactionalID: r.TransactionalID, ProducerID: r.ProducerID, Epoch: r.ProducerEpoch, ByBroker: version >= 4}
	var each []*kerr.Error
	unknown := false
	for i := range r.Topics {
		topic, ok := image.Topic(r.Topics[i].Topic)
		for _, p := range r.Topics[i].Partitions {
			if t.Partitions = append(t.Partitions, EnlistedPartition{r.Topics[i].Topic, p}); ok && p >= 0 && int(p) < len(topic.Partitions) {
				each = append(each, kerr.OperationNotAttempted)
				continue
			}
			each = append(each, kerr.UnknownTopicOrPartition)
			unknown = true
		}
	}
	switch {
	case r.TransactionalID == "":
		done(kerr.InvalidRequest, nil)
	case unknown && !r.VerifyOnly:
		done(nil, each)
	case r.VerifyOnly:
		h.Transactions.VerifyPartitions(t, func(err *kerr.Error, each []*kerr.Error) {
			for i := range each {
				if each[i] == kerr.TransactionAbortable && version < 5 {
					each[i] = kerr.InvalidTxnState
				}
			}
			done(err, each)
		})
	default:
		h.Transactions.AddPartitions(t, func(err *kerr.Error) { done(err, nil) })
	}
}

// enlistedTopics gives each partition its error, or the one of all.
func enlistedTopics(r *kmsg.AddPartitionsToTxnRequestTransaction, err *kerr.Error, each []*kerr.Error) []kmsg.AddPartitionsToTxnResponseTransactionTopic {
	var list []kmsg.AddPartitionsToTxnResponseTransactionTopic
	n := 0
	for _, t := range r.Topics {
		topic := kmsg.NewAddPartitionsToTxnResponseTransactionTopic()
		topic.Topic = t.Topic
		for _, p := range t.Partitions {
			one := kmsg.AddPartitionsToTxnResponseTransactionTopicPartition{Partition: p, ErrorCode: errorCode(err)}
			if err == nil && n < len(each) {
				one.ErrorCode = errorCode(each[n])
			}
			n++
			topic.Partitions = append(topic.Partitions, one)
		}
		list = append(list, topic)
	}
	return list
}
