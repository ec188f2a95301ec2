package handler

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/wire"
)

// OffsetDelete (key 47), version 0 (KIP-496).
func offsetDelete(h *Handler, _ context.Context, request *wire.Request, respond wire.Responder) {
	h.Groups.OffsetDelete(request.Body.(*kmsg.OffsetDeleteRequest), bodyOf[*kmsg.OffsetDeleteResponse](respond))
}
