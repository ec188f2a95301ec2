package brokertest_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/brokertest"
)

// attempt is a transaction of which the client was told that it is committed, that it
// is aborted, or nothing.
type attempt struct {
	values             []string
	committed, aborted bool
}

// produceAndEnd produces to three partitions, lets something happen, and ends the
// transaction.
func produceAndEnd(t *testing.T, c *kgo.Client, end kgo.TransactionEndTry, between func(), values ...string) attempt {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := c.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	var records []*kgo.Record
	for i, v := range values {
		records = append(records, &kgo.Record{Topic: "t", Partition: int32(i % 3), Value: []byte(v)})
	}
	err := c.ProduceSync(ctx, records...).FirstErr()
	between()
	if err != nil {
		t.Logf("produce of %v: %v", values, err)
		end = kgo.TryAbort
	}
	start := time.Now()
	if err = c.EndTransaction(ctx, end); err != nil {
		t.Logf("end of %v after %v: %v", values, time.Since(start), err)
	}
	return attempt{values: values, committed: err == nil && end == kgo.TryCommit, aborted: err == nil && end == kgo.TryAbort}
}

// Whoever dies, the coordinator of a transaction or the leader of its partitions, what
// the client was told is what readers see, and nothing stays open.
func TestTransactionsOutliveTheirCoordinator(t *testing.T) {
	t.Parallel()
	cluster := brokertest.StartCluster(t, 3, brokertest.InMemoryDisk())
	addrs := cluster.Addrs()
	a := admin(t, addrs...)
	newTopic(t, "t", 3, 3, minInSync(2), addrs...)
	nodeOf := func(id int32) int {
		for i := range cluster.Size() {
			if r := cluster.Node(i).Running(); r != nil && r.NodeID() == id {
				return i
			}
		}
		return -1
	}
	coordinator := func() int {
		node := -1
		waitFor(t, "a coordinator", func() bool {
			found := a.FindTxnCoordinators(t.Context(), "app")
			node = nodeOf(found["app"].NodeID)
			return found["app"].Err == nil && node >= 0
		})
		return node
	}
	leader := func() int {
		node := -1
		waitFor(t, "a leader", func() bool {
			topics, err := a.ListTopics(t.Context(), "t")
			if err == nil && len(topics["t"].Partitions) > 0 {
				node = nodeOf(topics["t"].Partitions[0].Leader)
			}
			return node >= 0
		})
		return node
	}
	var attempts []attempt
	client := transactional(t, addrs, "app", kgo.RetryBackoffFn(func(int) time.Duration { return 200 * time.Millisecond }))
	for round := range 6 {
		dead := -1
		kill := func() {
			if round%2 == 0 {
				dead = coordinator()
			} else {
				dead = leader()
			}
			cluster.Kill(dead)
		}
		names := []string{fmt.Sprint(round, "a"), fmt.Sprint(round, "b"), fmt.Sprint(round, "c")}
		last := produceAndEnd(t, client, kgo.TransactionEndTry(round%3 != 1), kill, names...)
		attempts = append(attempts, last)
		if !last.committed && !last.aborted {
			client.Close()
			client = transactional(t, addrs, "app", kgo.RetryBackoffFn(func(int) time.Duration { return 200 * time.Millisecond }))
		}
		cluster.Restart(dead)
	}
	attempts = append(attempts, produceAndEnd(t, client, kgo.TryCommit, func() {}, "x", "y", "z"))
	checkAttempts(t, addrs, attempts)
	waitFor(t, "the last stable offset to be the high watermark", func() bool {
		stable, err := a.ListCommittedOffsets(t.Context(), "t")
		if err != nil {
			return false
		}
		ends, err := a.ListEndOffsets(t.Context(), "t")
		if err != nil {
			return false
		}
		for p := range int32(3) {
			s, _ := stable.Lookup("t", p)
			e, ok := ends.Lookup("t", p)
			if !ok || s.Offset != e.Offset {
				return false
			}
		}
		return true
	})
}

// checkAttempts compares what readers of committed records see with what the client
// was told.
func checkAttempts(t *testing.T, addrs []string, attempts []attempt) {
	t.Helper()
	c, err := kgo.NewClient(kgo.AlwaysRetryEOF(), kgo.SeedBrokers(addrs...), kgo.ConsumeTopics("t"), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.FetchMaxWait(50*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var seen []string
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	for last := attempts[len(attempts)-1].values; ctx.Err() == nil; {
		c.PollFetches(ctx).EachRecord(func(r *kgo.Record) { seen = append(seen, string(r.Value)) })
		if !slices.ContainsFunc(last, func(v string) bool { return !slices.Contains(seen, v) }) {
			break
		}
	}
	for i, a := range attempts {
		n := 0
		for _, v := range a.values {
			n += len(seen) - len(slices.DeleteFunc(slices.Clone(seen), func(s string) bool { return s == v }))
		}
		if n != 0 && n != len(a.values) || a.committed && n == 0 || a.aborted && n != 0 {
			t.Errorf("transaction %d %+v: %d of its records are seen", i, a, n)
		}
	}
	t.Logf("%d transactions, %d records seen", len(attempts), len(seen))
}

// Followers tell of producers as leaders do: kafka-transactions.sh asks nodes for all that
// they have replicas of.
func TestFollowersTellOfProducers(t *testing.T) {
	t.Parallel()
	c := brokertest.StartCluster(t, 3)
	newTopic(t, "orders", 1, 3, minInSync(2), c.Addrs()...)
	client, err := kgo.NewClient(kgo.AlwaysRetryEOF(), kgo.SeedBrokers(c.Addrs()...), kgo.DefaultProduceTopic("orders"))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.ProduceSync(clusterContext(t), kgo.StringRecord("a")).FirstErr(); err != nil {
		t.Fatal(err)
	}
	ask := kmsg.NewPtrDescribeProducersRequest()
	ask.Topics = []kmsg.DescribeProducersRequestTopic{{Topic: "orders", Partitions: []int32{0}}}
	for i := range c.Size() {
		id := c.Node(i).Running().NodeID()
		waitFor(t, "a node that knows the producer", func() bool { // a follower has the record a moment later
			answer, err := client.Broker(int(id)).Request(clusterContext(t), ask)
			if err != nil {
				return false
			}
			p := answer.(*kmsg.DescribeProducersResponse).Topics[0].Partitions[0]
			return p.ErrorCode == 0 && len(p.ActiveProducers) == 1
		})
	}
}
