package controller

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/metadata"
)

// TestRandomEvents drives the controller with random events, failed proposals and
// changes of leadership, and checks after every entry what must always hold.
func TestRandomEvents(t *testing.T) {
	var total sightings
	runs := 60
	if testing.Short() {
		runs = 15
	}
	for seed := range uint64(runs) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			c := newCluster(t, seed)
			c.run(400)
			total.add(c.seen)
		})
	}
	t.Logf("%+v", total)
	if total.leaders == 0 || total.fromELR == 0 || total.lastKnown == 0 || total.acked == 0 || total.reassigned == 0 || total.leaderless == 0 {
		t.Errorf("the events did not lead to everything that is to be checked: %+v", total)
	}
}

// sightings count what happened, so that a test that sees nothing fails.
type sightings struct {
	leaders, fromELR, lastKnown, leaderless, acked, reassigned int
}

func (s *sightings) add(o sightings) {
	s.leaders += o.leaders
	s.fromELR += o.fromELR
	s.lastKnown += o.lastKnown
	s.leaderless += o.leaderless
	s.acked += o.acked
	s.reassigned += o.reassigned
}

// TestSameEventsSameDecisions runs the same seed twice: nothing may depend on the
// order of a map.
func TestSameEventsSameDecisions(t *testing.T) {
	for seed := range uint64(5) {
		first, second := newCluster(t, seed), newCluster(t, seed)
		first.run(300)
		second.run(300)
		if !bytes.Equal(first.log, second.log) {
			t.Fatalf("seed %d: two runs of the same events differ", seed)
		}
	}
}

// node is a broker as the random cluster plays it.
type node struct {
	incarnation metadata.UUID
	directory   metadata.UUID
	epoch       int64
	down        bool
}

// place names a partition.
type place struct {
	topic     metadata.UUID
	partition int32
}

type cluster struct {
	*world
	r      *rand.Rand
	nodes  []node
	topics int
	log    []byte
	epoch  int32
	seen   sightings
	// complete holds, by partition, the replicas that have all that was acknowledged.
	complete map[place]map[int32]bool
}

func newCluster(t testing.TB, seed uint64) *cluster {
	c := &cluster{world: newWorld(t), r: rand.New(rand.NewPCG(seed, 7)), complete: map[place]map[int32]bool{}}
	c.quiet = true
	for range 2 + c.r.IntN(4) {
		c.nodes = append(c.nodes, node{directory: c.uuid(), epoch: -1, down: true})
	}
	c.takeOver()
	return c
}

func (c *cluster) run(events int) {
	for range events {
		c.event()
		c.now = c.now.Add(time.Duration(c.r.IntN(1500)) * time.Millisecond)
		if c.r.IntN(4) > 0 {
			c.commitAll()
		}
	}
	c.commitAll()
}

// takeOver makes a controller, perhaps another one, active.
func (c *cluster) takeOver() {
	if c.r.IntN(2) == 0 {
		c.restart()
	}
	c.queue = nil
	c.epoch++
	c.step(BecameLeader{Epoch: c.epoch, Image: c.committed, ClusterID: c.uuid()})
}

func (c *cluster) event() {
	id := int32(c.r.IntN(len(c.nodes)))
	n := &c.nodes[id]
	switch c.r.IntN(20) {
	case 0, 1, 2:
		if n.down {
			c.start(id)
		} else if c.r.IntN(3) == 0 {
			n.down = true
		}
	case 3, 4, 5, 6, 7:
		for id, n := range c.nodes {
			if !n.down && c.r.IntN(8) > 0 {
				c.beat(int32(id))
			}
		}
	case 8:
		c.step(Tick{})
	case 9, 10:
		c.createTopic()
	case 11, 12, 13, 14:
		c.alterISR(id)
	case 15:
		if !n.down {
			c.step(BrokerHeartbeat{ID: 1, Broker: id, BrokerEpoch: n.epoch, Offset: c.offset, WantShutDown: true})
		}
	case 16:
		if c.r.IntN(6) == 0 {
			c.step(UnregisterBroker{ID: 1, Broker: id})
		}
	case 17:
		if c.r.IntN(3) == 0 {
			c.takeOver()
		}
	case 18:
		c.queue = nil
		c.step(Failed{Image: c.committed})
	case 19:
		for range 1 + c.r.IntN(4) {
			c.admin()
		}
	}
}

// admin reassigns a partition, cancels that, or moves leaders.
func (c *cluster) admin() {
	topics := c.committed.Topics()
	if len(topics) == 0 {
		return
	}
	t := topics[c.r.IntN(len(topics))]
	asked := kmsg.AlterPartitionAssignmentsRequestTopicPartition{Partition: int32(c.r.IntN(len(t.Partitions)))}
	switch c.r.IntN(6) {
	case 0:
		c.step(ElectLeaders{ID: 1})
		return
	case 1: // cancel
	default:
		for _, n := range c.r.Perm(len(c.nodes))[:1+c.r.IntN(len(c.nodes))] {
			asked.Replicas = append(asked.Replicas, int32(n))
		}
	}
	c.step(AlterPartitionReassignments{ID: 1, AllowReplicationFactorChange: true, Topics: []kmsg.AlterPartitionAssignmentsRequestTopic{
		{Topic: t.Name, Partitions: []kmsg.AlterPartitionAssignmentsRequestTopicPartition{asked}}}})
}

