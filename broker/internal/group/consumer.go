package group

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/leatlog/leat/broker/internal/metadata"
)

// States of a group of the consumer protocol besides Empty and Stable.
const (
	// Assigning says that the target assignment is older than the group.
	Assigning State = "Assigning"
	// Reconciling says that members are on their way to the target assignment.
	Reconciling State = "Reconciling"
)

// Epochs by which a member leaves.
const (
	leaveEpoch       = -1
	leaveStaticEpoch = -2 // a static member that will be back
)

// memberState says where a member is on its way to its target assignment.
type memberState int8

const (
	// memberStable has its target assignment of its epoch.
	memberStable memberState = 0
	// memberUnrevoked has to give partitions back before it gets any.
	memberUnrevoked memberState = 1
	// memberUnreleased waits for partitions that others have to give back.
	memberUnreleased memberState = 2
)

// assignment is a set of partitions by topic; the partitions are sorted, and there is
// no topic without any. It is not changed once it is made.
type assignment map[metadata.UUID][]int32

func (a assignment) equal(b assignment) bool {
	return maps.EqualFunc(a, b, func(x, y []int32) bool { return slices.Equal(x, y) })
}

func (a assignment) has(topic metadata.UUID, partition int32) bool {
	_, ok := slices.BinarySearch(a[topic], partition)
	return ok
}

// topics returns the topics in a fixed order.
func (a assignment) topics() []metadata.UUID {
	return slices.SortedFunc(maps.Keys(a), compareIDs)
}

func compareIDs(a, b metadata.UUID) int { return slices.Compare(a[:], b[:]) }

// subsetOf says that b has all that a has.
func (a assignment) subsetOf(b assignment) bool {
	for topic, partitions := range a {
		for _, p := range partitions {
			if !b.has(topic, p) {
				return false
			}
		}
	}
	return true
}

// split divides a into what b has, too, and the rest.
func (a assignment) split(b assignment) (both, rest assignment) {
	both, rest = assignment{}, assignment{}
	for topic, partitions := range a {
		for _, p := range partitions {
			if b.has(topic, p) {
				both[topic] = append(both[topic], p)
			} else {
				rest[topic] = append(rest[topic], p)
			}
		}
	}
	return both, rest
}

// union returns what is in one of the two; they must not share a partition.
func (a assignment) union(b assignment) assignment {
	all := assignment{}
	for _, from := range []assignment{a, b} {
		for topic, partitions := range from {
			all[topic] = append(slices.Clone(all[topic]), partitions...)
			slices.Sort(all[topic])
		}
	}
	return all
}

// partitionID names a partition by its topic's id.
type partitionID struct {
	topic     metadata.UUID
	partition int32
}

// consumerMember is a member of a group of the consumer protocol as the log has it. It is not
// changed: another takes its place.
type consumerMember struct {
	id                   string
	instanceID, rackID   *string
	clientID, clientHost string
	topics               []string // subscribed by name, sorted
	regex                string   // subscribed by regular expression, empty without one
	rebalanceTimeout     time.Duration
	assignor             *string
	// classic is set while the member speaks the classic protocol.
	classic *classicMember

	epoch, previousEpoch int32
	state                memberState
	assigned             assignment
	revoking             assignment // to be given back
	// left is when the static member left, while it is away: the time of its record.
	left time.Time
}

// classicMember is what is known besides of a member that speaks the classic protocol.
type classicMember struct {
	sessionTimeout time.Duration
	protocols      []Protocol
}

// sameMetadata says that the two differ at most in epoch and assignment.
func (m *consumerMember) sameMetadata(other *consumerMember) bool {
	same := func(a, b *string) bool { return a == b || a != nil && b != nil && *a == *b }
	return same(m.instanceID, other.instanceID) && same(m.rackID, other.rackID) && m.clientID == other.clientID &&
		m.clientHost == other.clientHost && slices.Equal(m.topics, other.topics) && m.regex == other.regex &&
		m.rebalanceTimeout == other.rebalanceTimeout && same(m.assignor, other.assignor) && m.sameClassic(other)
}

func (m *consumerMember) sameClassic(other *consumerMember) bool {
	a, b := m.classic, other.classic
	if a == nil || b == nil {
		return a == b
	}
	return a.sessionTimeout == b.sessionTimeout && (&member{protocols: a.protocols}).sameProtocols(b.protocols)
}

// sameAssignment says that the two are at the same point of the way to the target.
func (m *consumerMember) sameAssignment(other *consumerMember) bool {
	return m.epoch == other.epoch && m.previousEpoch == other.previousEpoch && m.state == other.state &&
		m.assigned.equal(other.assigned) && m.revoking.equal(other.revoking)
}

