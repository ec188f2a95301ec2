package group

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/leatlog/leat/broker/internal/coordinator"
)

// ConsumerHeartbeatRequest is a ConsumerGroupHeartbeat request. What is nil has not
// changed since the member said it last.
type ConsumerHeartbeatRequest struct {
	GroupID, MemberID      string
	MemberEpoch            int32
	InstanceID, RackID     *string
	ClientID, ClientHost   string
	RebalanceTimeoutMillis int32 // -1 when it has not changed
	SubscribedTopics       []string
	SubscribedRegex        *string
	ServerAssignor         *string
	Owned                  *assignment
	// RequireMemberID refuses members without an id of their own (version 1 on).
	RequireMemberID bool
}

// ConsumerHeartbeatResponse is the answer to a ConsumerGroupHeartbeat request.
type ConsumerHeartbeatResponse struct {
	Err         *kerr.Error
	Message     string
	MemberID    string
	MemberEpoch int32
	// Assignment is nil when the member has been told of it.
	Assignment *assignment
}

// refusal is an error with what it is about.
type refusal struct {
	err     *kerr.Error
	message string
}

func refuse(err *kerr.Error, format string, args ...any) *refusal {
	return &refusal{err, fmt.Sprintf(format, args...)}
}

// check refuses what no member may send.
func (r *ConsumerHeartbeatRequest) check(assignors []string) *refusal {
	empty := func(s *string) bool { return s != nil && strings.TrimSpace(*s) == "" }
	switch {
	case r.MemberID == "" && (r.RequireMemberID || r.MemberEpoch != 0):
		return refuse(kerr.InvalidRequest, "the member id is empty")
	case strings.TrimSpace(r.GroupID) == "":
		return refuse(kerr.InvalidRequest, "the group id is empty")
	case empty(r.InstanceID):
		return refuse(kerr.InvalidRequest, "the instance id is empty")
	case empty(r.RackID):
		return refuse(kerr.InvalidRequest, "the rack id is empty")
	case r.MemberEpoch < leaveStaticEpoch:
		return refuse(kerr.InvalidRequest, "member epoch %d is none", r.MemberEpoch)
	case r.MemberEpoch == 0 && r.RebalanceTimeoutMillis == -1:
		return refuse(kerr.InvalidRequest, "a member that joins must tell its rebalance timeout")
	case r.MemberEpoch == 0 && (r.Owned == nil || len(*r.Owned) > 0):
		return refuse(kerr.InvalidRequest, "a member that joins must have no partitions and say so")
	case r.MemberEpoch == 0 && len(r.SubscribedTopics) == 0 && (r.SubscribedRegex == nil || *r.SubscribedRegex == "") && r.SubscribedTopics == nil:
		return refuse(kerr.InvalidRequest, "a member that joins must subscribe to topics")
	case r.ServerAssignor != nil && !slices.Contains(assignors, *r.ServerAssignor):
		return refuse(kerr.UnsupportedAssignor, "assignor %q is not one of %s", *r.ServerAssignor, strings.Join(assignors, ", "))
	}
	return nil
}

// ConsumerHeartbeat handles ConsumerGroupHeartbeat (KIP-848).
func (s *Shard) ConsumerHeartbeat(r *ConsumerHeartbeatRequest, now time.Time, respond func(ConsumerHeartbeatResponse)) coordinator.Result {
	fail := func(f *refusal) coordinator.Result {
		respond(ConsumerHeartbeatResponse{Err: f.err, Message: f.message})
		return coordinator.Result{}
	}
	if f := r.check(s.cfg.ConsumerAssignors); f != nil {
		return fail(f)
	}
	var result coordinator.Result
	var answer ConsumerHeartbeatResponse
	var f *refusal
	if r.MemberEpoch < 0 {
		result, answer, f = s.consumerLeave(r, now)
	} else {
		result, answer, f = s.consumerBeat(r, now)
	}
	if f != nil {
		return fail(f)
	}
	done := result.Done
	return coordinator.Result{Records: result.Records, Done: func(err error) coordinator.Result {
		if done != nil {
			done(err)
		}
		if err != nil {
			answer = ConsumerHeartbeatResponse{Err: errorOf(err)}
		}
		respond(answer)
		return coordinator.Result{}
	}}
}

// consumerEdit begins an edit of the group of a heartbeat; with create it is made if there
// is none. A classic group without members gives way, one with members may be upgraded.
func (s *Shard) consumerEdit(groupID string, create bool, now time.Time) (*edit, *refusal) {
	g := s.groups[groupID]
	switch {
	case g != nil && g.consumer != nil:
		return s.edit(g, now), nil
	case !create:
		return nil, refuse(kerr.GroupIDNotFound, "there is no consumer group %s", groupID)
	case g == nil:
		return s.edit(newGroup(groupID), now), nil
	case len(g.members) > 0:
		return s.upgrade(g, now)
	}
	e := s.edit(g, now)
	if g.generation > 0 || g.protocolType != "" {
		e.add(coordinator.Record{Key: groupKey(groupID)})
	}
	return e, nil
}

