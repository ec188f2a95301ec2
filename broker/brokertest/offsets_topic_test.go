package brokertest_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatlog/leat/broker"
	"github.com/leatlog/leat/broker/brokertest"
)

const offsetsTopic = "__consumer_offsets"

// groupMember consumes "work" in the group "workers" and counts what it gets.
type groupMember struct {
	client *kgo.Client
	mu     *sync.Mutex
	seen   map[string]int
}

func (m *groupMember) run(t *testing.T, done <-chan struct{}) {
	for {
		fetches := m.client.PollFetches(t.Context())
		if fetches.IsClientClosed() || t.Context().Err() != nil {
			return
		}
		m.mu.Lock()
		fetches.EachRecord(func(r *kgo.Record) { m.seen[string(r.Value)]++ })
		m.mu.Unlock()
		_ = m.client.CommitUncommittedOffsets(t.Context()) // tried again with the next poll
		select {
		case <-done:
			return
		default:
		}
	}
}

// The node that coordinates a group dies: its members find another coordinator, which
// has their commits, and go on.
func TestGroupOutlivesItsCoordinator(t *testing.T) {
	t.Parallel()
	c := brokertest.StartCluster(t, 3)
	a := admin(t, c.Addrs()...)
	newTopic(t, "work", 4, 3, nil, c.Addrs()...)
	var mu sync.Mutex
	seen := map[string]int{}
	done := make(chan struct{})
	var members sync.WaitGroup
	var clients []*kgo.Client
	for range 2 {
		client, err := kgo.NewClient(kgo.AlwaysRetryEOF(), kgo.SeedBrokers(c.Addrs()...), kgo.ConsumerGroup("workers"), kgo.ConsumeTopics("work"),
			kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit(), kgo.MetadataMinAge(50*time.Millisecond),
			kgo.HeartbeatInterval(100*time.Millisecond), kgo.SessionTimeout(20*time.Second), kgo.FetchMaxWait(100*time.Millisecond))
		if err != nil {
			t.Fatal(err)
		}
		clients = append(clients, client)
		m := &groupMember{client, &mu, seen}
		members.Go(func() { m.run(t, done) })
	}
	defer members.Wait()
	defer func() {
		close(done)
		for _, client := range clients {
			client.Close()
		}
	}()
	producer, err := kgo.NewClient(kgo.AlwaysRetryEOF(), kgo.SeedBrokers(c.Addrs()...), kgo.DefaultProduceTopic("work"), kgo.MetadataMinAge(50*time.Millisecond),
		kgo.RecordPartitioner(kgo.RoundRobinPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer producer.Close()
	total := 0
	work := func(n int) {
		t.Helper()
		for range n {
			if err := producer.ProduceSync(clusterContext(t), kgo.StringRecord(fmt.Sprint("work ", total))).FirstErr(); err != nil {
				t.Fatal(err)
			}
			total++
		}
		waitFor(t, "all work done and committed", func() bool {
			mu.Lock()
			count := len(seen)
			mu.Unlock()
			// A client of its own: kgo keeps asking a coordinator that it once found.
			fresh, err := kgo.NewClient(kgo.AlwaysRetryEOF(), kgo.SeedBrokers(c.Addrs()...), kgo.RetryTimeout(time.Second))
			if err != nil {
				t.Fatal(err)
			}
			defer fresh.Close()
			offsets, err := kadm.NewClient(fresh).FetchOffsets(clusterContext(t), "workers")
			committed := int64(0)
			offsets.Each(func(o kadm.OffsetResponse) { committed += max(o.At, 0) })
			return err == nil && offsets.Ok() && count == total && committed == int64(total)
		})
	}
	work(20)
	kill := coordinatorOf(t, a, c, "workers")
	c.Kill(kill)
	work(20)
	c.Restart(kill)
	waitFor(t, "all replicas of the groups in sync", func() bool { return replicated(t, a, offsetsTopic, 3) })
}

// coordinatorOf returns the place of the node that coordinates the group.
func coordinatorOf(t *testing.T, a *kadm.Client, c *brokertest.Cluster, group string) int {
	t.Helper()
	place := -1
	waitFor(t, "a coordinator", func() bool {
		for _, found := range a.FindGroupCoordinators(clusterContext(t), group) {
			place = slices.IndexFunc([]int{0, 1, 2}, func(i int) bool {
				r := c.Node(i).Running()
				return r != nil && found.Err == nil && r.NodeID() == found.NodeID
			})
		}
		return place >= 0
	})
	return place
}

// replicated says that each partition of the topic has so many replicas, all in sync.
func replicated(t *testing.T, a *kadm.Client, topic string, replicas int) bool {
	t.Helper()
	topics, err := a.ListTopicsWithInternal(clusterContext(t), topic)
	if err != nil || len(topics[topic].Partitions) == 0 {
		return false
	}
	for _, p := range topics[topic].Partitions {
		if len(p.Replicas) != replicas || len(p.ISR) != replicas || p.Leader < 0 {
			return false
		}
	}
	return true
}

// A cluster of one grows to three, and the topic that holds the groups gets more
// replicas by a reassignment, as docs/operations.md says: commits are kept.
func TestGroupsGetMoreReplicas(t *testing.T) {
	t.Parallel()
	first := brokertest.Start(t, brokertest.Configure(func(b *broker.Config) { b.Gossip = "127.0.0.1:0" }))
	a := admin(t, first.Addr())
	if _, err := a.CreateTopic(clusterContext(t), 1, 1, nil, "work"); err != nil {
		t.Fatal(err)
	}
	offsets := kadm.Offsets{}
	offsets.Add(kadm.Offset{Topic: "work", At: 7, LeaderEpoch: -1})
	if err := a.CommitAllOffsets(clusterContext(t), "workers", offsets); err != nil {
		t.Fatal(err)
	}
	if !replicated(t, a, offsetsTopic, 1) {
		t.Fatal("the groups do not have one replica")
	}
	for range 2 {
		brokertest.Start(t, brokertest.Configure(func(b *broker.Config) {
			b.Gossip, b.Join = "127.0.0.1:0", []string{first.Running().GossipAddr()}
		}))
	}
	var move kadm.AlterPartitionAssignmentsReq
	for p := range int32(5) {
		move.Assign(offsetsTopic, p, []int32{1, 2, 3})
	}
	if _, err := a.AlterPartitionAssignments(clusterContext(t), move); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "three replicas", func() bool { return replicated(t, a, offsetsTopic, 3) })
	committed, err := a.FetchOffsets(clusterContext(t), "workers")
	if o, ok := committed.Lookup("work", 0); err != nil || !ok || o.At != 7 {
		t.Fatalf("committed %+v, %v", committed, err)
	}
}
