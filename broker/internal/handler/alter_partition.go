package handler

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/wire"
)

// AlterPartition (key 56), versions 2 and 3, between nodes only: KIP-497, KIP-841
// (no fenced replica in sync), KIP-903 (nor one of an earlier incarnation).

func alterPartition(h *Handler, _ context.Context, request *wire.Request, respond wire.Responder) {
	h.Controller.Decide(request.Body, func(response kmsg.Response) { respond(wire.Response{Body: response}) })
}
