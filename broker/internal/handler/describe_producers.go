package handler

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/wire"
)

// DescribeProducers (key 61), version 0: the producers that a replica of a
// partition remembers, with their open transactions (KIP-664). As with Kafka any replica
// may be asked: its tool looks for hanging transactions node by node.
func describeProducers(h *Handler, _ context.Context, request *wire.Request, respond wire.Responder) {
	body := request.Body.(*kmsg.DescribeProducersRequest)
	out := body.ResponseKind().(*kmsg.DescribeProducersResponse)
	image := h.Image()
	for _, t := range body.Topics {
		topic := kmsg.NewDescribeProducersResponseTopic()
		topic.Topic = t.Topic
		known, ok := image.Topic(t.Topic)
		for _, p := range t.Partitions {
			one := kmsg.NewDescribeProducersResponseTopicPartition()
			one.Partition = p
			var err *kerr.Error
			if !ok || p < 0 || int(p) >= len(known.Partitions) {
				err = kerr.UnknownTopicOrPartition
			} else if partition, missing := h.Partitions.Partition(known.ID, p); missing != nil {
				err = kerr.NotLeaderForPartition // some other node's
			} else {
				one.ActiveProducers, err = activeProducers(partition)
			}
			one.ErrorCode = errorCode(err)
			topic.Partitions = append(topic.Partitions, one)
		}
		out.Topics = append(out.Topics, topic)
	}
	respond(wire.Response{Body: out})
}

func activeProducers(partition Partition) ([]kmsg.DescribeProducersResponseTopicPartitionActiveProducer, *kerr.Error) {
	producers, err := partition.Producers()
	var list []kmsg.DescribeProducersResponseTopicPartitionActiveProducer
	for _, p := range producers {
		one := kmsg.NewDescribeProducersResponseTopicPartitionActiveProducer()
		one.ProducerID, one.ProducerEpoch, one.LastSequence, one.LastTimestamp = p.ID, int32(p.Epoch), p.LastSequence, p.LastTimestamp
		one.CoordinatorEpoch, one.CurrentTxnStartOffset = p.CoordinatorEpoch, p.TxnStartOffset
		list = append(list, one)
	}
	return list, err
}
