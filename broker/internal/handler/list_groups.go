package handler

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/wire"
)

// ListGroups (key 16), versions 0 to 5: the groups that this broker coordinates, by
// state (KIP-518) and type (KIP-848).
func listGroups(h *Handler, _ context.Context, request *wire.Request, respond wire.Responder) {
	h.Groups.ListGroups(request.Body.(*kmsg.ListGroupsRequest), bodyOf[*kmsg.ListGroupsResponse](respond))
}
