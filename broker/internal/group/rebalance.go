package group

import (
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/leatlog/leat/broker/internal/coordinator"
)

// maybeRebalance begins a join phase unless one is under way, and ends it when
// everybody has joined.
func (s *Shard) maybeRebalance(g *group, now time.Time) coordinator.Result {
	if g.state != PreparingRebalance {
		s.prepare(g, now)
	}
	return s.maybeCompleteJoin(g, now)
}

func (s *Shard) prepare(g *group, now time.Time) {
	if g.state == CompletingRebalance {
		for _, m := range g.sorted() {
			m.assignment = nil
			m.answerSync(SyncResponse{Err: kerr.RebalanceInProgress})
			m.heard(now)
		}
	}
	for _, m := range g.members {
		m.syncPending = false
	}
	g.syncBy = time.Time{}
	timeout := g.rebalanceTimeout()
	g.initial = g.state == Empty
	if g.initial {
		g.newMember = false
		wait := min(s.cfg.InitialRebalanceDelay, timeout)
		g.initialLeft = timeout - wait
		g.joinBy = now.Add(wait)
	} else {
		g.joinBy = now.Add(timeout)
	}
	g.become(PreparingRebalance, now)
}

// maybeCompleteJoin ends the join phase when nobody is missing. The first wait
// of an empty group lasts its time in any case, unless that is zero.
func (s *Shard) maybeCompleteJoin(g *group, now time.Time) coordinator.Result {
	if g.state != PreparingRebalance || !g.allJoined() {
		return coordinator.Result{}
	}
	if g.initial && now.Before(g.joinBy) {
		return coordinator.Result{}
	}
	return s.completeJoin(g, now)
}

// joinTimeout is called when the join phase has lasted its time.
func (s *Shard) joinTimeout(g *group, now time.Time) coordinator.Result {
	if g.initial && g.newMember && g.initialLeft > 0 {
		wait := min(s.cfg.InitialRebalanceDelay, g.initialLeft)
		g.initialLeft -= wait
		g.newMember = false
		g.joinBy = now.Add(wait)
		return coordinator.Result{}
	}
	return s.completeJoin(g, now)
}

// completeJoin starts the next generation with those who joined. Dynamic members
// that did not are removed; static ones stay, as they may come back.
func (s *Shard) completeJoin(g *group, now time.Time) coordinator.Result {
	anyJoined := false
	for _, m := range g.sorted() {
		switch {
		case m.joining != nil:
			anyJoined = true
		case m.instanceID == nil:
			g.remove(m)
		}
	}
	if len(g.members) > 0 && !anyJoined {
		// Only static members that are away: wait for them, or for their sessions' end.
		g.joinBy = now.Add(max(g.rebalanceTimeout(), time.Second))
		return coordinator.Result{}
	}
	g.joinBy, g.initial = time.Time{}, false
	g.generation++
	if len(g.members) == 0 {
		g.protocol, g.leader = "", ""
		g.become(Empty, now)
		return coordinator.Result{Records: []coordinator.Record{groupRecord(g, now)}}
	}
	if leader := g.members[g.leader]; leader == nil || leader.joining == nil {
		for _, m := range g.sorted() {
			if m.joining != nil {
				g.leader = m.id
				break
			}
		}
	}
	g.protocol = g.choose()
	g.become(CompletingRebalance, now)
	g.syncBy = now.Add(g.rebalanceTimeout())
	for _, m := range g.sorted() {
		m.isNew = false
		m.heard(now)
		m.syncPending = true
		m.answerJoin(g.joinAnswer(m))
	}
	return coordinator.Result{}
}

// Sync handles SyncGroup.
func (s *Shard) Sync(r *SyncRequest, now time.Time, respond func(SyncResponse)) coordinator.Result {
	fail := func(err *kerr.Error) coordinator.Result {
		respond(SyncResponse{Err: err})
		return coordinator.Result{}
	}
	if r.GroupID == "" {
		return fail(kerr.InvalidGroupID)
	}
	g := s.groups[r.GroupID]
	if g == nil {
		return fail(kerr.UnknownMemberID)
	}
	if g.consumer != nil {
		return s.syncConsumers(g, r, now, respond)
	}
	m, err := g.validate(r.MemberID, r.InstanceID, r.Generation)
	if err != nil {
		return fail(err)
	}
	if r.ProtocolType != nil && *r.ProtocolType != g.protocolType || r.Protocol != nil && *r.Protocol != g.protocol {
		return fail(kerr.InconsistentGroupProtocol)
	}
	defer s.schedule(g)
	switch g.state {
	case PreparingRebalance:
		return fail(kerr.RebalanceInProgress)
	case Stable:
		m.syncPending = false
		m.heard(now)
		respond(g.syncAnswer(m))
		return coordinator.Result{}
	case CompletingRebalance:
	default:
		return fail(kerr.UnknownMemberID)
	}
	m.heard(now)
	m.answerSync(SyncResponse{Err: kerr.RebalanceInProgress}) // an older request of the same member
	m.syncing, m.syncPending = respond, false
	if m.id != g.leader {
		return coordinator.Result{}
	}
	return s.assign(g, r.Assignments, now)
}

