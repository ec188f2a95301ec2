package handler

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/metadata"
	"github.com/leatlog/leat/broker/internal/wire"
)

// ListPartitionReassignments (key 46), version 0: KIP-455. It tells what this node
// has applied.

func listPartitionReassignments(h *Handler, _ context.Context, request *wire.Request, respond wire.Responder) {
	body := request.Body.(*kmsg.ListPartitionReassignmentsRequest)
	response := body.ResponseKind().(*kmsg.ListPartitionReassignmentsResponse)
	image := h.Image()
	add := func(t *metadata.Topic, wanted func(int32) bool) {
		topic := kmsg.NewListPartitionReassignmentsResponseTopic()
		topic.Topic = t.Name
		for n := range t.Partitions {
			p := &t.Partitions[n]
			if len(p.Adding) == 0 && len(p.Removing) == 0 || !wanted(p.ID) {
				continue
			}
			partition := kmsg.NewListPartitionReassignmentsResponseTopicPartition()
			partition.Partition, partition.Replicas = p.ID, p.Replicas
			partition.AddingReplicas, partition.RemovingReplicas = p.Adding, p.Removing
			topic.Partitions = append(topic.Partitions, partition)
		}
		if len(topic.Partitions) > 0 {
			response.Topics = append(response.Topics, topic)
		}
	}
	if body.Topics == nil {
		for _, t := range image.Topics() {
			add(t, func(int32) bool { return true })
		}
	}
	for _, asked := range body.Topics {
		if t, ok := image.Topic(asked.Topic); ok {
			wanted := map[int32]bool{}
			for _, p := range asked.Partitions {
				wanted[p] = true
			}
			add(t, func(p int32) bool { return wanted[p] })
		}
	}
	respond(wire.Response{Body: response})
}
