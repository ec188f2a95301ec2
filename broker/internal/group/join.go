package group

import (
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/leatlog/leat/broker/internal/coordinator"
)

// Join handles JoinGroup. respond is called when the rebalance ends, which may
// be at once.
func (s *Shard) Join(r *JoinRequest, now time.Time, respond func(JoinResponse)) coordinator.Result {
	fail := func(err *kerr.Error, memberID string) coordinator.Result {
		respond(JoinResponse{Err: err, Generation: -1, MemberID: memberID})
		return coordinator.Result{}
	}
	session := time.Duration(r.SessionTimeoutMillis) * time.Millisecond
	switch {
	case r.GroupID == "":
		return fail(kerr.InvalidGroupID, r.MemberID)
	case session < s.cfg.MinSessionTimeout || session > s.cfg.MaxSessionTimeout:
		return fail(kerr.InvalidSessionTimeout, r.MemberID)
	}
	g := s.groups[r.GroupID]
	if g != nil && g.consumer != nil {
		return s.joinConsumers(g, r, now, respond)
	}
	if g == nil {
		if r.MemberID != "" {
			return fail(kerr.UnknownMemberID, r.MemberID)
		}
		if r.ProtocolType == "" || len(r.Protocols) == 0 {
			return fail(kerr.InconsistentGroupProtocol, r.MemberID)
		}
		g = s.group(r.GroupID)
	}
	defer s.schedule(g)
	if s.full(g, r.MemberID) {
		fail(kerr.GroupMaxSizeReached, "")
		delete(g.pending, r.MemberID)
		if m := g.members[r.MemberID]; m != nil {
			g.remove(m)
		}
		return s.maybeCompleteJoin(g, now)
	}
	if r.MemberID == "" {
		return s.joinUnknown(g, r, now, respond, fail)
	}
	return s.joinKnown(g, r, now, respond, fail)
}

// full says that the group has no room for this joiner. While it prepares a
// rebalance, only as many may join as will fit (KIP-389).
func (s *Shard) full(g *group, memberID string) bool {
	if m := g.members[memberID]; m != nil && (g.state != PreparingRebalance || m.joining != nil) {
		return false
	}
	switch g.state {
	case PreparingRebalance:
		joined := 0
		for _, m := range g.members {
			if m.joining != nil {
				joined++
			}
		}
		return joined >= s.cfg.MaxSize
	case CompletingRebalance, Stable:
		return len(g.members) >= s.cfg.MaxSize
	}
	return false
}

type joinFail func(err *kerr.Error, memberID string) coordinator.Result

func (s *Shard) joinUnknown(g *group, r *JoinRequest, now time.Time, respond func(JoinResponse), fail joinFail) coordinator.Result {
	if !g.accepts(r.ProtocolType, r.Protocols) {
		return fail(kerr.InconsistentGroupProtocol, "")
	}
	prefix := r.ClientID
	if r.InstanceID != nil {
		prefix = *r.InstanceID
	}
	id := prefix + "-" + s.cfg.NewID()
	if r.InstanceID != nil {
		if old, ok := g.static[*r.InstanceID]; ok {
			return s.replaceStatic(g, g.members[old], id, r, now, respond)
		}
		return s.addMember(g, id, r, now, respond)
	}
	if r.RequireKnownMember {
		g.pending[id] = now.Add(time.Duration(r.SessionTimeoutMillis) * time.Millisecond)
		return fail(kerr.MemberIDRequired, id)
	}
	return s.addMember(g, id, r, now, respond)
}

func (s *Shard) joinKnown(g *group, r *JoinRequest, now time.Time, respond func(JoinResponse), fail joinFail) coordinator.Result {
	m := g.members[r.MemberID]
	if !g.accepts(r.ProtocolType, r.Protocols) {
		return fail(kerr.InconsistentGroupProtocol, r.MemberID)
	}
	if _, ok := g.pending[r.MemberID]; ok && r.InstanceID == nil {
		return s.addMember(g, r.MemberID, r, now, respond)
	}
	if r.InstanceID != nil {
		switch id, ok := g.static[*r.InstanceID]; {
		case !ok:
			return fail(kerr.UnknownMemberID, r.MemberID)
		case id != r.MemberID:
			return fail(kerr.FencedInstanceID, r.MemberID)
		}
	}
	if m == nil {
		return fail(kerr.UnknownMemberID, r.MemberID)
	}
	same := m.sameProtocols(r.Protocols)
	switch {
	case g.state == Empty || g.state == Dead:
		return fail(kerr.UnknownMemberID, r.MemberID)
	case g.state == CompletingRebalance && same,
		// A leader that joins again in a stable group asks for a rebalance.
		g.state == Stable && same && m.id != g.leader:
		m.heard(now)
		respond(g.joinAnswer(m))
		return coordinator.Result{}
	}
	return s.updateMember(g, m, r, now, respond)
}

