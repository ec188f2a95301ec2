package controller

import (
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/metadata"
)

const (
	// maxRequestPartitions is the most partitions one request may create, as in Kafka.
	maxRequestPartitions = 10_000
	// maxRequestBytes bounds what one request may put into the metadata log.
	maxRequestBytes = 4 << 20
)

func (c *Controller) refuse(id uint64, err *kerr.Error) {
	if id != 0 {
		c.out.Answers = append(c.out.Answers, Answer{ID: id, Err: err})
	}
}

// budget is what is left of the bounds of one request.
type budget struct{ partitions, bytes int }

func newBudget() *budget { return &budget{maxRequestPartitions, maxRequestBytes} }

// take accounts for changes, and refuses them when they are too many.
func (b *budget) take(changes []metadata.Change) *refusal {
	partitions, bytes := b.partitions, b.bytes
	for _, change := range changes {
		bytes -= 256
		switch change := change.(type) {
		case *metadata.PartitionChange:
			partitions--
			bytes -= 24 * len(change.Replicas)
		case *metadata.ConfigChange:
			bytes -= len(change.Name) + len(change.Key)
			if change.Value != nil {
				bytes -= 2 * len(*change.Value)
			}
		}
	}
	if partitions < 0 {
		return refusef(kerr.PolicyViolation, "Excessively large number of partitions per request.")
	}
	if bytes < 0 {
		return refusef(kerr.PolicyViolation, "The request is too large for one entry of the metadata log: split it.")
	}
	b.partitions, b.bytes = partitions, bytes
	return nil
}

func (c *Controller) createTopics(e CreateTopics) {
	results := make([]kmsg.CreateTopicsResponseTopic, len(e.Topics))
	counts := map[string]int{}
	for n := range e.Topics {
		counts[e.Topics[n].Topic]++
	}
	before := c.image
	left := newBudget()
	var all []metadata.Change
	for n := range e.Topics {
		result := kmsg.NewCreateTopicsResponseTopic()
		result.Topic = e.Topics[n].Topic
		changes, no := c.createTopic(&e.Topics[n], e.TopicIDs[n], counts[result.Topic], &result)
		if no == nil {
			no = left.take(changes)
		}
		if no != nil {
			refuseTopic(&result, no)
		} else {
			all = append(all, changes...)
			c.speculate(changes) // the next topic of the request may collide with it
		}
		results[n] = result
	}
	c.image = before
	if !e.ValidateOnly {
		c.propose(all)
	}
	c.answerWhenCommitted(e.ID, results)
}

func refuseTopic(result *kmsg.CreateTopicsResponseTopic, no *refusal) {
	topic := result.Topic
	*result = kmsg.NewCreateTopicsResponseTopic()
	result.Topic, result.ErrorCode, result.ErrorMessage = topic, no.err.Code, &no.message
	result.NumPartitions, result.ReplicationFactor = -1, -1
}

// createTopic decides on one topic and fills the result in.
func (c *Controller) createTopic(t *kmsg.CreateTopicsRequestTopic, id metadata.UUID, count int, result *kmsg.CreateTopicsResponseTopic) ([]metadata.Change, *refusal) {
	if no := c.checkName(t.Topic, count); no != nil {
		return nil, no
	}
	config := map[string]string{}
	for _, kv := range t.Configs {
		if kv.Value == nil {
			return nil, refusef(kerr.InvalidConfig, "Null value not supported for topic configs: %.100s", kv.Name)
		}
		config[kv.Name] = *kv.Value
	}
	if no := c.checkConfig(config); no != nil {
		return nil, no
	}
	partitions, no := c.assign(t)
	if no != nil {
		return nil, no
	}
	changes := make([]metadata.Change, 0, 1+len(partitions)+len(config))
	changes = append(changes, &metadata.TopicChange{Name: t.Topic, ID: id})
	for n, replicas := range partitions {
		changes = append(changes, c.newPartition(id, n, replicas))
	}
	for _, key := range metadata.ConfigNames(config) {
		value := config[key]
		changes = append(changes, &metadata.ConfigChange{Resource: metadata.TopicResource, Name: t.Topic, Key: key, Value: &value})
	}
	result.TopicID, result.NumPartitions, result.ReplicationFactor = id, int32(len(partitions)), int16(len(partitions[0]))
	for _, entry := range metadata.DescribeTopicConfig(c.image.TopicLayers(config, -1, c.cfg.TopicDefaults)) {
		shown := kmsg.NewCreateTopicsResponseTopicConfig()
		shown.Name, shown.Value, shown.Source = entry.Key.Name, kmsg.StringPtr(entry.Value), int8(entry.Source)
		result.Configs = append(result.Configs, shown)
	}
	return changes, nil
}

