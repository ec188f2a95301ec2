package client

import (
	"context"
	"fmt"
	"sort"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Topic is what the cluster says about a topic.
type Topic struct {
	// Name is the topic's name.
	Name string
	// ID is the topic's id; zero from brokers that know none.
	ID [16]byte
	// Internal topics belong to the cluster.
	Internal bool
	// Partitions are in order, from 0.
	Partitions []PartitionState
}

// PartitionState is what the cluster says about a partition.
type PartitionState struct {
	// Leader is the broker that leads it, -1 for none.
	Leader int32
	// LeaderEpoch is the epoch of the leader, -1 when not known.
	LeaderEpoch int32
	// Replicas and ISR are the brokers that hold it, and those in sync.
	Replicas, ISR []int32
}

// metadataCache holds what was last heard of the topics in use.
type metadataCache struct {
	mu     sync.RWMutex
	topics map[string]*Topic
	names  map[[16]byte]string
}

// Topics asks the cluster for these topics; unknown ones are missing from the
// result. No names asks for all topics.
func (c *Client) Topics(ctx context.Context, names ...string) (map[string]*Topic, error) {
	return c.topics(ctx, false, names)
}

// autoCreatePoll is how often AutoCreateTopic asks.
const autoCreatePoll = 50 * time.Millisecond

// AutoCreateTopic returns a topic that the cluster creates when it is not there, as
// it does for producers where auto.create.topics.enable is set. Where it is not, no
// answer says so: then the error, when ctx ends, is ErrUnknownTopic.
func (c *Client) AutoCreateTopic(ctx context.Context, name string) (*Topic, error) {
	ticker := time.NewTicker(autoCreatePoll)
	defer ticker.Stop()
	for {
		topics, err := c.topics(ctx, true, []string{name})
		if err != nil && ctx.Err() == nil {
			return nil, err
		}
		if t, ok := topics[name]; ok {
			return t, nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil, fmt.Errorf("client: topic %q: %w, and the cluster has not created it (is auto.create.topics.enable set?): create it first", name, ErrUnknownTopic)
		}
	}
}

func (c *Client) topics(ctx context.Context, create bool, names []string) (map[string]*Topic, error) {
	topics, _, err := metadataOf(ctx, c.kgo, create, names)
	if err != nil {
		return nil, c.closedOr(err)
	}
	c.metadata.store(names, topics)
	return topics, nil
}

// metadataOf asks for topics, and for the ids of the brokers.
func metadataOf(ctx context.Context, asked kmsg.Requestor, create bool, names []string) (map[string]*Topic, []int32, error) {
	req := kmsg.NewPtrMetadataRequest()
	req.AllowAutoTopicCreation = create
	for _, name := range names {
		t := kmsg.NewMetadataRequestTopic()
		t.Topic = kmsg.StringPtr(name)
		req.Topics = append(req.Topics, t)
	}
	if len(names) == 0 {
		req.Topics = nil
	}
	resp, err := req.RequestWith(ctx, asked)
	if err != nil {
		return nil, nil, fmt.Errorf("client: metadata: %w", err)
	}
	topics := make(map[string]*Topic, len(resp.Topics))
	for i := range resp.Topics {
		rt := &resp.Topics[i]
		if rt.Topic == nil {
			continue
		}
		if err := codeError(rt.ErrorCode); err != nil {
			if staleMetadata(rt.ErrorCode) {
				continue // not there, or not there yet
			}
			return nil, nil, fmt.Errorf("client: metadata of topic %q: %w", *rt.Topic, err)
		}
		topics[*rt.Topic] = topicOf(rt)
	}
	brokers := make([]int32, len(resp.Brokers))
	for i := range resp.Brokers {
		brokers[i] = resp.Brokers[i].NodeID
	}
	return topics, brokers, nil
}

func topicOf(rt *kmsg.MetadataResponseTopic) *Topic {
	t := &Topic{Name: *rt.Topic, ID: rt.TopicID, Internal: rt.IsInternal}
	sort.Slice(rt.Partitions, func(i, j int) bool { return rt.Partitions[i].Partition < rt.Partitions[j].Partition })
	for i := range rt.Partitions {
		p := &rt.Partitions[i]
		t.Partitions = append(t.Partitions, PartitionState{
			Leader: p.Leader, LeaderEpoch: p.LeaderEpoch, Replicas: p.Replicas, ISR: p.ISR,
		})
	}
	return t
}

func (m *metadataCache) store(asked []string, topics map[string]*Topic) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, name := range asked {
		delete(m.topics, name)
	}
	for name, t := range topics {
		m.topics[name] = t
	}
	m.names = make(map[[16]byte]string, len(m.topics))
	for name, t := range m.topics {
		if t.ID != [16]byte{} {
			m.names[t.ID] = name
		}
	}
}

// topic returns what was last heard of a topic.
func (m *metadataCache) topic(name string) (*Topic, bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	t, ok := m.topics[name]
	return t, ok
}

// id returns a topic's id, zero when it is not known.
func (m *metadataCache) id(name string) [16]byte {
	if t, ok := m.topic(name); ok {
		return t.ID
	}
	return [16]byte{}
}

// name returns the topic that a response means: by name, or by id in versions
// that have no names.
func (m *metadataCache) name(topic string, id [16]byte) string {
	if topic != "" {
		return topic
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.names[id]
}

// ensure asks for the topics that the cache does not hold.
func (c *Client) ensure(ctx context.Context, names map[string]struct{}) error {
	var missing []string
	for name := range names {
		if _, ok := c.metadata.topic(name); !ok {
			missing = append(missing, name)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	sort.Strings(missing)
	_, err := c.Topics(ctx, missing...)
	return err
}
