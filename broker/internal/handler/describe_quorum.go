package handler

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/wire"
)

// DescribeQuorum (key 55), versions 0 to 2: KIP-595, KIP-836 (times), KIP-853 (directory ids andn// listeners). The node that leads the metadata quorum answers.

func describeQuorum(h *Handler, _ context.Context, request *wire.Request, respond wire.Responder) {
	h.Controller.Decide(request.Body, func(response kmsg.Response) { respond(wire.Response{Body: response}) })
}
