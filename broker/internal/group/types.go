package group

import (
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/leatlog/leat/broker/internal/coordinator"
)

// Protocol is a protocol that a member supports, with what it says under it: its
// subscription.
type Protocol struct {
	Name     string
	Metadata []byte
}

// JoinRequest is a JoinGroup request. Byte slices are kept.
type JoinRequest struct {
	GroupID, MemberID      string
	InstanceID             *string
	ClientID, ClientHost   string
	SessionTimeoutMillis   int32
	RebalanceTimeoutMillis int32
	ProtocolType           string
	Protocols              []Protocol
	// RequireKnownMember makes the coordinator hand out an id first (version 4 on).
	RequireKnownMember bool
	// SkipAssignment says that the client knows the flag of that name (version 9 on).
	SkipAssignment bool
}

// JoinMember is a member as the leader is told of it.
type JoinMember struct {
	MemberID   string
	InstanceID *string
	Metadata   []byte
}

// JoinResponse is the answer to a JoinGroup request.
type JoinResponse struct {
	Err            *kerr.Error
	Generation     int32
	ProtocolType   *string
	Protocol       *string
	Leader         string
	SkipAssignment bool
	MemberID       string
	Members        []JoinMember
}

// SyncRequest is a SyncGroup request. Byte slices are kept.
type SyncRequest struct {
	GroupID, MemberID      string
	InstanceID             *string
	Generation             int32
	ProtocolType, Protocol *string
	Assignments            map[string][]byte // by member id
}

// SyncResponse is the answer to a SyncGroup request.
type SyncResponse struct {
	Err                    *kerr.Error
	ProtocolType, Protocol *string
	Assignment             []byte
}

// LeaveMember is a member that leaves: by id, or by instance id.
type LeaveMember struct {
	MemberID   string
	InstanceID *string
}

// TopicPartition names a partition that a group committed.
type TopicPartition struct {
	Topic     string
	Partition int32
}

// Offset is a committed offset.
type Offset struct {
	Offset      int64
	LeaderEpoch int32
	Metadata    string
	// CommitTimestamp is when it was committed, in ms since the epoch.
	CommitTimestamp int64
	// ExpireTimestamp is when it expires, -1 by the group's rule.
	ExpireTimestamp int64

	// order is the place in the log among the offsets of all groups.
	order int64
}

// CommitRequest is an OffsetCommit request.
type CommitRequest struct {
	GroupID, MemberID string
	InstanceID        *string
	Generation        int32
	// Old says that the request is of a version that members of the consumer protocol do
	// not use, below 9.
	Old bool
	// RetentionMillis is how long the offsets are kept, -1 by the group's rule;
	// clients could say so before version 5.
	RetentionMillis int64
	Offsets         []PartitionOffset
	// Transaction is the transaction that commits the offsets, nil without one.
	Transaction *coordinator.Transaction
}

// PartitionOffset is an offset to commit.
type PartitionOffset struct {
	TopicPartition
	Offset
}

// FetchedOffset is an offset as OffsetFetch tells it, or why not. Without a commit the
// offset is -1.
type FetchedOffset struct {
	PartitionOffset
	Err *kerr.Error
}

// Listing is a group as ListGroups shows it.
type Listing struct {
	GroupID, ProtocolType, State, Type string
}

// Description is a group as DescribeGroups shows it.
type Description struct {
	Err                           *kerr.Error
	State, ProtocolType, Protocol string
	Members                       []DescribedMember
}

// DescribedMember is a member of a Description.
type DescribedMember struct {
	MemberID             string
	InstanceID           *string
	ClientID, ClientHost string
	Metadata, Assignment []byte
}
