package handler

import (
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/leatlog/leat/broker/internal/metadata"
	"github.com/leatlog/leat/broker/internal/wire"
)

// metadataLag is how long a node that is asked about a topic which it does not know waits to
// hear of it. It may be behind the node that its client learnt the topic from, and clients take
// the error for final: franz-go in transactions, Java in OffsetCommit, sarama in ListOffsets.
const metadataLag = time.Second

// whenKnown calls back with an image that has a topic with so many partitions for each of
// some, or with the latest when that has not come. The only broker of a cluster knows all
// that any client may have been told.
func (h *Handler) whenKnown(topics []wantedTopic, call func(*metadata.Image)) {
	if image := h.Image(); len(image.Brokers()) < 2 || !slices.ContainsFunc(topics, wantedTopic.mayCome) {
		call(image)
		return
	}
	h.AwaitImage(func(image *metadata.Image) bool {
		return !slices.ContainsFunc(topics, func(w wantedTopic) bool { return !w.in(image) })
	}, metadataLag, call)
}

// wantedTopic is a topic that a request is about, by its name or else its id.
type wantedTopic struct {
	name    string
	id      metadata.UUID
	highest int32 // of the partitions
}

// mayCome says that there may be such a topic.
func (w wantedTopic) mayCome() bool {
	return w.id != metadata.UUID{} || metadata.ValidateTopicName(w.name) == nil
}

func (w wantedTopic) in(image *metadata.Image) bool {
	if w.name == metadata.ClusterTopic || w.id == metadata.ClusterTopicID {
		return true
	}
	t, ok := image.Topic(w.name)
	if w.name == "" {
		t, ok = image.TopicByID(w.id)
	}
	return ok && int(w.highest) < len(t.Partitions)
}

// resolveTopic finds a topic by the id or the name that a request gives.
func resolveTopic(image *metadata.Image, byID bool, name string, id [16]byte) (metadata.UUID, string, *kerr.Error) {
	if byID {
		if metadata.UUID(id) == metadata.ClusterTopicID {
			return metadata.ClusterTopicID, metadata.ClusterTopic, nil
		}
		if t, ok := image.TopicByID(metadata.UUID(id)); ok {
			return t.ID, t.Name, nil
		}
		return metadata.UUID{}, "", kerr.UnknownTopicID
	}
	if name == metadata.ClusterTopic {
		return metadata.ClusterTopicID, name, nil
	}
	if t, ok := image.Topic(name); ok {
		return t.ID, t.Name, nil
	}
	return metadata.UUID{}, "", kerr.UnknownTopicOrPartition
}

// clusterTopic describes the metadata topic, which is led by the active controller.
func clusterTopic(image *metadata.Image) *metadata.Topic {
	leader, epoch := image.Controller()
	nodes := []int32{leader}
	return &metadata.Topic{Name: metadata.ClusterTopic, ID: metadata.ClusterTopicID,
		Partitions: []metadata.Partition{{Replicas: nodes, ISR: nodes, Leader: leader, LeaderEpoch: epoch}}}
}

// leaderOf returns the leader and leader epoch that metadata names, -1 and -1
// when it has no such partition.
func leaderOf(image *metadata.Image, id metadata.UUID, partition int32) (leader, epoch int32) {
	if id == metadata.ClusterTopicID {
		return image.Controller()
	}
	t, ok := image.TopicByID(id)
	if !ok || partition < 0 || int(partition) >= len(t.Partitions) {
		return -1, -1
	}
	return t.Partitions[partition].Leader, t.Partitions[partition].LeaderEpoch
}

// endpoint is where a broker is reached.
type endpoint struct {
	id   int32
	host string
	port int32
	rack *string
}

// leaderEndpoints returns where the brokers are on the listener that the request
// came through, each once, unknown ones left out.
func leaderEndpoints(image *metadata.Image, request *wire.Request, ids []int32) []endpoint {
	var list []endpoint
next:
	for _, id := range ids {
		for i := range list {
			if list[i].id == id {
				continue next
			}
		}
		b, ok := image.Broker(id)
		if !ok {
			continue
		}
		l, ok := b.Listener(request.Conn.Listener)
		if !ok {
			continue
		}
		e := endpoint{id: id, host: l.Host, port: l.Port}
		if b.Rack != "" {
			e.rack = &b.Rack
		}
		list = append(list, e)
	}
	return list
}
