package handler

import (
	"context"
	"slices"
	"sync"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/metadata"
	"github.com/leatlog/leat/broker/internal/wire"
)

// Metadata (key 3), versions 0 to 13: KIP-4 (all or no topics, creation), KIP-430
// (authorized operations), KIP-516 (topic ids), KIP-1102 (an error for the whole
// answer, which this broker never gives).
//
// A missing topic is created when auto.create.topics.enable and the request allow
// it; the answer does not wait for that and says UNKNOWN_TOPIC_OR_PARTITION, which
// clients take as a request to ask again. The answer for all topics is kept encoded
// for as long as the image stays the same.

// Operations that are authorized to everyone when there is no authorization, as
// bits by Kafka's AclOperation codes.
const (
	topicOperations   int32 = 1<<3 | 1<<4 | 1<<5 | 1<<6 | 1<<7 | 1<<8 | 1<<10 | 1<<11
	clusterOperations int32 = 1<<5 | 1<<7 | 1<<8 | 1<<9 | 1<<10 | 1<<11 | 1<<12
)

func topicMetadata(h *Handler, _ context.Context, request *wire.Request, respond wire.Responder) {
	body := request.Body.(*kmsg.MetadataRequest)
	image := h.Image()
	if body.Topics == nil || body.Version == 0 && len(body.Topics) == 0 {
		respond(wire.Response{Chunks: []wire.Chunk{{Bytes: h.allTopics(image, request, body)}}})
		return
	}
	if !metadataNamesAllowed(body) {
		respond(wire.Response{Body: refuseMetadata(body)})
		return
	}
	response := newMetadataResponse(image, request, body)
	byID := slices.ContainsFunc(body.Topics, func(t kmsg.MetadataRequestTopic) bool { return t.TopicID != [16]byte{} })
	if byID {
		response.Topics = metadataByID(image, request, body)
	} else {
		response.Topics = h.metadataByName(image, request, body)
	}
	respond(wire.Response{Body: response})
}

// metadataNamesAllowed says that topics are named in a way that the version has:
// ids are answered from 10 on, and may be asked for from 12 on.
func metadataNamesAllowed(body *kmsg.MetadataRequest) bool {
	for i := range body.Topics {
		t := &body.Topics[i]
		if body.Version < 12 && (t.Topic == nil || t.TopicID != [16]byte{}) {
			return false
		}
	}
	return true
}

func refuseMetadata(body *kmsg.MetadataRequest) *kmsg.MetadataResponse {
	response := body.ResponseKind().(*kmsg.MetadataResponse)
	for i := range body.Topics {
		t := kmsg.NewMetadataResponseTopic()
		t.Topic, t.TopicID, t.ErrorCode = body.Topics[i].Topic, body.Topics[i].TopicID, kerr.InvalidRequest.Code
		if t.Topic == nil && body.Version < 12 {
			t.Topic = new(string)
		}
		response.Topics = append(response.Topics, t)
	}
	return response
}

// newMetadataResponse returns a response without topics.
func newMetadataResponse(image *metadata.Image, request *wire.Request, body *kmsg.MetadataRequest) *kmsg.MetadataResponse {
	response := body.ResponseKind().(*kmsg.MetadataResponse)
	for _, b := range aliveEndpoints(image, request.Conn.Listener) {
		broker := kmsg.NewMetadataResponseBroker()
		broker.NodeID, broker.Host, broker.Port, broker.Rack = b.id, b.host, b.port, b.rack
		response.Brokers = append(response.Brokers, broker)
	}
	response.ControllerID = controllerFor(image)
	if id := image.ClusterID(); id != "" {
		response.ClusterID = &id
	}
	if body.IncludeClusterAuthorizedOperations {
		response.AuthorizedOperations = clusterOperations
	}
	return response
}

// aliveEndpoints returns where the brokers that are not fenced are on a listener,
// by id.
func aliveEndpoints(image *metadata.Image, listener string) []endpoint {
	var list []endpoint
	brokers := image.Brokers()
	for i := range brokers {
		b := &brokers[i]
		l, ok := b.Listener(listener)
		if b.Fenced || !ok {
			continue
		}
		e := endpoint{id: b.ID, host: l.Host, port: l.Port}
		if b.Rack != "" {
			e.rack = &b.Rack
		}
		list = append(list, e)
	}
	return list
}

// controllerFor returns the broker that clients send changes to: the active
// controller when it is a broker, else any that is alive; -1 when there is none.
func controllerFor(image *metadata.Image) int32 {
	id, _ := image.Controller()
	if image.Alive(id) {
		return id
	}
	brokers := image.Brokers()
	for i := range brokers {
		if !brokers[i].Fenced {
			return brokers[i].ID
		}
	}
	return -1
}

func metadataByID(image *metadata.Image, request *wire.Request, body *kmsg.MetadataRequest) []kmsg.MetadataResponseTopic {
	var topics []kmsg.MetadataResponseTopic
	seen := make(map[metadata.UUID]bool, len(body.Topics))
	for i := range body.Topics {
		id := metadata.UUID(body.Topics[i].TopicID)
		if seen[id] || id.IsZero() {
			continue
		}
		seen[id] = true
		if id == metadata.ClusterTopicID {
			topics = append(topics, describeTopic(image, request.Conn.Listener, clusterTopic(image), body))
			continue
		}
		if t, ok := image.TopicByID(id); ok {
			topics = append(topics, describeTopic(image, request.Conn.Listener, t, body))
			continue
		}
		missing := kmsg.NewMetadataResponseTopic()
		missing.TopicID, missing.ErrorCode = id, kerr.UnknownTopicID.Code
		topics = append(topics, missing)
	}
	return topics
}

