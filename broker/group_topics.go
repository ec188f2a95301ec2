package broker

import (
	"slices"

	"github.com/leatlog/leat/broker/internal/group"
	"github.com/leatlog/leat/broker/internal/metadata"
)

// groupTopics shows an image to the group coordinator.
type groupTopics struct{ image *metadata.Image }

var _ group.Topics = groupTopics{}

func (t groupTopics) Version() int64 { return t.image.Offset() }

func (t groupTopics) Topic(name string) (id metadata.UUID, partitions int32, ok bool) {
	topic, ok := t.image.Topic(name)
	if !ok {
		return id, 0, false
	}
	return topic.ID, int32(len(topic.Partitions)), true
}

func (t groupTopics) Name(id metadata.UUID) (string, bool) {
	topic, ok := t.image.TopicByID(id)
	if !ok {
		return "", false
	}
	return topic.Name, true
}

func (t groupTopics) Names() []string {
	topics := t.image.Topics()
	names := make([]string, len(topics))
	for i, topic := range topics {
		names[i] = topic.Name
	}
	slices.Sort(names)
	return names
}