func (c *Controller) checkName(name string, count int) *refusal {
	if count > 1 {
		return refusef(kerr.InvalidRequest, "Duplicate topic name.")
	}
	if err := metadata.ValidateTopicName(name); err != nil {
		return refusef(kerr.InvalidTopicException, "%s", err)
	}
	if name == metadata.ClusterTopic {
		return refusef(kerr.InvalidTopicException, "Topic '%s' is the cluster's metadata log.", name)
	}
	if _, ok := c.image.Topic(name); ok {
		return refusef(kerr.TopicAlreadyExists, "Topic '%s' already exists.", name)
	}
	if other, ok := c.image.Collision(name); ok {
		return refusef(kerr.InvalidTopicException, "Topic '%s' collides with existing topic: %s", name, other)
	}
	return nil
}

// assign returns the replicas of each partition of a new topic: the client's
// choice, or placement.
func (c *Controller) assign(t *kmsg.CreateTopicsRequestTopic) ([][]int32, *refusal) {
	if len(t.ReplicaAssignment) > 0 {
		return c.manualAssignment(t)
	}
	partitions, replication := int(t.NumPartitions), int(t.ReplicationFactor)
	if replication < -1 || replication == 0 {
		return nil, refusef(kerr.InvalidReplicationFactor, "Replication factor must be larger than 0, or -1 to use the default value.")
	}
	if partitions < -1 || partitions == 0 {
		return nil, refusef(kerr.InvalidPartitions, "Number of partitions was set to an invalid non-positive value.")
	}
	if partitions == -1 {
		partitions = int(c.cfg.Partitions)
	}
	if replication == -1 {
		replication = int(c.cfg.Replication)
	}
	if partitions > maxRequestPartitions {
		return nil, refusef(kerr.PolicyViolation, "Excessively large number of partitions per request.")
	}
	return c.place(c.image.PartitionCount(), partitions, replication)
}

func (c *Controller) manualAssignment(t *kmsg.CreateTopicsRequestTopic) ([][]int32, *refusal) {
	if t.ReplicationFactor != -1 {
		return nil, refusef(kerr.InvalidRequest, "A manual partition assignment was specified, but replication factor was not set to -1.")
	}
	if t.NumPartitions != -1 {
		return nil, refusef(kerr.InvalidRequest, "A manual partition assignment was specified, but numPartitions was not set to -1.")
	}
	partitions := make([][]int32, len(t.ReplicaAssignment))
	for _, a := range t.ReplicaAssignment {
		if a.Partition < 0 || int(a.Partition) >= len(partitions) || partitions[a.Partition] != nil {
			return nil, refusef(kerr.InvalidReplicaAssignment, "partitions should be a consecutive 0-based integer sequence")
		}
		if no := c.checkAssignment(int(a.Partition), a.Replicas, nil, len(t.ReplicaAssignment[0].Replicas)); no != nil {
			return nil, no
		}
		partitions[a.Partition] = slices.Clone(a.Replicas)
	}
	return partitions, nil
}

