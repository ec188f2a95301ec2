package group

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// arguments are the key=value pairs of a command.
type arguments struct{ d *datadriven.TestData }

func (a arguments) list(key string) []string {
	for _, arg := range a.d.CmdArgs {
		if arg.Key == key {
			return arg.Vals
		}
	}
	return nil
}

func (a arguments) get(key, otherwise string) string {
	if l := a.list(key); len(l) > 0 {
		return l[0]
	}
	return otherwise
}

func (a arguments) optional(key string) *string {
	if l := a.list(key); len(l) > 0 {
		return &l[0]
	}
	return nil
}

func (a arguments) number(key string, otherwise int) int {
	n, err := strconv.Atoi(a.get(key, strconv.Itoa(otherwise)))
	if err != nil {
		a.d.Fatalf(nil, "%s: %v", key, err)
	}
	return n
}

func (a arguments) duration(key, otherwise string) time.Duration {
	d, err := time.ParseDuration(a.get(key, otherwise))
	if err != nil {
		a.d.Fatalf(nil, "%s: %v", key, err)
	}
	return d
}

// pairs cuts each value of a list at its first colon.
func (a arguments) pairs(key string) (pairs [][2]string) {
	for _, v := range a.list(key) {
		left, right, _ := strings.Cut(v, ":")
		pairs = append(pairs, [2]string{left, right})
	}
	return pairs
}

// subscription is what a consumer says under its protocol.
func subscription(topics ...string) []byte {
	v := kmsg.NewConsumerMemberMetadata()
	v.Topics = topics
	return v.AppendTo(nil)
}

func (s *script) join(name string, a arguments) {
	r := kmsg.NewPtrJoinGroupRequest()
	r.Version = int16(a.number("version", 9))
	r.Group, r.MemberID, r.InstanceID = a.get("group", "g"), a.get("id", ""), a.optional("instance")
	r.SessionTimeoutMillis = int32(a.duration("session", "10s").Milliseconds())
	r.RebalanceTimeoutMillis = int32(a.duration("rebalance", "60s").Milliseconds())
	r.ProtocolType = a.get("type", "consumer")
	protocols := a.pairs("protocols")
	if len(protocols) == 0 {
		protocols = [][2]string{{"range", "t"}}
	}
	for _, p := range protocols {
		one := kmsg.NewJoinGroupRequestProtocol()
		one.Name, one.Metadata = p[0], subscription(p[1])
		if topic, owned, ok := strings.Cut(p[1], "/"); ok { // t/t-0/t-1
			v := kmsg.NewConsumerMemberMetadata()
			v.Version, v.Topics = 1, []string{topic}
			of := kmsg.ConsumerMemberMetadataOwnedPartition{Topic: topic}
			for _, name := range strings.Split(owned, "/") {
				_, partition := topicPartition(name)
				of.Partitions = append(of.Partitions, partition)
			}
			v.OwnedPartitions = append(v.OwnedPartitions, of)
			one.Metadata = v.AppendTo(nil)
		}
		r.Protocols = append(r.Protocols, one)
	}
	note := s.note(name)
	s.service.JoinGroup(r, a.get("client", name), "/127.0.0.1", func(out *kmsg.JoinGroupResponse) {
		if s.joined != nil && out.MemberID != "" {
			s.joined(name, out.MemberID)
		}
		var members []string
		for _, m := range out.Members {
			members = append(members, m.MemberID)
		}
		if out.ErrorCode != 0 {
			note("%s id=%s", errorName(out.ErrorCode), out.MemberID)
			return
		}
		skip := ""
		if out.SkipAssignment {
			skip = " skip-assignment"
		}
		note("joined id=%s generation=%d protocol=%s leader=%s members=%v%s", out.MemberID, out.Generation, text(out.Protocol), out.LeaderID, members, skip)
	})
}

func (s *script) sync(name string, a arguments) {
	r := kmsg.NewPtrSyncGroupRequest()
	r.Version = int16(a.number("version", 5))
	r.Group, r.MemberID, r.InstanceID, r.Generation = a.get("group", "g"), a.get("id", ""), a.optional("instance"), int32(a.number("generation", 1))
	protocolType, protocol := a.get("type", "consumer"), a.get("protocol", "range")
	r.ProtocolType, r.Protocol = &protocolType, &protocol
	if protocol == "null" {
		r.Protocol = nil
	}
	for _, p := range a.pairs("assign") {
		one := kmsg.NewSyncGroupRequestGroupAssignment()
		one.MemberID, one.MemberAssignment = p[0], []byte(p[1])
		if names, ok := strings.CutPrefix(p[1], "partitions/"); ok { // t-0/t-1
			v := kmsg.NewConsumerMemberAssignment()
			var of kmsg.ConsumerMemberAssignmentTopic
			for _, name := range strings.Split(names, "/") { // of one topic
				topic, partition := topicPartition(name)
				of.Topic, of.Partitions = topic, append(of.Partitions, partition)
			}
			v.Topics = append(v.Topics, of)
			one.MemberAssignment = v.AppendTo(nil)
		}
		r.GroupAssignment = append(r.GroupAssignment, one)
	}
	note := s.note(name)
	s.service.SyncGroup(r, func(out *kmsg.SyncGroupResponse) {
		if out.ErrorCode != 0 {
			note("%s", errorName(out.ErrorCode))
			return
		}
		note("synced assignment=%s protocol=%s", assigned(out.MemberAssignment), text(out.Protocol))
	})
}

