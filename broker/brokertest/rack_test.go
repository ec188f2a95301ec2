package brokertest_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatlog/leat/broker"
	"github.com/leatlog/leat/broker/brokertest"
)

// batchSources counts the batches that a client read, by broker.
type batchSources struct {
	mu     sync.Mutex
	counts map[int32]int
}

func (b *batchSources) OnFetchBatchRead(meta kgo.BrokerMetadata, _ string, _ int32, _ kgo.FetchBatchMetrics) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.counts[meta.NodeID]++
}

func (b *batchSources) of(node int32) (its, others int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, n := range b.counts {
		if id == node {
			its += n
		} else {
			others += n
		}
	}
	return its, others
}

// A consumer that tells its rack reads from the replica there (KIP-392), and from
// another one when that node dies.
func TestConsumersReadInTheirRack(t *testing.T) {
	t.Parallel()
	racks := 0
	c := brokertest.StartCluster(t, 3, brokertest.Set("replica.selector.class", "org.apache.kafka.common.replica.RackAwareReplicaSelector"),
		brokertest.Configure(func(c *broker.Config) {
			c.Rack = string(rune('a' + racks))
			racks++
		}))
	newTopic(t, "orders", 3, 3, nil, c.Addrs()...)
	sources := &batchSources{counts: map[int32]int{}}
	client, err := kgo.NewClient(kgo.AlwaysRetryEOF(), kgo.SeedBrokers(c.Addrs()...), kgo.DefaultProduceTopic("orders"), kgo.ConsumeTopics("orders"), kgo.Rack("b"),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.MetadataMinAge(50*time.Millisecond), kgo.WithHooks(sources),
		kgo.RecordPartitioner(kgo.RoundRobinPartitioner()), kgo.FetchMaxWait(50*time.Millisecond),
		kgo.RecheckPreferredReplicaInterval(time.Second)) // else kgo stays with one that died; well above FetchMaxWait
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	seen := map[string]bool{}
	produced := 0
	exchange := func(n int) {
		t.Helper()
		for range n {
			if err := client.ProduceSync(clusterContext(t), kgo.StringRecord(fmt.Sprint(produced))).FirstErr(); err != nil {
				t.Fatal(err)
			}
			produced++
		}
		for len(seen) < produced {
			fetches := client.PollFetches(clusterContext(t))
			if err := fetches.Err0(); err != nil {
				t.Fatal(err)
			}
			fetches.EachRecord(func(r *kgo.Record) {
				if seen[string(r.Value)] {
					t.Errorf("%q was read twice", r.Value)
				}
				seen[string(r.Value)] = true
			})
		}
	}
	exchange(30)
	if its, others := sources.of(c.Node(1).Running().NodeID()); its == 0 || others > 0 {
		t.Errorf("%d batches were read in the rack, %d elsewhere", its, others)
	}
	c.Kill(1)
	exchange(30)
}
