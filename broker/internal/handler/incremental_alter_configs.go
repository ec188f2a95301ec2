package handler

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/wire"
)

// IncrementalAlterConfigs (key 44), versions 0 to 1: KIP-339.

func incrementalAlterConfigs(h *Handler, _ context.Context, request *wire.Request, respond wire.Responder) {
	body := request.Body.(*kmsg.IncrementalAlterConfigsRequest)
	response := body.ResponseKind().(*kmsg.IncrementalAlterConfigsResponse)
	h.Controller.IncrementalAlterConfigs(body.Resources, body.ValidateOnly, func(results []kmsg.IncrementalAlterConfigsResponseResource, err *kerr.Error) {
		if err != nil {
			for i := range body.Resources {
				r := kmsg.NewIncrementalAlterConfigsResponseResource()
				r.ResourceType, r.ResourceName, r.ErrorCode = body.Resources[i].ResourceType, body.Resources[i].ResourceName, err.Code
				results = append(results, r)
			}
		}
		response.Resources = results
		respond(wire.Response{Body: response})
	})
}
