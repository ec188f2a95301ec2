package handler

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/wire"
)

// DeleteGroups (key 42), versions 0 to 2 (KIP-229): groups without members.
func deleteGroups(h *Handler, _ context.Context, request *wire.Request, respond wire.Responder) {
	h.Groups.DeleteGroups(request.Body.(*kmsg.DeleteGroupsRequest), bodyOf[*kmsg.DeleteGroupsResponse](respond))
}
