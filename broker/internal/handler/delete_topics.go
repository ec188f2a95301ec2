package handler

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/wire"
)

// DeleteTopics (key 20), versions 1 to 6: KIP-4, KIP-516 (by topic id, version 6).

func deleteTopics(h *Handler, _ context.Context, request *wire.Request, respond wire.Responder) {
	body := request.Body.(*kmsg.DeleteTopicsRequest)
	response := body.ResponseKind().(*kmsg.DeleteTopicsResponse)
	topics := body.Topics
	for i := range body.TopicNames {
		t := kmsg.NewDeleteTopicsRequestTopic()
		t.Topic = &body.TopicNames[i]
		topics = append(topics, t)
	}
	refuseAll := func(err *kerr.Error) {
		for i := range topics {
			t := kmsg.NewDeleteTopicsResponseTopic()
			t.Topic, t.TopicID, t.ErrorCode = topics[i].Topic, topics[i].TopicID, err.Code
			response.Topics = append(response.Topics, t)
		}
		nameTopics(response)
		respond(wire.Response{Body: response})
	}
	if !h.Config.DeleteTopics {
		if body.Version < 3 {
			refuseAll(kerr.InvalidRequest)
		} else {
			refuseAll(kerr.TopicDeletionDisabled)
		}
		return
	}
	if len(topics) == 0 {
		respond(wire.Response{Body: response})
		return
	}
	finish := h.deadline(body.TimeoutMillis, func() { refuseAll(kerr.RequestTimedOut) })
	h.Controller.DeleteTopics(topics, func(results []kmsg.DeleteTopicsResponseTopic, err *kerr.Error) {
		if !finish() {
			return
		}
		if err != nil {
			refuseAll(err)
			return
		}
		response.Topics = results
		nameTopics(response)
		respond(wire.Response{Body: response})
	})
}

// nameTopics replaces null names where the version has none.
func nameTopics(response *kmsg.DeleteTopicsResponse) {
	for i := range response.Topics {
		if t := &response.Topics[i]; t.Topic == nil && response.Version < 6 {
			t.Topic = new(string)
		}
	}
}
