package group

import (
	"bytes"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/coordinator"
)

// Service answers the group APIs from the shards of a runtime: it finds the
// shard of a group, translates, and gathers the answers of requests that concern
// several. Each method answers through respond, exactly once. Safe for
// concurrent use.
type Service struct {
	runtime    *coordinator.Runtime
	partitions func() int32
	// heartbeatInterval is what members of the consumer protocol are told.
	heartbeatInterval time.Duration
}

// NewService returns a service over shards that were made with the settings. partitions
// says how many partitions `__consumer_offsets` has.
func NewService(runtime *coordinator.Runtime, cfg Config, partitions func() int32) *Service {
	return &Service{runtime: runtime, partitions: partitions, heartbeatInterval: cfg.ConsumerHeartbeatInterval}
}

// do runs an event on the shard of a group, or says why it cannot.
func (s *Service) do(groupID string, event func(shard *Shard, now time.Time) coordinator.Result) *kerr.Error {
	n := s.partitions()
	if n <= 0 {
		return kerr.CoordinatorNotAvailable
	}
	return s.on(PartitionFor(groupID, n), event)
}

func (s *Service) on(partition int32, event func(shard *Shard, now time.Time) coordinator.Result) *kerr.Error {
	err := s.runtime.Do(partition, func(shard coordinator.Shard, now time.Time) coordinator.Result {
		return event(shard.(*Shard), now)
	})
	switch {
	case err == nil:
		return nil
	case errors.Is(err, coordinator.ErrLoading):
		return kerr.CoordinatorLoadInProgress
	}
	return kerr.NotCoordinator
}

func code(err *kerr.Error) int16 {
	if err == nil {
		return 0
	}
	return err.Code
}

// JoinGroup handles a JoinGroup request.
func (s *Service) JoinGroup(r *kmsg.JoinGroupRequest, clientID, clientHost string, respond func(*kmsg.JoinGroupResponse)) {
	join := &JoinRequest{
		GroupID: r.Group, MemberID: r.MemberID, InstanceID: r.InstanceID, ClientID: clientID, ClientHost: clientHost,
		SessionTimeoutMillis: r.SessionTimeoutMillis, RebalanceTimeoutMillis: r.RebalanceTimeoutMillis, ProtocolType: r.ProtocolType,
		RequireKnownMember: r.Version >= 4, SkipAssignment: r.Version >= 9,
	}
	if r.Version == 0 {
		join.RebalanceTimeoutMillis = r.SessionTimeoutMillis
	}
	for _, p := range r.Protocols {
		join.Protocols = append(join.Protocols, Protocol{Name: p.Name, Metadata: bytes.Clone(p.Metadata)})
	}
	answer := func(j JoinResponse) {
		out := r.ResponseKind().(*kmsg.JoinGroupResponse)
		out.ErrorCode, out.Generation, out.LeaderID, out.MemberID = code(j.Err), j.Generation, j.Leader, j.MemberID
		out.ProtocolType, out.Protocol, out.SkipAssignment = j.ProtocolType, j.Protocol, j.SkipAssignment
		if out.Protocol == nil && r.Version < 7 {
			out.Protocol = new(string) // not nullable before
		}
		for _, m := range j.Members {
			one := kmsg.NewJoinGroupResponseMember()
			one.MemberID, one.InstanceID, one.ProtocolMetadata = m.MemberID, m.InstanceID, m.Metadata
			out.Members = append(out.Members, one)
		}
		respond(out)
	}
	if err := s.do(r.Group, func(shard *Shard, now time.Time) coordinator.Result { return shard.Join(join, now, answer) }); err != nil {
		answer(JoinResponse{Err: err, Generation: -1, MemberID: r.MemberID})
	}
}

// SyncGroup handles a SyncGroup request.
func (s *Service) SyncGroup(r *kmsg.SyncGroupRequest, respond func(*kmsg.SyncGroupResponse)) {
	answer := func(a SyncResponse) {
		out := r.ResponseKind().(*kmsg.SyncGroupResponse)
		out.ErrorCode, out.ProtocolType, out.Protocol, out.MemberAssignment = code(a.Err), a.ProtocolType, a.Protocol, a.Assignment
		respond(out)
	}
	// KIP-559: from version 5 on the client says what it believes the protocol is.
	if r.Version >= 5 && (r.ProtocolType == nil || r.Protocol == nil) {
		answer(SyncResponse{Err: kerr.InconsistentGroupProtocol})
		return
	}
	sync := &SyncRequest{
		GroupID: r.Group, MemberID: r.MemberID, InstanceID: r.InstanceID, Generation: r.Generation,
		ProtocolType: r.ProtocolType, Protocol: r.Protocol, Assignments: map[string][]byte{},
	}
	for _, a := range r.GroupAssignment {
		sync.Assignments[a.MemberID] = bytes.Clone(a.MemberAssignment)
	}
	if err := s.do(r.Group, func(shard *Shard, now time.Time) coordinator.Result { return shard.Sync(sync, now, answer) }); err != nil {
		answer(SyncResponse{Err: err})
	}
}

