package group

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/coordinator"
	"github.com/leatlog/leat/broker/internal/metadata"
)

// MigrationPolicy says which groups change their protocol while they have members:
// group.consumer.migration.policy.
type MigrationPolicy string

// The policies, by Kafka's names.
const (
	// MigrateBoth is Upgrade and Downgrade.
	MigrateBoth MigrationPolicy = "bidirectional"
	// Upgrade has a classic group become one of the consumer protocol when a member of
	// that protocol joins.
	Upgrade MigrationPolicy = "upgrade"
	// Downgrade has a group of the consumer protocol become a classic one when its last
	// member of that protocol goes and others are left.
	Downgrade MigrationPolicy = "downgrade"
	// NoMigration is neither.
	NoMigration MigrationPolicy = "disabled"
)

// MigrationPolicies are all of them.
func MigrationPolicies() []MigrationPolicy {
	return []MigrationPolicy{MigrateBoth, Upgrade, Downgrade, NoMigration}
}

// memberSubscription is what a member of the classic protocol says under a protocol.
type memberSubscription = kmsg.ConsumerMemberMetadata

// maxEmbedded bounds what is decoded of what members of the classic protocol say to
// one another: it is read with room for what it claims.
const maxEmbedded = 1 << 20

var errEmbedded = errors.New("cannot be read")

func readSubscription(b []byte) (*memberSubscription, error) {
	s := kmsg.NewConsumerMemberMetadata()
	if len(b) > maxEmbedded {
		return nil, errEmbedded
	}
	if err := s.ReadFrom(b); err != nil || s.Version < 0 {
		return nil, fmt.Errorf("subscription: %w", errEmbedded)
	}
	return &s, nil
}

// assignmentByID turns partitions by topic name into an assignment; topics that do not exist
// are left out.
func (e *edit) assignmentByID(owned []kmsg.ConsumerMemberMetadataOwnedPartition) assignment {
	topics := map[metadata.UUID][]int32{}
	for _, t := range owned {
		if id, _, ok := e.topics.Topic(t.Topic); ok {
			topics[id] = append(topics[id], t.Partitions...)
		}
	}
	return assignmentOf(topics)
}

// classicAssignment is an assignment as members of the classic protocol are told it, in the
// version of what the member says.
func (s *Shard) classicAssignment(m *consumerMember, a assignment) []byte {
	out := kmsg.NewConsumerMemberAssignment()
	if said, err := readSubscription(m.classic.protocols[0].Metadata); err == nil {
		out.Version = min(said.Version, 3)
	}
	topics := s.cfg.Topics()
	for _, id := range a.topics() {
		if name, ok := topics.Name(id); ok {
			out.Topics = append(out.Topics, kmsg.ConsumerMemberAssignmentTopic{Topic: name, Partitions: a[id]})
		}
	}
	return out.AppendTo(nil)
}

// upgrade begins an edit that makes a classic group one of the consumer protocol: each
// member stays in its generation with what it was assigned, in the classic protocol
// until it joins by the other. What members told their own assignor would be lost: with
// such data a group is not upgraded.
func (s *Shard) upgrade(g *group, now time.Time) (*edit, *refusal) {
	if p := s.cfg.MigrationPolicy; p != MigrateBoth && p != Upgrade || g.protocolType != "consumer" || len(g.members) > s.cfg.ConsumerMaxSize {
		return nil, refuse(kerr.GroupIDNotFound, "group %s is a classic group and is not upgraded", g.id)
	}
	e := s.edit(g, now)
	e.own()
	e.epoch, e.assignmentEpoch, e.owners = g.generation, g.generation, map[partitionID]string{}
	e.add(coordinator.Record{Key: groupKey(g.id)})
	for _, m := range g.sorted() {
		upgraded, err := e.upgraded(g, m)
		if err != nil {
			return nil, refuse(kerr.GroupIDNotFound, "group %s is not upgraded: member %s: %v", g.id, m.id, err)
		}
		e.members[m.id], e.targets[m.id] = upgraded, upgraded.assigned
	}
	for _, id := range sortedKeys(e.members) {
		e.add(memberRecord(g.id, e.members[id]))
	}
	e.hash = e.hashTopics()
	e.add(epochRecord(g.id, e.epoch, e.hash))
	for _, id := range sortedKeys(e.members) {
		e.add(targetOfRecord(g.id, id, e.targets[id]))
	}
	e.add(targetRecord(g.id, e.epoch))
	for _, id := range sortedKeys(e.members) {
		e.add(assignmentRecord(g.id, e.members[id]))
	}
	return e, nil
}

