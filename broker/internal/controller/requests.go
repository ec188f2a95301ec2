package controller

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/metadata"
)

// Requests of the protocol as events, and answers as responses: what a node forwards
// to the active controller, and what brokers ask it.

// EventFor returns the event of a request that comes back under id; newID draws the
// ids of new topics. ok is false when the controller does not decide on such requests.
func EventFor(request kmsg.Request, id uint64, newID func() (metadata.UUID, error)) (event Event, ok bool, err error) {
	switch r := request.(type) {
	case *kmsg.CreateTopicsRequest:
		e := CreateTopics{ID: id, Topics: r.Topics, ValidateOnly: r.ValidateOnly, TopicIDs: make([]metadata.UUID, len(r.Topics))}
		for n := range e.TopicIDs {
			if e.TopicIDs[n], err = newID(); err != nil {
				return nil, true, err
			}
		}
		return e, true, nil
	case *kmsg.DeleteTopicsRequest:
		e := DeleteTopics{ID: id, Topics: r.Topics}
		for _, name := range r.TopicNames {
			t := kmsg.NewDeleteTopicsRequestTopic()
			t.Topic = kmsg.StringPtr(name)
			e.Topics = append(e.Topics, t)
		}
		return e, true, nil
	case *kmsg.CreatePartitionsRequest:
		return CreatePartitions{ID: id, Topics: r.Topics, ValidateOnly: r.ValidateOnly}, true, nil
	case *kmsg.AlterConfigsRequest:
		return AlterConfigs{ID: id, Resources: r.Resources, ValidateOnly: r.ValidateOnly}, true, nil
	case *kmsg.IncrementalAlterConfigsRequest:
		return IncrementalAlterConfigs{ID: id, Resources: r.Resources, ValidateOnly: r.ValidateOnly}, true, nil
	case *kmsg.ElectLeadersRequest:
		return ElectLeaders{ID: id, Type: r.ElectionType, Topics: r.Topics}, true, nil
	case *kmsg.AlterPartitionAssignmentsRequest:
		return AlterPartitionReassignments{ID: id, Topics: r.Topics,
			AllowReplicationFactorChange: r.AllowReplicationFactorChange || r.Version == 0}, true, nil
	case *kmsg.UpdateFeaturesRequest:
		return featuresEvent(id, r), true, nil
	case *kmsg.AlterPartitionRequest:
		return AlterPartition{ID: id, Broker: r.BrokerID, BrokerEpoch: r.BrokerEpoch, Topics: withEpochs(r)}, true, nil
	case *kmsg.BrokerRegistrationRequest:
		return registrationEvent(id, r), true, nil
	case *kmsg.BrokerHeartbeatRequest:
		return BrokerHeartbeat{ID: id, Broker: r.BrokerID, BrokerEpoch: r.BrokerEpoch, Offset: r.CurrentMetadataOffset,
			WantFence: r.WantFence, WantShutDown: r.WantShutdown}, true, nil
	case *kmsg.UnregisterBrokerRequest:
		return UnregisterBroker{ID: id, Broker: r.BrokerID}, true, nil
	case *kmsg.AllocateProducerIDsRequest:
		return AllocateProducerIDs{ID: id, Broker: r.BrokerID, BrokerEpoch: r.BrokerEpoch}, true, nil
	}
	return nil, false, nil
}

func featuresEvent(id uint64, r *kmsg.UpdateFeaturesRequest) UpdateFeatures {
	e := UpdateFeatures{ID: id, ValidateOnly: r.ValidateOnly}
	for _, u := range r.FeatureUpdates {
		kind := u.UpgradeType
		if r.Version == 0 {
			kind = upgrade
			if u.AllowDowngrade {
				kind = safeDowngrade
			}
		}
		e.Updates = append(e.Updates, FeatureUpdate{Name: u.Feature, Level: u.MaxVersionLevel, Type: kind})
	}
	return e
}

// withEpochs returns the topics of the request with NewEpochISR, also for the
// versions that do not tell the epochs of the members.
func withEpochs(r *kmsg.AlterPartitionRequest) []kmsg.AlterPartitionRequestTopic {
	if r.Version >= 3 {
		return r.Topics
	}
	for n := range r.Topics {
		for m := range r.Topics[n].Partitions {
			p := &r.Topics[n].Partitions[m]
			p.NewEpochISR = p.NewEpochISR[:0]
			for _, member := range p.NewISR {
				p.NewEpochISR = append(p.NewEpochISR, kmsg.AlterPartitionRequestTopicPartitionNewEpochISR{BrokerID: member, BrokerEpoch: -1})
			}
		}
	}
	return r.Topics
}

