package group

import (
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/coordinator"
	"github.com/leatlog/leat/broker/internal/metadata"
)

// ConsumerGroupHeartbeat handles a ConsumerGroupHeartbeat request.
func (s *Service) ConsumerGroupHeartbeat(r *kmsg.ConsumerGroupHeartbeatRequest, clientID, clientHost string, respond func(*kmsg.ConsumerGroupHeartbeatResponse)) {
	beat := &ConsumerHeartbeatRequest{GroupID: r.Group, MemberID: r.MemberID, MemberEpoch: r.MemberEpoch, InstanceID: r.InstanceID,
		RackID: r.RackID, ClientID: clientID, ClientHost: clientHost, RebalanceTimeoutMillis: r.RebalanceTimeoutMillis,
		SubscribedTopics: r.SubscribedTopicNames, SubscribedRegex: r.SubscribedTopicRegex, ServerAssignor: r.ServerAssignor,
		RequireMemberID: r.Version >= 1}
	if r.Topics != nil {
		owned := map[metadata.UUID][]int32{}
		for _, t := range r.Topics {
			owned[t.TopicID] = append(owned[t.TopicID], t.Partitions...)
		}
		a := assignmentOf(owned)
		if beat.Owned = &a; len(a) < len(owned) {
			a[metadata.UUID{}] = nil // a topic without partitions: it is not nothing
		}
	}
	answer := func(a ConsumerHeartbeatResponse) {
		out := r.ResponseKind().(*kmsg.ConsumerGroupHeartbeatResponse)
		if out.ErrorCode = code(a.Err); a.Err != nil {
			if a.Message != "" {
				out.ErrorMessage = &a.Message
			}
			respond(out)
			return
		}
		out.MemberID, out.MemberEpoch = &a.MemberID, a.MemberEpoch
		if a.MemberEpoch >= 0 {
			out.HeartbeatIntervalMillis = int32(s.heartbeatInterval.Milliseconds())
		}
		if a.Assignment != nil {
			out.Assignment = &kmsg.ConsumerGroupHeartbeatResponseAssignment{}
			for _, id := range a.Assignment.topics() {
				topic := kmsg.NewConsumerGroupHeartbeatResponseAssignmentTopic()
				topic.TopicID, topic.Partitions = id, (*a.Assignment)[id]
				out.Assignment.Topics = append(out.Assignment.Topics, topic)
			}
		}
		respond(out)
	}
	if err := s.do(r.Group, func(shard *Shard, now time.Time) coordinator.Result {
		return shard.ConsumerHeartbeat(beat, now, answer)
	}); err != nil {
		answer(ConsumerHeartbeatResponse{Err: err})
	}
}

// ConsumerGroupDescribe handles a ConsumerGroupDescribe request.
func (s *Service) ConsumerGroupDescribe(r *kmsg.ConsumerGroupDescribeRequest, respond func(*kmsg.ConsumerGroupDescribeResponse)) {
	out := r.ResponseKind().(*kmsg.ConsumerGroupDescribeResponse)
	out.Groups = make([]kmsg.ConsumerGroupDescribeResponseGroup, len(r.Groups))
	each := gather(len(r.Groups), func() { respond(out) })
	for i, id := range r.Groups {
		answer := func(one kmsg.ConsumerGroupDescribeResponseGroup, err *kerr.Error) {
			if err != nil {
				one = kmsg.NewConsumerGroupDescribeResponseGroup()
				one.ErrorCode = err.Code
			}
			if one.Group = id; err == kerr.GroupIDNotFound {
				message := "Group " + id + " is not a consumer group."
				one.ErrorMessage = &message
			}
			each(func() { out.Groups[i] = one })
		}
		if id == "" {
			answer(kmsg.ConsumerGroupDescribeResponseGroup{}, kerr.InvalidGroupID)
			continue
		}
		if err := s.do(id, func(shard *Shard, _ time.Time) coordinator.Result { return shard.DescribeConsumers(id, answer) }); err != nil {
			answer(kmsg.ConsumerGroupDescribeResponseGroup{}, err)
		}
	}
}

// DescribeConsumers handles ConsumerGroupDescribe for one group. The answer waits until
// what it tells is committed.
func (s *Shard) DescribeConsumers(groupID string, respond func(kmsg.ConsumerGroupDescribeResponseGroup, *kerr.Error)) coordinator.Result {
	one := kmsg.NewConsumerGroupDescribeResponseGroup()
	g := s.groups[groupID]
	if g == nil || g.consumer == nil {
		respond(one, kerr.GroupIDNotFound)
		return coordinator.Result{}
	}
	e := s.edit(g, time.Time{})
	c := g.consumer
	one.State, one.Epoch, one.AssignmentEpoch, one.AssignorName = string(c.state()), c.epoch, c.assignmentEpoch, e.assignor()
	for _, id := range c.sortedIDs() {
		m := c.members[id]
		member := kmsg.NewConsumerGroupDescribeResponseGroupMember()
		member.MemberID, member.InstanceID, member.RackID, member.MemberEpoch = id, m.instanceID, m.rackID, m.epoch
		member.ClientID, member.ClientHost, member.SubscribedTopics = m.clientID, m.clientHost, slices.Clone(m.topics)
		member.SubscribedTopicRegex = &m.regex
		member.Assignment, member.TargetAssignment = s.described(e, m.assigned), s.described(e, c.targets[id])
		if member.MemberType = 1; m.classic != nil {
			member.MemberType = 0
		}
		one.Members = append(one.Members, member)
	}
	return coordinator.Result{Done: func(err error) coordinator.Result {
		if err != nil {
			respond(one, errorOf(err))
		} else {
			respond(one, nil)
		}
		return coordinator.Result{}
	}}
}

// described is an assignment with the names of its topics; those that were deleted are
// left out.
func (s *Shard) described(e *edit, a assignment) (out kmsg.Assignment) {
	for _, id := range a.topics() {
		if name, ok := e.topics.Name(id); ok {
			one := kmsg.NewAssignmentTopicPartition()
			one.TopicID, one.Topic, one.Partitions = id, name, a[id]
			out.TopicPartitions = append(out.TopicPartitions, one)
		}
	}
	return out
}
