package brokertest_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatlog/leat/broker/brokertest"
)

// nextMember is a kgo consumer of the consumer protocol of KIP-848.
type nextMember struct {
	client *kgo.Client
	mu     sync.Mutex
	has    map[int32]bool
}

func (m *nextMember) partitions() []int32 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Sorted(maps.Keys(m.has))
}

// newNextMember joins a group of the consumer protocol.
func newNextMember(t *testing.T, b *brokertest.Broker, group, topic string, seen func(*kgo.Record), opts ...kgo.Opt) *nextMember {
	m := &nextMember{has: map[int32]bool{}}
	note := func(has bool) func(context.Context, *kgo.Client, map[string][]int32) {
		return func(_ context.Context, _ *kgo.Client, topics map[string][]int32) {
			m.mu.Lock()
			defer m.mu.Unlock()
			for _, p := range topics[topic] {
				if delete(m.has, p); has {
					m.has[p] = true
				}
			}
		}
	}
	//lint:ignore SA1029 kgo looks for this key
	optIn := context.WithValue(t.Context(), "opt_in_kafka_next_gen_balancer_beta", true)
	m.client = newClient(t, b, append([]kgo.Opt{
		kgo.WithContext(optIn),
		kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.OnPartitionsAssigned(note(true)), kgo.OnPartitionsRevoked(note(false)), kgo.OnPartitionsLost(note(false)),
	}, opts...)...)
	go func() {
		for {
			fetches := m.client.PollFetches(t.Context())
			if fetches.IsClientClosed() || t.Context().Err() != nil {
				return
			}
			fetches.EachRecord(seen)
		}
	}()
	return m
}

// TestNextGenerationGroup has kgo consumers of the consumer protocol share a topic, come
// and go, and outlive their broker: every record is read, the group says it is one of
// the consumer protocol, and partitions are shared evenly.
func TestNextGenerationGroup(t *testing.T) {
	const partitions, records = 6, 60
	b := brokertest.Start(t, brokertest.Set("group.consumer.heartbeat.interval.ms", "50"))
	createTopic(t, b, "next", partitions, nil)
	ctx := testContext(t)
	var mu sync.Mutex
	read := map[string]bool{}
	seen := func(r *kgo.Record) {
		mu.Lock()
		defer mu.Unlock()
		read[string(r.Value)] = true
	}
	produced := 0
	produce := func() {
		client := newClient(t, b)
		defer client.Close()
		for range records {
			produced++
			if err := client.ProduceSync(ctx, &kgo.Record{Topic: "next", Value: fmt.Appendf(nil, "%d", produced)}).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
	}
	shares := func(members ...*nextMember) func() bool {
		return func() bool {
			all := map[int32]int{}
			for _, m := range members {
				mine := m.partitions()
				if len(mine) != partitions/len(members) {
					return false
				}
				for _, p := range mine {
					all[p]++
				}
			}
			return len(all) == partitions
		}
	}
	allRead := func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(read) == produced
	}
	first := newNextMember(t, b, "g", "next", seen)
	eventually(t, "one member has all", shares(first))
	second := newNextMember(t, b, "g", "next", seen)
	third := newNextMember(t, b, "g", "next", seen, kgo.InstanceID("third"))
	eventually(t, "three members share", shares(first, second, third))
	produce()
	eventually(t, "all is read", allRead)

	admin := kadm.NewClient(newClient(t, b))
	listed, err := admin.ListGroups(ctx)
	if err != nil || listed["g"].ProtocolType != "consumer" || listed["g"].State != "Stable" {
		t.Errorf("the group is listed as %+v, %v", listed["g"], err)
	}
	described, err := admin.DescribeConsumerGroups(ctx, "g")
	if err != nil || len(described["g"].Members) != 3 || described["g"].AssignorName != "uniform" {
		t.Errorf("the group is described as %+v, %v", described["g"], err)
	}

	b.Kill()
	b.Restart()
	produce()
	eventually(t, "all is read after the broker died", allRead)
	eventually(t, "three members still share", shares(first, second, third))
	second.client.Close()
	eventually(t, "two members share", shares(first, third))
	produce()
	eventually(t, "all is read by two", allRead)
}
