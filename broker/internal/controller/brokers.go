package controller

import (
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/leatlog/leat/broker/internal/metadata"
)

// wake gives all brokers a new session when the controller has not run for so long
// that it may have missed their heartbeats.
func (c *Controller) wake(now time.Time) {
	if asleep := now.Sub(c.last); !c.last.IsZero() && asleep > c.cfg.Session/2 {
		for _, s := range c.sessions {
			s.deadline = now.Add(c.cfg.Session)
		}
	}
	c.last = now
}

// NextDeadline returns when the controller wants its next Tick; zero when it does
// not need one. While there are sessions that is soon enough to tell a silent
// broker from a controller that slept.
func (c *Controller) NextDeadline() time.Time {
	var next time.Time
	for _, s := range c.sessions {
		if next.IsZero() || s.deadline.Before(next) {
			next = s.deadline
		}
	}
	if awake := c.last.Add(c.cfg.Session / 4); !next.IsZero() && awake.Before(next) {
		next = awake
	}
	return next
}

// expire fences the brokers whose session has ended.
func (c *Controller) expire(now time.Time) {
	if !c.active {
		return
	}
	for _, id := range slices.Sorted(maps.Keys(c.sessions)) {
		if s := c.sessions[id]; now.Before(s.deadline) {
			continue
		}
		delete(c.sessions, id)
		if b, ok := c.image.Broker(id); ok && !b.Fenced {
			c.fence(b)
		}
	}
}

func (c *Controller) registerBroker(now time.Time, e RegisterBroker) {
	b, known := c.image.Broker(e.Broker)
	s := c.sessions[e.Broker]
	switch {
	case e.Broker < 0:
		c.refuse(e.ID, kerr.InvalidRequest)
		return
	case known && b.Incarnation == e.Incarnation:
		// The answer was lost: the same process asks again.
		c.answerWhenCommitted(e.ID, Registration{BrokerEpoch: b.Epoch})
		return
	case known && s != nil && s.heard && now.Before(s.deadline):
		c.refuse(e.ID, kerr.DuplicateBrokerRegistration)
		return
	}
	epoch := c.image.NextBrokerEpoch()
	c.propose([]metadata.Change{&metadata.BrokerChange{ID: e.Broker, Incarnation: e.Incarnation, Epoch: epoch,
		Rack: e.Rack, Listeners: e.Listeners, Roles: e.Roles, Fenced: true}})
	c.propose(c.deactivate(e.Broker))
	s = &session{epoch: epoch, deadline: now.Add(c.cfg.Session), heard: true, registered: -1}
	c.sessions[e.Broker] = s
	c.whenCommitted(waiting{
		answer: Answer{ID: e.ID, Response: Registration{BrokerEpoch: epoch}},
		commit: func(image *metadata.Image) { s.registered = image.Offset() },
	})
}

func (c *Controller) heartbeat(now time.Time, e BrokerHeartbeat) {
	b, known := c.image.Broker(e.Broker)
	if !known || b.Epoch != e.BrokerEpoch {
		c.refuse(e.ID, kerr.StaleBrokerEpoch)
		return
	}
	s := c.sessions[e.Broker]
	if s == nil {
		// Fenced for its silence, or known to an earlier controller only.
		s = &session{epoch: b.Epoch, registered: c.image.Offset()}
		c.sessions[e.Broker] = s
	}
	s.deadline, s.heard = now.Add(c.cfg.Session), true
	switch {
	case e.WantFence && !b.Fenced:
		c.fence(b)
	case !e.WantFence && b.Fenced && s.registered >= 0 && e.Offset >= s.registered:
		c.propose([]metadata.Change{&metadata.BrokerFenceChange{ID: b.ID, Epoch: b.Epoch}})
		c.propose(c.activate(b.ID))
	}
	c.answerWhenCommitted(e.ID, HeartbeatAnswer{Fenced: !c.image.Alive(e.Broker)})
}

func (c *Controller) fence(b *metadata.Broker) {
	c.propose([]metadata.Change{&metadata.BrokerFenceChange{ID: b.ID, Epoch: b.Epoch, Fenced: true}})
	c.propose(c.deactivate(b.ID))
}

// deactivate takes a broker that the image has as fenced out of leadership, and
// out of the in-sync replicas where it is not the last of them.
func (c *Controller) deactivate(broker int32) []metadata.Change {
	var changes []metadata.Change
	for _, t := range c.image.Topics() {
		for n := range t.Partitions {
			p := &t.Partitions[n]
			inSync := slices.Contains(p.ISR, broker)
			if p.Leader != broker && (!inSync || len(p.ISR) == 1) {
				continue
			}
			change := p.Change(t.ID)
			change.PartitionEpoch++
			if inSync && len(p.ISR) > 1 {
				change.ISR = without(p.ISR, broker)
			}
			if p.Leader == broker {
				change.Leader = c.elect(p.Replicas, change.ISR)
				change.LeaderEpoch++
			}
			changes = append(changes, change)
		}
	}
	return changes
}

// activate makes a broker, which the image has as alive, the leader of partitions
// that have none and that it is in sync for.
func (c *Controller) activate(broker int32) []metadata.Change {
	var changes []metadata.Change
	for _, t := range c.image.Topics() {
		for n := range t.Partitions {
			p := &t.Partitions[n]
			if p.Leader >= 0 || !slices.Contains(p.ISR, broker) {
				continue
			}
			change := p.Change(t.ID)
			change.Leader = c.elect(p.Replicas, p.ISR)
			change.LeaderEpoch++
			change.PartitionEpoch++
			changes = append(changes, change)
		}
	}
	return changes
}

// elect returns the first replica, in order of preference, that is in sync and
// alive; -1 when there is none.
func (c *Controller) elect(replicas, isr []int32) int32 {
	for _, id := range replicas {
		if slices.Contains(isr, id) && c.image.Alive(id) {
			return id
		}
	}
	return -1
}

func without(ids []int32, id int32) []int32 {
	return slices.DeleteFunc(slices.Clone(ids), func(x int32) bool { return x == id })
}

func (c *Controller) allocateProducerIDs(e AllocateProducerIDs) {
	b, known := c.image.Broker(e.Broker)
	if !known || b.Epoch != e.BrokerEpoch {
		c.refuse(e.ID, kerr.StaleBrokerEpoch)
		return
	}
	first := c.image.NextProducerID()
	c.propose([]metadata.Change{&metadata.ProducerIDsChange{Broker: e.Broker, BrokerEpoch: e.BrokerEpoch, Next: first + producerIDBlock}})
	c.answerWhenCommitted(e.ID, ProducerIDs{First: first, Count: producerIDBlock})
}
