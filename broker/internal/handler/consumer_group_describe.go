package handler

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/wire"
)

// ConsumerGroupDescribe (key 69), versions 0 to 1: groups of the consumer protocol of
// KIP-848, with the protocol of each member from version 1 on.
func consumerGroupDescribe(h *Handler, _ context.Context, request *wire.Request, respond wire.Responder) {
	h.Groups.ConsumerGroupDescribe(request.Body.(*kmsg.ConsumerGroupDescribeRequest), bodyOf[*kmsg.ConsumerGroupDescribeResponse](respond))
}