func (h *Handler) metadataByName(image *metadata.Image, request *wire.Request, body *kmsg.MetadataRequest) []kmsg.MetadataResponseTopic {
	create := h.Config.AutoCreateTopics && (body.Version < 4 || body.AllowAutoTopicCreation)
	topics := make([]kmsg.MetadataResponseTopic, 0, len(body.Topics))
	var missing []string
	seen := make(map[string]bool, len(body.Topics))
	for i := range body.Topics {
		if body.Topics[i].Topic == nil {
			continue // a null name with a zero id names nothing
		}
		name := *body.Topics[i].Topic
		if seen[name] {
			continue
		}
		seen[name] = true
		if name == metadata.ClusterTopic {
			topics = append(topics, describeTopic(image, request.Conn.Listener, clusterTopic(image), body))
			continue
		}
		if t, ok := image.Topic(name); ok {
			topics = append(topics, describeTopic(image, request.Conn.Listener, t, body))
			continue
		}
		t := kmsg.NewMetadataResponseTopic()
		t.Topic, t.IsInternal = &name, metadata.IsInternal(name)
		if t.ErrorCode = missingTopicCode(name); t.ErrorCode == kerr.UnknownTopicOrPartition.Code {
			missing = append(missing, name)
		}
		topics = append(topics, t)
	}
	if create && len(missing) > 0 {
		h.createMissing(missing)
	}
	return topics
}

// missingTopicCode is the error for a topic that does not exist.
func missingTopicCode(name string) int16 {
	if metadata.ValidateTopicName(name) != nil {
		return kerr.InvalidTopicException.Code
	}
	return kerr.UnknownTopicOrPartition.Code
}

func describeTopic(image *metadata.Image, listener string, topic *metadata.Topic, body *kmsg.MetadataRequest) kmsg.MetadataResponseTopic {
	t := kmsg.NewMetadataResponseTopic()
	t.Topic, t.TopicID, t.IsInternal = &topic.Name, topic.ID, metadata.IsInternal(topic.Name)
	if body.IncludeTopicAuthorizedOperations {
		t.AuthorizedOperations = topicOperations
	}
	t.Partitions = make([]kmsg.MetadataResponseTopicPartition, len(topic.Partitions))
	for i := range topic.Partitions {
		from, p := &topic.Partitions[i], &t.Partitions[i]
		p.Default()
		p.Partition, p.Leader, p.LeaderEpoch = from.ID, from.Leader, from.LeaderEpoch
		p.Replicas, p.ISR, p.OfflineReplicas = from.Replicas, from.ISR, offlineReplicas(image, listener, from)
		if code := leaderCode(image, listener, from.Leader, body.Version >= 6); code != 0 {
			p.ErrorCode, p.Leader = code, -1
		}
	}
	return t
}

// leaderCode is the error of a partition whose leader cannot be reached through
// the listener.
func leaderCode(image *metadata.Image, listener string, leader int32, listenerErrors bool) int16 {
	b, ok := image.Broker(leader)
	if !ok || b.Fenced {
		return kerr.LeaderNotAvailable.Code
	}
	if _, ok := b.Listener(listener); ok {
		return 0
	}
	if listenerErrors {
		return kerr.ListenerNotFound.Code
	}
	return kerr.LeaderNotAvailable.Code
}

// offlineReplicas returns the replicas whose broker cannot be reached through the
// listener.
func offlineReplicas(image *metadata.Image, listener string, p *metadata.Partition) []int32 {
	var offline []int32
	for _, id := range p.Replicas {
		if leaderCode(image, listener, id, false) != 0 {
			offline = append(offline, id)
		}
	}
	return offline
}

// cachedMetadata is the answers for all topics that were made from one image.
type cachedMetadata struct {
	image *metadata.Image
	mu    sync.Mutex
	bytes map[metadataKey][]byte
}

// metadataKey is what the answer depends on besides the image.
type metadataKey struct {
	version        int16
	listener       string
	topic, cluster bool // authorized operations are included
}

// allTopics returns the encoded answer about all topics.
func (h *Handler) allTopics(image *metadata.Image, request *wire.Request, body *kmsg.MetadataRequest) []byte {
	c := h.cached.Load()
	if c == nil || c.image != image {
		c = &cachedMetadata{image: image, bytes: map[metadataKey][]byte{}}
		h.cached.Store(c)
	}
	key := metadataKey{body.Version, request.Conn.Listener, body.IncludeTopicAuthorizedOperations, body.IncludeClusterAuthorizedOperations}
	c.mu.Lock()
	defer c.mu.Unlock()
	encoded, ok := c.bytes[key]
	if !ok {
		response := newMetadataResponse(image, request, body)
		for _, t := range image.Topics() {
			response.Topics = append(response.Topics, describeTopic(image, request.Conn.Listener, t, body))
		}
		encoded = response.AppendTo(nil)
		c.bytes[key] = encoded
	}
	return encoded
}
