package broker

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/leatlog/leat/broker/internal/coordinator"
	"github.com/leatlog/leat/broker/internal/group"
	"github.com/leatlog/leat/broker/internal/metadata"
	"github.com/leatlog/leat/broker/internal/replica"
	"github.com/leatlog/leat/broker/internal/txn"
)

// coordinators are the runtimes of the coordinators of this broker, each over the
// partitions of an internal topic that the broker leads.
type coordinators struct {
	groups       *coordinator.Runtime
	transactions *coordinator.Runtime
}

// close answers what waits and resigns.
func (c *coordinators) close() {
	c.groups.Close()
	c.transactions.Close()
}

// startCoordinators makes what holds groups and transactions. They are empty until the
// broker leads partitions of their topics.
func (b *Broker) startCoordinators(context.Context) error {
	runtime := func(shard func(partition int32) coordinator.Shard) *coordinator.Runtime {
		return coordinator.NewRuntime(coordinator.Config{
			Now:       b.env.Now,
			AfterFunc: func(d time.Duration, f func()) func() { t := time.AfterFunc(d, f); return func() { t.Stop() } },
			Go:        b.tasks.run,
			NewShard:  shard,
			Logger:    b.logger,
		})
	}
	g := b.groupConfig()
	b.coordinators.groups = runtime(func(int32) coordinator.Shard { return group.NewShard(g) })
	b.groups = group.NewService(b.coordinators.groups, g, func() int32 { return b.partitionCount(metadata.OffsetsTopic) })

	b.transactions = &transactions{broker: b, epochs: map[int32]int32{}}
	t := txn.DefaultConfig()
	t.MaxTimeout, t.Expiration = b.cfg.Transactions.MaxTimeout, b.cfg.Transactions.Expiration
	t.Prepared = b.transactions.prepared
	b.coordinators.transactions = runtime(func(p int32) coordinator.Shard { return txn.NewShard(p, t) })
	ids := &controllerClient{broker: b}
	b.transactions.Service = txn.NewService(b.coordinators.transactions, txn.ServiceConfig{
		Partitions:    func() int32 { return b.partitionCount(metadata.TransactionsTopic) },
		PartitionFor:  group.PartitionFor,
		AfterFunc:     func(d time.Duration, f func()) { time.AfterFunc(d, f) },
		NewProducerID: func(done func(int64, *kerr.Error)) { b.producerIDs.Next(ids, done) },
	})
	b.started("coordinators", func(context.Context) error {
		b.coordinators.close()
		b.tasks.wait()
		return nil
	})
	return nil
}

func (b *Broker) groupConfig() group.Config {
	g := group.DefaultConfig()
	g.MinSessionTimeout, g.MaxSessionTimeout = b.cfg.Groups.MinSession, b.cfg.Groups.MaxSession
	g.InitialRebalanceDelay = max(b.cfg.Groups.InitialRebalanceDelay, 0)
	g.MaxSize, g.OffsetsRetention = int(b.cfg.Groups.MaxSize), b.cfg.Groups.OffsetsRetention
	g.OffsetMetadataMaxSize = int(b.cfg.Groups.OffsetMetadataBytes)
	c := b.cfg.Groups.Consumer
	g.ConsumerSessionTimeout, g.ConsumerHeartbeatInterval = c.Session, c.Heartbeat
	g.MigrationPolicy = group.MigrationPolicy(c.Migration)
	g.ConsumerMaxSize, g.ConsumerAssignors = int(c.MaxSize), c.Assignors
	g.NewID = b.newMemberID
	g.Topics = func() group.Topics { return groupTopics{b.log.Image()} }
	g.TopicExists = func(topic string) bool {
		_, ok := b.log.Image().Topic(topic)
		return ok
	}
	return g
}

// newMemberID returns the tail of a group member's id.
func (b *Broker) newMemberID() string {
	id, err := metadata.NewUUID(b.env.Random)
	if err != nil {
		b.fail(err)
	}
	return id.String()
}

// roleChanged gives the partitions of internal topics to their coordinators while this
// broker leads them.
func (b *Broker) roleChanged(r *replica.Replica, role replica.Role, epoch int32) {
	leads := role == replica.Leader
	switch r.Topic() {
	case metadata.OffsetsTopic:
		follow(b.coordinators.groups, r, leads, epoch)
	case metadata.TransactionsTopic:
		if leads {
			b.transactions.lead(r.Index(), epoch) // before the shard asks for it
		} else {
			b.transactions.resign(r.Index())
		}
		follow(b.coordinators.transactions, r, leads, epoch)
	}
}

func follow(runtime *coordinator.Runtime, r *replica.Replica, leads bool, epoch int32) {
	if leads {
		runtime.Lead(r.Index(), epoch, coordinatorLog{r})
	} else {
		runtime.Resign(r.Index())
	}
}

// forgetOffsets has the groups forget what they committed for deleted topics.
func (b *Broker) forgetOffsets(delta *metadata.Delta) {
	if len(delta.TopicsRemoved) == 0 {
		return
	}
	names := make([]string, len(delta.TopicsRemoved))
	for i, t := range delta.TopicsRemoved {
		names[i] = t.Name
	}
	b.groups.DeleteTopics(names)
}

// partitionCount is the number of partitions of an internal topic, 0 while there is none.
func (b *Broker) partitionCount(topic string) int32 {
	if t, ok := b.log.Published().Topic(topic); ok {
		return int32(len(t.Partitions))
	}
	return 0
}
