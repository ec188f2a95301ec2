package broker

import (
	"errors"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/leatlog/leat/broker/internal/handler"
	"github.com/leatlog/leat/broker/internal/metadata"
	"github.com/leatlog/leat/broker/internal/quorum"
	"github.com/leatlog/leat/broker/internal/storage"
)

// clusterTopic shows the metadata log to consumers as partition 0 of
// __cluster_metadata: what is committed can be read, nothing else can be done.
// Reads do not check leader epochs: every node's committed entries are the same.
type clusterTopic struct {
	node  *quorum.Node
	image func() *metadata.Image

	mu      sync.Mutex
	last    uint64
	waiters map[uint64]handler.Waiter
}

var _ handler.Partition = (*clusterTopic)(nil)

func newClusterTopic(node *quorum.Node, image func() *metadata.Image) *clusterTopic {
	return &clusterTopic{node: node, image: image, waiters: map[uint64]handler.Waiter{}}
}

// grown wakes those who wait for more.
func (c *clusterTopic) grown() {
	c.mu.Lock()
	waiters := c.waiters
	c.waiters = map[uint64]handler.Waiter{}
	c.mu.Unlock()
	for _, w := range waiters {
		w.Readable(1 << 30) // how much is not known: read and see
	}
}

func (c *clusterTopic) Leader() (id, epoch int32) { return c.image().Controller() }

func (c *clusterTopic) Append(_ []byte, _ int16, _ time.Time, tag int, sink handler.AppendSink) {
	sink.Appended(tag, kerr.InvalidTopicException, -1, -1, -1)
}

// TransactionState implements handler.Partition: nobody produces here.
func (c *clusterTopic) TransactionState(int64, int16) storage.TransactionState {
	return storage.TransactionState{}
}

// AppendVerified implements handler.Partition.
func (c *clusterTopic) AppendVerified(_ []byte, _ uint32, acks int16, deadline time.Time, tag int, sink handler.AppendSink) bool {
	c.Append(nil, acks, deadline, tag, sink)
	return true
}

// Producers implements handler.Partition.
func (c *clusterTopic) Producers() ([]storage.Producer, *kerr.Error) { return nil, nil }

func (c *clusterTopic) Read(r handler.ReadRequest) handler.ReadResult {
	start, end := c.node.Offsets()
	result := handler.ReadResult{HighWatermark: end, LastStableOffset: end, LogStart: start, Position: end, DivergingEpoch: -1}
	_, result.LeaderEpoch = c.Leader()
	slice, err := c.node.Slice(r.Offset, int(r.MaxBytes), r.AtLeastOne)
	switch {
	case errors.Is(err, storage.ErrOffsetOutOfRange):
		return handler.ReadResult{Err: kerr.OffsetOutOfRange, Position: end, DivergingEpoch: -1}
	case err != nil:
		return handler.ReadResult{Err: kerr.KafkaStorageError, Position: end, DivergingEpoch: -1}
	}
	result.Slice = slice
	return result
}

// ReadFollower refuses: the quorum replicates this topic by itself.
func (c *clusterTopic) ReadFollower(handler.ReadRequest, int32, int64) handler.ReadResult {
	return handler.ReadResult{Err: kerr.NotLeaderForPartition, DivergingEpoch: -1}
}

// WaitEnd is not reached, since ReadFollower refuses.
func (c *clusterTopic) WaitEnd(w handler.Waiter, _ int64, _ int32) (token uint64) {
	w.Interrupted()
	return 0
}

func (c *clusterTopic) Wait(w handler.Waiter, position int64, _ int32) (token uint64) {
	c.mu.Lock()
	_, end := c.node.Offsets()
	if end == position {
		c.last++
		token = c.last
		c.waiters[token] = w
	}
	c.mu.Unlock()
	if token == 0 {
		w.Readable(1 << 30)
	}
	return token
}

func (c *clusterTopic) Unwait(token uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.waiters, token)
}

func (c *clusterTopic) ListOffset(timestamp int64, _ bool, _ int32) (handler.Listed, *kerr.Error) {
	start, end := c.node.Offsets()
	_, epoch := c.Leader()
	switch timestamp {
	case -1:
		return handler.Listed{Offset: end, Timestamp: -1, LeaderEpoch: epoch}, nil
	case -2, -4:
		return handler.Listed{Offset: start, Timestamp: -1, LeaderEpoch: -1}, nil
	}
	offset, at, epoch, err := c.node.OffsetForTimestamp(timestamp)
	if err != nil {
		return handler.Listed{}, kerr.KafkaStorageError
	}
	return handler.Listed{Offset: offset, Timestamp: at, LeaderEpoch: epoch}, nil
}

func (c *clusterTopic) EpochEnd(_, epoch int32) (found int32, end int64, err *kerr.Error) {
	found, end = c.node.EndOffsetForEpoch(epoch)
	return found, end, nil
}

func (c *clusterTopic) DeleteBefore(int64) (int64, *kerr.Error) { return -1, kerr.PolicyViolation }
