package brokertest_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatlog/leat/broker"
	"github.com/leatlog/leat/broker/brokertest"
)

// admin returns a client of the nodes at those addresses.
func admin(t *testing.T, addrs ...string) *kadm.Client {
	t.Helper()
	c, err := kgo.NewClient(kgo.AlwaysRetryEOF(), kgo.SeedBrokers(addrs...), kgo.RetryTimeout(20*time.Second), kgo.MetadataMinAge(50*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return kadm.NewClient(c)
}

func clusterContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// until waits until the condition holds.
func waitFor(t *testing.T, what string, holds func() bool) {
	t.Helper()
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	limit := time.After(40 * time.Second)
	for !holds() {
		select {
		case <-poll.C:
		case <-limit:
			t.Fatal("never saw: " + what)
		}
	}
}

func makeTopic(t *testing.T, a *kadm.Client, name string) {
	t.Helper()
	// A node that dies between a decision and its answer leaves the client to ask again.
	if _, err := a.CreateTopic(clusterContext(t), 6, 1, nil, name); err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
		t.Fatalf("create %s: %v", name, err)
	}
}

// topics waits until a node shows exactly these topics, all with a leader.
func topicsAt(t *testing.T, addr string, want ...string) {
	t.Helper()
	slices.Sort(want)
	shown := metadataAt(t, addr)
	waitFor(t, fmt.Sprint(want, " at ", addr), func() bool {
		var found []string
		for _, topic := range shown() {
			if topic.ErrorCode != 0 {
				return false
			}
			if !topic.IsInternal {
				found = append(found, *topic.Topic)
			}
		}
		slices.Sort(found)
		return slices.Equal(found, want)
	})
}

// Three nodes serve one log: topics made at any node are everywhere, and records go
// to the leaders of their partitions on all of them.
func TestClusterServesClients(t *testing.T) {
	t.Parallel()
	c := brokertest.StartCluster(t, 3)
	ids := map[string]bool{}
	nodes := map[int32]bool{}
	for i := range 3 {
		ids[c.Node(i).ClusterID()] = true
		nodes[c.Node(i).Running().NodeID()] = true
		makeTopic(t, admin(t, c.Addrs()[i]), fmt.Sprint("topic-", i))
	}
	if len(ids) != 1 || !nodes[1] || !nodes[2] || !nodes[3] {
		t.Fatalf("clusters %v, nodes %v", ids, nodes)
	}
	for i := range 3 {
		topicsAt(t, c.Addrs()[i], "topic-0", "topic-1", "topic-2")
	}
	brokers, err := admin(t, c.Addrs()[1]).ListBrokers(clusterContext(t))
	if err != nil || len(brokers) != 3 {
		t.Fatalf("brokers %v, %v", brokers, err)
	}
	client, err := kgo.NewClient(kgo.AlwaysRetryEOF(), kgo.SeedBrokers(c.Addrs()[2]), kgo.ConsumeTopics("topic-0"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.RecordPartitioner(kgo.RoundRobinPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	const records = 600
	for n := range records {
		client.Produce(clusterContext(t), &kgo.Record{Topic: "topic-0", Value: fmt.Append(nil, n)}, func(_ *kgo.Record, err error) {
			if err != nil {
				t.Error(err)
			}
		})
	}
	seen, leaders := map[string]bool{}, map[int32]bool{}
	for len(seen) < records {
		fetches := client.PollFetches(clusterContext(t))
		if err := fetches.Err0(); err != nil {
			t.Fatal(err)
		}
		fetches.EachRecord(func(r *kgo.Record) { seen[string(r.Value)] = true })
	}
	for _, p := range metadataAt(t, c.Addrs()[0])("topic-0")[0].Partitions {
		leaders[p.Leader] = true
	}
	if len(leaders) != 3 {
		t.Errorf("partitions are on %v, want three nodes", leaders)
	}
}

// Whichever node dies, the quorum goes on; and what was decided survives that all of
// them lose power at once.
func TestClusterOutlivesItsNodes(t *testing.T) {
	t.Parallel()
	c := brokertest.StartCluster(t, 3, brokertest.InMemoryDisk())
	cluster := c.Node(0).ClusterID()
	var topics []string
	for victim := range 3 {
		if victim == 2 {
			waitFor(t, "a controller", func() bool { return c.Controller() >= 0 })
			victim = c.Controller() // in any case one of them
		}
		c.Kill(victim)
		alive := (victim + 1) % 3
		name := fmt.Sprint("without-", len(topics))
		topics = append(topics, name)
		makeTopic(t, admin(t, c.Addrs()[alive]), name)
		c.Restart(victim)
		topicsAt(t, c.Addrs()[victim], topics...)
	}
	for i := range 3 {
		c.PowerCut(i, uint64(i))
	}
	c.Restart()
	for i := range 3 {
		topicsAt(t, c.Addrs()[i], topics...)
		if id := c.Node(i).ClusterID(); id != cluster {
			t.Errorf("cluster %s became %s", cluster, id)
		}
	}
	makeTopic(t, admin(t, c.Addrs()[0]), "after")
}

// A controller that is stopped hands over: the others have another one at once.
func TestControllerHandsOver(t *testing.T) {
	t.Parallel()
	c := brokertest.StartCluster(t, 3)
	waitFor(t, "a controller", func() bool { return c.Controller() >= 0 })
	old := c.Controller()
	id := c.Node(old).Running().NodeID()
	other := c.Node((old + 1) % 3).Running()
	stopped := make(chan struct{})
	start := time.Now()
	go func() {
		defer close(stopped)
		c.Node(old).Stop()
	}()
	waitFor(t, "another controller", func() bool { return other.Controller() >= 0 && other.Controller() != id })
	t.Logf("another controller %v after the stop began", time.Since(start))
	<-stopped

	waitFor(t, "a controller", func() bool { return c.Controller() >= 0 })
	killed := c.Controller()
	last := c.Node(3 - old - killed).Running()
	c.Restart(old)
	id = c.Node(killed).Running().NodeID()
	start = time.Now()
	c.Kill(killed)
	waitFor(t, "another controller", func() bool { return last.Controller() >= 0 && last.Controller() != id })
	t.Logf("another controller %v after the kill", time.Since(start))
}

// A node that lost its disk comes back under its id, as another member, and votes
// again when it is set to; a further node joins with an id of its own.
func TestClusterReplacesAndGrows(t *testing.T) {
	t.Parallel()
	c := brokertest.StartCluster(t, 3, brokertest.Configure(func(c *broker.Config) { c.AutoJoin = true }))
	makeTopic(t, admin(t, c.Addrs()[0]), "before")
	c.Wipe(1)
	c.Restart(1)
	topicsAt(t, c.Addrs()[1], "before")
	joined := brokertest.Start(t, brokertest.Configure(func(b *broker.Config) {
		b.Gossip, b.Join = "127.0.0.1:0", []string{c.Node(2).Running().GossipAddr()}
	}))
	if id := joined.Running().NodeID(); id != 4 || joined.ClusterID() != c.Node(0).ClusterID() {
		t.Fatalf("node %d in cluster %s", id, joined.ClusterID())
	}
	topicsAt(t, joined.Addr(), "before")
	makeTopic(t, admin(t, joined.Addr()), "through-the-new-one")
	// The wiped node votes again: without one of the others there is still a majority.
	waitFor(t, "the wiped node to vote", func() bool { return c.Node(1).Running().Voter() })
	c.Kill(0)
	makeTopic(t, admin(t, c.Addrs()[1]), "after")
	joined.Restart()
	topicsAt(t, joined.Addr(), "after", "before", "through-the-new-one")
}

// With keys, a node that does not know them cannot join, and one of another cluster
// is not heard.
func TestStrangersStayOut(t *testing.T) {
	t.Parallel()
	key, name := "AAAAAAAAAAAAAAAAAAAAAA==", ""
	c := brokertest.StartCluster(t, 1, brokertest.Configure(func(c *broker.Config) {
		c.GossipKeys, c.Gossip, name = []string{key}, "127.0.0.1:0", c.ClusterName
	}))
	stranger := broker.DefaultConfig()
	stranger.DataDir, stranger.Listen, stranger.Gossip = t.TempDir(), "127.0.0.1:0", "127.0.0.1:0"
	stranger.ClusterName = name
	stranger.Join = []string{c.Node(0).Running().GossipAddr()}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if b, err := broker.Start(ctx, stranger); err == nil {
		b.Close()
		t.Fatal("a node without the key joined")
	}
	stranger.GossipKeys = []string{key}
	b, err := broker.Start(clusterContext(t), stranger)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
}
