package handler

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/wire"
)

// OffsetForLeaderEpoch (key 23), versions 2 to 4: where a leader epoch ends, by
// which consumers and followers notice that their log has diverged (KIP-101,
// KIP-279, KIP-320).
func offsetForLeaderEpoch(h *Handler, _ context.Context, request *wire.Request, respond wire.Responder) {
	body := request.Body.(*kmsg.OffsetForLeaderEpochRequest)
	response := body.ResponseKind().(*kmsg.OffsetForLeaderEpochResponse)
	image := h.Image()
	for i := range body.Topics {
		t := &body.Topics[i]
		id, _, unknown := resolveTopic(image, false, t.Topic, [16]byte{})
		topic := kmsg.OffsetForLeaderEpochResponseTopic{Topic: t.Topic}
		for j := range t.Partitions {
			p := &t.Partitions[j]
			answer := kmsg.OffsetForLeaderEpochResponseTopicPartition{Partition: p.Partition, LeaderEpoch: -1, EndOffset: -1}
			err := unknown
			var partition Partition
			if err == nil {
				partition, err = h.Partitions.Partition(id, p.Partition)
			}
			if err == nil {
				answer.LeaderEpoch, answer.EndOffset, err = partition.EpochEnd(p.CurrentLeaderEpoch, p.LeaderEpoch)
			}
			answer.ErrorCode = errorCode(err)
			topic.Partitions = append(topic.Partitions, answer)
		}
		response.Topics = append(response.Topics, topic)
	}
	respond(wire.Response{Body: response})
}
