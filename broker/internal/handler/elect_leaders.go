package handler

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/wire"
)

// ElectLeaders (key 43), versions 0 to 2: KIP-183, KIP-460 (unclean elections).

func electLeaders(h *Handler, _ context.Context, request *wire.Request, respond wire.Responder) {
	body := request.Body.(*kmsg.ElectLeadersRequest)
	h.decide(body, body.TimeoutMillis, func() kmsg.Response {
		response := body.ResponseKind().(*kmsg.ElectLeadersResponse)
		response.ErrorCode = kerr.RequestTimedOut.Code
		for _, asked := range body.Topics {
			t := kmsg.ElectLeadersResponseTopic{Topic: asked.Topic}
			for _, p := range asked.Partitions {
				t.Partitions = append(t.Partitions, kmsg.ElectLeadersResponseTopicPartition{Partition: p, ErrorCode: kerr.RequestTimedOut.Code})
			}
			response.Topics = append(response.Topics, t)
		}
		return response
	}, respond)
}
