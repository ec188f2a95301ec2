package handler

import (
	"context"
	"slices"
	"strconv"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/wire"
)

// ListConfigResources (key 74), versions 0 and 1: KIP-1000, KIP-1142. There are no
// client metrics subscriptions, no configurations of groups and no loggers.

// Types of configuration resources besides topics and brokers.
const (
	brokerLoggerResource  int8 = 8
	clientMetricsResource int8 = 16
	groupResource         int8 = 32
)

func listConfigResources(h *Handler, _ context.Context, request *wire.Request, respond wire.Responder) {
	body := request.Body.(*kmsg.ListConfigResourcesRequest)
	response := body.ResponseKind().(*kmsg.ListConfigResourcesResponse)
	topics, brokers := int8(kmsg.ConfigResourceTypeTopic), int8(kmsg.ConfigResourceTypeBroker)
	supported := []int8{topics, brokers, brokerLoggerResource, clientMetricsResource, groupResource}
	wanted := body.ResourceTypes
	switch {
	case body.Version == 0:
		wanted = []int8{clientMetricsResource}
	case len(wanted) == 0:
		wanted = supported
	}
	for _, kind := range wanted {
		if !slices.Contains(supported, kind) {
			response.ErrorCode = kerr.UnsupportedVersion.Code
			respond(wire.Response{Body: response})
			return
		}
	}
	add := func(kind int8, name string) {
		r := kmsg.NewListConfigResourcesResponseConfigResource()
		r.Name, r.Type = name, kind
		response.ConfigResources = append(response.ConfigResources, r)
	}
	image := h.Image()
	if slices.Contains(wanted, topics) {
		for _, t := range image.Topics() {
			add(topics, t.Name)
		}
	}
	if slices.Contains(wanted, brokers) {
		for _, b := range image.Brokers() {
			if !b.Fenced {
				add(brokers, strconv.Itoa(int(b.ID)))
			}
		}
	}
	respond(wire.Response{Body: response})
}