func (c *Controller) deleteTopics(e DeleteTopics) {
	results := make([]kmsg.DeleteTopicsResponseTopic, len(e.Topics))
	gone := map[metadata.UUID]bool{}
	var changes []metadata.Change
	for n, t := range e.Topics {
		result := kmsg.NewDeleteTopicsResponseTopic()
		result.Topic, result.TopicID = t.Topic, t.TopicID
		topic, no := c.findTopic(t.Topic, t.TopicID)
		switch {
		case no != nil:
		case gone[topic.ID]:
			no = refusef(kerr.InvalidRequest, "Duplicate topic name or id.")
		case metadata.IsInternal(topic.Name):
			no = refusef(kerr.InvalidTopicException, "Topic '%s' is internal and cannot be deleted.", topic.Name)
		default:
			gone[topic.ID] = true
			result.Topic, result.TopicID = &topic.Name, topic.ID
			changes = append(changes, &metadata.TopicRemovedChange{ID: topic.ID})
		}
		if no != nil {
			result.ErrorCode, result.ErrorMessage = no.err.Code, &no.message
		}
		results[n] = result
	}
	c.propose(changes)
	c.answerWhenCommitted(e.ID, results)
}

func (c *Controller) findTopic(name *string, id metadata.UUID) (*metadata.Topic, *refusal) {
	switch {
	case name != nil && !id.IsZero():
		return nil, refusef(kerr.InvalidRequest, "You may not specify both topic name and topic id.")
	case name != nil:
		if t, ok := c.image.Topic(*name); ok {
			return t, nil
		}
		return nil, refusef(kerr.UnknownTopicOrPartition, "This server does not host this topic-partition.")
	}
	if t, ok := c.image.TopicByID(id); ok {
		return t, nil
	}
	return nil, refusef(kerr.UnknownTopicID, "This server does not host this topic ID.")
}

func (c *Controller) createPartitions(e CreatePartitions) {
	results := make([]kmsg.CreatePartitionsResponseTopic, len(e.Topics))
	counts := map[string]int{}
	for n := range e.Topics {
		counts[e.Topics[n].Topic]++
	}
	left := newBudget()
	var all []metadata.Change
	for n := range e.Topics {
		result := kmsg.NewCreatePartitionsResponseTopic()
		result.Topic = e.Topics[n].Topic
		changes, no := c.morePartitions(&e.Topics[n], counts[result.Topic])
		if no == nil {
			no = left.take(changes)
		}
		if no != nil {
			result.ErrorCode, result.ErrorMessage = no.err.Code, &no.message
		} else {
			all = append(all, changes...)
		}
		results[n] = result
	}
	if !e.ValidateOnly {
		c.propose(all)
	}
	c.answerWhenCommitted(e.ID, results)
}

func (c *Controller) morePartitions(t *kmsg.CreatePartitionsRequestTopic, count int) ([]metadata.Change, *refusal) {
	topic, no := c.findTopic(&t.Topic, metadata.UUID{})
	if no != nil {
		return nil, no
	}
	have, want := len(topic.Partitions), int(t.Count)
	width := len(topic.Partitions[0].Replicas)
	switch {
	case count > 1:
		return nil, refusef(kerr.InvalidRequest, "Duplicate topic in request.")
	case want == have:
		return nil, refusef(kerr.InvalidPartitions, "Topic already has %d partition(s).", have)
	case want < have:
		return nil, refusef(kerr.InvalidPartitions, "The topic %s currently has %d partition(s); %d would not be an increase.", t.Topic, have, want)
	case want-have > maxRequestPartitions:
		return nil, refusef(kerr.PolicyViolation, "Excessively large number of partitions per request.")
	}
	var partitions [][]int32
	if t.Assignment != nil {
		if len(t.Assignment) != want-have {
			return nil, refusef(kerr.InvalidReplicaAssignment,
				"Attempted to add %d additional partition(s), but only %d assignment(s) were specified.", want-have, len(t.Assignment))
		}
		for n, a := range t.Assignment {
			if no := c.checkAssignment(have+n, a.Replicas, nil, width); no != nil {
				return nil, no
			}
			partitions = append(partitions, slices.Clone(a.Replicas))
		}
	} else if partitions, no = c.place(c.image.PartitionCount(), want-have, width); no != nil {
		return nil, no
	}
	var changes []metadata.Change
	for n, replicas := range partitions {
		changes = append(changes, c.newPartition(topic.ID, have+n, replicas))
	}
	return changes, nil
}
