package group

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/metadata"
)

// scriptTopics is the metadata of a script.
type scriptTopics struct {
	version    int64
	partitions map[string]int32
	ids        map[string]metadata.UUID
}

func newScriptTopics() *scriptTopics {
	return &scriptTopics{partitions: map[string]int32{}, ids: map[string]metadata.UUID{}}
}

func (t *scriptTopics) Version() int64 { return t.version }

func (t *scriptTopics) Topic(name string) (metadata.UUID, int32, bool) {
	n, ok := t.partitions[name]
	return t.ids[name], n, ok
}

func (t *scriptTopics) Name(id metadata.UUID) (string, bool) {
	for name := range t.partitions {
		if t.ids[name] == id {
			return name, true
		}
	}
	return "", false
}

func (t *scriptTopics) Names() []string { return slices.Sorted(maps.Keys(t.partitions)) }

// set makes a topic have so many partitions, none meaning that it does not exist.
func (t *scriptTopics) set(name string, partitions int32) {
	t.version++
	if partitions == 0 {
		delete(t.partitions, name)
		return
	}
	if _, ok := t.partitions[name]; !ok {
		var id metadata.UUID
		binary.BigEndian.PutUint64(id[8:], uint64(t.version))
		t.ids[name] = id
	}
	t.partitions[name] = partitions
}

// topic is the command: topic NAME partitions=N.
func (s *script) topic(name string, a arguments) {
	s.setTopic(name, int32(a.number("partitions", 1)))
}

func (s *script) partitionsOf(ids map[metadata.UUID][]int32) string {
	var list []string
	for id, partitions := range ids {
		name, ok := s.topics.Name(id)
		if !ok {
			name = "?"
		}
		for _, p := range partitions {
			list = append(list, fmt.Sprintf("%s-%d", name, p))
		}
	}
	slices.Sort(list)
	return "{" + strings.Join(list, " ") + "}"
}

// beat is the command: beat ID epoch=N [topics=(t,...)] [owned=(t-0,...)|none] ... A member that joins says all that it has to.
func (s *script) beat(name string, a arguments) {
	r := kmsg.NewPtrConsumerGroupHeartbeatRequest()
	r.Version = int16(a.number("version", 1))
	r.Group, r.MemberID, r.MemberEpoch = a.get("group", "g"), a.get("id", name), int32(a.number("epoch", 0))
	r.InstanceID, r.RackID, r.SubscribedTopicRegex, r.ServerAssignor = a.optional("instance"), a.optional("rack"), a.optional("regex"), a.optional("assignor")
	r.RebalanceTimeoutMillis = -1
	if r.MemberID == "none" {
		r.MemberID = ""
	}
	if d := a.duration("rebalance", "-1ms"); d >= 0 {
		r.RebalanceTimeoutMillis = int32(d.Milliseconds())
	}
	if topics := a.list("topics"); topics != nil {
		r.SubscribedTopicNames = []string{}
		if topics[0] != "none" {
			r.SubscribedTopicNames = topics
		}
	}
	owned := a.list("owned")
	if r.MemberEpoch == 0 && a.get("bare", "") == "" {
		if r.RebalanceTimeoutMillis < 0 {
			r.RebalanceTimeoutMillis = 60_000
		}
		if r.SubscribedTopicNames == nil && r.SubscribedTopicRegex == nil {
			r.SubscribedTopicNames = []string{"t"}
		}
		if owned == nil {
			owned = []string{"none"}
		}
	}
	if owned != nil {
		r.Topics = []kmsg.ConsumerGroupHeartbeatRequestTopic{}
		for _, p := range owned {
			if p == "none" {
				continue
			}
			topic, partition := topicPartition(p)
			one := kmsg.NewConsumerGroupHeartbeatRequestTopic()
			one.TopicID, one.Partitions = s.topics.ids[topic], []int32{partition}
			r.Topics = append(r.Topics, one)
		}
	}
	s.send(name, r)
}

func (s *script) send(name string, r *kmsg.ConsumerGroupHeartbeatRequest) {
	note := s.note(name)
	s.service.ConsumerGroupHeartbeat(r, "client", "/host", func(out *kmsg.ConsumerGroupHeartbeatResponse) {
		if out.ErrorCode != 0 {
			note("%s", errorName(out.ErrorCode))
			return
		}
		assignment := "-"
		if out.Assignment != nil {
			ids := map[metadata.UUID][]int32{}
			for _, t := range out.Assignment.Topics {
				ids[t.TopicID] = t.Partitions
			}
			assignment = s.partitionsOf(ids)
			if s.beaten != nil {
				s.beaten(r, out, ids)
			}
		} else if s.beaten != nil {
			s.beaten(r, out, nil)
		}
		id := text(out.MemberID)
		if s.joined != nil && r.MemberID == "" {
			s.joined(name, id)
		}
		note("%s epoch=%d interval=%d assignment=%s", id, out.MemberEpoch, out.HeartbeatIntervalMillis, assignment)
	})
}

func (s *script) describeConsumers(name string, a arguments) {
	r := kmsg.NewPtrConsumerGroupDescribeRequest()
	r.Version, r.Groups = 1, []string{a.get("group", "g")}
	note := s.note(name)
	s.service.ConsumerGroupDescribe(r, func(out *kmsg.ConsumerGroupDescribeResponse) {
		g := out.Groups[0]
		if g.ErrorCode != 0 {
			note("%s", errorName(g.ErrorCode))
			return
		}
		var members []string
		for _, m := range g.Members {
			partitions := func(a kmsg.Assignment) string {
				ids := map[metadata.UUID][]int32{}
				for _, t := range a.TopicPartitions {
					ids[t.TopicID] = t.Partitions
				}
				return s.partitionsOf(ids)
			}
			members = append(members, fmt.Sprintf("\n  %s/%s rack %s epoch %d topics {%s} regex %s type %d assigned %s target %s", m.MemberID, text(m.InstanceID), text(m.RackID), m.MemberEpoch,
				strings.Join(m.SubscribedTopics, " "), text(m.SubscribedTopicRegex), m.MemberType, partitions(m.Assignment), partitions(m.TargetAssignment)))
		}
		slices.Sort(members)
		note("%s epoch %d, assignment %d by %s%s", g.State, g.Epoch, g.AssignmentEpoch, g.AssignorName, strings.Join(members, ""))
	})
}
