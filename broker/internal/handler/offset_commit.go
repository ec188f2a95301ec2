package handler

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/metadata"
	"github.com/leatlog/leat/broker/internal/wire"
)

// OffsetCommit (key 8), versions 2 to 10, which names topics by id (KIP-848). Partitions
// that do not exist are refused here; the others go to the group coordinator.
func offsetCommit(h *Handler, _ context.Context, request *wire.Request, respond wire.Responder) {
	body := request.Body.(*kmsg.OffsetCommitRequest)
	wanted := make([]wantedTopic, len(body.Topics))
	for i := range body.Topics {
		t := &body.Topics[i]
		wanted[i] = wantedTopic{name: t.Topic, id: t.TopicID}
		for j := range t.Partitions {
			wanted[i].highest = max(wanted[i].highest, t.Partitions[j].Partition)
		}
	}
	h.whenKnown(wanted, func(image *metadata.Image) { h.commitOffsets(body, image, respond) })
}

func (h *Handler) commitOffsets(body *kmsg.OffsetCommitRequest, image *metadata.Image, respond wire.Responder) {
	known := *body
	known.Topics = nil
	unknown := map[[2]int]bool{} // by place in the request
	for i := range body.Topics {
		t := &body.Topics[i]
		topic, ok := image.Topic(t.Topic)
		if body.Version >= 10 {
			topic, ok = image.TopicByID(t.TopicID)
		}
		kept := kmsg.OffsetCommitRequestTopic{Topic: t.Topic, TopicID: t.TopicID}
		if ok {
			kept.Topic = topic.Name
		}
		for j := range t.Partitions {
			if p := t.Partitions[j]; ok && p.Partition >= 0 && int(p.Partition) < len(topic.Partitions) {
				kept.Partitions = append(kept.Partitions, p)
			} else {
				unknown[[2]int{i, j}] = true
			}
		}
		if len(kept.Partitions) > 0 {
			known.Topics = append(known.Topics, kept)
		}
	}
	if len(unknown) == 0 && body.Version < 10 {
		h.Groups.OffsetCommit(body, bodyOf[*kmsg.OffsetCommitResponse](respond))
		return
	}
	answer := func(committed *kmsg.OffsetCommitResponse) {
		respond(wire.Response{Body: mergeCommitted(body, committed, unknown, image)})
	}
	if len(known.Topics) == 0 {
		answer(body.ResponseKind().(*kmsg.OffsetCommitResponse))
		return
	}
	h.Groups.OffsetCommit(&known, answer)
}

// mergeCommitted puts the answers of the coordinator and those for unknown
// partitions into the order of the request.
func mergeCommitted(body *kmsg.OffsetCommitRequest, committed *kmsg.OffsetCommitResponse, unknown map[[2]int]bool, image *metadata.Image) *kmsg.OffsetCommitResponse {
	var codes []int16
	for _, t := range committed.Topics {
		for _, p := range t.Partitions {
			codes = append(codes, p.ErrorCode)
		}
	}
	out := body.ResponseKind().(*kmsg.OffsetCommitResponse)
	for i, t := range body.Topics {
		topic := kmsg.NewOffsetCommitResponseTopic()
		topic.Topic, topic.TopicID = t.Topic, t.TopicID
		for j, p := range t.Partitions {
			one := kmsg.NewOffsetCommitResponseTopicPartition()
			one.Partition = p.Partition
			if unknown[[2]int{i, j}] {
				one.ErrorCode = unknownTopic(body.Version >= 10, t.TopicID, image).Code
			} else {
				one.ErrorCode, codes = codes[0], codes[1:]
			}
			topic.Partitions = append(topic.Partitions, one)
		}
		out.Topics = append(out.Topics, topic)
	}
	return out
}

// unknownTopic is the error for a partition that does not exist.
func unknownTopic(byID bool, id metadata.UUID, image *metadata.Image) *kerr.Error {
	if _, ok := image.TopicByID(id); byID && !ok {
		return kerr.UnknownTopicID
	}
	return kerr.UnknownTopicOrPartition
}
