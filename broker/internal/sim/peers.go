package sim

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/handler"
	"github.com/leatlog/leat/broker/internal/metadata"
	"github.com/leatlog/leat/broker/internal/replica"
)

// never is a context of a connection that does not end.
var never = context.Background()

// peers is what replicas need of the other nodes.
type peers struct{ p *process }

var _ replica.Cluster = peers{}

// BrokerEpoch implements replica.Cluster.
func (x peers) BrokerEpoch() int64 { return x.p.epoch }

// Request implements replica.Cluster.
func (x peers) Request(_ context.Context, to int32, lane string, request kmsg.Request) (kmsg.Response, error) {
	c := x.p.node.c
	request.SetVersion(request.MaxVersion())
	if r, ok := request.(*kmsg.FetchRequest); ok {
		r.SetVersion(18)
	}
	return c.net.wait(stream{x.p.node.id, to, lane}, c.nodes[to], true, request, attemptTimeout)
}

// AlterPartition implements replica.Cluster.
func (x peers) AlterPartition(_ context.Context, request *kmsg.AlterPartitionRequest) (*kmsg.AlterPartitionResponse, error) {
	response, err := x.p.askController(request)
	if err != nil {
		return nil, err
	}
	return response.(*kmsg.AlterPartitionResponse), nil
}

// partitions shows the replicas to the handlers.
type partitions struct{ manager *replica.Manager }

var _ handler.Partitions = partitions{}

func (p partitions) Partition(topic metadata.UUID, partition int32) (handler.Partition, *kerr.Error) {
	r, err := p.manager.Replica(topic, partition)
	if err != nil {
		return nil, err
	}
	return served{r}, nil
}

func (p partitions) Schedule(at time.Time, expire func()) (cancel func()) {
	d := new(replica.Deadline)
	p.manager.Deadlines().Set(d, at, expire)
	return func() { p.manager.Deadlines().Cancel(d) }
}

type served struct{ *replica.Replica }

func (p served) Append(batch []byte, acks int16, deadline time.Time, tag int, sink handler.AppendSink) {
	p.Replica.Append(batch, acks, deadline, tag, sink)
}

func (p served) AppendVerified(batch []byte, ended uint32, acks int16, deadline time.Time, tag int, sink handler.AppendSink) bool {
	return p.Replica.AppendVerified(batch, ended, acks, deadline, tag, sink)
}

func (p served) Read(r handler.ReadRequest) handler.ReadResult {
	return handler.ReadResult(p.Replica.Read(replica.ReadRequest(r)))
}

func (p served) ReadFollower(r handler.ReadRequest, id int32, brokerEpoch int64) handler.ReadResult {
	return handler.ReadResult(p.Replica.ReadFollower(replica.ReadRequest(r), id, brokerEpoch))
}

func (p served) WaitEnd(w handler.Waiter, end int64, leaderEpoch int32) uint64 {
	return p.Replica.WaitEnd(w, end, leaderEpoch)
}

func (p served) Wait(w handler.Waiter, position int64, leaderEpoch int32) uint64 {
	return p.Replica.Wait(w, position, leaderEpoch)
}

func (p served) ListOffset(timestamp int64, committed bool, currentLeaderEpoch int32) (handler.Listed, *kerr.Error) {
	listed, err := p.Replica.ListOffset(timestamp, committed, currentLeaderEpoch)
	return handler.Listed(listed), err
}
