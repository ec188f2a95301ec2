package handler

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/wire"
)

// SyncGroup (key 14), versions 0 to 5: the leader gives its assignment, each member
// gets its own; from version 5 on with the protocol (KIP-559).
func syncGroup(h *Handler, _ context.Context, request *wire.Request, respond wire.Responder) {
	h.Groups.SyncGroup(request.Body.(*kmsg.SyncGroupRequest), bodyOf[*kmsg.SyncGroupResponse](respond))
}