func (c *cluster) registered(id int32) int64 {
	if b, ok := c.committed.Broker(id); ok {
		return b.Epoch
	}
	return -1
}

// start starts a broker that was down: perhaps its last records are lost, perhaps its
// whole directory.
func (c *cluster) start(id int32) {
	n := &c.nodes[id]
	n.down, n.incarnation = false, c.uuid()
	switch c.r.IntN(8) {
	case 0:
		n.directory, n.epoch = c.uuid(), -1
		c.forget(id)
	case 1, 2:
		n.epoch = -1
		c.forget(id)
	}
	c.register(id)
}

func (c *cluster) register(id int32) {
	n := &c.nodes[id]
	c.step(RegisterBroker{ID: 1, Broker: id, Incarnation: n.incarnation, Directory: n.directory, PreviousEpoch: n.epoch})
}

func (c *cluster) beat(id int32) {
	n := &c.nodes[id]
	b, ok := c.committed.Broker(id)
	if !ok || b.Incarnation != n.incarnation {
		c.register(id)
		return
	}
	n.epoch = b.Epoch
	c.step(BrokerHeartbeat{ID: 1, Broker: id, BrokerEpoch: n.epoch, Offset: c.offset - int64(c.r.IntN(2))})
}

func (c *cluster) createTopic() {
	if c.topics > 6 {
		return
	}
	c.topics++
	t := kmsg.NewCreateTopicsRequestTopic()
	t.Topic, t.NumPartitions, t.ReplicationFactor = fmt.Sprintf("t%d", c.topics), int32(1+c.r.IntN(4)), int16(1+c.r.IntN(len(c.nodes)))
	for name, value := range map[string]string{"min.insync.replicas": fmt.Sprint(1 + c.r.IntN(3))} {
		t.Configs = append(t.Configs, kmsg.CreateTopicsRequestTopicConfig{Name: name, Value: &value})
	}
	c.step(CreateTopics{ID: 1, Topics: []kmsg.CreateTopicsRequestTopic{t}, TopicIDs: []metadata.UUID{c.uuid()}})
}

// forget says that a broker has lost the last records of all its partitions.
func (c *cluster) forget(id int32) {
	for _, have := range c.complete {
		delete(have, id)
	}
}

// acknowledge has leaders acknowledge records where enough replicas are in sync.
func (c *cluster) acknowledge() {
	for _, t := range c.committed.Topics() {
		minInSync := c.c.rules(t).minInSync
		for n := range t.Partitions {
			p := &t.Partitions[n]
			// Above the minimum and above that of eligible replicas; see followISR.
			if p.Leader < 0 || len(p.ISR) < min(minInSync, len(p.Replicas)) || c.r.IntN(2) == 0 {
				continue
			}
			have := map[int32]bool{}
			for _, id := range p.ISR {
				if !c.running(id) {
					have = nil
					break
				}
				have[id] = true
			}
			if have != nil {
				c.complete[place{t.ID, p.ID}] = have
				c.seen.acked++
			}
		}
	}
}

// alterISR has a leader ask for random in-sync replicas.
func (c *cluster) alterISR(id int32) {
	if !c.running(id) {
		return
	}
	e := AlterPartition{ID: 1, Broker: id, BrokerEpoch: c.registered(id)}
	for _, topic := range c.committed.Topics() {
		t := kmsg.AlterPartitionRequestTopic{TopicID: topic.ID}
		for n := range topic.Partitions {
			p := &topic.Partitions[n]
			if p.Leader != id && c.r.IntN(10) > 0 {
				continue
			}
			asked := kmsg.AlterPartitionRequestTopicPartition{Partition: p.ID, LeaderEpoch: p.LeaderEpoch, PartitionEpoch: p.PartitionEpoch}
			have := c.complete[place{topic.ID, p.ID}]
			for _, r := range p.Replicas {
				if r != id && (c.r.IntN(2) == 0 || !c.running(r) && !slices.Contains(p.ISR, r)) {
					continue
				}
				if c.running(r) && c.running(id) && p.Leader == id && have[id] {
					have[r] = true // a leader asks for those that have caught up
				}
				asked.NewEpochISR = append(asked.NewEpochISR,
					kmsg.AlterPartitionRequestTopicPartitionNewEpochISR{BrokerID: r, BrokerEpoch: c.registered(r)})
			}
			t.Partitions = append(t.Partitions, asked)
		}
		e.Topics = append(e.Topics, t)
	}
	c.step(e)
}

