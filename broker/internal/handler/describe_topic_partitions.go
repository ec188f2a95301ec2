package handler

import (
	"context"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/metadata"
	"github.com/leatlog/leat/broker/internal/wire"
)

// DescribeTopicPartitions (key 75), version 0: KIP-966. Topics come by name, page
// by page: an answer that ends early says where to go on.

// maxDescribedPartitions bounds an answer, Kafka's
// max.request.partition.size.limit.
const maxDescribedPartitions = 2000

func describeTopicPartitions(h *Handler, _ context.Context, request *wire.Request, respond wire.Responder) {
	body := request.Body.(*kmsg.DescribeTopicPartitionsRequest)
	response := body.ResponseKind().(*kmsg.DescribeTopicPartitionsResponse)
	image := h.Image()
	names := describedNames(image, body)
	if c := body.Cursor; c != nil {
		at, found := slices.BinarySearch(names, c.Topic)
		if c.Partition < 0 || !found && len(body.Topics) > 0 {
			for _, name := range names {
				t := kmsg.NewDescribeTopicPartitionsResponseTopic()
				t.Topic, t.ErrorCode = &name, kerr.InvalidRequest.Code
				response.Topics = append(response.Topics, t)
			}
			respond(wire.Response{Body: response})
			return
		}
		names = names[at:]
	}
	left := min(max(int(body.ResponsePartitionLimit), 1), maxDescribedPartitions)
	for _, name := range names {
		from := 0
		if body.Cursor != nil && body.Cursor.Topic == name {
			from = int(body.Cursor.Partition)
		}
		if left == 0 {
			response.NextCursor = &kmsg.DescribeTopicPartitionsResponseNextCursor{Topic: name}
			break
		}
		topic, ok := image.Topic(name)
		if !ok {
			response.Topics = append(response.Topics, missingTopic(name, missingTopicCode(name)))
			continue
		}
		from = min(from, len(topic.Partitions))
		to := min(from+left, len(topic.Partitions))
		response.Topics = append(response.Topics, describePartitions(image, request.Conn.Listener, topic, from, to))
		left -= to - from
		if to < len(topic.Partitions) {
			response.NextCursor = &kmsg.DescribeTopicPartitionsResponseNextCursor{Topic: name, Partition: int32(to)}
			break
		}
	}
	respond(wire.Response{Body: response})
}

// describedNames returns the topics asked for, none meaning all, sorted.
func describedNames(image *metadata.Image, body *kmsg.DescribeTopicPartitionsRequest) []string {
	var names []string
	if len(body.Topics) == 0 {
		for _, t := range image.Topics() {
			names = append(names, t.Name)
		}
		return names
	}
	for i := range body.Topics {
		names = append(names, body.Topics[i].Topic)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func missingTopic(name string, code int16) kmsg.DescribeTopicPartitionsResponseTopic {
	t := kmsg.NewDescribeTopicPartitionsResponseTopic()
	t.Topic, t.ErrorCode, t.IsInternal = &name, code, metadata.IsInternal(name)
	t.AuthorizedOperations = topicOperations
	return t
}

// describePartitions describes the partitions from..to-1.
func describePartitions(image *metadata.Image, listener string, topic *metadata.Topic, from, to int) kmsg.DescribeTopicPartitionsResponseTopic {
	t := kmsg.NewDescribeTopicPartitionsResponseTopic()
	t.Topic, t.TopicID, t.IsInternal = &topic.Name, topic.ID, metadata.IsInternal(topic.Name)
	t.AuthorizedOperations = topicOperations
	for i := from; i < to; i++ {
		source := &topic.Partitions[i]
		p := kmsg.NewDescribeTopicPartitionsResponseTopicPartition()
		p.Partition, p.LeaderID, p.LeaderEpoch = source.ID, source.Leader, source.LeaderEpoch
		p.Replicas, p.ISR = source.Replicas, source.ISR
		// The schema allows null here, and the Java clients fail on it.
		p.EligibleLeaderReplicas, p.LastKnownELR = notNil(source.ELR), notNil(source.LastKnownELR)
		p.OfflineReplicas = offlineReplicas(image, listener, source)
		if code := leaderCode(image, listener, source.Leader, true); code != 0 {
			p.ErrorCode, p.LeaderID = code, -1
		}
		t.Partitions = append(t.Partitions, p)
	}
	return t
}

func notNil(list []int32) []int32 {
	if list == nil {
		return []int32{}
	}
	return list
}
