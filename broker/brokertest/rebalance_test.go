package brokertest_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatlog/leat/broker"
	"github.com/leatlog/leat/broker/brokertest"
)

// With auto.partition.rebalance.enable a broker that joins gets its share of the replicas
// and of the leaders, while a producer goes on.
func TestNewBrokerGetsReplicasByItself(t *testing.T) {
	t.Parallel()
	rebalance := brokertest.Configure(func(c *broker.Config) {
		k := &c.Cluster
		k.Heartbeat, k.Session = 250*time.Millisecond, 2*time.Second
		k.PartitionRebalance, k.PartitionCheck, k.PartitionMoves = true, time.Second, 2
		k.ImbalanceCheck = time.Second
	})
	c := brokertest.StartCluster(t, 2, rebalance)
	newTopic(t, "orders", 6, 2, minInSync(1), c.Addrs()...)
	client, err := kgo.NewClient(kgo.AlwaysRetryEOF(), kgo.SeedBrokers(c.Addrs()...), kgo.DefaultProduceTopic("orders"),
		kgo.RecordPartitioner(kgo.RoundRobinPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	produced := 0
	produce := func() {
		t.Helper()
		for range 12 {
			if err := client.ProduceSync(clusterContext(t), kgo.StringRecord(fmt.Sprint(produced))).FirstErr(); err != nil {
				t.Fatal(err)
			}
			produced++
		}
	}
	produce()
	joined := brokertest.Start(t, rebalance, brokertest.Configure(func(b *broker.Config) {
		b.Gossip, b.Join = brokertest.FreeAddress(t), []string{c.Node(0).Running().GossipAddr()}
	}))
	shown := metadataAt(t, joined.Addr())
	waitFor(t, "four replicas and two leaders on each broker", func() bool {
		produce()
		topics := shown("orders")
		if topics == nil || len(topics[0].Partitions) != 6 || !allInSync(topics[0].Partitions, 2) {
			return false
		}
		replicas, leaders := map[int32]int{}, map[int32]int{}
		for _, p := range topics[0].Partitions {
			leaders[p.Leader]++
			for _, id := range p.Replicas {
				replicas[id]++
			}
		}
		for _, b := range []*brokertest.Broker{c.Node(0), c.Node(1), joined} {
			if id := b.Running().NodeID(); replicas[id] != 4 || leaders[id] != 2 {
				return false
			}
		}
		return true
	})
	produce()
	got := valuesOf(t, []string{joined.Addr()}, "orders", kgo.ReadUncommitted(), produced)
	seen := map[string]bool{}
	for _, v := range got {
		seen[v] = true
	}
	if len(got) != produced || len(seen) != produced {
		t.Errorf("%d records, %d different ones, of %d", len(got), len(seen), produced)
	}
}
