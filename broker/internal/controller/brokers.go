package controller

import (
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/leatlog/leat/broker/internal/metadata"
	"github.com/leatlog/leat/broker/internal/mutant"
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
	if c.active && c.cfg.Imbalance.Check > 0 {
		if check := c.balanced.Add(c.cfg.Imbalance.Check); next.IsZero() || check.Before(next) {
			next = check
		}
	}
	if look := c.nextLook(); !look.IsZero() && (next.IsZero() || look.Before(next)) {
		next = look
	}
	if awake := c.last.Add(c.cfg.Session / 4); !next.IsZero() && awake.Before(next) {
		next = awake
	}
	return next
}

// rebalance moves leaders back to where they belong, when it is time to look.
func (c *Controller) rebalance(now time.Time) {
	if !c.active || c.cfg.Imbalance.Check <= 0 || now.Sub(c.balanced) < c.cfg.Imbalance.Check {
		return
	}
	c.balanced = now
	c.propose(c.balance())
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

// brokerGone fences a broker whose process has ended.
func (c *Controller) brokerGone(e BrokerGone) {
	b, known := c.image.Broker(e.Broker)
	s := c.sessions[e.Broker]
	if !c.active || !known || b.Fenced || b.Epoch != e.BrokerEpoch || s != nil && s.last.After(e.Since) {
		return
	}
	delete(c.sessions, e.Broker)
	c.fence(b)
}

func (c *Controller) registerBroker(now time.Time, e RegisterBroker) {
	b, known := c.image.Broker(e.Broker)
	s := c.sessions[e.Broker]
	if no := c.checkRegistration(e); no != nil {
		c.refuse(e.ID, no)
		return
	}
	switch {
	case known && b.Incarnation == e.Incarnation:
		// The answer was lost: the same process asks again.
		c.answerWhenCommitted(e.ID, Registration{BrokerEpoch: b.Epoch})
		return
	case known && s != nil && s.heard && now.Before(s.deadline) && !succeeds(b, &e):
		c.refuse(e.ID, kerr.DuplicateBrokerRegistration)
		return
	}
	epoch := c.image.NextBrokerEpoch()
	left := logsKept
	switch {
	case mutant.Is(mutant.LostLogKeptInSync):
	case !known: // nothing is known that it could have lost
	case e.Directory != b.Directory && !b.Directory.IsZero():
		left = logsLost
	case e.PreviousEpoch < b.LogsEpoch || e.PreviousEpoch > b.Epoch:
		left = logsUncertain
	}
	change := &metadata.BrokerChange{ID: e.Broker, Incarnation: e.Incarnation, Epoch: epoch,
		Rack: e.Rack, Listeners: e.Listeners, Roles: e.Roles, Fenced: true}
	if c.image.MetadataVersion() >= 27 {
		change.Directory, change.Features = e.Directory, e.Features
	}
	c.propose([]metadata.Change{change})
	c.propose(c.deactivate(e.Broker, left))
	s = &session{epoch: epoch, deadline: now.Add(c.cfg.Session), heard: true, last: now, registered: -1, shutdown: -1}
	c.sessions[e.Broker] = s
	c.whenCommitted(waiting{
		answer: Answer{ID: e.ID, Response: Registration{BrokerEpoch: epoch}},
		commit: func(image *metadata.Image) { s.registered = image.Offset() },
	})
}

// succeeds says that the process that held the registration has ended: the new one
// has its data directory, which only one process can open, and read the epoch there
// that the old one was given.
func succeeds(b *metadata.Broker, e *RegisterBroker) bool {
	return !e.Directory.IsZero() && e.Directory == b.Directory && e.PreviousEpoch == b.Epoch
}

// checkRegistration says why a broker cannot be in this cluster; nil when it can.
func (c *Controller) checkRegistration(e RegisterBroker) *kerr.Error {
	switch {
	case e.Broker < 0:
		return kerr.InvalidRequest
	case e.ClusterID != "" && e.ClusterID != c.image.ClusterID():
		return kerr.InconsistentClusterID
	case e.Features != nil && !supportsAll(e.Features, c.image):
		return kerr.UnsupportedVersion
	}
	return nil
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
		s = &session{epoch: b.Epoch, registered: c.image.Offset(), shutdown: -1}
		c.sessions[e.Broker] = s
	}
	s.deadline, s.heard, s.last = now.Add(c.cfg.Session), true, now
	caughtUp := s.registered >= 0 && e.Offset >= s.registered
	switch {
	case e.WantShutDown:
		c.shutDown(b, s, e)
		return
	case e.WantFence && !b.Fenced:
		c.fence(b)
	case !e.WantFence && b.Fenced && !b.ControlledShutdown && caughtUp:
		c.propose([]metadata.Change{&metadata.BrokerFenceChange{ID: b.ID, Epoch: b.Epoch}})
		c.propose(c.activate(b.ID))
		if c.holdsNothing(b.ID) {
			c.note(BrokerHoldsNothing{b.ID})
		}
	}
	c.answerWhenCommitted(e.ID, HeartbeatAnswer{CaughtUp: caughtUp, Fenced: !c.image.Alive(e.Broker)})
}

// shutDown answers a broker that is stopping. The first such heartbeat moves its
// leaders; when it has seen that, or is fenced, it may stop.
func (c *Controller) shutDown(b *metadata.Broker, s *session, e BrokerHeartbeat) {
	if !b.Fenced && !b.ControlledShutdown && c.image.MetadataVersion() >= 27 {
		c.propose([]metadata.Change{&metadata.BrokerFenceChange{ID: b.ID, Epoch: b.Epoch, ControlledShutdown: true}})
		c.propose(c.deactivate(b.ID, logsKept))
		c.whenCommitted(waiting{
			answer: Answer{ID: e.ID, Response: HeartbeatAnswer{CaughtUp: true}},
			commit: func(image *metadata.Image) { s.shutdown = image.Offset() },
		})
		return
	}
	if b.ControlledShutdown && s.shutdown < 0 && c.settled == c.proposed {
		s.shutdown = c.image.Offset() // an earlier controller moved its leaders
	}
	if !b.Fenced && b.ControlledShutdown && (s.shutdown < 0 || e.Offset < s.shutdown) {
		c.answerWhenCommitted(e.ID, HeartbeatAnswer{CaughtUp: true})
		return
	}
	if !b.Fenced {
		c.fence(b)
	}
	delete(c.sessions, b.ID)
	c.answerWhenCommitted(e.ID, HeartbeatAnswer{CaughtUp: true, Fenced: true, ShouldShutDown: true})
}

// unregisterBroker forgets a broker. What it was in sync for it is no more, since
// nothing is known of what comes back under its id.
func (c *Controller) unregisterBroker(e UnregisterBroker) {
	if _, known := c.image.Broker(e.Broker); !known {
		c.refuse(e.ID, kerr.BrokerIDNotRegistered)
		return
	}
	delete(c.sessions, e.Broker)
	changes := []metadata.Change{&metadata.BrokerRemovedChange{ID: e.Broker}}
	if _, cordoned := c.image.BrokerConfig(e.Broker)[metadata.CordonedLogDirs]; cordoned {
		// It was drained; what comes back under its id is to be used.
		changes = append(changes, &metadata.ConfigChange{Resource: metadata.BrokerResource, Name: strconv.Itoa(int(e.Broker)), Key: metadata.CordonedLogDirs})
	}
	c.propose(changes)
	c.propose(c.deactivate(e.Broker, logsUncertain))
	c.answerWhenCommitted(e.ID, Unregistered{})
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
