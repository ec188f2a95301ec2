package handler

import (
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// deviations are answers of exchanges that differ from Kafka's, with the reason.
var deviations = map[string]string{
	"alter by an unknown operation, version 1": "Kafka fails with UNKNOWN_SERVER_ERROR",
	"describe the retention, version 4":        "Kafka does not show its own default among the synonyms",
}

func exchanges() []exchange {
	return slices.Concat(topicExchanges(), deletionExchanges(), configExchanges(), clusterExchanges(), replicaExchanges())
}

func newTopic(name string, partitions int32, replication int16, configs ...string) kmsg.CreateTopicsRequestTopic {
	t := kmsg.NewCreateTopicsRequestTopic()
	t.Topic, t.NumPartitions, t.ReplicationFactor = name, partitions, replication
	for i := 0; i < len(configs); i += 2 {
		c := kmsg.NewCreateTopicsRequestTopicConfig()
		c.Name = configs[i]
		if configs[i+1] != "null" {
			c.Value = &configs[i+1]
		}
		t.Configs = append(t.Configs, c)
	}
	return t
}

func withAssignment(t kmsg.CreateTopicsRequestTopic, first int32, replicas ...[]int32) kmsg.CreateTopicsRequestTopic {
	for i, r := range replicas {
		a := kmsg.NewCreateTopicsRequestTopicReplicaAssignment()
		a.Partition, a.Replicas = first+int32(i), r
		t.ReplicaAssignment = append(t.ReplicaAssignment, a)
	}
	return t
}

func create(name string, versions []int16, topics ...kmsg.CreateTopicsRequestTopic) exchange {
	r := kmsg.NewPtrCreateTopicsRequest()
	r.Topics, r.TimeoutMillis = topics, 10_000
	return exchange{"create " + name, r, versions}
}

func metadataOf(name string, allow bool, versions []int16, topics ...kmsg.MetadataRequestTopic) exchange {
	r := kmsg.NewPtrMetadataRequest()
	r.AllowAutoTopicCreation = allow
	r.Topics = append([]kmsg.MetadataRequestTopic{}, topics...)
	return exchange{"metadata " + name, r, versions}
}

func named(name string) kmsg.MetadataRequestTopic {
	t := kmsg.NewMetadataRequestTopic()
	t.Topic = &name
	return t
}

func byID(id byte) kmsg.MetadataRequestTopic {
	t := kmsg.NewMetadataRequestTopic()
	t.TopicID = [16]byte{3, 15: id}
	return t
}

func topicExchanges() []exchange {
	long := strings.Repeat("x", 250)
	validate := create("to validate", []int16{4, 7}, newTopic("as-kafka-validate", 2, 1), newTopic("as-kafka-1", 2, 1))
	validate.request.(*kmsg.CreateTopicsRequest).ValidateOnly = true
	withOperations := metadataOf("with operations", false, []int16{8, 10}, named("as-kafka-1"))
	withOperations.request.(*kmsg.MetadataRequest).IncludeTopicAuthorizedOperations = true
	withOperations.request.(*kmsg.MetadataRequest).IncludeClusterAuthorizedOperations = true
	return []exchange{
		create("topics", []int16{7}, newTopic("as-kafka-1", 3, 1), newTopic("as-kafka-2", -1, -1), newTopic("as-kafka-3", 1, 1, "retention.ms", "60000")),
		create("an existing topic", []int16{2, 5, 7}, newTopic("as-kafka-1", 3, 1)),
		create("no topic", []int16{2, 7}),
		create("a topic twice", []int16{7}, newTopic("as-kafka-twice", 1, 1), newTopic("as-kafka-twice", 1, 1), newTopic("as-kafka-4", 1, 1)),
		create("invalid names", []int16{7}, newTopic("", 1, 1), newTopic(".", 1, 1), newTopic("..", 1, 1), newTopic(long, 1, 1),
			newTopic("as kafka", 1, 1), newTopic("../as-kafka", 1, 1), newTopic("as-kafka\x00", 1, 1), newTopic("as-kafka-ö", 1, 1)),
		create("colliding names", []int16{7}, newTopic("as-kafka-a.b_c", 1, 1)),
		create("colliding names", []int16{5}, newTopic("as-kafka-a_b.c", 1, 1)),
		create("with bad numbers", []int16{7}, newTopic("as-kafka-5", 0, 1), newTopic("as-kafka-6", 1, 0), newTopic("as-kafka-7", 1, 5),
			newTopic("as-kafka-8", -2, 1), newTopic("as-kafka-9", 1, -2)),
		create("with assignments", []int16{7}, withAssignment(newTopic("as-kafka-10", -1, -1), 0, []int32{1}, []int32{1}),
			withAssignment(newTopic("as-kafka-11", 2, -1), 0, []int32{1}), withAssignment(newTopic("as-kafka-12", -1, 1), 0, []int32{1}),
			withAssignment(newTopic("as-kafka-13", -1, -1), 1, []int32{1}), withAssignment(newTopic("as-kafka-14", -1, -1), 0, []int32{99}),
			withAssignment(newTopic("as-kafka-15", -1, -1), 0, []int32{1, 1}), withAssignment(newTopic("as-kafka-16", -1, -1), 0, []int32{})),
		create("with bad configurations", []int16{7}, newTopic("as-kafka-17", 1, 1, "no.such", "1"), newTopic("as-kafka-18", 1, 1, "retention.ms", "soon"),
			newTopic("as-kafka-19", 1, 1, "retention.ms", "null"), newTopic("as-kafka-20", 1, 1, "cleanup.policy", "shred"),
			newTopic("as-kafka-21", 1, 1, "segment.bytes", "1")),
		create("the metadata log", []int16{7}, newTopic("__cluster_metadata", 1, 1)),
		validate,
		metadataOf("of topics", false, []int16{0, 1, 4, 5, 7, 8, 9, 12, 13}, named("as-kafka-1"), named("as-kafka-3")),
		metadataOf("of no topic", false, []int16{1, 4, 9, 12}),
		metadataOf("of a topic twice", false, []int16{9}, named("as-kafka-2"), named("as-kafka-2")),
		metadataOf("of missing topics", false, []int16{4, 9, 13}, named("as-kafka-missing"), named("as/kafka"), named("")),
		metadataOf("of a topic to create", true, []int16{4}, named("as-kafka-created"), named("as/kafka")),
		metadataOf("of unknown ids", false, []int16{12, 13}, byID(1), byID(2)),
		metadataOf("of an id before its version", false, []int16{10, 11}, byID(1)),
		metadataOf("of ids and names", false, []int16{12}, byID(1), named("as-kafka-1")),
		withOperations,
	}
}

func deleted(name string) kmsg.DeleteTopicsRequestTopic {
	t := kmsg.NewDeleteTopicsRequestTopic()
	if name != "null" {
		t.Topic = &name
	}
	return t
}

func deletion(name string, versions []int16, topics ...kmsg.DeleteTopicsRequestTopic) exchange {
	r := kmsg.NewPtrDeleteTopicsRequest()
	r.TimeoutMillis, r.Topics = 10_000, topics
	for _, t := range topics {
		if t.Topic != nil {
			r.TopicNames = append(r.TopicNames, *t.Topic)
		}
	}
	return exchange{"delete " + name, r, versions}
}

func morePartitions(name string, count int32, replicas ...[]int32) kmsg.CreatePartitionsRequestTopic {
	t := kmsg.NewCreatePartitionsRequestTopic()
	t.Topic, t.Count = name, count
	for _, r := range replicas {
		a := kmsg.NewCreatePartitionsRequestTopicAssignment()
		a.Replicas = r
		t.Assignment = append(t.Assignment, a)
	}
	return t
}

func grow(name string, versions []int16, topics ...kmsg.CreatePartitionsRequestTopic) exchange {
	r := kmsg.NewPtrCreatePartitionsRequest()
	r.TimeoutMillis, r.Topics = 10_000, topics
	return exchange{"partitions " + name, r, versions}
}

func deletionExchanges() []exchange {
	unknownID := deleted("null")
	unknownID.TopicID = [16]byte{3, 15: 9}
	both := deleted("as-kafka-1")
	both.TopicID = [16]byte{3, 15: 9}
	return []exchange{
		grow("more", []int16{0}, morePartitions("as-kafka-2", 3)),
		grow("assigned", []int16{3}, morePartitions("as-kafka-2", 5, []int32{1}, []int32{1})),
		grow("wrong", []int16{0, 3}, morePartitions("as-kafka-1", 3), morePartitions("as-kafka-3", 0), morePartitions("as-kafka-missing", 2),
			morePartitions("as-kafka-10", 4, []int32{1}), morePartitions("as-kafka-4", 2, []int32{99})),
		grow("twice", []int16{3}, morePartitions("as-kafka-4", 3), morePartitions("as-kafka-4", 3)),
		deletion("missing topics", []int16{1, 5, 6}, deleted("as-kafka-missing"), deleted("as/kafka")),
		deletion("an unknown id", []int16{6}, unknownID),
		deletion("name and id", []int16{6}, both),
		deletion("neither", []int16{6}, deleted("null")),
		deletion("a topic twice", []int16{6}, deleted("as-kafka-10"), deleted("as-kafka-10"), deleted("as-kafka-4")),
		deletion("none", []int16{6}),
		deletion("topics", []int16{6}, deleted("as-kafka-2")),
	}
}

func describedConfig(kind kmsg.ConfigResourceType, name string, keys ...string) kmsg.DescribeConfigsRequestResource {
	r := kmsg.NewDescribeConfigsRequestResource()
	r.ResourceType, r.ResourceName, r.ConfigNames = kind, name, keys
	return r
}

func describe(name string, versions []int16, resources ...kmsg.DescribeConfigsRequestResource) exchange {
	r := kmsg.NewPtrDescribeConfigsRequest()
	r.Resources, r.IncludeSynonyms, r.IncludeDocumentation = resources, true, true
	return exchange{"describe " + name, r, versions}
}

// alteration is a resource with operations: each is name, value ("null" for none).
func alteration(kind kmsg.ConfigResourceType, name string, op kmsg.IncrementalAlterConfigOp, kv ...string) kmsg.IncrementalAlterConfigsRequestResource {
	r := kmsg.NewIncrementalAlterConfigsRequestResource()
	r.ResourceType, r.ResourceName = kind, name
	for i := 0; i < len(kv); i += 2 {
		c := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
		c.Name, c.Op = kv[i], op
		if kv[i+1] != "null" {
			c.Value = &kv[i+1]
		}
		r.Configs = append(r.Configs, c)
	}
	return r
}

func alterations(name string, versions []int16, resources ...kmsg.IncrementalAlterConfigsRequestResource) exchange {
	r := kmsg.NewPtrIncrementalAlterConfigsRequest()
	r.Resources = resources
	return exchange{"alter " + name, r, versions}
}

func replacement(name string, versions []int16, topic string, kv ...string) exchange {
	r := kmsg.NewPtrAlterConfigsRequest()
	resource := kmsg.NewAlterConfigsRequestResource()
	resource.ResourceType, resource.ResourceName = kmsg.ConfigResourceTypeTopic, topic
	for i := 0; i < len(kv); i += 2 {
		c := kmsg.NewAlterConfigsRequestResourceConfig()
		c.Name = kv[i]
		if kv[i+1] != "null" {
			c.Value = &kv[i+1]
		}
		resource.Configs = append(resource.Configs, c)
	}
	r.Resources = append(r.Resources, resource)
	return exchange{"replace " + name, r, versions}
}

func configExchanges() []exchange {
	const (
		topic  = kmsg.ConfigResourceTypeTopic
		set    = kmsg.IncrementalAlterConfigOpSet
		remove = kmsg.IncrementalAlterConfigOpDelete
		add    = kmsg.IncrementalAlterConfigOpAppend
		minus  = kmsg.IncrementalAlterConfigOpSubtract
	)
	shown := []string{"cleanup.policy", "retention.bytes", "max.message.bytes", "segment.bytes",
		"compression.type", "message.timestamp.type", "unclean.leader.election.enable", "min.cleanable.dirty.ratio"}
	both := []int16{0, 1}
	return []exchange{
		describe("a topic", []int16{1, 3, 4}, describedConfig(topic, "as-kafka-3", shown...)),
		describe("unknown configurations", []int16{4}, describedConfig(topic, "as-kafka-3", "no.such", "retention.bytes")),
		describe("the retention", []int16{4}, describedConfig(topic, "as-kafka-3", "retention.ms")),
		describe("a missing topic", []int16{1, 4}, describedConfig(topic, "as-kafka-missing"), describedConfig(topic, "as/kafka"), describedConfig(topic, "")),
		describe("what cannot be", []int16{4}, describedConfig(kmsg.ConfigResourceTypeBroker, "one"), describedConfig(kmsg.ConfigResourceTypeBroker, "77"),
			describedConfig(3, "x"), describedConfig(0, "")),
		alterations("a topic", both, alteration(topic, "as-kafka-3", set, "retention.bytes", "1000000", "segment.bytes", "1048576")),
		alterations("back", []int16{1}, alteration(topic, "as-kafka-3", remove, "segment.bytes", "null", "retention.ms", "null")),
		alterations("a list", []int16{1}, alteration(topic, "as-kafka-3", add, "cleanup.policy", "compact")),
		describe("an altered topic", []int16{4}, describedConfig(topic, "as-kafka-3", shown...)),
		alterations("a list back", []int16{1}, alteration(topic, "as-kafka-3", minus, "cleanup.policy", "delete")),
		describe("an altered list", []int16{4}, describedConfig(topic, "as-kafka-3", "cleanup.policy")),
		alterations("wrong", both, alteration(topic, "as-kafka-1", set, "retention.ms", "soon"), alteration(topic, "as-kafka-missing", set, "retention.ms", "1")),
		alterations("what is no list", []int16{1}, alteration(topic, "as-kafka-1", add, "retention.ms", "1")),
		alterations("the unknown", []int16{1}, alteration(topic, "as-kafka-1", set, "no.such", "1")),
		alterations("to remove the unknown", []int16{1}, alteration(topic, "as-kafka-1", remove, "no.such", "null")),
		alterations("to null", []int16{1}, alteration(topic, "as-kafka-1", set, "retention.ms", "null")),
		alterations("by an unknown operation", []int16{1}, alteration(topic, "as-kafka-1", 9, "retention.ms", "1")),
		alterations("a configuration twice", []int16{1}, alteration(topic, "as-kafka-1", set, "retention.ms", "1", "retention.ms", "2")),
		alterations("a topic twice", []int16{1}, alteration(topic, "as-kafka-1", set, "retention.ms", "1"), alteration(topic, "as-kafka-1", set, "retention.ms", "2")),
		alterations("nothing", []int16{1}, alteration(topic, "as-kafka-1", set)),
		replacement("a topic", []int16{0, 2}, "as-kafka-3", "retention.ms", "70000"),
		describe("a replaced topic", []int16{4}, describedConfig(topic, "as-kafka-3", shown...)),
		replacement("wrong", []int16{2}, "as-kafka-3", "retention.ms", "soon"),
		replacement("to null", []int16{2}, "as-kafka-3", "retention.ms", "null"),
		replacement("the unknown", []int16{2}, "as-kafka-3", "no.such", "1"),
		replacement("a missing topic", []int16{2}, "as-kafka-missing", "retention.ms", "1"),
	}
}

func clusterExchanges() []exchange {
	cluster := kmsg.NewPtrDescribeClusterRequest()
	operations := kmsg.NewPtrDescribeClusterRequest()
	operations.IncludeClusterAuthorizedOperations, operations.IncludeFencedBrokers = true, true
	controllers, unknown := kmsg.NewPtrDescribeClusterRequest(), kmsg.NewPtrDescribeClusterRequest()
	controllers.EndpointType, unknown.EndpointType = 2, 7
	return []exchange{
		{"cluster", cluster, []int16{0, 1, 2}},
		{"cluster with operations", operations, []int16{0, 2}},
		{"cluster of controllers", controllers, []int16{1}},
		{"cluster of the unknown", unknown, []int16{1}},
		partitionsOf("topics", 10, "", 0, "as-kafka-1", "as-kafka-3"),
		partitionsOf("missing topics", 10, "", 0, "as-kafka-missing", "as/kafka"),
		partitionsOf("a page", 2, "", 0, "as-kafka-1", "as-kafka-3"),
		partitionsOf("a whole topic", 3, "", 0, "as-kafka-1", "as-kafka-3"),
		partitionsOf("the next page", 2, "as-kafka-1", 2, "as-kafka-1", "as-kafka-3"),
		partitionsOf("the last page", 2, "as-kafka-3", 0, "as-kafka-1", "as-kafka-3"),
		partitionsOf("a page of none", 0, "", 0, "as-kafka-1"),
		partitionsOf("a page beyond", 10, "as-kafka-1", 9, "as-kafka-1", "as-kafka-3"),
		partitionsOf("a page of a missing topic", 10, "as-kafka-2", 1, "as-kafka-1", "as-kafka-3"),
		{"versions of bad software", softwareOf("", "1"), []int16{3}},
		{"versions of worse software", softwareOf("me", "-1-"), []int16{4}},
	}
}

func softwareOf(name, version string) kmsg.Request {
	r := kmsg.NewPtrApiVersionsRequest()
	r.ClientSoftwareName, r.ClientSoftwareVersion = name, version
	return r
}

func partitionsOf(name string, limit int32, cursor string, partition int32, topics ...string) exchange {
	r := kmsg.NewPtrDescribeTopicPartitionsRequest()
	r.ResponsePartitionLimit = limit
	if cursor != "" {
		r.Cursor = &kmsg.DescribeTopicPartitionsRequestCursor{Topic: cursor, Partition: partition}
	}
	for _, topic := range topics {
		t := kmsg.NewDescribeTopicPartitionsRequestTopic()
		t.Topic = topic
		r.Topics = append(r.Topics, t)
	}
	return exchange{"topic partitions of " + name, r, []int16{0}}
}
