package handler

import (
	"context"
	"net"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/wire"
)

// The classic group APIs: JoinGroup (11), Heartbeat (12), LeaveGroup (13),
// SyncGroup (14), DescribeGroups (15), ListGroups (16), DeleteGroups (42) and
// OffsetDelete (47). What they mean is the group coordinator's to say: the
// handlers hand on the request, since nothing in it concerns anyone else.

// Groups is the group coordinator. Methods return at once; respond is called
// exactly once, with a response of the request's version, perhaps much later and
// on another goroutine, and must not block.
type Groups interface {
	JoinGroup(r *kmsg.JoinGroupRequest, clientID, clientHost string, respond func(*kmsg.JoinGroupResponse))
	SyncGroup(r *kmsg.SyncGroupRequest, respond func(*kmsg.SyncGroupResponse))
	Heartbeat(r *kmsg.HeartbeatRequest, respond func(*kmsg.HeartbeatResponse))
	LeaveGroup(r *kmsg.LeaveGroupRequest, respond func(*kmsg.LeaveGroupResponse))
	// OffsetCommit gets topics and partitions that exist.
	OffsetCommit(r *kmsg.OffsetCommitRequest, respond func(*kmsg.OffsetCommitResponse))
	OffsetFetch(r *kmsg.OffsetFetchRequest, respond func(*kmsg.OffsetFetchResponse))
	OffsetDelete(r *kmsg.OffsetDeleteRequest, respond func(*kmsg.OffsetDeleteResponse))
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

func joinGroup(h *Handler, _ context.Context, request *wire.Request, respond wire.Responder) {
	host := request.Conn.RemoteAddr.String()
	if address, _, err := net.SplitHostPort(host); err == nil {
		host = address
	}
	h.Groups.JoinGroup(request.Body.(*kmsg.JoinGroupRequest), request.ClientID, "/"+host, bodyOf[*kmsg.JoinGroupResponse](respond))
}

func heartbeat(h *Handler, _ context.Context, request *wire.Request, respond wire.Responder) {
	h.Groups.Heartbeat(request.Body.(*kmsg.HeartbeatRequest), bodyOf[*kmsg.HeartbeatResponse](respond))
}

func leaveGroup(h *Handler, _ context.Context, request *wire.Request, respond wire.Responder) {
	h.Groups.LeaveGroup(request.Body.(*kmsg.LeaveGroupRequest), bodyOf[*kmsg.LeaveGroupResponse](respond))
}

func syncGroup(h *Handler, _ context.Context, request *wire.Request, respond wire.Responder) {
	h.Groups.SyncGroup(request.Body.(*kmsg.SyncGroupRequest), bodyOf[*kmsg.SyncGroupResponse](respond))
}

func describeGroups(h *Handler, _ context.Context, request *wire.Request, respond wire.Responder) {
	h.Groups.DescribeGroups(request.Body.(*kmsg.DescribeGroupsRequest), bodyOf[*kmsg.DescribeGroupsResponse](respond))
}

func listGroups(h *Handler, _ context.Context, request *wire.Request, respond wire.Responder) {
	h.Groups.ListGroups(request.Body.(*kmsg.ListGroupsRequest), bodyOf[*kmsg.ListGroupsResponse](respond))
}

func deleteGroups(h *Handler, _ context.Context, request *wire.Request, respond wire.Responder) {
	h.Groups.DeleteGroups(request.Body.(*kmsg.DeleteGroupsRequest), bodyOf[*kmsg.DeleteGroupsResponse](respond))
}

func offsetDelete(h *Handler, _ context.Context, request *wire.Request, respond wire.Responder) {
	h.Groups.OffsetDelete(request.Body.(*kmsg.OffsetDeleteRequest), bodyOf[*kmsg.OffsetDeleteResponse](respond))
}

func offsetFetch(h *Handler, _ context.Context, request *wire.Request, respond wire.Responder) {
	h.Groups.OffsetFetch(request.Body.(*kmsg.OffsetFetchRequest), bodyOf[*kmsg.OffsetFetchResponse](respond))
}
