package brokertest_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatlog/leat/broker"
	"github.com/leatlog/leat/broker/brokertest"
)

// A leader that dies is replaced though its session would last for an hour: the
// controller sees that nobody listens any more. That the controller may be the one that
// dies is part of it.
func TestDeadLeaderIsReplacedBeforeItsSessionEnds(t *testing.T) {
	t.Parallel()
	c := brokertest.StartCluster(t, 3, brokertest.Configure(func(c *broker.Config) { c.Cluster.Session = time.Hour }))
	a := admin(t, c.Addrs()...)
	newTopic(t, "orders", 1, 3, minInSync(2), c.Addrs()...)
	client, err := kgo.NewClient(kgo.AlwaysRetryEOF(), kgo.SeedBrokers(c.Addrs()...), kgo.DefaultProduceTopic("orders"), kgo.MetadataMinAge(20*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for n := range 2 {
		waitFor(t, "all in sync", func() bool { return replicated(t, a, "orders", 3) })
		victim := leaderOf(t, a, c, "orders")
		if n%2 == 1 {
			waitFor(t, "a controller", func() bool { return c.Controller() >= 0 })
			victim = c.Controller()
		}
		c.Kill(victim)
		if err := client.ProduceSync(clusterContext(t), kgo.StringRecord(fmt.Sprint(n))).FirstErr(); err != nil {
			t.Fatal(err)
		}
		c.Restart(victim)
	}
}

// A node that is paused for half a second, on a machine without CPU to spare, is not
// taken for dead: no leader moves. LEAT_PAUSES=N does it more often.
func TestPausedNodesKeepWhatTheyLead(t *testing.T) {
	pauses := 3
	if s := os.Getenv("LEAT_PAUSES"); s != "" {
		var err error
		if pauses, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	} else if testing.Short() {
		t.Skip("starts processes")
	}
	// Longer than any machine is slow: a session that ends is not what this is about.
	c := startProcesses(t, "broker.session.timeout.ms=60000", "auto.leader.rebalance.enable=false")
	c.dumpOnFailure()
	a := admin(t, c.addrs()...)
	for i := range 3 {
		c.waitReady(i)
	}
	newTopic(t, "orders", 3, 3, nil, c.addrs()...)
	before := leaderEpochs(t, a, "orders")
	var stop atomic.Bool
	defer stop.Store(true)
	for range 4 { // busy loops
		go func() {
			for !stop.Load() {
			}
		}()
	}
	for n := range pauses {
		c.signal(n%3, syscall.SIGSTOP)
		<-time.After(500 * time.Millisecond) // the length of the pause, not a wait
		c.signal(n%3, syscall.SIGCONT)
	}
	stop.Store(true)
	for i := range 3 {
		c.waitReady(i)
	}
	if after := leaderEpochs(t, a, "orders"); !slices.Equal(before, after) {
		t.Errorf("leader epochs were %v and are %v", before, after)
	}
}

// leaderEpochs returns the leader epochs of a topic's partitions.
func leaderEpochs(t *testing.T, a *kadm.Client, topic string) (epochs []int32) {
	t.Helper()
	waitFor(t, "leaders", func() bool {
		topics, err := a.ListTopics(clusterContext(t), topic)
		epochs = epochs[:0]
		for _, p := range topics[topic].Partitions.Sorted() {
			epochs = append(epochs, p.LeaderEpoch)
		}
		return err == nil && len(epochs) > 0
	})
	return epochs
}

// TestFailoverTime prints how long a partition has no leader after kill -9 of the node
// that leads it, with default settings: LEAT_FAILOVERS=N does it N times. A record is
// acknowledged by both others before the kill and after it.
func TestFailoverTime(t *testing.T) {
	times, _ := strconv.Atoi(os.Getenv("LEAT_FAILOVERS"))
	if times == 0 {
		t.Skip("LEAT_FAILOVERS is not set")
	}
	c := startProcesses(t)
	c.dumpOnFailure()
	a := admin(t, c.addrs()...)
	for i := range 3 {
		c.waitReady(i)
	}
	newTopic(t, "orders", 1, 3, minInSync(2), c.addrs()...)
	var took, controllers []time.Duration
	for n := range times {
		waitFor(t, "all in sync", func() bool { return replicated(t, a, "orders", 3) })
		client, err := kgo.NewClient(kgo.AlwaysRetryEOF(), kgo.SeedBrokers(c.addrs()...), kgo.DefaultProduceTopic("orders"), kgo.MetadataMinAge(10*time.Millisecond),
			kgo.RetryBackoffFn(func(int) time.Duration { return 10 * time.Millisecond }), kgo.ProducerLinger(0))
		if err != nil {
			t.Fatal(err)
		}
		produce := func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if err := client.ProduceSync(ctx, kgo.StringRecord(fmt.Sprint(n))).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
		produce()
		meta, err := a.Metadata(clusterContext(t), "orders")
		if err != nil {
			t.Fatal(err)
		}
		leader := meta.Topics["orders"].Partitions[0].Leader
		at, _ := c.place(meta, leader)
		start := time.Now()
		c.kill(at)
		produce()
		d := time.Since(start)
		t.Logf("kill %d of node %d, the controller is %d: acknowledged again after %v", n, leader, meta.Controller, d)
		if meta.Controller == leader {
			controllers = append(controllers, d)
		} else {
			took = append(took, d)
		}
		client.Close()
		c.start(at)
	}
	for what, list := range map[string][]time.Duration{"leader": took, "leader and controller": controllers} {
		if slices.Sort(list); len(list) > 0 {
			t.Logf("%s killed %d times: p50 %v, max %v", what, len(list), list[len(list)/2], list[len(list)-1])
		}
	}
}

// place returns which node has that id.
func (c *processes) place(meta kadm.Metadata, id int32) (int, bool) {
	for _, b := range meta.Brokers {
		if i := slices.Index(c.addrs(), fmt.Sprintf("%s:%d", b.Host, b.Port)); b.NodeID == id && i >= 0 {
			return i, true
		}
	}
	return -1, false
}