// upgraded returns a classic member as one of the group in the consumer protocol.
func (e *edit) upgraded(g *group, m *member) (*consumerMember, error) {
	protocol := g.protocol
	if protocol == "" {
		protocol = m.protocols[0].Name
	}
	said, err := readSubscription(m.metadata(protocol))
	if err != nil {
		return nil, err
	}
	var given kmsg.ConsumerMemberAssignment
	if len(m.assignment) > maxEmbedded || len(m.assignment) > 0 && given.ReadFrom(m.assignment) != nil {
		return nil, fmt.Errorf("assignment: %w", errEmbedded)
	}
	if len(said.UserData)+len(given.UserData) > 0 {
		return nil, errors.New("it has data of its own assignor")
	}
	topics := map[metadata.UUID][]int32{}
	for _, t := range given.Topics {
		id, _, ok := e.topics.Topic(t.Topic)
		for _, p := range t.Partitions {
			if _, taken := e.owners[partitionID{id, p}]; ok && !taken {
				topics[id] = append(topics[id], p)
				e.owners[partitionID{id, p}] = m.id
			}
		}
	}
	return &consumerMember{
		id: m.id, instanceID: m.instanceID, rackID: said.Rack, clientID: m.clientID, clientHost: m.clientHost,
		topics: slices.Compact(slices.Sorted(slices.Values(said.Topics))), rebalanceTimeout: m.rebalanceTimeout,
		classic: &classicMember{m.sessionTimeout, m.protocols},
		epoch:   g.generation, previousEpoch: g.generation, assigned: assignmentOf(topics),
	}, nil
}

// fenceConsumers removes members. When all that are left use the classic protocol, the
// group may become a classic one.
func (s *Shard) fenceConsumers(e *edit, ids []string) coordinator.Result {
	if !s.downgrades(e.group.consumer, ids, 0) {
		e.fence(ids...)
		return coordinator.Result{Records: e.records}
	}
	g, c := e.group, e.group.consumer
	e.add(c.tombstones(g.id)...)
	s.becomeClassic(g, ids, e.now)
	e.add(groupRecord(g, e.now))
	result := s.maybeRebalance(g, e.now)
	s.schedule(g)
	e.add(result.Records...)
	return coordinator.Result{Records: e.records, Done: func(err error) coordinator.Result {
		s.undoDowngrade(g, c, err, e.now)
		return coordinator.Result{}
	}}
}

// undoDowngrade makes a group what it was when the records of its downgrade were more than a
// batch takes. Other failures end the shard.
func (s *Shard) undoDowngrade(g *group, c *consumerGroup, err error, now time.Time) {
	if !errors.Is(err, coordinator.ErrTooLarge) {
		return
	}
	*g = group{id: g.id, state: Empty, offsets: g.offsets, unstable: g.unstable, heapAt: g.heapAt, deadline: g.deadline, consumer: c,
		members: map[string]*member{}, static: map[string]string{}, pending: map[string]time.Time{}}
	s.loadedConsumers(g, now)
}

// replaceAndDowngrade has a member of the classic protocol take the place of the static
// member that was the last of the consumer protocol: the group becomes a classic one in
// which it comes back. Nobody else notices.
func (s *Shard) replaceAndDowngrade(g *group, held *consumerMember, r *JoinRequest, now time.Time, respond func(JoinResponse)) coordinator.Result {
	c := g.consumer
	records := c.tombstones(g.id)
	in := *held
	in.classic = &classicMember{sessionTimeout: time.Duration(r.SessionTimeoutMillis) * time.Millisecond, protocols: r.Protocols}
	c.members[held.id] = &in
	s.becomeClassic(g, nil, now)
	c.members[held.id] = held
	records = append(records, groupRecord(g, now))
	result := s.Join(r, now, respond)
	done := result.Done
	return coordinator.Result{Records: append(records, result.Records...), Done: func(err error) coordinator.Result {
		s.undoDowngrade(g, c, err, now)
		if done == nil {
			return coordinator.Result{}
		}
		return done(err)
	}}
}

// downgrades says that the group may become a classic one when some members go and others
// join by the classic protocol: then nobody else is left, but somebody is.
func (s *Shard) downgrades(c *consumerGroup, gone []string, joining int) bool {
	if p := s.cfg.MigrationPolicy; p != MigrateBoth && p != Downgrade {
		return false
	}
	left := joining
	for id, m := range c.members {
		switch leaves := slices.Contains(gone, id); {
		case leaves:
		case m.classic == nil:
			return false
		default:
			left++
		}
	}
	return left > 0 && left <= s.cfg.MaxSize
}

// becomeClassic makes the group a classic one with the members that are not gone, in a
// generation of the group's epoch with what they are to have.
func (s *Shard) becomeClassic(g *group, gone []string, now time.Time) {
	c := g.consumer
	g.consumer = nil
	g.protocolType, g.generation = "consumer", c.epoch
	for _, id := range c.sortedIDs() {
		m := c.members[id]
		if slices.Contains(gone, id) {
			continue
		}
		g.add(&member{
			id: id, instanceID: m.instanceID, clientID: m.clientID, clientHost: m.clientHost, sessionTimeout: m.classic.sessionTimeout,
			rebalanceTimeout: m.rebalanceTimeout, protocols: m.classic.protocols, assignment: s.classicAssignment(m, c.targets[id]),
			expires: now.Add(m.classic.sessionTimeout),
		})
	}
	g.protocol = g.choose()
	g.become(Stable, now)
}
