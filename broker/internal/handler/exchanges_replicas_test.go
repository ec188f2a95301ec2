package handler

import (
	"github.com/twmb/franz-go/pkg/kmsg"
)

// replicaExchanges are about leaders, replicas, features and brokers of a cluster of
// one. They follow those that made the topics.
func replicaExchanges() []exchange {
	unregister := kmsg.NewPtrUnregisterBrokerRequest()
	unregister.BrokerID = 77
	all := kmsg.NewPtrListPartitionReassignmentsRequest()
	all.Topics = nil
	some := kmsg.NewPtrListPartitionReassignmentsRequest()
	some.Topics = []kmsg.ListPartitionReassignmentsRequestTopic{{Topic: "as-kafka-3", Partitions: []int32{0, 9}}, {Topic: "as-kafka-missing", Partitions: []int32{0}}}
	resources := kmsg.NewPtrListConfigResourcesRequest()
	unknown := kmsg.NewPtrListConfigResourcesRequest()
	unknown.ResourceTypes = []int8{3}
	brokers := kmsg.NewPtrListConfigResourcesRequest()
	brokers.ResourceTypes = []int8{int8(kmsg.ConfigResourceTypeBroker)}
	return []exchange{
		election("preferred leaders", 0, []int16{0, 1, 2}, electionOf("as-kafka-3", 0, 1), electionOf("as-kafka-3", 77), electionOf("as-kafka-missing", 0)),
		election("unclean leaders", 1, []int16{1, 2}, electionOf("as-kafka-3", 0)),
		election("leaders somehow", 9, []int16{2}, electionOf("as-kafka-3", 0)),
		reassignment("to the same", 2, reassigned("as-kafka-3", 0, 1)),
		reassignment("to the unknown", 1, reassigned("as-kafka-3", 0, 7)),
		reassignment("to nobody", 1, reassigned("as-kafka-3", 0), reassigned("as-kafka-3", 77, 1), reassigned("as-kafka-missing", 0, 1)),
		reassignment("to one twice", 1, reassigned("as-kafka-3", 1, 1, 1)),
		reassignment("cancelled", 1, kmsg.AlterPartitionAssignmentsRequestTopic{Topic: "as-kafka-3",
			Partitions: []kmsg.AlterPartitionAssignmentsRequestTopicPartition{{Partition: 0}}}),
		{"reassignments", all, []int16{0}},
		{"reassignments of topics", some, []int16{0}},
		{"unregister a stranger", unregister, []int16{0}},
		features("nothing", 1, []int16{0, 1, 2}),
		features("the unknown", 1, []int16{1, 2}, "no.such", 1),
		features("too high", 1, []int16{1, 2}, "metadata.version", 99),
		features("down without saying so", 1, []int16{1, 2}, "metadata.version", 26),
		features("up as a downgrade", 2, []int16{2}, "metadata.version", 99),
		features("up by name", 0, []int16{2}, "metadata.version", 27),
		features("to the same", 1, []int16{1, 2}, "metadata.version", 27),
		{"client metrics resources", resources, []int16{0}},
		{"unknown resources", unknown, []int16{1}},
		{"broker resources", brokers, []int16{1}},
	}
}

func election(name string, kind int8, versions []int16, topics ...kmsg.ElectLeadersRequestTopic) exchange {
	r := kmsg.NewPtrElectLeadersRequest()
	r.ElectionType, r.Topics, r.TimeoutMillis = kind, topics, 10_000
	return exchange{"elect " + name, r, versions}
}

func electionOf(topic string, partitions ...int32) kmsg.ElectLeadersRequestTopic {
	return kmsg.ElectLeadersRequestTopic{Topic: topic, Partitions: partitions}
}

func reassignment(name string, versions int16, topics ...kmsg.AlterPartitionAssignmentsRequestTopic) exchange {
	r := kmsg.NewPtrAlterPartitionAssignmentsRequest()
	r.Topics, r.TimeoutMillis = topics, 10_000
	list := []int16{0, 1}
	return exchange{"reassign " + name, r, list[:versions]}
}

func reassigned(topic string, partition int32, replicas ...int32) kmsg.AlterPartitionAssignmentsRequestTopic {
	return kmsg.AlterPartitionAssignmentsRequestTopic{Topic: topic, Partitions: []kmsg.AlterPartitionAssignmentsRequestTopicPartition{
		{Partition: partition, Replicas: append([]int32{}, replicas...)}}}
}

// features asks for levels: names and levels alternate. It only validates, but with
// version 0, which cannot.
func features(name string, kind int8, versions []int16, updates ...any) exchange {
	r := kmsg.NewPtrUpdateFeaturesRequest()
	r.TimeoutMillis, r.ValidateOnly = 10_000, true
	for i := 0; i < len(updates); i += 2 {
		u := kmsg.NewUpdateFeaturesRequestFeatureUpdate()
		u.Feature, u.MaxVersionLevel, u.UpgradeType = updates[i].(string), int16(updates[i+1].(int)), kind
		r.FeatureUpdates = append(r.FeatureUpdates, u)
	}
	return exchange{"features " + name, r, versions}
}