// liveness is what is not durable of a member.
type liveness struct {
	expires  time.Time // given up unless it is heard of
	revokeBy time.Time // given up unless it has given partitions back, zero for never
	// revokeEpoch is the member's epoch that revokeBy is about.
	revokeEpoch int32
	// joinBy and syncBy are until when a member of the classic protocol has to join or to
	// sync, zero for never.
	joinBy, syncBy time.Time
}

// resolvedRegex is a regular expression and the topics that matched.
type resolvedRegex struct {
	topics    []string // sorted
	version   int64    // of the metadata
	timestamp int64    // ms
}

// consumerGroup is what a group of the consumer protocol (KIP-848) has instead of the
// classic state. All but the last fields changes in Replay only.
type consumerGroup struct {
	epoch           int32
	assignmentEpoch int32
	metadataHash    int64 // of the subscribed topics
	members         map[string]*consumerMember
	static          map[string]string     // instance id to member id
	targets         map[string]assignment // by member id
	regexes         map[string]resolvedRegex
	owners          map[partitionID]string // members that have or give back a partition

	alive map[string]*liveness // by member id
	// checked is the version of the metadata that was looked at last.
	checked int64
}

func newConsumerGroup() *consumerGroup {
	return &consumerGroup{members: map[string]*consumerMember{}, static: map[string]string{}, targets: map[string]assignment{},
		regexes: map[string]resolvedRegex{}, owners: map[partitionID]string{}, alive: map[string]*liveness{}, checked: -1}
}

// state is the group's state.
func (c *consumerGroup) state() State {
	switch {
	case len(c.members) == 0:
		return Empty
	case c.epoch > c.assignmentEpoch:
		return Assigning
	}
	for _, m := range c.members {
		if m.state != memberStable || m.epoch != c.assignmentEpoch {
			return Reconciling
		}
	}
	return Stable
}

// sortedIDs returns the members' ids.
func (c *consumerGroup) sortedIDs() []string { return slices.Sorted(maps.Keys(c.members)) }

// put takes a member over in the place of the one with its id.
func (c *consumerGroup) put(m *consumerMember) {
	c.release(c.members[m.id])
	c.members[m.id] = m
	if m.instanceID != nil {
		c.static[*m.instanceID] = m.id
	}
	for _, a := range []assignment{m.assigned, m.revoking} {
		for topic, partitions := range a {
			for _, p := range partitions {
				c.owners[partitionID{topic, p}] = m.id
			}
		}
	}
}

// release lets go of what a member owns.
func (c *consumerGroup) release(m *consumerMember) {
	if m == nil {
		return
	}
	for _, a := range []assignment{m.assigned, m.revoking} {
		for topic, partitions := range a {
			for _, p := range partitions {
				if id := (partitionID{topic, p}); c.owners[id] == m.id {
					delete(c.owners, id)
				}
			}
		}
	}
}

func (c *consumerGroup) remove(id string) {
	m := c.members[id]
	if m == nil {
		return
	}
	c.release(m)
	delete(c.members, id)
	delete(c.alive, id)
	if m.instanceID != nil && c.static[*m.instanceID] == id {
		delete(c.static, *m.instanceID)
	}
}

// subscribed says that a member reads the topic.
func (c *consumerGroup) subscribed(topic string) bool {
	for _, m := range c.members {
		if _, ok := slices.BinarySearch(m.topics, topic); ok {
			return true
		}
	}
	for _, r := range c.regexes {
		if _, ok := slices.BinarySearch(r.topics, topic); ok {
			return true
		}
	}
	return false
}

// assignorOf returns the assignor that most members want, among equals the first by name; empty when none
// wants any.
func assignorOf(members map[string]*consumerMember) string {
	votes := map[string]int{}
	for _, m := range members {
		if m.assignor != nil && *m.assignor != "" {
			votes[*m.assignor]++
		}
	}
	best := ""
	for _, name := range slices.SortedFunc(maps.Keys(votes), strings.Compare) {
		if best == "" || votes[name] > votes[best] {
			best = name
		}
	}
	return best
}

// nextDeadline returns the earliest time at which something is due, zero for never.
func (c *consumerGroup) nextDeadline() (next time.Time) {
	for _, l := range c.alive {
		for _, t := range []time.Time{l.expires, l.revokeBy, l.joinBy, l.syncBy} {
			if !t.IsZero() && (next.IsZero() || t.Before(next)) {
				next = t
			}
		}
	}
	return next
}
