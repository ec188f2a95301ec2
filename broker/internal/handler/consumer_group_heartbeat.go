package handler

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/metadata"
	"github.com/leatlog/leat/broker/internal/wire"
)

// ConsumerGroupHeartbeat (key 68), versions 0 to 1: the consumer protocol of KIP-848,
// with regular expressions and member ids that clients make from version 1 on. The
// cluster must have finalised group.version 1.
func consumerGroupHeartbeat(h *Handler, _ context.Context, request *wire.Request, respond wire.Responder) {
	body := request.Body.(*kmsg.ConsumerGroupHeartbeatRequest)
	if h.Image().FeatureLevel(metadata.GroupFeature) < 1 {
		out := body.ResponseKind().(*kmsg.ConsumerGroupHeartbeatResponse)
		out.ErrorCode = kerr.UnsupportedVersion.Code
		respond(wire.Response{Body: out})
		return
	}
	h.Groups.ConsumerGroupHeartbeat(body, request.ClientID, clientHost(request), bodyOf[*kmsg.ConsumerGroupHeartbeatResponse](respond))
}
