package broker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/metadata"
	"github.com/leatlog/leat/broker/internal/quorum"
)

// longestVoterWait bounds how long a replica that is to vote may take to catch up while a
// client waits for it, whatever the client says.
const longestVoterWait = time.Minute

// askQuorum answers the requests about the quorum itself, which the node that leads it
// answers: DescribeQuorum (KIP-595, KIP-836), AddRaftVoter and RemoveRaftVoter (KIP-853).
// It is false for all others.
func (c *controllerClient) askQuorum(request kmsg.Request, done func(kmsg.Response)) bool {
	timeout := controllerTimeout
	switch r := request.(type) {
	case *kmsg.AddRaftVoterRequest:
		timeout = min(time.Duration(max(0, r.TimeoutMillis))*time.Millisecond, longestVoterWait)
	case *kmsg.DescribeQuorumRequest, *kmsg.RemoveRaftVoterRequest:
	default:
		return false
	}
	asked := request.GetVersion()
	if !c.broker.asking.start(func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		response := c.askQuorumLeader(ctx, request)
		response.SetVersion(asked)
		done(response)
	}) {
		done(quorumRefusal(request, kerr.NotLeaderForPartition, "this node stops"))
	}
	return true
}

// askQuorumLeader asks the leader, whoever it is, until it answers or ctx ends.
func (c *controllerClient) askQuorumLeader(ctx context.Context, request kmsg.Request) kmsg.Response {
	b := c.broker
	if c.local {
		return b.answerOnQuorum(ctx, request)
	}
	reason := errors.New("no node leads the quorum")
	for {
		switch leader, _ := b.log.Leader(); {
		case leader == b.cfg.NodeID:
			if response := b.answerOnQuorum(ctx, request); quorumCode(response) != kerr.NotLeaderForPartition.Code {
				return response
			}
		case leader >= 0 && b.peers != nil:
			response, err := b.peers.Request(ctx, leader, copyOf(request))
			if err == nil && quorumCode(response) != kerr.NotLeaderForPartition.Code {
				return response
			}
			if err != nil {
				reason = fmt.Errorf("node %d, which leads the quorum, did not answer: %w", leader, err)
			}
		}
		if !pause(ctx, controllerPause) {
			return quorumRefusal(request, kerr.RequestTimedOut, reason.Error())
		}
	}
}

// quorumCode returns the error of a response as a whole.
func quorumCode(response kmsg.Response) int16 {
	switch r := response.(type) {
	case *kmsg.DescribeQuorumResponse:
		return r.ErrorCode
	case *kmsg.AddRaftVoterResponse:
		return r.ErrorCode
	case *kmsg.RemoveRaftVoterResponse:
		return r.ErrorCode
	}
	return 0
}

// quorumRefusal is the response to a request that is refused.
func quorumRefusal(request kmsg.Request, refused *kerr.Error, reason string) kmsg.Response {
	response := request.ResponseKind()
	switch r := response.(type) {
	case *kmsg.DescribeQuorumResponse:
		r.ErrorCode, r.ErrorMessage = refused.Code, &reason
	case *kmsg.AddRaftVoterResponse:
		r.ErrorCode, r.ErrorMessage = refused.Code, &reason
	case *kmsg.RemoveRaftVoterResponse:
		r.ErrorCode, r.ErrorMessage = refused.Code, &reason
	}
	return response
}

// answerOnQuorum answers as the leader; NOT_LEADER_OR_FOLLOWER when this node is not it.
func (b *Broker) answerOnQuorum(ctx context.Context, request kmsg.Request) kmsg.Response {
	node := b.membership.node.Load()
	if node == nil {
		return quorumRefusal(request, kerr.NotLeaderForPartition, "this node is in no quorum yet")
	}
	switch r := request.(type) {
	case *kmsg.DescribeQuorumRequest:
		return b.describeQuorum(ctx, node, r)
	case *kmsg.AddRaftVoterRequest:
		return b.changeVoters(ctx, request, r.ClusterID, quorumReplica(r.VoterID, r.VoterDirectoryID), node.AddVoter)
	case *kmsg.RemoveRaftVoterRequest:
		return b.changeVoters(ctx, request, r.ClusterID, quorumReplica(r.VoterID, r.VoterDirectoryID), node.RemoveVoter)
	}
	return quorumRefusal(request, kerr.InvalidRequest, "this is no request about the quorum")
}

