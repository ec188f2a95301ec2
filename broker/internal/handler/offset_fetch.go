package handler

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/metadata"
	"github.com/leatlog/leat/broker/internal/wire"
)

// OffsetFetch (key 9), versions 1 to 10: all partitions from version 2 on, several
// groups from version 8 on (KIP-709), stable offsets only from version 7 on for those
// who want it (KIP-447), topics by id in version 10 (KIP-848).
func offsetFetch(h *Handler, _ context.Context, request *wire.Request, respond wire.Responder) {
	body := request.Body.(*kmsg.OffsetFetchRequest)
	if body.Version < 10 {
		h.Groups.OffsetFetch(body, bodyOf[*kmsg.OffsetFetchResponse](respond))
		return
	}
	image := h.Image()
	named := *body
	named.Groups = make([]kmsg.OffsetFetchRequestGroup, len(body.Groups))
	for i := range body.Groups {
		named.Groups[i] = withNames(&body.Groups[i], image)
	}
	h.Groups.OffsetFetch(&named, func(fetched *kmsg.OffsetFetchResponse) {
		for i := range fetched.Groups {
			withIDs(&fetched.Groups[i], &body.Groups[i], image)
		}
		respond(wire.Response{Body: fetched})
	})
}

// withNames returns what a group is asked for by the names of topics, without those that
// do not exist.
func withNames(asked *kmsg.OffsetFetchRequestGroup, image *metadata.Image) kmsg.OffsetFetchRequestGroup {
	named := *asked
	if asked.Topics == nil {
		return named // all of them
	}
	named.Topics = []kmsg.OffsetFetchRequestGroupTopic{}
	for _, t := range asked.Topics {
		if topic, ok := image.TopicByID(t.TopicID); ok {
			t.Topic = topic.Name
			named.Topics = append(named.Topics, t)
		}
	}
	return named
}

// withIDs puts the ids of topics into an answer, and the topics that do not exist. Offsets
// of topics that were deleted have none, and nobody can ask for them.
func withIDs(group *kmsg.OffsetFetchResponseGroup, asked *kmsg.OffsetFetchRequestGroup, image *metadata.Image) {
	known := group.Topics
	group.Topics = nil
	for _, t := range known {
		if topic, ok := image.Topic(t.Topic); ok {
			t.TopicID = topic.ID
			group.Topics = append(group.Topics, t)
		}
	}
	if group.ErrorCode != 0 {
		return
	}
	for _, t := range asked.Topics {
		if _, ok := image.TopicByID(t.TopicID); ok {
			continue
		}
		unknown := kmsg.NewOffsetFetchResponseGroupTopic()
		unknown.TopicID = t.TopicID
		for _, p := range t.Partitions {
			partition := kmsg.NewOffsetFetchResponseGroupTopicPartition()
			partition.Partition, partition.Offset, partition.ErrorCode = p, -1, kerr.UnknownTopicID.Code
			unknown.Partitions = append(unknown.Partitions, partition)
		}
		group.Topics = append(group.Topics, unknown)
	}
}
