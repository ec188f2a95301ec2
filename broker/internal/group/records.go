package group

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/coordinator"
	"github.com/leatlog/leat/broker/internal/wire"
)

// ErrBadRecord says that a record of `__consumer_offsets` cannot be read.
var ErrBadRecord = errors.New("group: record cannot be decoded")

// Versions of the records written, those of Kafka 3 and 4.0, which every Kafka
// reads. The version is the first int16 of key and value.
const (
	offsetKeyVersion   = 1
	offsetValueVersion = 3
	groupKeyVersion    = 2
	groupValueVersion  = 3
)

func groupKey(id string) []byte {
	key := kmsg.GroupMetadataKey{Version: groupKeyVersion, Group: id}
	return key.AppendTo(nil)
}

// groupRecord is the record of the group as it is.
func groupRecord(g *group, now time.Time) coordinator.Record {
	assignments := make(map[string][]byte, len(g.members))
	for _, m := range g.members {
		assignments[m.id] = m.assignment
	}
	return groupRecordWith(g, assignments, now)
}

// groupRecordWith is the record of the group with the assignments given.
func groupRecordWith(g *group, assignments map[string][]byte, now time.Time) coordinator.Record {
	value := kmsg.NewGroupMetadataValue()
	value.Version = groupValueVersion
	value.ProtocolType = g.protocolType
	value.Generation = g.generation
	if g.protocol != "" {
		value.Protocol = &g.protocol
	}
	if g.leader != "" {
		value.Leader = &g.leader
	}
	value.CurrentStateTimestamp = g.stateSince
	for _, m := range g.sorted() {
		one := kmsg.NewGroupMetadataValueMember()
		one.MemberID, one.InstanceID = m.id, m.instanceID
		one.ClientID, one.ClientHost = m.clientID, m.clientHost
		one.RebalanceTimeoutMillis = int32(m.rebalanceTimeout.Milliseconds())
		one.SessionTimeoutMillis = int32(m.sessionTimeout.Milliseconds())
		one.Subscription = m.metadata(g.protocol)
		one.Assignment = assignments[m.id]
		value.Members = append(value.Members, one)
	}
	return coordinator.Record{Key: groupKey(g.id), Value: value.AppendTo(nil)}
}

func offsetKey(groupID string, p TopicPartition) []byte {
	key := kmsg.OffsetCommitKey{Version: offsetKeyVersion, Group: groupID, Topic: p.Topic, Partition: p.Partition}
	return key.AppendTo(nil)
}

func offsetRecord(groupID string, p TopicPartition, o Offset) coordinator.Record {
	value := kmsg.NewOffsetCommitValue()
	value.Version = offsetValueVersion
	value.Offset, value.LeaderEpoch, value.Metadata = o.Offset, o.LeaderEpoch, o.Metadata
	value.CommitTimestamp = o.CommitTimestamp
	if o.ExpireTimestamp >= 0 { // only version 1 has it, and no leader epoch
		value.Version, value.ExpireTimestamp = 1, o.ExpireTimestamp
	}
	return coordinator.Record{Key: offsetKey(groupID, p), Value: value.AppendTo(nil)}
}

// Replay implements coordinator.Shard. A live shard's own group records are
// skipped: the group that made them knows more than they say.
func (s *Shard) Replay(r coordinator.Record, timestamp int64) error {
	if len(r.Key) < 2 {
		return fmt.Errorf("%w: a key of %d bytes", ErrBadRecord, len(r.Key))
	}
	switch version := int16(binary.BigEndian.Uint16(r.Key)); version {
	case 0, offsetKeyVersion:
		return s.replayOffset(r)
	case groupKeyVersion:
		return s.replayGroup(r)
	case epochKind, memberKind, targetKind, targetOfKind, assignmentKind, regexKind:
		return s.replayConsumer(version, r, timestamp)
	}
	return nil // a kind that a later version writes
}

func isOffset(key []byte) bool {
	return len(key) >= 2 && binary.BigEndian.Uint16(key) <= offsetKeyVersion
}

func (s *Shard) replayOffset(r coordinator.Record) error {
	groupID, p, o, err := readOffset(r)
	if err != nil {
		return err
	}
	if o == nil {
		if g := s.groups[groupID]; g != nil {
			delete(g.offsets, p)
			s.dropPending(g, p)
			s.forget(g)
		}
		return nil
	}
	s.offsetsReplayed++
	o.order = s.offsetsReplayed
	s.group(groupID).offsets[p] = *o
	return nil
}

