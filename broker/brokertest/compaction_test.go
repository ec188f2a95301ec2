package brokertest_test

import (
	"context"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatlog/leat/broker"
	"github.com/leatlog/leat/broker/brokertest"
)

// produceKeyed produces n records of a few keys to a compacted topic, whose values count
// up.
func produceKeyed(t *testing.T, addrs []string, from, n int) {
	t.Helper()
	c, err := kgo.NewClient(kgo.AlwaysRetryEOF(), kgo.SeedBrokers(addrs...), kgo.DefaultProduceTopic("c"), kgo.ProducerBatchMaxBytes(2000), kgo.MetadataMinAge(10*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for i := range n {
		c.Produce(t.Context(), kgo.KeyStringRecord(fmt.Sprint("key-", i%keys), strconv.Itoa(from+i)), func(_ *kgo.Record, err error) {
			if err != nil {
				t.Errorf("produce: %v", err)
			}
		})
	}
	if err := c.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
}

const keys = 10

// latest reads a compacted topic up to its end and returns the last value of each key
// and how many records it had.
func latest(t *testing.T, addrs []string) (values map[string]string, records int) {
	t.Helper()
	a := admin(t, addrs...)
	var end kadm.ListedOffset
	waitFor(t, "the end of the log", func() bool { // a node may take a dead one for the leader
		ends, err := a.ListEndOffsets(t.Context(), "c")
		end, _ = ends.Lookup("c", 0)
		return err == nil && end.Err == nil
	})
	c, err := kgo.NewClient(kgo.AlwaysRetryEOF(), kgo.SeedBrokers(addrs...), kgo.ConsumeTopics("c"), kgo.FetchMaxWait(50*time.Millisecond), kgo.MetadataMinAge(10*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	values = map[string]string{}
	for last := int64(-1); last < end.Offset-1 && ctx.Err() == nil; {
		c.PollFetches(ctx).EachRecord(func(r *kgo.Record) {
			if r.Offset <= last {
				t.Fatalf("offset %d after %d", r.Offset, last)
			}
			last = r.Offset
			values[string(r.Key)] = string(r.Value)
			records++
		})
	}
	return values, records
}

func checkLatest(t *testing.T, addrs []string, produced int) (records int) {
	t.Helper()
	values, records := latest(t, addrs)
	for i := produced - keys; i < produced; i++ {
		if key := fmt.Sprint("key-", i%keys); values[key] != strconv.Itoa(i) {
			t.Errorf("%s is %q, want %d", key, values[key], i)
		}
	}
	return records
}

func compactedTopic(t *testing.T, addrs []string, replicas int16) {
	t.Helper()
	config := map[string]*string{}
	for name, value := range map[string]string{"cleanup.policy": "compact", "segment.bytes": "16384", "min.cleanable.dirty.ratio": "0.1"} {
		config[name] = &value
	}
	a := admin(t, addrs...)
	waitFor(t, "the topic", func() bool {
		_, err := a.CreateTopic(t.Context(), 1, replicas, config, "c")
		if err == nil {
			return true
		}
		topics, err := a.ListTopics(t.Context(), "c")
		return err == nil && topics.Has("c") && topics["c"].Err == nil
	})
}

func cleanOften(c *broker.Config) { c.Cleaner.Interval = 20 * time.Millisecond }

// A compacted topic keeps the last record of each key, at its offset, and over a
// restart.
func TestCompaction(t *testing.T) {
	t.Parallel()
	b := brokertest.Start(t, brokertest.Configure(cleanOften))
	addrs := []string{b.Addr()}
	compactedTopic(t, addrs, 1)
	const n = 5000
	produceKeyed(t, addrs, 0, n)
	waitFor(t, "compaction", func() bool { return checkLatest(t, addrs, n) < n/2 })
	b.Restart()
	addrs = []string{b.Addr()}
	if records := checkLatest(t, addrs, n); records >= n/2 {
		t.Errorf("%d records after a restart", records)
	}
	produceKeyed(t, addrs, n, n)
	waitFor(t, "more compaction", func() bool { return checkLatest(t, addrs, 2*n) < n/2 })
}

// A follower that lost its disk copies a compacted log, gaps and all, and can lead.
func TestCompactedLogIsReplicated(t *testing.T) {
	t.Parallel()
	cluster := brokertest.StartCluster(t, 3, brokertest.InMemoryDisk(), brokertest.Configure(cleanOften),
		brokertest.Configure(func(c *broker.Config) { c.AutoJoin = true }))
	addrs := cluster.Addrs()
	compactedTopic(t, addrs, 3)
	const n = 3000
	produceKeyed(t, addrs, 0, n)
	waitFor(t, "compaction", func() bool { return checkLatest(t, addrs, n) < n/2 })
	a := admin(t, addrs...)
	leader := func() int {
		topics, err := a.ListTopics(t.Context(), "c")
		if err != nil || !topics.Has("c") {
			return -1
		}
		for i := range cluster.Size() {
			if r := cluster.Node(i).Running(); r != nil && r.NodeID() == topics["c"].Partitions[0].Leader {
				return i
			}
		}
		return -1
	}
	inSync := func() bool {
		topics, err := a.ListTopics(t.Context(), "c")
		return err == nil && topics.Has("c") && len(topics["c"].Partitions[0].ISR) == 3
	}
	waitFor(t, "a leader", func() bool { return leader() >= 0 })
	old := leader()
	wiped := (old + 1) % 3
	cluster.Wipe(wiped)
	cluster.Restart(wiped)
	waitFor(t, "the wiped replica to be in sync", inSync)
	waitFor(t, "the wiped node to vote", func() bool { return cluster.Node(wiped).Running().Voter() })
	cluster.Kill(old)
	waitFor(t, "another leader", func() bool { return leader() >= 0 && leader() != old })
	var alive []string
	for i, addr := range cluster.Addrs() {
		if i != old {
			alive = append(alive, addr)
		}
	}
	checkLatest(t, alive, n)
	produceKeyed(t, alive, n, n)
	checkLatest(t, alive, 2*n)
	cluster.Restart(old)
	waitFor(t, "all replicas to be in sync", inSync)
}
