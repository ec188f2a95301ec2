package group

import (
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/leatlog/leat/broker/internal/coordinator"
)

// joinConsumers handles JoinGroup for a group of the consumer protocol. One without
// members gives way to a classic group; to others a member of the classic protocol is
// one whose epoch is its generation, and which learns of changes by being told to join
// again.
func (s *Shard) joinConsumers(g *group, r *JoinRequest, now time.Time, respond func(JoinResponse)) coordinator.Result {
	fail := func(err *kerr.Error, memberID string) coordinator.Result {
		respond(JoinResponse{Err: err, Generation: -1, MemberID: memberID})
		return coordinator.Result{}
	}
	if r.ProtocolType == "" || len(r.Protocols) == 0 || !g.consumer.accepts(r) {
		return fail(kerr.InconsistentGroupProtocol, r.MemberID)
	}
	if len(g.consumer.members) == 0 {
		if r.MemberID != "" {
			return fail(kerr.UnknownMemberID, r.MemberID)
		}
		records := g.consumer.tombstones(g.id)
		g.consumer = nil
		result := s.Join(r, now, respond)
		result.Records = append(records, result.Records...)
		return result
	}
	if g.consumer.members[r.MemberID] == nil && len(g.consumer.members) >= s.cfg.ConsumerMaxSize {
		return fail(kerr.GroupMaxSizeReached, "")
	}
	id := r.MemberID
	if id == "" {
		id = r.ClientID + "-" + s.cfg.NewID()
		if r.RequireKnownMember && r.InstanceID == nil {
			return fail(kerr.MemberIDRequired, id)
		}
	}
	subscription, err := readSubscription(r.Protocols[0].Metadata)
	if err != nil {
		return fail(kerr.InconsistentGroupProtocol, "")
	}
	e := s.edit(g, now)
	if r.InstanceID != nil && r.MemberID == "" {
		if held := e.staticMember(*r.InstanceID); held != nil && len(e.members) < s.cfg.MaxSize && s.downgrades(g.consumer, []string{held.id}, 1) {
			return s.replaceAndDowngrade(g, held, r, now, respond)
		}
	}
	before, refused := e.joiner(r, id)
	if refused != nil {
		return fail(refused, "")
	}
	updated := before.joined(r, subscription)
	e.refresh(e.setMetadata(updated))
	e.assign()
	owned := e.assignmentByID(subscription.OwnedPartitions)
	updated = e.reconcile(updated, &owned)
	return coordinator.Result{Records: e.records, Done: func(err error) coordinator.Result {
		if err != nil {
			return fail(errorOf(err), id)
		}
		s.joinedClassic(g.id, updated, now)
		protocolType, protocol := "consumer", updated.classic.protocols[0].Name
		respond(JoinResponse{Generation: updated.epoch, ProtocolType: &protocolType, Protocol: &protocol, MemberID: id})
		return coordinator.Result{}
	}}
}

// accepts says that a member of the classic protocol can be in the group: it has a
// protocol that all others of them have, too.
func (c *consumerGroup) accepts(r *JoinRequest) bool {
	if len(c.members) == 0 {
		return true
	}
	return r.ProtocolType == "consumer" && slices.ContainsFunc(r.Protocols, func(p Protocol) bool {
		for _, m := range c.members {
			if m.classic != nil && !m.classic.supports(p.Name) {
				return false
			}
		}
		return true
	})
}

func (m *classicMember) supports(protocol string) bool {
	return slices.ContainsFunc(m.protocols, func(p Protocol) bool { return p.Name == protocol })
}

// joiner returns the member that joins by the classic protocol as it is, or a new one.
func (e *edit) joiner(r *JoinRequest, id string) (*consumerMember, *kerr.Error) {
	if r.InstanceID == nil {
		if m := e.members[id]; m != nil {
			return m, nil
		}
		return &consumerMember{id: id}, nil
	}
	held := e.staticMember(*r.InstanceID)
	switch {
	case held == nil && r.MemberID == "":
		return &consumerMember{id: id}, nil
	case held == nil:
		return nil, kerr.UnknownMemberID
	case r.MemberID != "" && held.id != id:
		return nil, kerr.FencedInstanceID
	case r.MemberID != "":
		return held, nil
	}
	m := *held
	m.id, m.epoch, m.previousEpoch = id, 0, 0
	e.replace(held, &m)
	return &m, nil
}

// joined returns the member as its JoinGroup wants it.
func (m *consumerMember) joined(r *JoinRequest, s *memberSubscription) *consumerMember {
	next := *m
	next.clientID, next.clientHost = r.ClientID, r.ClientHost
	if r.InstanceID != nil {
		next.instanceID = r.InstanceID
	}
	if s.Rack != nil {
		next.rackID = s.Rack
	}
	next.rebalanceTimeout = time.Duration(r.RebalanceTimeoutMillis) * time.Millisecond
	next.topics = slices.Compact(slices.Sorted(slices.Values(s.Topics)))
	next.classic = &classicMember{sessionTimeout: time.Duration(r.SessionTimeoutMillis) * time.Millisecond, protocols: r.Protocols}
	return &next
}