// commitAll commits what is proposed as one entry, checks it, and reports it.
func (c *cluster) commitAll() {
	if len(c.queue) == 0 {
		return
	}
	var changes []metadata.Change
	var last uint64
	for _, p := range c.queue {
		changes, last = append(changes, p.Changes...), p.ID
	}
	c.queue = nil
	value := metadata.Encode(changes)
	c.log = append(append(c.log, value...), '\n')
	decoded, err := metadata.Decode(value)
	if err != nil {
		c.t.Fatal(err)
	}
	c.offset++
	next, _, err := c.committed.Apply(c.offset, c.epoch, decoded)
	if err != nil {
		c.t.Fatal(err)
	}
	c.check(c.committed, next)
	c.committed = next
	c.acknowledge()
	again, err := metadata.DecodeImage(next.Encode())
	if err != nil {
		c.t.Fatal(err)
	}
	if !bytes.Equal(again.Encode(), next.Encode()) {
		c.t.Fatalf("entry %d: a snapshot is not what the log adds up to", c.offset)
	}
	c.step(Committed{Proposal: last, Image: next})
}

// check fails the test when an image breaks what must always hold.
func (c *cluster) check(before, after *metadata.Image) {
	for _, t := range after.Topics() {
		was, _ := before.TopicByID(t.ID)
		for n := range t.Partitions {
			p := &t.Partitions[n]
			fail := func(what string) {
				c.t.Fatalf("entry %d: %s-%d: %s: %+v\nbrokers %+v", c.offset, t.Name, n, what, *p, after.Brokers())
			}
			if what := broken(after, p); what != "" {
				fail(what)
			}
			if was == nil || n >= len(was.Partitions) {
				continue
			}
			old := &was.Partitions[n]
			if len(old.Adding) > 0 && len(p.Adding) == 0 && containsAll(p.ISR, old.Adding) {
				c.seen.reassigned++
			}
			for id := range c.complete[place{t.ID, p.ID}] {
				if !slices.Contains(p.Replicas, id) {
					delete(c.complete[place{t.ID, p.ID}], id) // it deletes what it has
				}
			}
			c.followLeader(place{t.ID, p.ID}, old, p, fail)
			switch {
			case p.LeaderEpoch < old.LeaderEpoch || p.PartitionEpoch < old.PartitionEpoch:
				fail("an epoch goes back")
			case p.Leader != old.Leader && p.LeaderEpoch == old.LeaderEpoch:
				fail("a new leader in the old epoch")
			case p.PartitionEpoch == old.PartitionEpoch && (!slices.Equal(p.ISR, old.ISR) || !slices.Equal(p.ELR, old.ELR)):
				fail("a change without a new partition epoch")
			}
		}
	}
}

// followLeader checks that who becomes the leader has all that was acknowledged,
// and lets the others copy it. Only the last known leader may have lost some, when
// nobody is left who has not.
func (c *cluster) followLeader(at place, old, p *metadata.Partition, fail func(string)) {
	have, acknowledged := c.complete[at]
	if p.Leader < 0 && old.Leader >= 0 {
		c.seen.leaderless++
	}
	if p.Leader != old.Leader && p.Leader >= 0 {
		c.seen.leaders++
		switch {
		case slices.Contains(old.ELR, p.Leader):
			c.seen.fromELR++
		case slices.Contains(old.LastKnownELR, p.Leader) && !slices.Contains(old.ISR, p.Leader):
			c.seen.lastKnown++
			delete(c.complete, at)
			return
		}
		// One that is not running is found out, and replaced, when it registers.
		if acknowledged && c.running(p.Leader) && !have[p.Leader] {
			fail(fmt.Sprintf("the new leader has not all that was acknowledged; before: %+v", *old))
		}
	}
}

// running says that a broker is up and registered.
func (c *cluster) running(id int32) bool {
	b, ok := c.committed.Broker(id)
	return ok && !c.nodes[id].down && b.Incarnation == c.nodes[id].incarnation
}

// broken says what is wrong with one partition, "" when nothing is.
func broken(image *metadata.Image, p *metadata.Partition) string {
	switch {
	case p.Leader >= 0 && !slices.Contains(p.ISR, p.Leader):
		return "the leader is not in sync"
	case p.Leader >= 0 && !image.Active(p.Leader):
		return "the leader is not active"
	case !containsAll(p.Replicas, p.ISR) || hasDuplicates(p.ISR) || hasDuplicates(p.Replicas):
		return "the in-sync replicas are not replicas, once each"
	case slices.ContainsFunc(p.ISR, func(id int32) bool { return slices.Contains(p.ELR, id) }):
		return "an eligible replica is in sync"
	case !containsAll(p.Replicas, p.ELR) || !containsAll(p.Replicas, p.LastKnownELR):
		return "an eligible replica is no replica"
	case !containsAll(p.Replicas, p.Adding) || !containsAll(p.Replicas, p.Removing):
		return "a reassignment of no replica"
	case slices.ContainsFunc(p.ISR, func(id int32) bool { return !image.Active(id) }):
		return "a broker that is not active is in sync"
	case p.Leader < 0 && slices.ContainsFunc(append(slices.Clone(p.ISR), p.ELR...), image.Active):
		return "there is no leader though one could lead"
	}
	return ""
}