// Heartbeat handles a Heartbeat request.
func (s *Service) Heartbeat(r *kmsg.HeartbeatRequest, respond func(*kmsg.HeartbeatResponse)) {
	var beat *kerr.Error
	err := s.do(r.Group, func(shard *Shard, now time.Time) coordinator.Result {
		beat = shard.Heartbeat(r.Group, r.MemberID, r.InstanceID, r.Generation, now)
		return coordinator.Result{}
	})
	if err != nil {
		beat = err
	}
	if beat == kerr.CoordinatorLoadInProgress {
		beat = nil // Kafka lets members beat while it loads
	}
	out := r.ResponseKind().(*kmsg.HeartbeatResponse)
	out.ErrorCode = code(beat)
	respond(out)
}

// LeaveGroup handles a LeaveGroup request.
func (s *Service) LeaveGroup(r *kmsg.LeaveGroupRequest, respond func(*kmsg.LeaveGroupResponse)) {
	out := r.ResponseKind().(*kmsg.LeaveGroupResponse)
	var leaving []LeaveMember
	if r.Version < 3 {
		leaving = []LeaveMember{{MemberID: r.MemberID}}
	}
	for _, m := range r.Members {
		leaving = append(leaving, LeaveMember{MemberID: m.MemberID, InstanceID: m.InstanceID})
	}
	if r.Group == "" {
		out.ErrorCode = kerr.InvalidGroupID.Code
		respond(out)
		return
	}
	var errs []*kerr.Error
	err := s.do(r.Group, func(shard *Shard, now time.Time) (result coordinator.Result) {
		errs, result = shard.Leave(r.Group, leaving, now)
		return result
	})
	switch {
	case err != nil:
		out.ErrorCode = err.Code
	case r.Version < 3:
		out.ErrorCode = code(errs[0])
	default:
		for i, l := range leaving {
			one := kmsg.NewLeaveGroupResponseMember()
			one.MemberID, one.InstanceID, one.ErrorCode = l.MemberID, l.InstanceID, code(errs[i])
			out.Members = append(out.Members, one)
		}
	}
	respond(out)
}

// DescribeGroups handles a DescribeGroups request.
func (s *Service) DescribeGroups(r *kmsg.DescribeGroupsRequest, respond func(*kmsg.DescribeGroupsResponse)) {
	out := r.ResponseKind().(*kmsg.DescribeGroupsResponse)
	for _, id := range r.Groups {
		var d Description
		err := s.do(id, func(shard *Shard, _ time.Time) coordinator.Result {
			d = shard.Describe(id)
			return coordinator.Result{}
		})
		if err != nil {
			d = Description{Err: err}
		}
		one := kmsg.NewDescribeGroupsResponseGroup()
		one.Group, one.State, one.ProtocolType, one.Protocol = id, d.State, d.ProtocolType, d.Protocol
		if one.ErrorCode = code(d.Err); d.Err == kerr.GroupIDNotFound {
			if r.Version < 6 {
				one.ErrorCode = 0
			} else {
				message := "Group " + id + " not found."
				one.ErrorMessage = &message
			}
		}
		for _, m := range d.Members {
			member := kmsg.NewDescribeGroupsResponseGroupMember()
			member.MemberID, member.InstanceID, member.ClientID, member.ClientHost = m.MemberID, m.InstanceID, m.ClientID, m.ClientHost
			member.ProtocolMetadata, member.MemberAssignment = m.Metadata, m.Assignment
			one.Members = append(one.Members, member)
		}
		out.Groups = append(out.Groups, one)
	}
	respond(out)
}

// PartitionFor is the function of that name.
func (s *Service) PartitionFor(group string, partitions int32) int32 {
	return PartitionFor(group, partitions)
}
