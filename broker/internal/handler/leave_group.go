package handler

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/wire"
)

// LeaveGroup (key 13), versions 0 to 5: one member, from version 3 on several, also
// by instance id (KIP-345).
func leaveGroup(h *Handler, _ context.Context, request *wire.Request, respond wire.Responder) {
	h.Groups.LeaveGroup(request.Body.(*kmsg.LeaveGroupRequest), bodyOf[*kmsg.LeaveGroupResponse](respond))
}