// assigned is an assignment: its partitions, or its bytes when they are none.
func assigned(b []byte) string {
	v := kmsg.NewConsumerMemberAssignment()
	if len(b) < 6 || v.ReadFrom(b) != nil {
		return fmt.Sprintf("%q", b)
	}
	var list []string
	for _, t := range v.Topics {
		for _, p := range t.Partitions {
			list = append(list, fmt.Sprintf("%s-%d", t.Topic, p))
		}
	}
	slices.Sort(list)
	return fmt.Sprintf("{%s} version %d", strings.Join(list, " "), v.Version)
}

func (s *script) heartbeat(name string, a arguments) {
	r := kmsg.NewPtrHeartbeatRequest()
	r.Version = 4
	r.Group, r.MemberID, r.InstanceID, r.Generation = a.get("group", "g"), a.get("id", ""), a.optional("instance"), int32(a.number("generation", 1))
	note := s.note(name)
	s.service.Heartbeat(r, func(out *kmsg.HeartbeatResponse) { note("%s", errorName(out.ErrorCode)) })
}

func (s *script) leave(name string, a arguments) {
	r := kmsg.NewPtrLeaveGroupRequest()
	r.Version = int16(a.number("version", 5))
	r.Group, r.MemberID = a.get("group", "g"), a.get("id", "")
	for _, p := range a.pairs("members") { // id:instance
		m := kmsg.NewLeaveGroupRequestMember()
		if m.MemberID = p[0]; p[1] != "" {
			m.InstanceID = &p[1]
		}
		r.Members = append(r.Members, m)
	}
	note := s.note(name)
	s.service.LeaveGroup(r, func(out *kmsg.LeaveGroupResponse) {
		list := []string{errorName(out.ErrorCode)}
		for _, m := range out.Members {
			list = append(list, fmt.Sprintf("%s/%s=%s", m.MemberID, text(m.InstanceID), errorName(m.ErrorCode)))
		}
		note("%s", strings.Join(list, " "))
	})
}

// topicPartition reads "t-0".
func topicPartition(s string) (string, int32) {
	i := strings.LastIndex(s, "-")
	p, err := strconv.Atoi(s[i+1:])
	if err != nil {
		panic(err)
	}
	return s[:i], int32(p)
}

func (s *script) commit(name string, a arguments) {
	r := kmsg.NewPtrOffsetCommitRequest()
	r.Version = int16(a.number("version", 9))
	r.Group, r.MemberID, r.InstanceID, r.Generation = a.get("group", "g"), a.get("id", ""), a.optional("instance"), int32(a.number("generation", -1))
	if d := a.duration("retention", "-1ms"); d >= 0 {
		r.RetentionTimeMillis = d.Milliseconds()
	}
	for _, p := range a.pairs("offsets") { // t-0:5
		topic, partition := topicPartition(p[0])
		t, one := kmsg.NewOffsetCommitRequestTopic(), kmsg.NewOffsetCommitRequestTopicPartition()
		t.Topic, one.Partition, one.LeaderEpoch = topic, partition, 7
		number, metadata, _ := strings.Cut(p[1], "/")
		one.Offset, _ = strconv.ParseInt(number, 10, 64)
		if n, err := strconv.Atoi(metadata); err == nil {
			metadata = strings.Repeat("m", n)
		}
		one.Metadata = &metadata
		t.Partitions = append(t.Partitions, one)
		r.Topics = append(r.Topics, t)
	}
	note := s.note(name)
	s.service.OffsetCommit(r, func(out *kmsg.OffsetCommitResponse) {
		var list []string
		for _, t := range out.Topics {
			for _, p := range t.Partitions {
				list = append(list, fmt.Sprintf("%s-%d=%s", t.Topic, p.Partition, errorName(p.ErrorCode)))
			}
		}
		note("%s", strings.Join(list, " "))
	})
}

func fetched(topic string, partition int32, offset int64, epoch int32, code int16) string {
	one := fmt.Sprintf("%s-%d=%d/%d", topic, partition, offset, epoch)
	if code != 0 {
		one += " " + errorName(code)
	}
	return one
}

