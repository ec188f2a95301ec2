package handler

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/wire"
)

// UnregisterBroker (key 64), version 0: KIP-500.

func unregisterBroker(h *Handler, _ context.Context, request *wire.Request, respond wire.Responder) {
	h.Controller.Decide(request.Body, func(response kmsg.Response) { respond(wire.Response{Body: response}) })
}
