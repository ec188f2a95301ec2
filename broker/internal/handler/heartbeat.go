package handler

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/wire"
)

// Heartbeat (key 12), versions 0 to 4: a member is alive; static members by KIP-345.
func heartbeat(h *Handler, _ context.Context, request *wire.Request, respond wire.Responder) {
	h.Groups.Heartbeat(request.Body.(*kmsg.HeartbeatRequest), bodyOf[*kmsg.HeartbeatResponse](respond))
}
