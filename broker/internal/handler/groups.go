package handler

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/wire"
)

// Groups is the group coordinator. What a request means is its to say: most
// handlers hand it on, since nothing in it concerns anyone else. Methods return at once; respond is called
// exactly once, with a response of the request's version, perhaps much later and
// on another goroutine, and must not block.
type Groups interface {
	JoinGroup(r *kmsg.JoinGroupRequest, clientID, clientHost string, respond func(*kmsg.JoinGroupResponse))
	SyncGroup(r *kmsg.SyncGroupRequest, respond func(*kmsg.SyncGroupResponse))
	Heartbeat(r *kmsg.HeartbeatRequest, respond func(*kmsg.HeartbeatResponse))
	LeaveGroup(r *kmsg.LeaveGroupRequest, respond func(*kmsg.LeaveGroupResponse))
	// OffsetCommit gets topics and partitions that exist.
	OffsetCommit(r *kmsg.OffsetCommitRequest, respond func(*kmsg.OffsetCommitResponse))
	// TxnOffsetCommit gets topics and partitions that exist. enlist has the transaction's
	// coordinator say that a partition of `__consumer_offsets` is part of it, or add it.
	TxnOffsetCommit(r *kmsg.TxnOffsetCommitRequest, enlist func(partition int32, add bool, done func(*kerr.Error)), respond func(*kmsg.TxnOffsetCommitResponse))
	OffsetFetch(r *kmsg.OffsetFetchRequest, respond func(*kmsg.OffsetFetchResponse))
	OffsetDelete(r *kmsg.OffsetDeleteRequest, respond func(*kmsg.OffsetDeleteResponse))
	ConsumerGroupHeartbeat(r *kmsg.ConsumerGroupHeartbeatRequest, clientID, clientHost string, respond func(*kmsg.ConsumerGroupHeartbeatResponse))
	ConsumerGroupDescribe(r *kmsg.ConsumerGroupDescribeRequest, respond func(*kmsg.ConsumerGroupDescribeResponse))
	DescribeGroups(r *kmsg.DescribeGroupsRequest, respond func(*kmsg.DescribeGroupsResponse))
	ListGroups(r *kmsg.ListGroupsRequest, respond func(*kmsg.ListGroupsResponse))
	DeleteGroups(r *kmsg.DeleteGroupsRequest, respond func(*kmsg.DeleteGroupsResponse))
	// PartitionFor is the partition of `__consumer_offsets` that holds a group.
	PartitionFor(group string, partitions int32) int32
}

// bodyOf wraps a responder for one type of response.
func bodyOf[R kmsg.Response](respond wire.Responder) func(R) {
	return func(r R) { respond(wire.Response{Body: r}) }
}
