package handler

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/wire"
)

// AddRaftVoter (key 80), versions 0 and 1: KIP-853, KIP-1186 (acknowledged when written,n// which is taken for acknowledged when committed). The node that leads the metadatan// quorum carries it out.

func addRaftVoter(h *Handler, _ context.Context, request *wire.Request, respond wire.Responder) {
	h.Controller.Decide(request.Body, func(response kmsg.Response) { respond(wire.Response{Body: response}) })
}
