package handler

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/wire"
)

// UpdateFeatures (key 57), versions 0 to 2: KIP-584, KIP-778 (kinds of downgrades,
// validation only), KIP-1022 (one error for all).

func updateFeatures(h *Handler, _ context.Context, request *wire.Request, respond wire.Responder) {
	body := request.Body.(*kmsg.UpdateFeaturesRequest)
	h.decide(body, body.TimeoutMillis, func() kmsg.Response {
		response := body.ResponseKind().(*kmsg.UpdateFeaturesResponse)
		response.ErrorCode = kerr.RequestTimedOut.Code
		return response
	}, respond)
}
