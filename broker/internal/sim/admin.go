package sim

import (
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// movedTopic is the topic whose replicas are moved about.
const movedTopic = "moved"

// admin creates and deletes topics and moves replicas.
type admin struct {
	client *client
	made   int
	exists []string // topics whose creation was acknowledged and that nobody deleted
}

func (x *admin) run() {
	c := x.client.c
	for {
		c.s.sleep(c.s.between(100*time.Millisecond, 3*time.Second))
		if c.healed || c.losesDisks {
			// A disk may be lost that has the only replica in sync: of what was moved, or of a
			// topic that was made while no other broker was active.
			continue
		}
		switch n := c.s.random.IntN(4); {
		case n == 0:
			x.create()
		case n == 1:
			x.remove()
		default:
			x.move()
		}
	}
}

func (x *admin) create() {
	c := x.client.c
	x.made++
	name := fmt.Sprintf("made%d", x.made)
	r := kmsg.NewPtrCreateTopicsRequest()
	r.SetVersion(7)
	t := kmsg.NewCreateTopicsRequestTopic()
	t.Topic, t.NumPartitions, t.ReplicationFactor = name, 1, nodeCount
	config := kmsg.NewCreateTopicsRequestTopicConfig()
	config.Name, config.Value = "min.insync.replicas", kmsg.StringPtr(fmt.Sprint(c.minISR))
	t.Configs = append(t.Configs, config)
	r.Topics, r.TimeoutMillis = append(r.Topics, t), 1000
	response, err := x.client.ask(x.client.anyNode(), r)
	if err == nil && len(response.(*kmsg.CreateTopicsResponse).Topics) == 1 && response.(*kmsg.CreateTopicsResponse).Topics[0].ErrorCode == 0 {
		c.stats.TopicsCreated++
		c.checks.topics[name] = true
		x.exists = append(x.exists, name)
	}
}

func (x *admin) remove() {
	c := x.client.c
	if len(x.exists) == 0 {
		return
	}
	n := c.s.random.IntN(len(x.exists))
	name := x.exists[n]
	x.exists = append(x.exists[:n], x.exists[n+1:]...)
	delete(c.checks.topics, name) // until the answer says that it is gone
	r := kmsg.NewPtrDeleteTopicsRequest()
	r.SetVersion(5)
	r.TopicNames, r.TimeoutMillis = []string{name}, 1000
	response, err := x.client.ask(x.client.anyNode(), r)
	if err == nil && len(response.(*kmsg.DeleteTopicsResponse).Topics) == 1 && response.(*kmsg.DeleteTopicsResponse).Topics[0].ErrorCode == 0 {
		c.stats.TopicsDeleted++
		c.checks.topics[name] = false
	}
}

// move asks for other replicas of a partition.
func (x *admin) move() {
	c := x.client.c
	r := kmsg.NewPtrAlterPartitionAssignmentsRequest()
	r.SetVersion(0)
	r.TimeoutMillis = 1000
	t := kmsg.NewAlterPartitionAssignmentsRequestTopic()
	t.Topic = movedTopic
	p := kmsg.NewAlterPartitionAssignmentsRequestTopicPartition()
	p.Partition = c.s.random.Int32N(2)
	for _, n := range c.s.random.Perm(nodeCount)[:1+c.s.random.IntN(nodeCount)] {
		p.Replicas = append(p.Replicas, int32(n)+1)
	}
	t.Partitions = append(t.Partitions, p)
	r.Topics = append(r.Topics, t)
	response, err := x.client.ask(x.client.anyNode(), r)
	if err == nil && response.(*kmsg.AlterPartitionAssignmentsResponse).ErrorCode == 0 {
		c.stats.Reassignments++
	}
}

// topicsAreAs checks that each node knows the topics whose creation was acknowledged, and
// none of those whose deletion was (I8).
func (k *checks) topicsAreAs() {
	for id := int32(1); id <= nodeCount; id++ {
		image := k.c.nodes[id].log.published
		for name, there := range k.topics {
			if _, ok := image.Topic(name); ok != there {
				k.c.fail("I8: node %d: topic %s is known: %v, acknowledged: %v", id, name, ok, there)
			}
		}
	}
}