// A registration carries the broker's first log directory's id, and its features.
// Roles are not in Kafka's request: who registers is a broker.
func registrationEvent(id uint64, r *kmsg.BrokerRegistrationRequest) RegisterBroker {
	e := RegisterBroker{ID: id, Broker: r.BrokerID, Incarnation: r.IncarnationID, ClusterID: r.ClusterID, PreviousEpoch: r.PreviousBrokerEpoch,
		Roles: rolesOf(r)}
	if r.Version < 3 {
		e.PreviousEpoch = -1
	}
	if r.Rack != nil {
		e.Rack = *r.Rack
	}
	if len(r.LogDirs) > 0 {
		e.Directory = r.LogDirs[0]
	}
	for _, l := range r.Listeners {
		e.Listeners = append(e.Listeners, metadata.Listener{Name: l.Name, Host: l.Host, Port: int32(l.Port)})
	}
	for _, f := range r.Features {
		if f.Name == controllerRoleFeature {
			continue
		}
		e.Features = append(e.Features, metadata.FeatureRange{Name: f.Name, Min: f.MinSupportedVersion, Max: f.MaxSupportedVersion})
	}
	return e
}

// controllerRoleFeature stands in a registration's features when the node is a
// controller, too.
const controllerRoleFeature = "leat.controller"

func rolesOf(r *kmsg.BrokerRegistrationRequest) []string {
	for _, f := range r.Features {
		if f.Name == controllerRoleFeature {
			return []string{"broker", "controller"}
		}
	}
	return []string{"broker"}
}

// RegistrationRequest is the request that EventFor turns into e, but for its ID.
func RegistrationRequest(e *RegisterBroker) *kmsg.BrokerRegistrationRequest {
	r := kmsg.NewPtrBrokerRegistrationRequest()
	r.BrokerID, r.IncarnationID, r.ClusterID, r.PreviousBrokerEpoch = e.Broker, e.Incarnation, e.ClusterID, e.PreviousEpoch
	if e.Rack != "" {
		r.Rack = &e.Rack
	}
	if !e.Directory.IsZero() {
		r.LogDirs = [][16]byte{e.Directory}
	}
	for _, l := range e.Listeners {
		listener := kmsg.NewBrokerRegistrationRequestListener()
		listener.Name, listener.Host, listener.Port = l.Name, l.Host, uint16(l.Port)
		r.Listeners = append(r.Listeners, listener)
	}
	for _, f := range e.Features {
		r.Features = append(r.Features, feature(f.Name, f.Min, f.Max))
	}
	for _, role := range e.Roles {
		if role == "controller" {
			r.Features = append(r.Features, feature(controllerRoleFeature, 1, 1))
		}
	}
	return r
}

func feature(name string, lowest, highest int16) kmsg.BrokerRegistrationRequestFeature {
	f := kmsg.NewBrokerRegistrationRequestFeature()
	f.Name, f.MinSupportedVersion, f.MaxSupportedVersion = name, lowest, highest
	return f
}

// ResponseFor returns the response to a request that EventFor knows, from its answer.
// An error that stands for all of it is told for every item.
func ResponseFor(request kmsg.Request, a Answer) kmsg.Response {
	if a.Err != nil {
		return Refuse(request, a.Err)
	}
	response := request.ResponseKind()
	switch r := response.(type) {
	case *kmsg.CreateTopicsResponse:
		r.Topics = a.Response.([]kmsg.CreateTopicsResponseTopic)
	case *kmsg.DeleteTopicsResponse:
		r.Topics = a.Response.([]kmsg.DeleteTopicsResponseTopic)
	case *kmsg.CreatePartitionsResponse:
		r.Topics = a.Response.([]kmsg.CreatePartitionsResponseTopic)
	case *kmsg.AlterConfigsResponse:
		r.Resources = a.Response.([]kmsg.AlterConfigsResponseResource)
	case *kmsg.IncrementalAlterConfigsResponse:
		r.Resources = a.Response.([]kmsg.IncrementalAlterConfigsResponseResource)
	case *kmsg.ElectLeadersResponse:
		r.Topics = a.Response.([]kmsg.ElectLeadersResponseTopic)
	case *kmsg.AlterPartitionAssignmentsResponse:
		r.Topics = a.Response.([]kmsg.AlterPartitionAssignmentsResponseTopic)
		r.AllowReplicationFactorChange = request.(*kmsg.AlterPartitionAssignmentsRequest).AllowReplicationFactorChange
	case *kmsg.UpdateFeaturesResponse:
		fillFeatures(r, request.(*kmsg.UpdateFeaturesRequest), a.Response.(FeaturesUpdated))
	case *kmsg.AlterPartitionResponse:
		r.Topics = a.Response.([]kmsg.AlterPartitionResponseTopic)
	case *kmsg.BrokerRegistrationResponse:
		r.BrokerEpoch = a.Response.(Registration).BrokerEpoch
	case *kmsg.BrokerHeartbeatResponse:
		answer := a.Response.(HeartbeatAnswer)
		r.IsCaughtUp, r.IsFenced, r.ShouldShutdown = answer.CaughtUp, answer.Fenced, answer.ShouldShutDown
	case *kmsg.AllocateProducerIDsResponse:
		block := a.Response.(ProducerIDs)
		r.ProducerIDStart, r.ProducerIDLen = block.First, block.Count
	}
	return response
}

