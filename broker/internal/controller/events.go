package controller

import (
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/metadata"
)

// Event is something that happened: one of the types of this file.
type Event interface{ event() }

// BecameLeader says that this node leads the metadata log and has applied all
// that earlier leaders committed.
type BecameLeader struct {
	Epoch     int32           // of this leadership
	Image     *metadata.Image // as applied
	ClusterID metadata.UUID   // drawn by the shell; taken when the cluster has no id yet
}

// Resigned says that this node does not lead the metadata log any more.
type Resigned struct{}

// Committed says that all proposals up to Proposal are committed and applied.
type Committed struct {
	Proposal uint64
	Image    *metadata.Image // with them applied; later entries may be in it only if they are proposals of this controller, too
}

// Failed says that a proposal could not be committed and that no later one was
// tried. Its answers and all later ones fail.
type Failed struct {
	Image *metadata.Image // as applied
}

// Tick says that time has passed. The shell sends one at NextDeadline.
type Tick struct{}

// BrokerGone says that nobody listens any more where a broker was registered, or that
// it could not be reached for long, and that nothing was heard from it since Since. It
// is fenced before its session is over, unless it registered anew or sent a heartbeat.
type BrokerGone struct {
	Broker      int32
	BrokerEpoch int64 // of the registration that it was seen under
	Since       time.Time
}

// Requests carry the ID under which their Answer comes back: unique among those
// that wait.
type (
	// CreateTopics is answered with []kmsg.CreateTopicsResponseTopic in the
	// request's order.
	CreateTopics struct {
		ID           uint64
		Topics       []kmsg.CreateTopicsRequestTopic
		ValidateOnly bool
		TopicIDs     []metadata.UUID // drawn by the shell, as many as Topics
	}
	// DeleteTopics is answered with []kmsg.DeleteTopicsResponseTopic in the
	// request's order. A topic is named by Topic, or with a nil Topic by TopicID.
	DeleteTopics struct {
		ID     uint64
		Topics []kmsg.DeleteTopicsRequestTopic
	}
	// CreatePartitions is answered with []kmsg.CreatePartitionsResponseTopic in the
	// request's order.
	CreatePartitions struct {
		ID           uint64
		Topics       []kmsg.CreatePartitionsRequestTopic
		ValidateOnly bool
	}
	// IncrementalAlterConfigs is answered with
	// []kmsg.IncrementalAlterConfigsResponseResource in the request's order.
	IncrementalAlterConfigs struct {
		ID           uint64
		Resources    []kmsg.IncrementalAlterConfigsRequestResource
		ValidateOnly bool
	}
	// AlterConfigs replaces the whole configuration of each resource. It is answered
	// with []kmsg.AlterConfigsResponseResource in the request's order.
	AlterConfigs struct {
		ID           uint64
		Resources    []kmsg.AlterConfigsRequestResource
		ValidateOnly bool
	}
	// RegisterBroker is answered with a Registration.
	RegisterBroker struct {
		ID          uint64
		Broker      int32
		Incarnation metadata.UUID
		Listeners   []metadata.Listener
		Rack        string
		Roles       []string
		// ClusterID is the cluster the broker belongs to, empty when it does not know.
		ClusterID string
		// Directory is the id of its data directory, drawn when that is made and kept in
		// it; zero when it does not say. A registration from another directory takes the
		// broker out of all in-sync and eligible replicas: what it had is lost.
		Directory metadata.UUID
		// PreviousEpoch is the epoch of the last registration that it was told of, when its
		// logs still hold all that they had made durable since: after a clean stop, and after
		// a crash if acknowledged means fsynced. -1 when it cannot say that; it is then taken
		// out of the in-sync and eligible replicas, and leads only what nobody else can.
		PreviousEpoch int64
		// Features are those its program supports; nil when it does not say.
		Features []metadata.FeatureRange
	}
	// BrokerHeartbeat is answered with a HeartbeatAnswer.
	BrokerHeartbeat struct {
		ID          uint64
		Broker      int32
		BrokerEpoch int64
		Offset      int64 // the last metadata offset the broker has applied
		WantFence   bool  // the broker asks to be fenced
		// WantShutDown says that the broker is stopping (controlled shutdown): its leaders
		// move first, then an answer says that it may stop.
		WantShutDown bool
	}
	// UnregisterBroker is answered with Unregistered.
	UnregisterBroker struct {
		ID     uint64
		Broker int32
	}
	// AlterPartition asks for other in-sync replicas of partitions that the broker
	// leads. It is answered with []kmsg.AlterPartitionResponseTopic in the request's
	// order; a partition that has another leader then, because a reassignment is
	// complete, says NEW_LEADER_ELECTED.
	AlterPartition struct {
		ID          uint64
		Broker      int32
		BrokerEpoch int64
		Topics      []kmsg.AlterPartitionRequestTopic // by TopicID, with NewEpochISR (version 3)
	}
	// ElectLeaders is answered with []kmsg.ElectLeadersResponseTopic: in the request's
	// order; of nil Topics, which stand for all, those partitions that changed or could
	// not.
	ElectLeaders struct {
		ID     uint64
		Type   int8 // 0: the first replica; 1: any active one, when there is no leader
		Topics []kmsg.ElectLeadersRequestTopic
	}
	// AlterPartitionReassignments begins, replaces or with nil Replicas cancels
	// reassignments. It is answered with []kmsg.AlterPartitionAssignmentsResponseTopic
	// in the request's order.
	AlterPartitionReassignments struct {
		ID                           uint64
		Topics                       []kmsg.AlterPartitionAssignmentsRequestTopic
		AllowReplicationFactorChange bool
	}
	// UpdateFeatures finalises other levels, all or none. It is answered with a
	// FeaturesUpdated.
	UpdateFeatures struct {
		ID           uint64
		Updates      []FeatureUpdate
		ValidateOnly bool
	}
	// AllocateProducerIDs is answered with a ProducerIDs block.
	AllocateProducerIDs struct {
		ID          uint64
		Broker      int32
		BrokerEpoch int64
	}
)