// assign makes the leader's assignment durable and then known.
func (s *Shard) assign(g *group, assignments map[string][]byte, now time.Time) coordinator.Result {
	generation := g.generation
	return coordinator.Result{
		Records: []coordinator.Record{groupRecordWith(g, assignments, now)},
		Done: func(err error) coordinator.Result {
			if g.state != CompletingRebalance || g.generation != generation {
				return coordinator.Result{} // another rebalance began: its members sync anew
			}
			defer s.schedule(g)
			if err != nil {
				for _, m := range g.sorted() {
					m.answerSync(SyncResponse{Err: errorOf(err)})
				}
				return s.maybeRebalance(g, now)
			}
			for _, m := range g.sorted() {
				m.assignment = assignments[m.id]
				if m.syncing != nil {
					m.heard(now)
					m.answerSync(g.syncAnswer(m))
				}
			}
			g.become(Stable, now)
			return coordinator.Result{}
		},
	}
}

// Heartbeat handles Heartbeat.
func (s *Shard) Heartbeat(groupID, memberID string, instanceID *string, generation int32, now time.Time) *kerr.Error {
	if groupID == "" {
		return kerr.InvalidGroupID
	}
	g := s.groups[groupID]
	if g == nil {
		return kerr.UnknownMemberID
	}
	if g.consumer != nil {
		return s.heartbeatConsumers(g, memberID, instanceID, generation, now)
	}
	m, err := g.validate(memberID, instanceID, generation)
	if err != nil {
		return err
	}
	switch g.state {
	case Empty, Dead:
		return kerr.UnknownMemberID
	case PreparingRebalance:
		err = kerr.RebalanceInProgress
	}
	m.heard(now)
	// The group's place in the heap only gets later: it is put right when it is due.
	return err
}

// Leave handles LeaveGroup: one error for the request or one for each member.
func (s *Shard) Leave(groupID string, leaving []LeaveMember, now time.Time) (errs []*kerr.Error, result coordinator.Result) {
	errs = make([]*kerr.Error, len(leaving))
	g := s.groups[groupID]
	if g != nil && g.consumer != nil {
		return s.leaveConsumers(g, leaving, now)
	}
	removed := false
	for i, l := range leaving {
		if g == nil {
			errs[i] = kerr.UnknownMemberID
			continue
		}
		errs[i] = s.leave(g, l)
		removed = removed || errs[i] == nil
	}
	if removed {
		defer s.schedule(g)
		return errs, s.afterRemoval(g, now)
	}
	return errs, coordinator.Result{}
}

func (s *Shard) leave(g *group, l LeaveMember) *kerr.Error {
	if _, ok := g.pending[l.MemberID]; ok && l.InstanceID == nil {
		delete(g.pending, l.MemberID)
		return nil
	}
	id := l.MemberID
	if l.InstanceID != nil {
		known, ok := g.static[*l.InstanceID]
		switch {
		case !ok:
			return kerr.UnknownMemberID
		case id != "" && id != known:
			return kerr.FencedInstanceID
		}
		id = known
	}
	m := g.members[id]
	if m == nil {
		return kerr.UnknownMemberID
	}
	s.removeMember(g, m, kerr.UnknownMemberID)
	return nil
}

// removeMember removes a member and answers what it waits for.
func (s *Shard) removeMember(g *group, m *member, err *kerr.Error) {
	m.answerJoin(JoinResponse{Err: err, Generation: -1, MemberID: m.id})
	m.answerSync(SyncResponse{Err: err})
	g.remove(m)
}

// afterRemoval goes on after members have gone.
func (s *Shard) afterRemoval(g *group, now time.Time) coordinator.Result {
	switch g.state {
	case Stable, CompletingRebalance:
		return s.maybeRebalance(g, now)
	case PreparingRebalance:
		return s.maybeCompleteJoin(g, now)
	}
	return coordinator.Result{}
}
