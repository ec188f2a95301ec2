package group

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
	"pgregory.net/rapid"

	"github.com/leatlog/leat/broker/internal/metadata"
)

// honest is a member that follows the protocol: it uses what it was told to, and
// gives the rest back when it gets to it.
type honest struct {
	id       string
	instance *string
	epoch    int32 // -1: not in the group
	topics   []string
	regex    string
	assignor string
	uses     map[partitionID]bool
	target   map[partitionID]bool // what it was told last
	missed   bool                 // an answer was lost: the next heartbeat says all there is
}

// revoke has the member stop using what it is not to use any more.
func (m *honest) revoke() {
	maps.DeleteFunc(m.uses, func(p partitionID, _ bool) bool { return !m.target[p] })
}

func (m *honest) lost() {
	m.epoch = 0
	clear(m.uses)
	clear(m.target)
}

// owned is what the member uses or is about to.
func (m *honest) owned() []kmsg.ConsumerGroupHeartbeatRequestTopic {
	topics := map[metadata.UUID][]int32{}
	all := maps.Clone(m.uses)
	maps.Copy(all, m.target)
	for p := range all {
		topics[p.topic] = append(topics[p.topic], p.partition)
	}
	list := []kmsg.ConsumerGroupHeartbeatRequestTopic{}
	for id, partitions := range topics {
		list = append(list, kmsg.ConsumerGroupHeartbeatRequestTopic{TopicID: id, Partitions: partitions})
	}
	return list
}

// beat sends the member's heartbeat; lose has the answer be lost.
func (m *honest) beat(s *script, lose bool) {
	r := kmsg.NewPtrConsumerGroupHeartbeatRequest()
	r.Version, r.Group, r.MemberID, r.MemberEpoch, r.InstanceID = 1, "g", m.id, m.epoch, m.instance
	r.RebalanceTimeoutMillis = -1
	if m.epoch == 0 || m.missed {
		r.RebalanceTimeoutMillis = 300_000
	}
	r.SubscribedTopicNames, r.SubscribedTopicRegex, r.ServerAssignor = m.topics, &m.regex, &m.assignor
	r.Topics = m.owned()
	s.beaten = func(_ *kmsg.ConsumerGroupHeartbeatRequest, out *kmsg.ConsumerGroupHeartbeatResponse, assigned map[metadata.UUID][]int32) {
		if m.missed = lose; lose {
			return
		}
		m.epoch = out.MemberEpoch
		if out.Assignment == nil {
			return
		}
		clear(m.target)
		for id, partitions := range assigned {
			for _, p := range partitions {
				m.target[partitionID{id, p}] = true
			}
		}
	}
	s.out.Reset()
	s.send(m.id, r)
	s.drain()
	s.beaten = nil
	for _, err := range []*kerr.Error{kerr.FencedMemberEpoch, kerr.UnknownMemberID, kerr.GroupIDNotFound} {
		if s.out.String() == m.id+": "+err.Message+"\n" {
			m.lost()
		}
	}
	s.out.Reset()
	s.checkReplay()
}

// use has the member act on what it was told.
func (m *honest) use() {
	m.revoke()
	for p := range m.target {
		m.uses[p] = true
	}
}

// leave has the member go, a static one perhaps for a while.
func (m *honest) leave(s *script, back bool) {
	r := kmsg.NewPtrConsumerGroupHeartbeatRequest()
	r.Version, r.Group, r.MemberID, r.MemberEpoch, r.InstanceID, r.RebalanceTimeoutMillis = 1, "g", m.id, leaveEpoch, m.instance, -1
	if m.instance != nil && back {
		r.MemberEpoch = leaveStaticEpoch
	}
	m.lost()
	s.send(m.id, r)
	s.drain()
	s.out.Reset()
	m.epoch = -1
}

