package handler

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/wire"
)

// RemoveRaftVoter (key 81), version 0: KIP-853. The node that leads the metadata quorumn// carries it out.

func removeRaftVoter(h *Handler, _ context.Context, request *wire.Request, respond wire.Responder) {
	h.Controller.Decide(request.Body, func(response kmsg.Response) { respond(wire.Response{Body: response}) })
}
