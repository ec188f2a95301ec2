package handler

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/wire"
)

// AlterConfigs (key 33), versions 0 to 2: KIP-133. It replaces a resource's whole
// configuration; IncrementalAlterConfigs is the better way.

func alterConfigs(h *Handler, _ context.Context, request *wire.Request, respond wire.Responder) {
	body := request.Body.(*kmsg.AlterConfigsRequest)
	response := body.ResponseKind().(*kmsg.AlterConfigsResponse)
	h.Controller.AlterConfigs(body.Resources, body.ValidateOnly, func(results []kmsg.AlterConfigsResponseResource, err *kerr.Error) {
		if err != nil {
			for i := range body.Resources {
				r := kmsg.NewAlterConfigsResponseResource()
				r.ResourceType, r.ResourceName, r.ErrorCode = body.Resources[i].ResourceType, body.Resources[i].ResourceName, err.Code
				results = append(results, r)
			}
		}
		response.Resources = results
		respond(wire.Response{Body: response})
	})
}