// consumerBeat handles the heartbeat of a member that joins or is there.
func (s *Shard) consumerBeat(r *ConsumerHeartbeatRequest, now time.Time) (coordinator.Result, ConsumerHeartbeatResponse, *refusal) {
	var none ConsumerHeartbeatResponse
	var nothing coordinator.Result
	joining := r.MemberEpoch == 0
	e, f := s.consumerEdit(r.GroupID, joining, now)
	if f != nil {
		return nothing, none, f
	}
	id := r.MemberID
	if _, known := e.members[id]; !known && len(e.members) >= s.cfg.ConsumerMaxSize {
		return nothing, none, refuse(kerr.GroupMaxSizeReached, "group %s has its most members, %d", r.GroupID, s.cfg.ConsumerMaxSize)
	}
	if id == "" {
		id = s.cfg.NewID()
	}
	before, f := e.sender(r, id)
	if f != nil {
		return nothing, none, f
	}
	updated, f := before.with(r)
	if f != nil {
		return nothing, none, f
	}
	bump := e.setMetadata(updated) || e.epoch == 0
	e.refresh(bump)
	e.assign()
	updated = e.reconcile(updated, r.Owned)
	s.consumerHeard(e.group, id, now)
	answer := ConsumerHeartbeatResponse{MemberID: id, MemberEpoch: updated.epoch}
	full := r.RebalanceTimeoutMillis != -1 && (r.SubscribedTopics != nil || r.SubscribedRegex != nil) && r.Owned != nil
	if joining || full || !updated.assigned.equal(before.assigned) {
		answer.Assignment = &updated.assigned
	}
	return coordinator.Result{Records: e.records}, answer, nil
}

// sender returns the member that sent a heartbeat as it is, or a new one. A static member
// that is back takes the place of the one that left.
func (e *edit) sender(r *ConsumerHeartbeatRequest, id string) (*consumerMember, *refusal) {
	joining := r.MemberEpoch == 0
	if r.InstanceID == nil {
		m := e.members[id]
		if m == nil && joining {
			return &consumerMember{id: id}, nil
		}
		return m, e.checkEpoch(m, r)
	}
	held := e.staticMember(*r.InstanceID)
	switch {
	case held == nil && joining:
		return &consumerMember{id: id}, nil
	case held == nil:
		return nil, refuse(kerr.UnknownMemberID, "no member has the instance id %s", *r.InstanceID)
	case !joining && held.id != id:
		return nil, refuse(kerr.FencedInstanceID, "another member has the instance id %s", *r.InstanceID)
	case !joining:
		return held, e.checkEpoch(held, r)
	case held.epoch != leaveStaticEpoch && held.classic == nil:
		return nil, refuse(kerr.UnreleasedInstanceID, "the member with the instance id %s has not left", *r.InstanceID)
	}
	m := *held
	m.id, m.epoch, m.previousEpoch = id, 0, 0
	e.replace(held, &m)
	return &m, nil
}

func (e *edit) staticMember(instanceID string) *consumerMember {
	if c := e.group.consumer; c != nil {
		if id, ok := c.static[instanceID]; ok {
			return e.members[id]
		}
		return nil
	}
	for _, m := range e.members { // of a classic group
		if m.instanceID != nil && *m.instanceID == instanceID {
			return m
		}
	}
	return nil
}

// checkEpoch refuses a member that is not in its epoch. One may be an epoch behind,
// when the answer that told it was lost.
func (e *edit) checkEpoch(m *consumerMember, r *ConsumerHeartbeatRequest) *refusal {
	switch {
	case m == nil:
		return refuse(kerr.UnknownMemberID, "member %s is not in the group", r.MemberID)
	case r.MemberEpoch > m.epoch:
		return refuse(kerr.FencedMemberEpoch, "member epoch %d is newer than the member's, %d", r.MemberEpoch, m.epoch)
	case r.MemberEpoch < m.epoch && (r.MemberEpoch != m.previousEpoch || r.Owned == nil || !r.Owned.subsetOf(m.assigned)):
		return refuse(kerr.FencedMemberEpoch, "member epoch %d is older than the member's, %d", r.MemberEpoch, m.epoch)
	}
	return nil
}

// with returns the member as its heartbeat wants it.
func (m *consumerMember) with(r *ConsumerHeartbeatRequest) (*consumerMember, *refusal) {
	next := *m
	next.clientID, next.clientHost, next.classic = r.ClientID, r.ClientHost, nil
	if r.InstanceID != nil {
		next.instanceID = r.InstanceID
	}
	if r.RackID != nil {
		next.rackID = r.RackID
	}
	if r.RebalanceTimeoutMillis != -1 {
		next.rebalanceTimeout = time.Duration(r.RebalanceTimeoutMillis) * time.Millisecond
	}
	if r.ServerAssignor != nil {
		next.assignor = r.ServerAssignor
	}
	if r.SubscribedTopics != nil {
		next.topics = slices.Compact(slices.Sorted(slices.Values(r.SubscribedTopics)))
	}
	if r.SubscribedRegex != nil && *r.SubscribedRegex != m.regex {
		next.regex = *r.SubscribedRegex
		if _, err := compileRegex(next.regex); err != nil {
			return nil, refuse(kerr.InvalidRegularExpression, "regular expression %q: %v", next.regex, err)
		}
	}
	return &next, nil
}

