package handler

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/wire"
)

// WriteTxnMarkers (key 27), versions 1 and 2 (KIP-1228): coordinators end transactions in partitions that
// this node leads (KIP-98), and administrators abort those that hang (KIP-664).
func writeTxnMarkers(h *Handler, _ context.Context, request *wire.Request, respond wire.Responder) {
	body := request.Body.(*kmsg.WriteTxnMarkersRequest)
	out := body.ResponseKind().(*kmsg.WriteTxnMarkersResponse)
	n := 0
	for _, m := range body.Markers {
		for _, t := range m.Topics {
			n += len(t.Partitions)
		}
	}
	out.Markers = make([]kmsg.WriteTxnMarkersResponseMarker, len(body.Markers))
	for i, m := range body.Markers {
		out.Markers[i] = kmsg.WriteTxnMarkersResponseMarker{ProducerID: m.ProducerID, Topics: make([]kmsg.WriteTxnMarkersResponseMarkerTopic, len(m.Topics))}
		for j, t := range m.Topics {
			out.Markers[i].Topics[j] = kmsg.WriteTxnMarkersResponseMarkerTopic{Topic: t.Topic, Partitions: make([]kmsg.WriteTxnMarkersResponseMarkerTopicPartition, len(t.Partitions))}
		}
	}
	each := gather(n, func() { respond(wire.Response{Body: out}) })
	for i, m := range body.Markers {
		for j, t := range m.Topics {
			for k, p := range t.Partitions {
				answer := &out.Markers[i].Topics[j].Partitions[k]
				answer.Partition = p
				h.Transactions.WriteMarker(t.Topic, p, Marker{m.ProducerID, m.ProducerEpoch, m.Committed, m.CoordinatorEpoch, m.TransactionVersion >= 2},
					func(err *kerr.Error) { each(func() { answer.ErrorCode = errorCode(err) }) })
			}
		}
	}
}
