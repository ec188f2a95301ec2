package handler

import (
	"context"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/metadata"
	"github.com/leatlog/leat/broker/internal/wire"
)

// DeleteRecords (key 21), versions 0 to 2: moves the log start (KIP-107). It
// answers from a worker, since it writes and removes files.
func deleteRecords(h *Handler, _ context.Context, request *wire.Request, respond wire.Responder) {
	body := request.Body.(*kmsg.DeleteRecordsRequest)
	h.workers.submit(respond, func() {
		response := body.ResponseKind().(*kmsg.DeleteRecordsResponse)
		image := h.Image()
		for i := range body.Topics {
			t := &body.Topics[i]
			id, name, err := resolveTopic(image, false, t.Topic, [16]byte{})
			if err == nil {
				err = mayDelete(image, name)
			}
			topic := kmsg.DeleteRecordsResponseTopic{Topic: t.Topic}
			for j := range t.Partitions {
				p := &t.Partitions[j]
				low, err := h.deleteBefore(id, p, err)
				topic.Partitions = append(topic.Partitions, kmsg.DeleteRecordsResponseTopicPartition{
					Partition: p.Partition, LowWatermark: low, ErrorCode: errorCode(err)})
			}
			response.Topics = append(response.Topics, topic)
		}
		respond(wire.Response{Body: response})
	})
}

func (h *Handler) deleteBefore(id metadata.UUID, p *kmsg.DeleteRecordsRequestTopicPartition, err *kerr.Error) (int64, *kerr.Error) {
	if err != nil {
		return -1, err
	}
	partition, err := h.Partitions.Partition(id, p.Partition)
	if err != nil {
		return -1, err
	}
	return partition.DeleteBefore(p.Offset)
}

// mayDelete says whether clients may delete records of the topic: not of internal
// ones, and as in Kafka not of those that are only compacted.
func mayDelete(image *metadata.Image, name string) *kerr.Error {
	if metadata.IsInternal(name) {
		return kerr.InvalidTopicException
	}
	policy, ok := image.TopicConfig(name)["cleanup.policy"]
	if ok && !slices.Contains(metadata.SplitList(policy), "delete") {
		return kerr.PolicyViolation
	}
	return nil
}