func fillFeatures(r *kmsg.UpdateFeaturesResponse, request *kmsg.UpdateFeaturesRequest, updated FeaturesUpdated) {
	if updated.Err != nil {
		r.ErrorCode, r.ErrorMessage = updated.Err.Code, &updated.Message
	}
	if r.Version >= 2 || r.ErrorCode != 0 {
		return
	}
	for _, u := range request.FeatureUpdates {
		result := kmsg.NewUpdateFeaturesResponseResult()
		result.Feature = u.Feature
		r.Results = append(r.Results, result)
	}
}

// Refuse returns the response that refuses all of a request that EventFor knows.
func Refuse(request kmsg.Request, err *kerr.Error) kmsg.Response {
	response := request.ResponseKind()
	code := err.Code
	switch r := response.(type) {
	case *kmsg.CreateTopicsResponse:
		for _, asked := range request.(*kmsg.CreateTopicsRequest).Topics {
			t := kmsg.NewCreateTopicsResponseTopic()
			t.Topic, t.ErrorCode, t.NumPartitions, t.ReplicationFactor = asked.Topic, code, -1, -1
			r.Topics = append(r.Topics, t)
		}
	case *kmsg.DeleteTopicsResponse:
		asked := request.(*kmsg.DeleteTopicsRequest)
		for n := range asked.TopicNames {
			r.Topics = append(r.Topics, kmsg.DeleteTopicsResponseTopic{Topic: &asked.TopicNames[n], ErrorCode: code})
		}
		for _, t := range asked.Topics {
			r.Topics = append(r.Topics, kmsg.DeleteTopicsResponseTopic{Topic: t.Topic, TopicID: t.TopicID, ErrorCode: code})
		}
	case *kmsg.CreatePartitionsResponse:
		for _, asked := range request.(*kmsg.CreatePartitionsRequest).Topics {
			r.Topics = append(r.Topics, kmsg.CreatePartitionsResponseTopic{Topic: asked.Topic, ErrorCode: code})
		}
	case *kmsg.AlterConfigsResponse:
		for _, asked := range request.(*kmsg.AlterConfigsRequest).Resources {
			r.Resources = append(r.Resources, kmsg.AlterConfigsResponseResource{ResourceType: asked.ResourceType, ResourceName: asked.ResourceName, ErrorCode: code})
		}
	case *kmsg.IncrementalAlterConfigsResponse:
		for _, asked := range request.(*kmsg.IncrementalAlterConfigsRequest).Resources {
			r.Resources = append(r.Resources, kmsg.IncrementalAlterConfigsResponseResource{ResourceType: asked.ResourceType, ResourceName: asked.ResourceName, ErrorCode: code})
		}
	case *kmsg.ElectLeadersResponse:
		refuseElections(r, request.(*kmsg.ElectLeadersRequest), code)
	case *kmsg.AlterPartitionAssignmentsResponse:
		r.ErrorCode = code
	case *kmsg.UpdateFeaturesResponse:
		r.ErrorCode = code
	case *kmsg.AlterPartitionResponse:
		r.ErrorCode = code
	case *kmsg.BrokerRegistrationResponse:
		r.ErrorCode, r.BrokerEpoch = code, -1
	case *kmsg.BrokerHeartbeatResponse:
		r.ErrorCode, r.IsFenced = code, true
	case *kmsg.UnregisterBrokerResponse:
		r.ErrorCode, r.ErrorMessage = code, &err.Description
	case *kmsg.AllocateProducerIDsResponse:
		r.ErrorCode = code
	}
	return response
}

// refuseElections also tells the error for each partition: version 0 has no other
// place for it.
func refuseElections(r *kmsg.ElectLeadersResponse, request *kmsg.ElectLeadersRequest, code int16) {
	r.ErrorCode = code
	for _, asked := range request.Topics {
		t := kmsg.ElectLeadersResponseTopic{Topic: asked.Topic}
		for _, p := range asked.Partitions {
			t.Partitions = append(t.Partitions, kmsg.ElectLeadersResponseTopicPartition{Partition: p, ErrorCode: code})
		}
		r.Topics = append(r.Topics, t)
	}
}

// ErrorOf returns the error that stands for all of a response to a broker's request,
// nil when there is none.
func ErrorOf(response kmsg.Response) *kerr.Error {
	var code int16
	switch r := response.(type) {
	case *kmsg.AlterPartitionResponse:
		code = r.ErrorCode
	case *kmsg.BrokerRegistrationResponse:
		code = r.ErrorCode
	case *kmsg.BrokerHeartbeatResponse:
		code = r.ErrorCode
	case *kmsg.AllocateProducerIDsResponse:
		code = r.ErrorCode
	}
	if code == 0 {
		return nil
	}
	return kerr.TypedErrorForCode(code)
}