// joinedClassic notes that a member of the classic protocol has joined and is to sync.
func (s *Shard) joinedClassic(groupID string, m *consumerMember, now time.Time) {
	g := s.groups[groupID]
	if g == nil || g.consumer == nil || g.consumer.alive[m.id] == nil {
		return
	}
	l := g.consumer.alive[m.id]
	l.expires, l.joinBy, l.syncBy = now.Add(m.classic.sessionTimeout), time.Time{}, now.Add(max(m.rebalanceTimeout, time.Second))
	s.sooner(g, l.expires)
	s.sooner(g, l.syncBy)
}

// classicSender returns the member of the classic protocol that sent a request in its generation.
func (c *consumerGroup) classicSender(id string, instanceID *string, generation int32) (*consumerMember, *kerr.Error) {
	if instanceID != nil {
		switch held, ok := c.static[*instanceID]; {
		case !ok:
			return nil, kerr.UnknownMemberID
		case held != id:
			return nil, kerr.FencedInstanceID
		}
	}
	m := c.members[id]
	switch {
	case m == nil || m.classic == nil:
		return nil, kerr.UnknownMemberID
	case m.epoch != generation:
		return nil, kerr.IllegalGeneration
	}
	return m, nil
}

// syncConsumers handles SyncGroup for a group of the consumer protocol.
func (s *Shard) syncConsumers(g *group, r *SyncRequest, now time.Time, respond func(SyncResponse)) coordinator.Result {
	fail := func(err *kerr.Error) coordinator.Result {
		respond(SyncResponse{Err: err})
		return coordinator.Result{}
	}
	c := g.consumer
	m, err := c.classicSender(r.MemberID, r.InstanceID, r.Generation)
	if err != nil {
		return fail(err)
	}
	if r.ProtocolType != nil && *r.ProtocolType != "consumer" || r.Protocol != nil && *r.Protocol != m.classic.protocols[0].Name {
		return fail(kerr.InconsistentGroupProtocol)
	}
	if c.epoch > m.epoch && m.state != memberUnrevoked {
		s.joinAgain(g, m, now)
		return fail(kerr.RebalanceInProgress)
	}
	if l := c.alive[m.id]; l != nil {
		l.expires, l.syncBy = now.Add(m.classic.sessionTimeout), time.Time{}
	}
	protocolType, protocol := "consumer", m.classic.protocols[0].Name
	answer := SyncResponse{ProtocolType: &protocolType, Protocol: &protocol, Assignment: s.classicAssignment(m, m.assigned)}
	return coordinator.Result{Done: func(err error) coordinator.Result {
		if err != nil {
			return fail(errorOf(err))
		}
		respond(answer)
		return coordinator.Result{}
	}}
}

// heartbeatConsumers handles Heartbeat for a group of the consumer protocol: the member
// is to join again when the group is newer than it, when it has partitions to give back
// or when those that it waits for are free.
func (s *Shard) heartbeatConsumers(g *group, memberID string, instanceID *string, generation int32, now time.Time) *kerr.Error {
	c := g.consumer
	m, err := c.classicSender(memberID, instanceID, generation)
	if err != nil {
		return err
	}
	if l := c.alive[m.id]; l != nil {
		l.expires = now.Add(m.classic.sessionTimeout)
	}
	if m.epoch < c.epoch || m.state == memberUnrevoked || m.state == memberUnreleased && !c.waits(m) {
		s.joinAgain(g, m, now)
		return kerr.RebalanceInProgress
	}
	return nil
}

// waits says that somebody has a partition that the member is to get.
func (c *consumerGroup) waits(m *consumerMember) bool {
	_, missing := c.targets[m.id].split(m.assigned)
	for topic, partitions := range missing {
		for _, p := range partitions {
			if _, ok := c.owners[partitionID{topic, p}]; ok {
				return true
			}
		}
	}
	return false
}

// joinAgain gives a member the rebalance timeout to join.
func (s *Shard) joinAgain(g *group, m *consumerMember, now time.Time) {
	if l := g.consumer.alive[m.id]; l != nil && l.joinBy.IsZero() {
		l.joinBy = now.Add(max(m.rebalanceTimeout, time.Second))
		s.sooner(g, l.joinBy)
	}
}

// leaveConsumers handles LeaveGroup for a group of the consumer protocol: of members of
// either protocol, as an administrator removes them.
func (s *Shard) leaveConsumers(g *group, leaving []LeaveMember, now time.Time) ([]*kerr.Error, coordinator.Result) {
	errs := make([]*kerr.Error, len(leaving))
	var gone []string
	for i, l := range leaving {
		id := l.MemberID
		if l.InstanceID != nil {
			held, ok := g.consumer.static[*l.InstanceID]
			switch {
			case !ok:
				errs[i] = kerr.UnknownMemberID
			case id != "" && id != held:
				errs[i] = kerr.FencedInstanceID
			}
			id = held
		}
		switch m := g.consumer.members[id]; {
		case errs[i] != nil:
		case m == nil:
			errs[i] = kerr.UnknownMemberID
		case !slices.Contains(gone, id):
			gone = append(gone, id)
		}
	}
	if len(gone) == 0 {
		return errs, coordinator.Result{}
	}
	return errs, s.fenceConsumers(s.edit(g, now), gone)
}
