package handler

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/metadata"
	"github.com/leatlog/leat/broker/internal/wire"
)

// ListOffsets (key 2), versions 1 to 11: by time, by largest timestamp (KIP-734),
// earliest local and latest tiered (KIP-405, KIP-1005; without tiered storage the
// earliest and none).

// listSince is the version since which a special timestamp may be asked.
var listSince = map[int64]int16{-1: 1, -2: 1, -3: 7, -4: 8, -5: 9, -6: 11}

// listOffsets answers from a worker, since a search by time reads files. A leader that has
// not heard yet that it is one waits to hear so: sarama gives up after one more try.
func listOffsets(h *Handler, _ context.Context, request *wire.Request, respond wire.Responder) {
	body := request.Body.(*kmsg.ListOffsetsRequest)
	wanted := make([]wantedTopic, len(body.Topics))
	for i := range body.Topics {
		t := &body.Topics[i]
		wanted[i].name = t.Topic
		for j := range t.Partitions {
			wanted[i].highest = max(wanted[i].highest, t.Partitions[j].Partition)
		}
	}
	h.whenKnown(wanted, func(image *metadata.Image) {
		h.workers.submit(respond, func() { respond(wire.Response{Body: h.listed(body, image)}) })
	})
}

func (h *Handler) listed(body *kmsg.ListOffsetsRequest, image *metadata.Image) *kmsg.ListOffsetsResponse {
	response := body.ResponseKind().(*kmsg.ListOffsetsResponse)
	seen := map[fetchKey]bool{}
	for i := range body.Topics {
		t := &body.Topics[i]
		id, _, unknown := resolveTopic(image, false, t.Topic, [16]byte{})
		topic := kmsg.ListOffsetsResponseTopic{Topic: t.Topic}
		for j := range t.Partitions {
			p := &t.Partitions[j]
			key := fetchKey{name: t.Topic, partition: p.Partition}
			listed, err := Listed{Offset: -1, Timestamp: -1, LeaderEpoch: -1}, unknown
			if seen[key] {
				err = kerr.InvalidRequest // as Kafka answers duplicates
			}
			seen[key] = true
			if since, special := listSince[p.Timestamp]; p.Timestamp < 0 && (!special || body.Version < since) {
				err = kerr.UnsupportedVersion
			}
			var partition Partition
			if err == nil {
				partition, err = h.Partitions.Partition(id, p.Partition)
			}
			if err == nil {
				listed, err = partition.ListOffset(p.Timestamp, body.IsolationLevel == 1, p.CurrentLeaderEpoch)
			}
			topic.Partitions = append(topic.Partitions, kmsg.ListOffsetsResponseTopicPartition{Partition: p.Partition,
				ErrorCode: errorCode(err), Offset: listed.Offset, Timestamp: listed.Timestamp, LeaderEpoch: listed.LeaderEpoch})
		}
		response.Topics = append(response.Topics, topic)
	}
	return response
}