func (b *Broker) describeQuorum(ctx context.Context, node *quorum.Node, request *kmsg.DescribeQuorumRequest) kmsg.Response {
	status, err := node.Status(ctx)
	if err != nil || status.Leader != b.cfg.NodeID {
		return quorumRefusal(request, kerr.NotLeaderForPartition, fmt.Sprintf("node %d does not lead the quorum", b.cfg.NodeID))
	}
	response := request.ResponseKind().(*kmsg.DescribeQuorumResponse)
	for _, topic := range request.Topics {
		described := kmsg.DescribeQuorumResponseTopic{Topic: topic.Topic}
		for _, p := range topic.Partitions {
			one := kmsg.DescribeQuorumResponseTopicPartition{Partition: p.Partition, LeaderID: -1, LeaderEpoch: -1, HighWatermark: -1}
			if topic.Topic != metadata.ClusterTopic || p.Partition != 0 {
				one.ErrorCode = kerr.UnknownTopicOrPartition.Code
			} else {
				one.LeaderID, one.LeaderEpoch, one.HighWatermark = status.Leader, status.Epoch, status.End
				one.CurrentVoters, one.Observers = b.replicaStates(status.Voters), b.replicaStates(status.Learners)
			}
			described.Partitions = append(described.Partitions, one)
		}
		response.Topics = append(response.Topics, described)
	}
	for _, r := range status.Voters {
		listed := kmsg.DescribeQuorumResponseNode{NodeID: r.Node}
		address := b.internalAddress
		if r.Node != b.cfg.NodeID {
			address, _ = b.membership.address(r.Node)
		}
		if host, port, err := net.SplitHostPort(address); err == nil {
			if n, err := strconv.ParseUint(port, 10, 16); err == nil {
				listed.Listeners = append(listed.Listeners, kmsg.DescribeQuorumResponseNodeListener{Name: internalListenerName, Host: host, Port: uint16(n)})
			}
		}
		response.Nodes = append(response.Nodes, listed)
	}
	return response
}

func (b *Broker) replicaStates(replicas []quorum.ReplicaStatus) []kmsg.DescribeQuorumResponseTopicPartitionReplicaState {
	now, tick := b.env.Now(), b.cfg.Cluster.Tick
	at := func(ticks int) int64 {
		if ticks < 0 {
			return -1
		}
		return now.Add(-time.Duration(ticks) * tick).UnixMilli()
	}
	var list []kmsg.DescribeQuorumResponseTopicPartitionReplicaState
	for _, r := range replicas {
		list = append(list, kmsg.DescribeQuorumResponseTopicPartitionReplicaState{ReplicaID: r.Node, ReplicaDirectoryID: r.Directory.ID(),
			LogEndOffset: r.End, LastFetchTimestamp: at(r.Heard), LastCaughtUpTimestamp: at(r.CaughtUp)})
	}
	return list
}

// quorumReplica returns the replica that a request names; nil for a directory id that
// none of this program's nodes has.
func quorumReplica(node int32, directory [16]byte) *quorum.Replica {
	if d, ok := quorum.DirectoryOf(directory); ok && node >= 0 {
		return &quorum.Replica{Node: node, Directory: d}
	}
	return nil
}

// changeVoters makes a change of the voters. While a replica that is to vote has not
// caught up, and while another change is under way, it tries again until ctx ends.
func (b *Broker) changeVoters(ctx context.Context, request kmsg.Request, cluster *string, replica *quorum.Replica,
	change func(context.Context, quorum.Replica) error) kmsg.Response {
	if cluster != nil && *cluster != b.membership.clusterID() {
		return quorumRefusal(request, kerr.InconsistentClusterID, fmt.Sprintf("this is cluster %s", b.membership.clusterID()))
	}
	if replica == nil {
		return quorumRefusal(request, kerr.VoterNotFound, "no node has this id and directory id: DescribeQuorum lists those that there are")
	}
	for {
		err := change(ctx, *replica)
		_, removes := request.(*kmsg.RemoveRaftVoterRequest)
		again := errors.Is(err, quorum.ErrChangePending) || !removes && (errors.Is(err, quorum.ErrLagging) || errors.Is(err, quorum.ErrNotMember))
		switch {
		case err == nil:
			return request.ResponseKind()
		case again && pause(ctx, controllerPause):
			continue
		case again, ctx.Err() != nil:
			return quorumRefusal(request, kerr.RequestTimedOut, err.Error())
		case errors.Is(err, quorum.ErrAlreadyVoter):
			return quorumRefusal(request, kerr.DuplicateVoter, err.Error())
		case errors.Is(err, quorum.ErrNotMember):
			return quorumRefusal(request, kerr.VoterNotFound, err.Error())
		case errors.Is(err, quorum.ErrLastVoter):
			return quorumRefusal(request, kerr.InvalidRequest, err.Error())
		default:
			return quorumRefusal(request, kerr.NotLeaderForPartition, err.Error())
		}
	}
}
