package brokertest_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatlog/leat/broker"
	"github.com/leatlog/leat/broker/brokertest"
)

// leaderOf returns the place of the node that leads partition 0 of the topic, in the
// eyes of a.
func leaderOf(t *testing.T, a *kadm.Client, c *brokertest.Cluster, topic string) int {
	t.Helper()
	place := -1
	waitFor(t, "a leader of "+topic, func() bool {
		topics, err := a.ListTopics(clusterContext(t), topic)
		if err != nil || len(topics[topic].Partitions) == 0 {
			return false
		}
		for i := range c.Size() {
			if r := c.Node(i).Running(); r != nil && r.NodeID() == topics[topic].Partitions[0].Leader {
				place = i
			}
		}
		return place >= 0
	})
	return place
}

// A node that is stopped hands over first what it leads: nobody waits until its session
// is over, which takes an hour here. A producer goes on all the time, and each record is
// there once.
func TestStoppedLeaderHandsOver(t *testing.T) {
	t.Parallel()
	c := brokertest.StartCluster(t, 3, brokertest.Configure(func(c *broker.Config) { c.Cluster.Session = time.Hour }))
	a := admin(t, c.Addrs()...)
	newTopic(t, "orders", 1, 3, minInSync(2), c.Addrs()...)
	client, err := kgo.NewClient(kgo.AlwaysRetryEOF(), kgo.SeedBrokers(c.Addrs()...), kgo.DefaultProduceTopic("orders"), kgo.ConsumeTopics("orders"),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.MetadataMinAge(20*time.Millisecond), kgo.ProducerLinger(0),
		kgo.RetryBackoffFn(func(int) time.Duration { return 20 * time.Millisecond }))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	var mu sync.Mutex
	acknowledged, last, gap := 0, time.Now(), time.Duration(0)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			if err := client.ProduceSync(clusterContext(t), kgo.StringRecord(fmt.Sprint(n))).FirstErr(); err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			acknowledged, gap, last = acknowledged+1, max(gap, time.Since(last)), time.Now()
			mu.Unlock()
		}
	}()
	count := func() int {
		mu.Lock()
		defer mu.Unlock()
		return acknowledged
	}
	more := func() {
		before := count()
		waitFor(t, "more records", func() bool { return count() >= before+50 })
	}
	for range 3 {
		waitFor(t, "all in sync", func() bool { return replicated(t, a, "orders", 3) })
		more()
		mu.Lock()
		gap = 0
		mu.Unlock()
		leader := leaderOf(t, a, c, "orders")
		start := time.Now()
		c.Node(leader).Stop()
		took := time.Since(start)
		more()
		mu.Lock()
		t.Logf("stopped in %v; the longest time between two acknowledgements is %v", took, gap)
		mu.Unlock()
		c.Restart(leader)
	}
	close(stop)
	<-stopped
	seen := map[string]int{}
	for len(seen) < count() {
		fetches := client.PollFetches(clusterContext(t))
		if err := fetches.Err0(); err != nil {
			t.Fatal(err)
		}
		fetches.EachRecord(func(r *kgo.Record) { seen[string(r.Value)]++ })
	}
	for value, times := range seen {
		if times != 1 {
			t.Errorf("%q was read %d times", value, times)
		}
	}
}
