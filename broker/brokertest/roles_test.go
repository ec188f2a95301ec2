package brokertest_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatlog/leat/broker"
	"github.com/leatlog/leat/broker/brokertest"
)

// startRoles starts three nodes that are controllers only, and two that are brokers only:
// nodes 3 and 4 of the cluster.
func startRoles(t *testing.T) *brokertest.Cluster {
	t.Helper()
	n := 0
	return brokertest.StartCluster(t, 5, brokertest.Configure(func(c *broker.Config) {
		c.Roles, c.BootstrapExpect = []string{broker.ControllerRole}, 3
		if n >= 3 {
			c.Roles, c.BootstrapExpect = []string{broker.BrokerRole}, 0
		}
		n++
	}))
}

// Controllers and brokers on nodes of their own: brokers hold all replicas, controllers
// decide, whichever of them dies, and all of it survives that every node dies.
func TestControllersAndBrokersApart(t *testing.T) {
	t.Parallel()
	c := startRoles(t)
	brokers := c.Addrs()[3:]
	newTopic(t, "orders", 4, 2, minInSync(2), brokers...)
	client, err := kgo.NewClient(kgo.AlwaysRetryEOF(), kgo.SeedBrokers(brokers...), kgo.DefaultProduceTopic("orders"), kgo.ConsumeTopics("orders"),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.RecordPartitioner(kgo.RoundRobinPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	produced := 0
	produce := func() {
		t.Helper()
		for range 20 {
			if err := client.ProduceSync(clusterContext(t), kgo.StringRecord(fmt.Sprint(produced))).FirstErr(); err != nil {
				t.Fatal(err)
			}
			produced++
		}
	}
	produce()
	quorum := describeQuorum(t, client)
	if len(quorum.CurrentVoters) != 3 || len(quorum.Observers) != 2 {
		t.Fatalf("%d voters and %d observers", len(quorum.CurrentVoters), len(quorum.Observers))
	}
	shown := metadataAt(t, brokers[1])("orders")
	holders := map[int32]bool{c.Node(3).Running().NodeID(): true, c.Node(4).Running().NodeID(): true}
	for _, p := range shown[0].Partitions {
		for _, r := range p.Replicas {
			if !holders[r] {
				t.Errorf("partition %d has a replica on node %d, which is no broker", p.Partition, r)
			}
		}
	}
	active := slices.IndexFunc([]int{0, 1, 2}, func(i int) bool { return c.Node(i).Running().NodeID() == quorum.LeaderID })
	if active < 0 {
		t.Fatalf("node %d leads the quorum, which is no controller", quorum.LeaderID)
	}
	c.Kill(active)
	produce()
	makeTopic(t, admin(t, brokers...), "after")
	c.Restart(active)
	for i := range c.Size() {
		c.Kill(i)
	}
	c.Restart()
	produce()
	seen := map[string]bool{}
	for len(seen) < produced {
		fetches := client.PollFetches(clusterContext(t))
		if err := fetches.Err0(); err != nil {
			t.Fatalf("%d of %d records: %v", len(seen), produced, err)
		}
		fetches.EachRecord(func(r *kgo.Record) { seen[string(r.Value)] = true })
	}
	topicsAt(t, brokers[0], "after", "orders")
}
