package cli

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/brokertest"
)

// TestDrainAndRebalance moves replicas off a broker of a running cluster, which gets
// none while it is drained, and back on.
func TestDrainAndRebalance(t *testing.T) {
	c := brokertest.StartCluster(t, 3, brokertest.InMemoryDisk())
	a, err := dialAny(t.Context(), c.Addrs()[:1], 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer a.close()
	create := kmsg.NewPtrCreateTopicsRequest()
	topic := kmsg.NewCreateTopicsRequestTopic()
	topic.Topic, topic.NumPartitions, topic.ReplicationFactor = "orders", 6, 2
	create.Topics, create.TimeoutMillis = append(create.Topics, topic), 10_000
	if answer, err := a.ask(create, 7, 10*time.Second); err != nil || answer.(*kmsg.CreateTopicsResponse).Topics[0].ErrorCode != 0 {
		t.Fatalf("create: %+v, %v", answer, err)
	}
	// held waits until node 0 knows of so many replicas on broker 2, and of two in sync
	// everywhere.
	held := func(want int) {
		t.Helper()
		var topics []kmsg.MetadataResponseTopic
		for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
			answer, err := a.ask(kmsg.NewPtrMetadataRequest(), 12, 10*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			replicas, partitions := 0, 0
			topics = answer.(*kmsg.MetadataResponse).Topics
			for _, topic := range topics {
				for _, p := range topic.Partitions {
					if len(p.Replicas) == 2 && len(p.ISR) == 2 && slices.Contains(p.ISR, p.Leader) {
						partitions++
					}
					if slices.Contains(p.Replicas, 2) {
						replicas++
					}
				}
			}
			if replicas == want && partitions == 6 {
				return
			}
		}
		t.Fatalf("broker 2 does not come to hold %d replicas: %+v", want, topics)
	}
	held(4)
	for _, step := range []struct {
		args string
		want int
	}{{"drain 2", 0}, {"rebalance --run", 0}, {"undrain 2", 0}, {"rebalance --run", 4}} {
		out, err := runCluster(append(strings.Fields(step.args), "--bootstrap", c.Addrs()[0])...)
		if err != nil {
			t.Fatalf("%s: %v\n%s", step.args, err, out)
		}
		held(step.want)
	}
}