// TestNobodySharesAPartition has members that follow the protocol come and go, answer
// late, lose answers, subscribe anew, while topics change and the coordinator moves: no
// partition is used by two of them at any time, and in the end each is used by one.
func TestNobodySharesAPartition(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := newScript(rt)
		s.topics.set("t", 3)
		s.topics.set("u", 2)
		s.lead()
		var members []*honest
		for i := range rapid.IntRange(1, 4).Draw(rt, "members") {
			m := &honest{id: fmt.Sprintf("m%d", i), epoch: -1, topics: []string{"t"}, uses: map[partitionID]bool{}, target: map[partitionID]bool{}}
			if m.assignor = UniformAssignor; rapid.Bool().Draw(rt, "static") {
				m.instance = &m.id
			}
			members = append(members, m)
		}
		for range rapid.IntRange(1, 80).Draw(rt, "steps") {
			randomStep(rt, s, members[rapid.IntRange(0, len(members)-1).Draw(rt, "member")])
			checkUsers(rt, s, members)
		}
		for range 200 { // longer than a session: a member that was fenced is taken again after it
			settled := true
			for _, m := range members {
				if m.epoch < 0 {
					m.epoch = 0
				}
				m.beat(s, false)
				m.use()
				checkUsers(rt, s, members)
			}
			s.advance(time.Second)
			c := s.shard.groups["g"].consumer
			for _, m := range members {
				settled = settled && m.epoch == c.assignmentEpoch && !m.missed
			}
			if settled && c.state() == Stable {
				break
			}
		}
		checkConverged(rt, s, members)
		s.runtime.Close()
		s.drain()
	})
}

func randomStep(rt *rapid.T, s *script, m *honest) {
	switch rapid.SampledFrom([]string{"beat", "beat", "beat", "use", "use", "lose", "leave", "subscribe", "topic", "advance", "restart"}).Draw(rt, "step") {
	case "beat":
		if m.epoch < 0 {
			m.epoch = 0
		}
		m.beat(s, false)
	case "lose":
		if m.epoch >= 0 {
			m.beat(s, true)
		}
	case "use":
		m.use()
	case "leave":
		if m.epoch > 0 {
			m.leave(s, rapid.Bool().Draw(rt, "back"))
		}
	case "subscribe":
		m.topics = rapid.SampledFrom([][]string{{"t"}, {"u"}, {"t", "u"}, {}}).Draw(rt, "topics")
		m.regex = rapid.SampledFrom([]string{"", "t|u", "[tv]"}).Draw(rt, "regex")
		m.assignor = rapid.SampledFrom(Assignors()).Draw(rt, "assignor")
	case "topic":
		name := rapid.SampledFrom([]string{"t", "u", "v"}).Draw(rt, "topic")
		s.topics.set(name, max(s.topics.partitions[name], rapid.Int32Range(0, 5).Draw(rt, "partitions")))
	case "advance":
		s.advance(rapid.SampledFrom([]time.Duration{time.Second, 20 * time.Second}).Draw(rt, "by"))
	case "restart":
		s.lead()
	}
}

// checkUsers says that no two members use a partition. One that the group gave up because
// it was silent for too long may not know it yet: it is not counted.
func checkUsers(rt *rapid.T, s *script, members []*honest) {
	g := s.shard.groups["g"]
	users := map[partitionID]string{}
	for _, m := range members {
		if m.epoch <= 0 || g == nil || g.consumer == nil || g.consumer.members[m.id] == nil {
			continue
		}
		for p := range m.uses {
			if other, ok := users[p]; ok {
				rt.Fatalf("%s and %s both use %v", other, m.id, p)
			}
			users[p] = m.id
		}
	}
}

// checkConverged says that each partition of a topic that somebody reads is used by one
// member that reads it.
func checkConverged(rt *rapid.T, s *script, members []*honest) {
	c := s.shard.groups["g"].consumer
	if c.state() != Stable {
		rt.Fatalf("the group is %s, epoch %d, assignment %d", c.state(), c.epoch, c.assignmentEpoch)
	}
	e := s.shard.edit(s.shard.groups["g"], s.now)
	for _, name := range s.topics.Names() {
		id, partitions, _ := s.topics.Topic(name)
		readers := 0
		for _, m := range c.members {
			if slices.Contains(e.topicsOf(m), name) {
				readers++
			}
		}
		for p := range partitions {
			users := 0
			for _, m := range members {
				if m.uses[partitionID{id, p}] {
					users++
				}
			}
			if users != min(readers, 1) {
				rt.Fatalf("%s-%d has %d users, %d members read the topic", name, p, users, readers)
			}
		}
	}
}
