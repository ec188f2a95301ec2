package broker

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/controller"
	"github.com/leatlog/leat/broker/internal/replica"
)

// replicaLink is what the replicas of this broker need of the other nodes.
type replicaLink struct{ broker *Broker }

var _ replica.Cluster = replicaLink{}

// BrokerEpoch implements replica.Cluster.
func (l replicaLink) BrokerEpoch() int64 { return l.broker.liveness.epoch.Load() }

// Request implements replica.Cluster.
func (l replicaLink) Request(ctx context.Context, node int32, lane string, request kmsg.Request) (kmsg.Response, error) {
	return l.broker.peers.RequestOn(ctx, node, lane, request)
}

// AlterPartition implements replica.Cluster.
func (l replicaLink) AlterPartition(ctx context.Context, request *kmsg.AlterPartitionRequest) (*kmsg.AlterPartitionResponse, error) {
	request.SetVersion(request.MaxVersion()) // as the controller of this node reads it
	client := &controllerClient{broker: l.broker}
	answer, err := client.call(ctx, attempt{
		event:   func(id uint64) controller.Event { return l.broker.shell.event(request, id) },
		request: request,
		answer:  func(response kmsg.Response) (any, int16) { return response, movedCode(response) },
	})
	if err != nil {
		return nil, err
	}
	if topics, local := answer.([]kmsg.AlterPartitionResponseTopic); local {
		answer = controller.ResponseFor(request, controller.Answer{Response: topics})
	}
	response, ok := answer.(*kmsg.AlterPartitionResponse)
	if !ok {
		return nil, fmt.Errorf("the controller answered AlterPartition with %T", answer)
	}
	return response, nil
}