func (s *Shard) addMember(g *group, id string, r *JoinRequest, now time.Time, respond func(JoinResponse)) coordinator.Result {
	delete(g.pending, id)
	m := &member{
		id: id, instanceID: r.InstanceID, clientID: r.ClientID, clientHost: r.ClientHost,
		sessionTimeout:   time.Duration(r.SessionTimeoutMillis) * time.Millisecond,
		rebalanceTimeout: time.Duration(r.RebalanceTimeoutMillis) * time.Millisecond,
		protocols:        r.Protocols,
		isNew:            true, joining: respond,
	}
	if len(g.members) == 0 {
		g.protocolType = r.ProtocolType
	}
	g.add(m)
	m.expires = now.Add(newMemberJoinTimeout)
	if g.state == PreparingRebalance && g.initial {
		g.newMember = true
	}
	return s.maybeRebalance(g, now)
}

func (s *Shard) updateMember(g *group, m *member, r *JoinRequest, now time.Time, respond func(JoinResponse)) coordinator.Result {
	m.answerJoin(JoinResponse{Err: kerr.UnknownMemberID, Generation: -1, MemberID: m.id}) // an older request of the same member
	m.update(r)
	m.joining = respond
	m.heard(now)
	return s.maybeRebalance(g, now)
}

func (m *member) update(r *JoinRequest) {
	m.protocols = r.Protocols
	m.clientID, m.clientHost = r.ClientID, r.ClientHost
	m.sessionTimeout = time.Duration(r.SessionTimeoutMillis) * time.Millisecond
	m.rebalanceTimeout = time.Duration(r.RebalanceTimeoutMillis) * time.Millisecond
}

// replaceStatic lets a restarted static member take its old place (KIP-345). In
// a stable group whose protocol it does not change nobody else notices.
func (s *Shard) replaceStatic(g *group, m *member, id string, r *JoinRequest, now time.Time, respond func(JoinResponse)) coordinator.Result {
	oldID, wasLeader := m.id, g.leader == m.id
	m.answerJoin(JoinResponse{Err: kerr.FencedInstanceID, Generation: -1, MemberID: oldID})
	m.answerSync(SyncResponse{Err: kerr.FencedInstanceID})
	delete(g.members, oldID)
	m.id = id
	m.update(r)
	m.heard(now)
	g.members[id], g.static[*m.instanceID] = m, id
	if wasLeader {
		g.leader = id
	}
	if g.state != Stable || g.choose() != g.protocol {
		m.joining = respond
		return s.maybeRebalance(g, now)
	}
	generation := g.generation
	return coordinator.Result{
		Records: []coordinator.Record{groupRecord(g, now)},
		Done: func(err error) coordinator.Result {
			if err != nil {
				respond(JoinResponse{Err: errorOf(err), Generation: -1, MemberID: id})
				return coordinator.Result{}
			}
			if g.generation != generation || g.members[id] != m {
				respond(JoinResponse{Err: kerr.UnknownMemberID, Generation: -1, MemberID: id})
				return coordinator.Result{}
			}
			respond(s.rejoinAnswer(g, m, r, wasLeader, oldID))
			return coordinator.Result{}
		},
	}
}

// rejoinAnswer is what a static member gets that took its old place. A client
// that knows SkipAssignment may lead without assigning anew (KIP-814); an older
// one is told that the old id leads, so that it does not try.
func (s *Shard) rejoinAnswer(g *group, m *member, r *JoinRequest, wasLeader bool, oldID string) JoinResponse {
	answer := g.joinAnswer(m)
	if !wasLeader {
		return answer
	}
	if r.SkipAssignment {
		answer.SkipAssignment = true
		return answer
	}
	answer.Leader, answer.Members = oldID, nil
	return answer
}
