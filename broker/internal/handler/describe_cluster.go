package handler

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/wire"
)

// DescribeCluster (key 60), versions 0 to 2: KIP-700, KIP-919 (endpoint types),
// KIP-1073 (fenced brokers).

// Endpoint types of DescribeCluster.
const (
	brokerEndpoints     int8 = 1
	controllerEndpoints int8 = 2
)

func describeCluster(h *Handler, _ context.Context, request *wire.Request, respond wire.Responder) {
	body := request.Body.(*kmsg.DescribeClusterRequest)
	response := body.ResponseKind().(*kmsg.DescribeClusterResponse)
	refuse := func(err *kerr.Error, message string) {
		response.ErrorCode, response.ErrorMessage = err.Code, &message
		respond(wire.Response{Body: response})
	}
	if body.Version >= 1 {
		switch body.EndpointType {
		case brokerEndpoints:
		case controllerEndpoints:
			refuse(kerr.MismatchedEndpointType, "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of type CONTROLLER")
			return
		default:
			refuse(kerr.UnsupportedEndpointType, fmt.Sprintf("Unsupported endpoint type %d", body.EndpointType))
			return
		}
	}
	image := h.Image()
	response.ClusterID, response.ControllerID = image.ClusterID(), controllerFor(image)
	if body.IncludeClusterAuthorizedOperations {
		response.ClusterAuthorizedOperations = clusterOperations
	}
	brokers := image.Brokers()
	for i := range brokers {
		from := &brokers[i]
		l, ok := from.Listener(request.Conn.Listener)
		if !ok || from.Fenced && !body.IncludeFencedBrokers {
			continue
		}
		b := kmsg.NewDescribeClusterResponseBroker()
		b.NodeID, b.Host, b.Port, b.IsFenced = from.ID, l.Host, l.Port, from.Fenced
		if from.Rack != "" {
			b.Rack = &from.Rack
		}
		response.Brokers = append(response.Brokers, b)
	}
	respond(wire.Response{Body: response})
}
