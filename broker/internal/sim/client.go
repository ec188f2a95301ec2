package sim

import (
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/metadata"
)

// topicPartition names a partition.
type topicPartition struct {
	topic     string
	partition int32
}

// client is somebody outside the cluster who speaks the protocol.
type client struct {
	c       *Cluster
	place   place
	leaders map[topicPartition]int32
	epochs  map[topicPartition]int32 // the newest leader epochs that it was told
	ids     map[string]metadata.UUID
}

func (c *Cluster) newClient() *client {
	x := &client{c: c, place: firstClient + place(len(c.clients)), leaders: map[topicPartition]int32{}, epochs: map[topicPartition]int32{}, ids: map[string]metadata.UUID{}}
	c.clients = append(c.clients, x)
	return x
}

const requestTimeout = 1500 * time.Millisecond

// ask sends a request to a node and waits for the answer.
func (x *client) ask(node int32, request kmsg.Request) (kmsg.Response, error) {
	return x.c.net.wait(stream{x.place, node, "client"}, x.c.nodes[node], false, request, requestTimeout)
}

// anyNode draws a node.
func (x *client) anyNode() int32 { return 1 + x.c.s.random.Int32N(nodeCount) }

// refresh asks any node who leads what.
func (x *client) refresh() {
	r := kmsg.NewPtrMetadataRequest()
	r.SetVersion(12)
	response, err := x.ask(x.anyNode(), r)
	if err != nil {
		return
	}
	clear(x.leaders)
	for _, t := range response.(*kmsg.MetadataResponse).Topics {
		if t.Topic == nil || t.ErrorCode != 0 {
			continue
		}
		x.ids[*t.Topic] = t.TopicID
		for _, p := range t.Partitions {
			tp := topicPartition{*t.Topic, p.Partition}
			// Clients do not go back to a leader of an earlier epoch.
			if p.ErrorCode == 0 && p.Leader > 0 && p.LeaderEpoch >= x.epochs[tp] {
				x.leaders[tp], x.epochs[tp] = p.Leader, p.LeaderEpoch
			}
		}
	}
}

// leader returns the leader of a partition, as far as the client knows.
func (x *client) leader(tp topicPartition) (int32, bool) {
	if _, ok := x.leaders[tp]; !ok {
		x.refresh()
	}
	leader, ok := x.leaders[tp]
	return leader, ok
}

// makeTopics makes the topics of the workload.
func (c *Cluster) makeTopics() {
	x := c.newClient()
	c.topics = []string{"t0", "t1"}
	for n, name := range []string{"t0", "t1", movedTopic} {
		for code := int16(-1); code != 0 && code != kerr.TopicAlreadyExists.Code; {
			r := kmsg.NewPtrCreateTopicsRequest()
			r.SetVersion(7)
			t := kmsg.NewCreateTopicsRequestTopic()
			t.Topic, t.NumPartitions, t.ReplicationFactor = name, 2, nodeCount
			minISR := c.minISR
			if n == 2 && !c.losesDisks {
				minISR = 1 // it may be moved to a single replica
			}
			for _, kv := range [][2]string{{"min.insync.replicas", fmt.Sprint(minISR)}, {"segment.bytes", "16384"}, {"retention.ms", "-1"}} {
				config := kmsg.NewCreateTopicsRequestTopicConfig()
				config.Name, config.Value = kv[0], kmsg.StringPtr(kv[1])
				t.Configs = append(t.Configs, config)
			}
			r.Topics, r.TimeoutMillis = append(r.Topics, t), 5000
			code = -1
			if response, err := x.ask(x.anyNode(), r); err == nil && len(response.(*kmsg.CreateTopicsResponse).Topics) == 1 {
				code = response.(*kmsg.CreateTopicsResponse).Topics[0].ErrorCode
			}
			c.s.sleep(100 * time.Millisecond)
		}
	}
}

// work starts the clients.
func (c *Cluster) work() {
	for n := range 5 {
		p := &producer{client: c.newClient(), topics: c.topics, sequences: map[topicPartition]int32{}}
		if p.moved = n == 4; p.moved {
			p.topics = []string{movedTopic}
		}
		c.producers = append(c.producers, p)
		c.outside.Go(p.run)
	}
	c.outside.Go((&admin{client: c.newClient()}).run)
	for range 2 {
		x := &consumer{client: c.newClient()}
		c.outside.Go(x.run)
	}
}
