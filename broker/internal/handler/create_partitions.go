package handler

import (
	"context"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/wire"
)

// CreatePartitions (key 37), versions 0 to 3: KIP-195.

func createPartitions(h *Handler, _ context.Context, request *wire.Request, respond wire.Responder) {
	body := request.Body.(*kmsg.CreatePartitionsRequest)
	response := body.ResponseKind().(*kmsg.CreatePartitionsResponse)
	counts := map[string]int{}
	for i := range body.Topics {
		counts[body.Topics[i].Topic]++
	}
	refuse := func(name string, code int16, message *string) {
		t := kmsg.NewCreatePartitionsResponseTopic()
		t.Topic, t.ErrorCode, t.ErrorMessage = name, code, message
		response.Topics = append(response.Topics, t)
	}
	topics := slices.Clone(body.Topics) // those for the controller
	topics = slices.DeleteFunc(topics, func(t kmsg.CreatePartitionsRequestTopic) bool {
		n := counts[t.Topic]
		if n > 1 { // the first of them is answered for all
			counts[t.Topic] = -1
			refuse(t.Topic, kerr.InvalidRequest.Code, kmsg.StringPtr("Duplicate topic name."))
		}
		return n != 1
	})
	if len(topics) == 0 {
		respond(wire.Response{Body: response})
		return
	}
	refuseAll := func(err *kerr.Error) {
		for i := range topics {
			refuse(topics[i].Topic, err.Code, nil)
		}
		respond(wire.Response{Body: response})
	}
	finish := h.deadline(body.TimeoutMillis, func() { refuseAll(kerr.RequestTimedOut) })
	h.Controller.CreatePartitions(topics, body.ValidateOnly, func(results []kmsg.CreatePartitionsResponseTopic, err *kerr.Error) {
		if !finish() {
			return
		}
		if err != nil {
			refuseAll(err)
			return
		}
		response.Topics = append(response.Topics, results...)
		respond(wire.Response{Body: response})
	})
}