func (s *script) fetch(name string, a arguments) {
	r := kmsg.NewPtrOffsetFetchRequest()
	r.Version = int16(a.number("version", 9))
	var topics []kmsg.OffsetFetchRequestGroupTopic
	for _, p := range a.list("partitions") {
		topic, partition := topicPartition(p)
		t := kmsg.NewOffsetFetchRequestGroupTopic()
		t.Topic, t.Partitions = topic, []int32{partition}
		topics = append(topics, t)
	}
	if r.Version >= 8 {
		for _, id := range append(a.list("groups"), a.list("group")...) {
			g := kmsg.NewOffsetFetchRequestGroup()
			g.Group, g.Topics = id, topics
			if member := a.optional("id"); member != nil {
				g.MemberID, g.MemberEpoch = member, int32(a.number("epoch", -1))
			}
			r.Groups = append(r.Groups, g)
		}
	} else {
		r.Group = a.get("group", "g")
		for _, t := range topics {
			one := kmsg.NewOffsetFetchRequestTopic()
			one.Topic, one.Partitions = t.Topic, t.Partitions
			r.Topics = append(r.Topics, one)
		}
	}
	r.RequireStable = a.get("stable", "") != ""
	note := s.note(name)
	s.service.OffsetFetch(r, func(out *kmsg.OffsetFetchResponse) {
		list := []string{errorName(out.ErrorCode)}
		for _, t := range out.Topics {
			for _, p := range t.Partitions {
				if r.Version < 5 {
					p.LeaderEpoch = -1 // not told
				}
				list = append(list, fetched(t.Topic, p.Partition, p.Offset, p.LeaderEpoch, p.ErrorCode))
			}
		}
		for _, g := range out.Groups {
			list = append(list, g.Group+"("+errorName(g.ErrorCode)+")")
			for _, t := range g.Topics {
				for _, p := range t.Partitions {
					list = append(list, fetched(t.Topic, p.Partition, p.Offset, p.LeaderEpoch, p.ErrorCode))
				}
			}
		}
		note("%s", strings.Join(list, " "))
	})
}

func (s *script) describe(name string, a arguments) {
	r := kmsg.NewPtrDescribeGroupsRequest()
	r.Version = int16(a.number("version", 6))
	r.Groups = append(r.Groups, a.get("group", "g"))
	note := s.note(name)
	s.service.DescribeGroups(r, func(out *kmsg.DescribeGroupsResponse) {
		g := out.Groups[0]
		var members []string
		for _, m := range g.Members {
			members = append(members, fmt.Sprintf("%s/%s/%s/%s=%q(%d)", m.MemberID, text(m.InstanceID), m.ClientID, m.ClientHost, m.MemberAssignment, len(m.ProtocolMetadata)))
		}
		note("%s %s type=%s protocol=%s members=%v", errorName(g.ErrorCode), g.State, g.ProtocolType, g.Protocol, members)
	})
}

func (s *script) list(name string, a arguments) {
	r := kmsg.NewPtrListGroupsRequest()
	r.Version, r.StatesFilter, r.TypesFilter = 5, a.list("states"), a.list("types")
	note := s.note(name)
	s.service.ListGroups(r, func(out *kmsg.ListGroupsResponse) {
		list := []string{errorName(out.ErrorCode)}
		for _, g := range out.Groups {
			list = append(list, fmt.Sprintf("%s(%s %s %s)", g.Group, g.ProtocolType, g.GroupState, g.GroupType))
		}
		note("%s", strings.Join(list, " "))
	})
}

func (s *script) delete(name string, a arguments) {
	r := kmsg.NewPtrDeleteGroupsRequest()
	r.Version, r.Groups = 2, a.list("groups")
	note := s.note(name)
	s.service.DeleteGroups(r, func(out *kmsg.DeleteGroupsResponse) {
		var list []string
		for _, g := range out.Groups {
			list = append(list, g.Group+"="+errorName(g.ErrorCode))
		}
		note("%v", list)
	})
}

func (s *script) deleteOffsets(name string, a arguments) {
	r := kmsg.NewPtrOffsetDeleteRequest()
	r.Group = a.get("group", "g")
	for _, p := range a.list("partitions") {
		topic, partition := topicPartition(p)
		t, one := kmsg.NewOffsetDeleteRequestTopic(), kmsg.NewOffsetDeleteRequestTopicPartition()
		t.Topic, one.Partition = topic, partition
		t.Partitions = append(t.Partitions, one)
		r.Topics = append(r.Topics, t)
	}
	note := s.note(name)
	s.service.OffsetDelete(r, func(out *kmsg.OffsetDeleteResponse) {
		list := []string{errorName(out.ErrorCode)}
		for _, t := range out.Topics {
			for _, p := range t.Partitions {
				list = append(list, fmt.Sprintf("%s-%d=%s", t.Topic, p.Partition, errorName(p.ErrorCode)))
			}
		}
		note("%s", strings.Join(list, " "))
	})
}