// refuseStaticLeave refuses a member that is not static and leaves as if it were.
func refuseStaticLeave() *refusal {
	return refuse(kerr.InvalidRequest, "a member that leaves with epoch %d must have an instance id", leaveStaticEpoch)
}

// consumerLeave handles the heartbeat of a member that leaves. A static one need not
// repeat its instance id, though Kafka wants it: franz-go does not (1.22), and on
// Kafka its place is taken until its session ends, even for itself.
func (s *Shard) consumerLeave(r *ConsumerHeartbeatRequest, now time.Time) (coordinator.Result, ConsumerHeartbeatResponse, *refusal) {
	var nothing coordinator.Result
	answer := ConsumerHeartbeatResponse{MemberID: r.MemberID, MemberEpoch: r.MemberEpoch}
	e, f := s.consumerEdit(r.GroupID, false, now)
	if f != nil {
		if r.MemberEpoch == leaveStaticEpoch && r.InstanceID == nil {
			f = refuseStaticLeave()
		}
		return nothing, answer, f
	}
	m := e.members[r.MemberID]
	if r.InstanceID != nil {
		m = e.staticMember(*r.InstanceID)
	}
	switch {
	case r.MemberEpoch == leaveStaticEpoch && r.InstanceID == nil && (m == nil || m.instanceID == nil):
		return nothing, answer, refuseStaticLeave()
	case m == nil:
		return nothing, answer, refuse(kerr.UnknownMemberID, "member %s is not in the group", r.MemberID)
	case m.id != r.MemberID:
		return nothing, answer, refuse(kerr.FencedInstanceID, "another member has the instance id %s", *r.InstanceID)
	case r.MemberEpoch == leaveStaticEpoch:
		away := *m
		away.epoch, away.revoking = leaveStaticEpoch, nil
		e.setAssignment(&away)
		return coordinator.Result{Records: e.records}, answer, nil
	}
	return s.fenceConsumers(e, []string{m.id}), answer, nil
}

// fence removes members; the others share what they had from their next heartbeats on.
func (e *edit) fence(ids ...string) {
	for _, id := range ids {
		e.remove(id)
	}
	e.refresh(true)
}

// consumerHeard notes that a member is alive; a new one is noted when its record is
// replayed.
func (s *Shard) consumerHeard(g *group, id string, now time.Time) {
	if g.consumer == nil {
		return
	}
	if l := g.consumer.alive[id]; l != nil {
		l.expires = now.Add(s.cfg.ConsumerSessionTimeout)
	}
}

// armMember sets the deadlines of a member of which a record was replayed.
func (s *Shard) armMember(g *group, kind int16, id string, now time.Time) {
	c := g.consumer
	m := c.members[id]
	if kind != memberKind && kind != assignmentKind || m == nil {
		return
	}
	l := c.alive[id]
	if l == nil {
		l = &liveness{}
		c.alive[id] = l
	}
	if kind == memberKind {
		l.expires = now.Add(s.sessionOf(m))
		s.sooner(g, l.expires)
		return
	}
	switch {
	case m.epoch == leaveStaticEpoch:
		// It sends no heartbeats, so each new coordinator would wait for a whole session,
		// for ever if coordinators change more often than that. What it left at is known.
		l.revokeBy, l.expires = time.Time{}, m.left.Add(s.sessionOf(m))
		s.sooner(g, l.expires)
	case m.state != memberUnrevoked:
		l.revokeBy = time.Time{}
	case l.revokeBy.IsZero() || l.revokeEpoch != m.epoch:
		l.revokeBy, l.revokeEpoch = now.Add(m.rebalanceTimeout), m.epoch
		s.sooner(g, l.revokeBy)
	}
}

func (s *Shard) sessionOf(m *consumerMember) time.Duration {
	if m.classic != nil {
		return m.classic.sessionTimeout
	}
	return s.cfg.ConsumerSessionTimeout
}

// expireConsumers fences the members whose time is over.
func (s *Shard) expireConsumers(g *group, now time.Time) coordinator.Result {
	c := g.consumer
	due := func(t time.Time) bool { return !t.IsZero() && !t.After(now) }
	var gone []string
	for _, id := range c.sortedIDs() {
		if l := c.alive[id]; l != nil && (due(l.expires) || due(l.revokeBy) || due(l.joinBy) || due(l.syncBy)) {
			gone = append(gone, id)
			delete(c.alive, id)
		}
	}
	if len(gone) == 0 {
		return coordinator.Result{}
	}
	return s.fenceConsumers(s.edit(g, now), gone)
}

// loadedConsumers gives the members of a loaded group their time.
func (s *Shard) loadedConsumers(g *group, now time.Time) {
	for _, id := range g.consumer.sortedIDs() {
		s.armMember(g, memberKind, id, now)
		s.armMember(g, assignmentKind, id, now)
	}
}