// Refused is a request that could not be made an event of: it is refused with Err.
type Refused struct {
	ID  uint64
	Err *kerr.Error
}

func (Refused) event()                 {}
func (BecameLeader) event()            {}
func (Resigned) event()                {}
func (Committed) event()               {}
func (Failed) event()                  {}
func (Tick) event()                    {}
func (BrokerGone) event()              {}
func (CreateTopics) event()            {}
func (DeleteTopics) event()            {}
func (CreatePartitions) event()        {}
func (IncrementalAlterConfigs) event() {}
func (AlterConfigs) event()            {}
func (RegisterBroker) event()          {}
func (BrokerHeartbeat) event()         {}
func (AllocateProducerIDs) event()     {}
func (UnregisterBroker) event()        {}
func (AlterPartition) event()          {}
func (ElectLeaders) event()            {}
func (UpdateFeatures) event()          {}

func (AlterPartitionReassignments) event() {}

// Registration answers RegisterBroker.
type Registration struct{ BrokerEpoch int64 }

// HeartbeatAnswer answers BrokerHeartbeat.
type HeartbeatAnswer struct {
	CaughtUp       bool // the broker has applied its own registration
	Fenced         bool
	ShouldShutDown bool // the broker leads nothing any more and may stop
}

// Unregistered answers UnregisterBroker.
type Unregistered struct{}

// FeatureUpdate asks for another level of a feature; 0 removes it.
type FeatureUpdate struct {
	Name  string
	Level int16
	Type  int8 // 1: upgrade, 2: downgrade that loses nothing, 3: downgrade that may
}

// FeaturesUpdated answers UpdateFeatures: Err is nil when all were updated.
type FeaturesUpdated struct {
	Err     *kerr.Error
	Message string
}

// ProducerIDs is a block of producer ids: Count from First on.
type ProducerIDs struct {
	First int64
	Count int32
}

// Effects are what the shell has to do after a Step.
type Effects struct {
	Proposals []Proposal // to be committed in this order, after those of earlier steps
	Answers   []Answer   // to be given now
	Notices   []Notice   // to be logged
}

// Notice is something that an operator wants to know of: one of the types below.
type Notice interface{ notice() }

type (
	// BrokerHoldsNothing says that a broker takes part of which no partition has a
	// replica, while there are partitions.
	BrokerHoldsNothing struct{ Broker int32 }
	// RebalanceBegun says that the controller is moving replicas, see Spread.
	RebalanceBegun struct {
		Partitions int // whose replicas or their order change
		Copies     int // replicas that are copied
	}
	// RebalanceEnded says that what RebalanceBegun told of is done.
	RebalanceEnded struct{}
)

func (BrokerHoldsNothing) notice() {}
func (RebalanceBegun) notice()     {}
func (RebalanceEnded) notice()     {}

// Proposal is an atomic set of changes. The shell may commit consecutive
// proposals as one entry.
type Proposal struct {
	ID      uint64 // rises
	Changes []metadata.Change
}

// Answer is the answer to the request with that ID: a Response of the type that
// the request's documentation names, or an Err that stands for all of it.
type Answer struct {
	ID       uint64
	Response any
	Err      *kerr.Error
}
