package controller

import (
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/metadata"
)

// benchCluster has brokers and topics of ten partitions with three replicas each.
func benchCluster(b *testing.B, brokers, topics int) *world {
	w := newWorld(b)
	w.quiet = true
	w.step(BecameLeader{Epoch: 1, Image: w.committed, ClusterID: w.uuid()})
	for id := range int32(brokers) {
		w.step(RegisterBroker{ID: 1, Broker: id, Incarnation: w.uuid(), PreviousEpoch: -1})
	}
	w.commit(len(w.queue))
	for id := range int32(brokers) {
		w.step(BrokerHeartbeat{ID: 1, Broker: id, BrokerEpoch: int64(id), Offset: w.offset})
	}
	w.commit(len(w.queue))
	for n := range topics {
		t := kmsg.NewCreateTopicsRequestTopic()
		t.Topic, t.NumPartitions, t.ReplicationFactor = fmt.Sprintf("topic-%d", n), 10, 3
		w.step(CreateTopics{ID: 1, Topics: []kmsg.CreateTopicsRequestTopic{t}, TopicIDs: []metadata.UUID{w.uuid()}})
		w.commit(len(w.queue))
	}
	return w
}

// BenchmarkFence fences a broker that leads 2,000 of 10,000 partitions and is in sync
// for 6,000: the decision, the encoding of the entry, and applying it.
func BenchmarkFence(b *testing.B) {
	w := benchCluster(b, 5, 1000)
	epoch := int64(0)
	for b.Loop() {
		fx := w.c.Step(w.now, BrokerHeartbeat{ID: 1, Broker: 0, BrokerEpoch: epoch, Offset: w.offset, WantFence: true})
		var changes []metadata.Change
		for _, p := range fx.Proposals {
			changes = append(changes, p.Changes...)
		}
		value := metadata.Encode(changes)
		if _, _, err := w.committed.Apply(w.offset+1, 1, changes); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(len(changes)-1), "partitions")
		b.ReportMetric(float64(len(value)), "entry-bytes")
		w.c.Step(w.now, Failed{Image: w.committed}) // once more
	}
}

// BenchmarkAlterPartition alters the in-sync replicas of one partition among 10,000:
// the cost must be that of the change.
func BenchmarkAlterPartition(b *testing.B) {
	w := benchCluster(b, 5, 1000)
	t := w.committed.Topics()[0]
	p := &t.Partitions[0]
	asked := kmsg.AlterPartitionRequestTopicPartition{Partition: 0, LeaderEpoch: p.LeaderEpoch, PartitionEpoch: p.PartitionEpoch,
		NewEpochISR: []kmsg.AlterPartitionRequestTopicPartitionNewEpochISR{{BrokerID: p.Leader, BrokerEpoch: -1}}}
	e := AlterPartition{ID: 1, Broker: p.Leader, BrokerEpoch: int64(p.Leader),
		Topics: []kmsg.AlterPartitionRequestTopic{{TopicID: t.ID, Partitions: []kmsg.AlterPartitionRequestTopicPartition{asked}}}}
	var offset int64
	for b.Loop() {
		fx := w.c.Step(w.now, e)
		offset++
		next, _, err := w.committed.Apply(w.offset+offset, 1, fx.Proposals[0].Changes)
		if err != nil {
			b.Fatal(err)
		}
		w.committed = next
		w.c.Step(w.now, Committed{Proposal: fx.Proposals[0].ID, Image: next})
		asked := &e.Topics[0].Partitions[0]
		asked.PartitionEpoch++
		if len(asked.NewEpochISR) == 1 {
			asked.NewEpochISR = nil
			for _, id := range p.Replicas {
				asked.NewEpochISR = append(asked.NewEpochISR, kmsg.AlterPartitionRequestTopicPartitionNewEpochISR{BrokerID: id, BrokerEpoch: -1})
			}
		} else {
			asked.NewEpochISR = []kmsg.AlterPartitionRequestTopicPartitionNewEpochISR{{BrokerID: p.Leader, BrokerEpoch: -1}}
		}
	}
}

// BenchmarkHeartbeat is what brokers ask most.
func BenchmarkHeartbeat(b *testing.B) {
	w := benchCluster(b, 5, 1000)
	for b.Loop() {
		w.now = w.now.Add(time.Millisecond)
		w.c.Step(w.now, BrokerHeartbeat{ID: 1, Broker: 1, BrokerEpoch: 1, Offset: w.offset})
	}
}
