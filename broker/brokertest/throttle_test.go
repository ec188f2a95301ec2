package brokertest_test

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/brokertest"
)

// A reassignment copies no faster than it is told to, by a throttle on the leader or on
// the follower (KIP-73), and at once when that is lifted.
func TestReassignmentIsThrottled(t *testing.T) {
	for _, side := range []string{"leader", "follower"} {
		t.Run(side, func(t *testing.T) {
			t.Parallel()
			throttledReassignment(t, side)
		})
	}
}

func throttledReassignment(t *testing.T, side string) {
	c := brokertest.StartCluster(t, 2)
	newTopic(t, "big", 1, 1, nil, c.Addrs()...)
	a, client := admin(t, c.Addrs()...), clusterClient(t, c.Addrs()...)
	const size, records = 100_000, 30
	noise := make([]byte, size)
	random := rand.New(rand.NewPCG(1, 1))
	for range records {
		for i := range noise {
			noise[i] = byte(random.Uint32())
		}
		if err := client.ProduceSync(clusterContext(t), &kgo.Record{Topic: "big", Value: slices.Clone(noise)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	set := func(entity string, alter func([]kadm.AlterConfig) (kadm.AlterConfigsResponses, error), configs ...kadm.AlterConfig) {
		t.Helper()
		responses, err := alter(configs)
		if err != nil || responses[0].Err != nil {
			t.Fatalf("%s: %v, %+v", entity, err, responses)
		}
	}
	rate, all := "1000000", "*"
	set("all brokers", func(configs []kadm.AlterConfig) (kadm.AlterConfigsResponses, error) {
		return a.AlterBrokerConfigs(clusterContext(t), configs)
	}, kadm.AlterConfig{Op: kadm.SetConfig, Name: side + ".replication.throttled.rate", Value: &rate})
	set("the topic", func(configs []kadm.AlterConfig) (kadm.AlterConfigsResponses, error) {
		return a.AlterTopicConfigs(clusterContext(t), configs, "big")
	}, kadm.AlterConfig{Op: kadm.SetConfig, Name: side + ".replication.throttled.replicas", Value: &all})
	was := metadataAt(t, c.Addrs()[0])("big")[0].Partitions[0].Replicas[0]
	var shown []func(...string) []kmsg.MetadataResponseTopic
	for _, addr := range c.Addrs() {
		shown = append(shown, metadataAt(t, addr))
	}
	move := func(to int32) time.Duration {
		t.Helper()
		begin := time.Now()
		var request kadm.AlterPartitionAssignmentsReq
		request.Assign("big", 0, []int32{to})
		if answer, err := a.AlterPartitionAssignments(clusterContext(t), request); err != nil || answer.Error() != nil {
			t.Fatalf("reassign: %v, %v", err, answer.Error())
		}
		waitFor(t, "the replica is where it was asked to be", func() bool {
			for _, show := range shown {
				topics := show("big")
				if topics == nil || len(topics[0].Partitions) == 0 || !slices.Equal(topics[0].Partitions[0].Replicas, []int32{to}) {
					return false
				}
			}
			return true
		})
		return time.Since(begin)
	}
	// 3 MB: one is there at once, or none.
	if took := move(3 - was); took < 1500*time.Millisecond {
		t.Errorf("3 MB at 1 MB/s took %v", took)
	}
	set("all brokers", func(configs []kadm.AlterConfig) (kadm.AlterConfigsResponses, error) {
		return a.AlterBrokerConfigs(clusterContext(t), configs)
	}, kadm.AlterConfig{Op: kadm.DeleteConfig, Name: side + ".replication.throttled.rate"})
	t.Logf("without the throttle it took %v", move(was))
	bad := "1-2"
	responses, err := a.AlterTopicConfigs(clusterContext(t), []kadm.AlterConfig{{Op: kadm.SetConfig, Name: side + ".replication.throttled.replicas", Value: &bad}}, "big")
	if err == nil && responses[0].Err == nil {
		t.Error("a list of replicas that is none was taken")
	}
}
