package handler

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/wire"
)

// OffsetFetch (key 9), versions 1 to 9: all partitions from version 2 on, several
// groups from version 8 on (KIP-709), stable offsets only from version 7 on for those
// who want it (KIP-447).
func offsetFetch(h *Handler, _ context.Context, request *wire.Request, respond wire.Responder) {
	h.Groups.OffsetFetch(request.Body.(*kmsg.OffsetFetchRequest), bodyOf[*kmsg.OffsetFetchResponse](respond))
}
