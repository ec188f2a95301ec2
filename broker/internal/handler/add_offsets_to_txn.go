package handler

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/metadata"
	"github.com/leatlog/leat/broker/internal/wire"
)

// AddOffsetsToTxn (key 25), versions 0 to 4: the partition of `__consumer_offsets` that
// holds a group becomes part of a transaction (KIP-98). The topic is made when it is not
// there.
func addOffsetsToTxn(h *Handler, _ context.Context, request *wire.Request, respond wire.Responder) {
	body := request.Body.(*kmsg.AddOffsetsToTxnRequest)
	answer := func(err *kerr.Error) {
		if err == kerr.ProducerFenced && body.Version < 2 {
			err = kerr.InvalidProducerEpoch
		}
		out := body.ResponseKind().(*kmsg.AddOffsetsToTxnResponse)
		out.ErrorCode = errorCode(err)
		respond(wire.Response{Body: out})
	}
	topic, ok := h.Image().Topic(metadata.OffsetsTopic)
	switch {
	case body.TransactionalID == "":
		answer(kerr.InvalidRequest)
	case !ok || len(topic.Partitions) == 0:
		// Nobody has looked for a group yet: the client tries again.
		h.createInternalTopic(metadata.OffsetsTopic, func() { answer(kerr.CoordinatorNotAvailable) })
	default:
		partition := h.Groups.PartitionFor(body.Group, int32(len(topic.Partitions)))
		h.Transactions.AddPartitions(Enlisting{TransactionalID: body.TransactionalID, ProducerID: body.ProducerID, Epoch: body.ProducerEpoch,
			Partitions: []EnlistedPartition{{metadata.OffsetsTopic, partition}}}, answer)
	}
}