// readOffset reads the record of an offset; a tombstone has none.
func readOffset(r coordinator.Record) (groupID string, p TopicPartition, offset *Offset, err error) {
	var key kmsg.OffsetCommitKey
	if err := key.ReadFrom(r.Key); err != nil {
		return "", p, nil, fmt.Errorf("%w: key of an offset: %w", ErrBadRecord, err)
	}
	groupID, p = key.Group, TopicPartition{key.Topic, key.Partition}
	if r.Value == nil {
		return groupID, p, nil, nil
	}
	value := kmsg.NewOffsetCommitValue()
	if err := wire.OffsetCommitValue.Check(r.Value); err != nil {
		return "", p, nil, fmt.Errorf("%w: offset of group %q: %w", ErrBadRecord, groupID, err)
	}
	if err := value.ReadFrom(r.Value); err != nil {
		return "", p, nil, fmt.Errorf("%w: offset of group %q: %w", ErrBadRecord, groupID, err)
	}
	o := Offset{Offset: value.Offset, LeaderEpoch: value.LeaderEpoch, Metadata: value.Metadata, CommitTimestamp: value.CommitTimestamp, ExpireTimestamp: -1}
	if value.Version < 3 {
		o.LeaderEpoch = -1
	}
	if value.Version == 1 {
		o.ExpireTimestamp = value.ExpireTimestamp
	}
	return groupID, p, &o, nil
}

func (s *Shard) replayGroup(r coordinator.Record) error {
	var key kmsg.GroupMetadataKey
	if err := key.ReadFrom(r.Key); err != nil {
		return fmt.Errorf("%w: key of a group: %w", ErrBadRecord, err)
	}
	if r.Value == nil {
		if g := s.groups[key.Group]; g != nil && g.consumer != nil {
			return nil // an older tombstone, of the classic group that it was
		} else if g != nil && len(g.members) == 0 {
			g.generation, g.protocolType = 0, ""
			s.forget(g)
		} else if g != nil && !s.live {
			empty := newGroup(g.id)
			empty.offsets, empty.unstable = g.offsets, g.unstable
			s.groups[g.id] = empty
			s.forget(empty)
		}
		return nil
	}
	if s.live {
		return nil
	}
	value := kmsg.NewGroupMetadataValue()
	if err := wire.GroupMetadataValue.Check(r.Value); err != nil {
		return fmt.Errorf("%w: group %q: %w", ErrBadRecord, key.Group, err)
	}
	if err := value.ReadFrom(r.Value); err != nil {
		return fmt.Errorf("%w: group %q: %w", ErrBadRecord, key.Group, err)
	}
	s.loadGroup(s.group(key.Group), &value)
	return nil
}

// loadGroup makes the group what its record says.
func (s *Shard) loadGroup(g *group, value *kmsg.GroupMetadataValue) {
	clear(g.members)
	clear(g.static)
	g.protocolType, g.generation, g.stateSince = value.ProtocolType, value.Generation, value.CurrentStateTimestamp
	g.protocol, g.leader, g.state = "", "", Empty
	if value.Protocol != nil {
		g.protocol = *value.Protocol
	}
	for i := range value.Members {
		from := &value.Members[i]
		m := &member{
			id: from.MemberID, instanceID: from.InstanceID, clientID: from.ClientID, clientHost: from.ClientHost,
			sessionTimeout:   time.Duration(from.SessionTimeoutMillis) * time.Millisecond,
			rebalanceTimeout: time.Duration(from.RebalanceTimeoutMillis) * time.Millisecond,
			protocols:        []Protocol{{g.protocol, append([]byte(nil), from.Subscription...)}},
			assignment:       append([]byte(nil), from.Assignment...),
		}
		if value.Version < 1 {
			m.rebalanceTimeout = m.sessionTimeout
		}
		g.add(m)
		g.state = Stable
	}
	if value.Leader != nil && g.members[*value.Leader] != nil {
		g.leader = *value.Leader
	}
}

// forget drops a group of which nothing is left.
func (s *Shard) forget(g *group) {
	if g.consumer == nil && g.state == Empty && len(g.members) == 0 && len(g.pending) == 0 && len(g.offsets) == 0 && len(g.unstable) == 0 && g.generation == 0 && s.groups[g.id] == g {
		g.state = Dead
		delete(s.groups, g.id)
	}
}
