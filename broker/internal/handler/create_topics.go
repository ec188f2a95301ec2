package handler

import (
	"context"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/metadata"
	"github.com/leatlog/leat/broker/internal/wire"
)

// CreateTopics (key 19), versions 2 to 7: KIP-4, KIP-195 (partial failure),
// KIP-464 (-1 for the broker's defaults), KIP-525 (the configuration in the
// answer), KIP-516 (topic ids).

func createTopics(h *Handler, _ context.Context, request *wire.Request, respond wire.Responder) {
	body := request.Body.(*kmsg.CreateTopicsRequest)
	response := body.ResponseKind().(*kmsg.CreateTopicsResponse)
	counts := map[string]int{}
	for i := range body.Topics {
		counts[body.Topics[i].Topic]++
	}
	refused := map[string]bool{}
	topics := slices.Clone(body.Topics) // those for the controller
	topics = slices.DeleteFunc(topics, func(t kmsg.CreateTopicsRequestTopic) bool {
		code, message := int16(0), ""
		switch {
		case counts[t.Topic] > 1:
			code, message = kerr.InvalidRequest.Code, "Duplicate topic name."
		case t.Topic == metadata.ClusterTopic:
			code, message = kerr.InvalidRequest.Code, "Creation of internal topic "+metadata.ClusterTopic+" is prohibited."
		default:
			return false
		}
		if !refused[t.Topic] {
			refused[t.Topic] = true
			response.Topics = append(response.Topics, refuseTopic(t.Topic, code, message))
		}
		return true
	})
	if len(topics) == 0 {
		respond(wire.Response{Body: response})
		return
	}
	finish := h.deadline(body.TimeoutMillis, func() {
		for i := range topics {
			response.Topics = append(response.Topics, refuseTopic(topics[i].Topic, kerr.RequestTimedOut.Code, ""))
		}
		respond(wire.Response{Body: response})
	})
	h.Controller.CreateTopics(topics, body.ValidateOnly, func(results []kmsg.CreateTopicsResponseTopic, err *kerr.Error) {
		if !finish() {
			return
		}
		if err != nil {
			for i := range topics {
				response.Topics = append(response.Topics, refuseTopic(topics[i].Topic, err.Code, ""))
			}
		}
		response.Topics = append(response.Topics, results...)
		respond(wire.Response{Body: response})
	})
}

// refuseTopic is the answer for a topic that was not created.
func refuseTopic(name string, code int16, message string) kmsg.CreateTopicsResponseTopic {
	t := kmsg.NewCreateTopicsResponseTopic()
	t.Topic, t.ErrorCode, t.NumPartitions, t.ReplicationFactor = name, code, -1, -1
	if message != "" {
		t.ErrorMessage = &message
	}
	return t
}
