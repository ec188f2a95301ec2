package brokertest_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/brokertest"
)

// shared says that members have equal shares of all partitions.
func shared(partitions int, members ...*nextMember) bool {
	all := map[int32]bool{}
	for _, m := range members {
		mine := m.partitions()
		if len(mine) != partitions/len(members) {
			return false
		}
		for _, p := range mine {
			all[p] = true
		}
	}
	return len(all) == partitions
}

// TestGroupChangesItsProtocol has a member of the consumer protocol join a group of the
// classic protocol and go again: the others go on.
func TestGroupChangesItsProtocol(t *testing.T) {
	const partitions = 6
	b := brokertest.Start(t, brokertest.Set("group.consumer.heartbeat.interval.ms", "50"))
	createTopic(t, b, "change", partitions, nil)
	classic := []kgo.Opt{kgo.Balancers(kgo.RangeBalancer()), kgo.HeartbeatInterval(50 * time.Millisecond)}
	protocol := func() string {
		r := kmsg.NewPtrListGroupsRequest()
		out, err := r.RequestWith(testContext(t), newClient(t, b))
		if err != nil || len(out.Groups) != 1 {
			t.Fatalf("groups: %+v, %v", out, err)
		}
		return out.Groups[0].GroupType
	}
	nothing := func(*kgo.Record) {}
	first := newNextMember(t, b, "g", "change", nothing, classic...)
	second := newNextMember(t, b, "g", "change", nothing, classic...)
	eventually(t, "two share by the classic protocol", func() bool { return shared(partitions, first, second) })
	if p := protocol(); p != "classic" {
		t.Fatalf("the group is %s", p)
	}
	third := newNextMember(t, b, "g", "change", nothing, nextGeneration(t))
	eventually(t, "three share, one of them by the consumer protocol", func() bool { return shared(partitions, first, second, third) })
	if p := protocol(); p != "consumer" {
		t.Fatalf("with a member of the consumer protocol the group is %s", p)
	}
	b.Kill()
	b.Restart()
	third.client.Close()
	eventually(t, "two share again", func() bool { return shared(partitions, first, second) })
	if p := protocol(); p != "classic" {
		t.Fatalf("without members of the consumer protocol the group is %s", p)
	}
}

// nextMember is a kgo consumer of a group.
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

// nextGeneration has a kgo consumer use the consumer protocol.
func nextGeneration(t *testing.T) kgo.Opt {
	//lint:ignore SA1029 kgo looks for this key
	return kgo.WithContext(context.WithValue(t.Context(), "opt_in_kafka_next_gen_balancer_beta", true))
}

// newNextMember joins a group, of the consumer protocol with the option nextGeneration.
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
	m.client = newClient(t, b, append([]kgo.Opt{
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
	shares := func(members ...*nextMember) func() bool { return func() bool { return shared(partitions, members...) } }
	allRead := func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(read) == produced
	}
	first := newNextMember(t, b, "g", "next", seen, nextGeneration(t))
	eventually(t, "one member has all", shares(first))
	second := newNextMember(t, b, "g", "next", seen, nextGeneration(t))
	third := newNextMember(t, b, "g", "next", seen, nextGeneration(t), kgo.InstanceID("third"))
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

// TestNextGenerationStaticMemberReturns has a static member close and come back, long
// before its session ends. franz-go leaves without repeating the instance id.
func TestNextGenerationStaticMemberReturns(t *testing.T) {
	const partitions = 4
	b := brokertest.Start(t, brokertest.Set("group.consumer.heartbeat.interval.ms", "50"))
	createTopic(t, b, "static", partitions, nil)
	nothing := func(*kgo.Record) {}
	join := func(instance string) *nextMember {
		return newNextMember(t, b, "g", "static", nothing, nextGeneration(t), kgo.InstanceID(instance))
	}
	first, second := join("one"), join("two")
	eventually(t, "two share", func() bool { return shared(partitions, first, second) })
	kept := first.partitions()
	first.client.Close()
	first = join("one")
	eventually(t, "the first has its partitions again", func() bool { return slices.Equal(first.partitions(), kept) })
}
