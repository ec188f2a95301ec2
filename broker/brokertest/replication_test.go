package brokertest_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatlog/leat/broker/brokertest"
)

// What was acknowledged by all in-sync replicas is there when the leader dies: another
// one leads and takes more.
func TestReplicatedRecordsOutliveTheirLeader(t *testing.T) {
	t.Parallel()
	c := brokertest.StartCluster(t, 3)
	a := admin(t, c.Addrs()...)
	newTopic(t, "replicated", 1, 3, minInSync(2), c.Addrs()...)
	client, err := kgo.NewClient(kgo.AlwaysRetryEOF(), kgo.SeedBrokers(c.Addrs()...), kgo.DefaultProduceTopic("replicated"), kgo.ConsumeTopics("replicated"),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.MetadataMinAge(50*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	const records = 30
	for n := range records {
		if n%10 == 5 {
			topics, err := a.ListTopics(clusterContext(t), "replicated")
			if err != nil {
				t.Fatal(err)
			}
			leader := topics["replicated"].Partitions[0].Leader
			for i := range 3 {
				if r := c.Node(i).Running(); r != nil && r.NodeID() == leader {
					start := time.Now()
					c.Kill(i)
					if err := client.ProduceSync(clusterContext(t), kgo.StringRecord(fmt.Sprint("kill ", n))).FirstErr(); err != nil {
						t.Fatal(err)
					}
					t.Logf("acknowledged again %v after the kill of the leader", time.Since(start))
					c.Restart(i)
					break
				}
			}
			waitFor(t, "all in sync", func() bool {
				topics, err := a.ListTopics(clusterContext(t), "replicated")
				return err == nil && len(topics["replicated"].Partitions[0].ISR) == 3
			})
		}
		if err := client.ProduceSync(clusterContext(t), kgo.StringRecord(fmt.Sprint(n))).FirstErr(); err != nil {
			t.Fatalf("record %d: %v", n, err)
		}
	}
	seen := map[string]int{}
	for len(seen) < records+3 {
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
