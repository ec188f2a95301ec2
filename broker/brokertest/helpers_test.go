package brokertest_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatlog/leat/broker/brokertest"
)

// nodes is the number of nodes that brokertest.Start starts.
func nodes() int {
	n, _ := strconv.Atoi(os.Getenv("LEAT_TEST_NODES")) // brokertest.Start fails when it is no number
	return max(n, 1)
}

// oneNodeOnly skips a test that means nothing on a cluster, and tells why.
func oneNodeOnly(t *testing.T, why string) {
	t.Helper()
	if nodes() > 1 {
		t.Skip("only on one node: " + why)
	}
}

// testTimeout bounds what a test waits for.
const testTimeout = 30 * time.Second

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	t.Cleanup(cancel)
	return ctx
}

// newClient returns a kgo client of the broker that tries again fast, closed
// with the test.
func newClient(t *testing.T, b *brokertest.Broker, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	opts = append([]kgo.Opt{
		kgo.AlwaysRetryEOF(), kgo.SeedBrokers(b.Addr()), kgo.Dialer(b.Dial),
		kgo.RetryBackoffFn(func(int) time.Duration { return 10 * time.Millisecond }),
		kgo.MetadataMinAge(10 * time.Millisecond), kgo.FetchMaxWait(500 * time.Millisecond),
	}, opts...)
	c, err := kgo.NewClient(opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func createTopic(t *testing.T, b *brokertest.Broker, name string, partitions int32, config map[string]*string) {
	t.Helper()
	admin := kadm.NewClient(newClient(t, b))
	r, err := admin.CreateTopic(testContext(t), partitions, -1, config, name)
	if err != nil || r.Err != nil {
		t.Fatalf("create topic %s: %v, %v", name, err, r.Err)
	}
}

// leaderAddress is that of the node which leads partition 0 of a topic.
func leaderAddress(t *testing.T, client *kgo.Client, topic string) (address string) {
	t.Helper()
	eventually(t, "the topic has a leader", func() bool {
		m, err := kadm.NewClient(client).Metadata(testContext(t), topic)
		if err != nil || m.Topics[topic].Err != nil {
			return false
		}
		for _, b := range m.Brokers {
			if p, ok := m.Topics[topic].Partitions[0]; ok && b.NodeID == p.Leader {
				address = net.JoinHostPort(b.Host, fmt.Sprint(b.Port))
				return true
			}
		}
		return false
	})
	return address
}

// consume reads n records from a topic's start, by partition.
func consume(t *testing.T, b *brokertest.Broker, topic string, n int) map[int32][]*kgo.Record {
	t.Helper()
	c := newClient(t, b, kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	defer c.Close()
	return poll(t, c, n)
}

func poll(t *testing.T, c *kgo.Client, n int) map[int32][]*kgo.Record {
	t.Helper()
	ctx := testContext(t)
	got, count := map[int32][]*kgo.Record{}, 0
	for count < n {
		fetches := c.PollFetches(ctx)
		if ctx.Err() != nil {
			t.Fatalf("%d of %d records after %v", count, n, testTimeout)
		}
		fetches.EachError(func(topic string, p int32, err error) { t.Logf("fetch %s-%d: %v", topic, p, err) })
		fetches.EachRecord(func(r *kgo.Record) {
			got[r.Partition] = append(got[r.Partition], r)
			count++
		})
	}
	return got
}

// endOffset returns the end of a partition.
func endOffset(t *testing.T, b *brokertest.Broker, topic string, partition int32) int64 {
	t.Helper()
	ends, err := kadm.NewClient(newClient(t, b)).ListEndOffsets(testContext(t), topic)
	if err != nil {
		t.Fatal(err)
	}
	o, _ := ends.Lookup(topic, partition)
	if o.Err != nil {
		t.Fatal(o.Err)
	}
	return o.Offset
}

// eventually waits until what is true.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	deadline := time.Now().Add(testTimeout)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", testTimeout, what)
		}
		<-tick.C
	}
}

func value(n int) []byte { return fmt.Appendf(nil, "record %06d", n) }
