package replica

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/vfs"
)

// idleLeader answers fetches with nothing, when the test takes them.
type idleLeader struct {
	epoch    atomic.Int64
	requests chan *kmsg.FetchRequest
}

func (l *idleLeader) BrokerEpoch() int64 { return l.epoch.Load() }

func (l *idleLeader) Request(ctx context.Context, _ int32, _ string, request kmsg.Request) (kmsg.Response, error) {
	fetch := request.(*kmsg.FetchRequest)
	select {
	case l.requests <- fetch:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	answer := fetch.ResponseKind().(*kmsg.FetchResponse)
	answer.SessionID = 7
	return answer, nil
}

func (*idleLeader) AlterPartition(context.Context, *kmsg.AlterPartitionRequest) (*kmsg.AlterPartitionResponse, error) {
	return kmsg.NewPtrAlterPartitionResponse(), nil
}

// TestFetcherMentionsAllAfterARegistration has an idle partition told to its leader
// again when this broker has registered anew: in sync is only what the new one fetched.
func TestFetcherMentionsAllAfterARegistration(t *testing.T) {
	leader := &idleLeader{requests: make(chan *kmsg.FetchRequest)}
	leader.epoch.Store(4)
	w := newWorld(t, vfs.NewMem(), nil, func(c *Config) { c.Cluster = leader })
	defer w.close()
	w.create("orders", 0)
	w.apply(led("orders", 0, 2, 1, 1))
	mentions := func(want int, epoch int64) {
		t.Helper()
		r := <-leader.requests
		if len(r.Topics) != want || r.ReplicaState.Epoch != epoch {
			t.Fatalf("a fetch under registration %d mentions %d topics; want %d and %d", r.ReplicaState.Epoch, len(r.Topics), epoch, want)
		}
	}
	mentions(1, 4)
	mentions(0, 4)
	leader.epoch.Store(-1) // it registers
	<-leader.requests
	leader.epoch.Store(9)
	for range 10 { // two may have been on their way
		if r := <-leader.requests; r.ReplicaState.Epoch == 9 && len(r.Topics) == 1 {
			return
		}
	}
	t.Fatal("no fetch of the new registration mentions the partition")
}
