package group

import (
	"fmt"
	"slices"
	"testing"

	"github.com/leatlog/leat/broker/internal/metadata"
	"pgregory.net/rapid"
)

// TestAssignProperties assigns to members that come, go and subscribe anew: each
// partition goes to exactly one of the members that read its topic, loads differ as little
// as subscriptions allow, and with equal subscriptions no more partitions move than have to.
func TestAssignProperties(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		name := rapid.SampledFrom(Assignors()).Draw(rt, "assignor")
		same := rapid.Bool().Draw(rt, "same subscriptions")
		topics := make([]assignedTopic, rapid.IntRange(1, 4).Draw(rt, "topics"))
		for i := range topics {
			topics[i] = assignedTopic{metadata.UUID{byte(i + 1)}, rapid.Int32Range(0, 7).Draw(rt, "partitions")}
		}
		targets := map[string]assignment{}
		for range rapid.IntRange(1, 5).Draw(rt, "rounds") {
			var members []assignee
			for i := range rapid.IntRange(1, 6).Draw(rt, "members") {
				m := assignee{id: fmt.Sprintf("m%d", i)}
				if rapid.Bool().Draw(rt, "static") {
					m.instanceID = &m.id
				}
				for topic := range topics {
					if same || rapid.Bool().Draw(rt, "subscribes") {
						m.topics = append(m.topics, topic)
					}
				}
				m.previous = targets[m.id]
				members = append(members, m)
			}
			given := assign(name, members, topics)
			checkAssigned(rt, members, topics, given)
			if name == UniformAssignor {
				checkEven(rt, members, topics, given, same)
			}
			clear(targets)
			for i := range members {
				targets[members[i].id] = given[i]
				members[i].previous = given[i]
			}
			for i, again := range assign(name, members, topics) {
				if !again.equal(given[i]) {
					rt.Fatalf("%s of %v: assigned again, %s has %v after %v", name, members, members[i].id, again, given[i])
				}
			}
		}
	})
}

func checkAssigned(rt *rapid.T, members []assignee, topics []assignedTopic, given []assignment) {
	for t, topic := range topics {
		readers := slices.ContainsFunc(members, func(m assignee) bool { return slices.Contains(m.topics, t) })
		for p := range topic.partitions {
			owners := 0
			for i := range members {
				if given[i].has(topic.id, p) {
					owners++
					if !slices.Contains(members[i].topics, t) {
						rt.Fatalf("%s got a partition of topic %d that it does not read", members[i].id, t)
					}
				}
			}
			if want := map[bool]int{true: 1}[readers]; owners != want {
				rt.Fatalf("partition %d of topic %d has %d owners, want %d: %v", p, t, owners, want, given)
			}
		}
	}
}

func loadOf(a assignment) (n int) {
	for _, partitions := range a {
		n += len(partitions)
	}
	return n
}

// checkEven says that no partition can be moved to make the loads more even, and, with
// equal subscriptions, that a member keeps what it had up to its share.
func checkEven(rt *rapid.T, members []assignee, topics []assignedTopic, given []assignment, same bool) {
	total := 0
	for i := range members {
		total += loadOf(given[i])
		for t, topic := range topics {
			for j := range members {
				if len(given[i][topic.id]) > 0 && slices.Contains(members[j].topics, t) && loadOf(given[j]) < loadOf(given[i])-1 {
					rt.Fatalf("%s has %d, %s has %d of what it could have, too", members[i].id, loadOf(given[i]), members[j].id, loadOf(given[j]))
				}
			}
		}
	}
	for i := range members {
		kept, _ := members[i].previous.split(given[i])
		if want := min(loadOf(members[i].previous), total/len(members)); same && loadOf(kept) < want {
			rt.Fatalf("%s kept %d of %v, could keep %d", members[i].id, loadOf(kept), members[i].previous, want)
		}
	}
}
