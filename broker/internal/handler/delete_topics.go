package handler

import (
	"context"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/wire"
)

// DeleteTopics (key 20), versions 1 to 6: KIP-4, KIP-516 (by topic id, version 6).

func deleteTopics(h *Handler, _ context.Context, request *wire.Request, respond wire.Responder) {
	body := request.Body.(*kmsg.DeleteTopicsRequest)
	response := body.ResponseKind().(*kmsg.DeleteTopicsResponse)
	topics := topicsToDelete(body, response)
	refuseAll := func(err *kerr.Error) {
		for i := range topics {
			response.Topics = append(response.Topics, refuseDeletion(&topics[i], err, ""))
		}
		nameTopics(response)
		respond(wire.Response{Body: response})
	}
	if len(topics) == 0 {
		nameTopics(response)
		respond(wire.Response{Body: response})
		return
	}
	if !h.Config.DeleteTopics {
		if body.Version < 3 {
			refuseAll(kerr.InvalidRequest)
		} else {
			refuseAll(kerr.TopicDeletionDisabled)
		}
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
		response.Topics = append(response.Topics, results...)
		nameTopics(response)
		respond(wire.Response{Body: response})
	})
}

// topicsToDelete returns the topics that the controller is to delete. What is named
// twice, or not, is refused in the response.
func topicsToDelete(body *kmsg.DeleteTopicsRequest, response *kmsg.DeleteTopicsResponse) []kmsg.DeleteTopicsRequestTopic {
	topics := slices.Clone(body.Topics)
	for i := range body.TopicNames {
		t := kmsg.NewDeleteTopicsRequestTopic()
		t.Topic = &body.TopicNames[i]
		topics = append(topics, t)
	}
	type key struct {
		name string
		id   [16]byte
	}
	keyOf := func(t *kmsg.DeleteTopicsRequestTopic) key {
		if t.Topic != nil {
			return key{name: *t.Topic}
		}
		return key{id: t.TopicID}
	}
	counts := map[key]int{}
	for i := range topics {
		counts[keyOf(&topics[i])]++
	}
	return slices.DeleteFunc(topics, func(t kmsg.DeleteTopicsRequestTopic) bool {
		k, message := keyOf(&t), ""
		switch {
		case t.Topic == nil && t.TopicID == [16]byte{}:
			message = "Neither topic name nor id were specified."
		case t.Topic != nil && t.TopicID != [16]byte{}:
			message = "You may not specify both topic name and topic id."
		case counts[k] > 1:
			message = "Duplicate topic name or id."
			counts[k] = -1 // the first of them is answered for all
		case counts[k] == 1:
			return false
		}
		if message != "" {
			response.Topics = append(response.Topics, refuseDeletion(&t, kerr.InvalidRequest, message))
		}
		return true
	})
}

func refuseDeletion(t *kmsg.DeleteTopicsRequestTopic, err *kerr.Error, message string) kmsg.DeleteTopicsResponseTopic {
	r := kmsg.NewDeleteTopicsResponseTopic()
	r.Topic, r.TopicID, r.ErrorCode = t.Topic, t.TopicID, err.Code
	if message != "" {
		r.ErrorMessage = &message
	}
	return r
}

// nameTopics replaces null names where the version has none.
func nameTopics(response *kmsg.DeleteTopicsResponse) {
	for i := range response.Topics {
		if t := &response.Topics[i]; t.Topic == nil && response.Version < 6 {
			t.Topic = new(string)
		}
	}
}
