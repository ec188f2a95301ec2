package group

import (
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kbin"

	"github.com/leatlog/leat/broker/internal/coordinator"
	"github.com/leatlog/leat/broker/internal/metadata"
)

// Kinds of the records of consumer groups in `__consumer_offsets`, the first int16 of
// their keys; the group and what else names the record follow as strings of an int16
// length. A value begins with its version, an int16 of 0, and is in the compact
// encoding of Kafka's flexible versions, a count of tagged fields at the end of each
// structure.
//
//	3  group                       epoch int32, tag 0: hash of the topics int64
//	5  group, member               instance id, rack, client id, client host, topics, regular
//	                               expression, rebalance timeout in ms int32, assignor,
//	                               tag 0: session timeout in ms int32, protocols of the classic protocol
//	6  group                       epoch of the target assignment int32
//	7  group, member               target assignment
//	8  group, member               epoch int32, previous epoch int32, state int8, assigned,
//	                               to be revoked
//	16 group, regular expression   topics, version of the metadata int64, time in ms int64
//
// An assignment is an array of topic id and array of partitions.
const (
	epochKind      = 3
	memberKind     = 5
	targetKind     = 6
	targetOfKind   = 7
	assignmentKind = 8
	regexKind      = 16
)

func consumerKey(kind int16, names ...string) []byte {
	key := binary.BigEndian.AppendUint16(nil, uint16(kind))
	for _, n := range names {
		key = kbin.AppendString(key, n)
	}
	return key
}

// noTags ends a structure without tagged fields.
func noTags(b []byte) []byte { return append(b, 0) }

func epochRecord(groupID string, epoch int32, hash int64) coordinator.Record {
	b := kbin.AppendInt32(kbin.AppendInt16(nil, 0), epoch)
	if hash == 0 {
		b = noTags(b)
	} else {
		b = append(b, 1, 0, 8)
		b = kbin.AppendInt64(b, hash)
	}
	return coordinator.Record{Key: consumerKey(epochKind, groupID), Value: b}
}

func memberRecord(groupID string, m *consumerMember) coordinator.Record {
	b := kbin.AppendInt16(nil, 0)
	b = kbin.AppendCompactNullableString(b, m.instanceID)
	b = kbin.AppendCompactNullableString(b, m.rackID)
	b = kbin.AppendCompactString(b, m.clientID)
	b = kbin.AppendCompactString(b, m.clientHost)
	b = appendStrings(b, m.topics)
	b = kbin.AppendCompactNullableString(b, &m.regex)
	b = kbin.AppendInt32(b, int32(m.rebalanceTimeout.Milliseconds()))
	b = kbin.AppendCompactNullableString(b, m.assignor)
	if m.classic == nil {
		return coordinator.Record{Key: consumerKey(memberKind, groupID, m.id), Value: noTags(b)}
	}
	classic := []byte{1} // not null
	classic = kbin.AppendInt32(classic, int32(m.classic.sessionTimeout.Milliseconds()))
	classic = kbin.AppendCompactArrayLen(classic, len(m.classic.protocols))
	for _, p := range m.classic.protocols {
		classic = kbin.AppendCompactString(classic, p.Name)
		classic = noTags(kbin.AppendCompactBytes(classic, p.Metadata))
	}
	classic = noTags(classic)
	b = kbin.AppendUvarint(append(b, 1, 0), uint32(len(classic)))
	return coordinator.Record{Key: consumerKey(memberKind, groupID, m.id), Value: append(b, classic...)}
}

func targetRecord(groupID string, epoch int32) coordinator.Record {
	return coordinator.Record{Key: consumerKey(targetKind, groupID), Value: noTags(kbin.AppendInt32(kbin.AppendInt16(nil, 0), epoch))}
}

func targetOfRecord(groupID, memberID string, target assignment) coordinator.Record {
	return coordinator.Record{Key: consumerKey(targetOfKind, groupID, memberID),
		Value: noTags(appendAssignment(kbin.AppendInt16(nil, 0), target))}
}

func assignmentRecord(groupID string, m *consumerMember) coordinator.Record {
	b := kbin.AppendInt32(kbin.AppendInt16(nil, 0), m.epoch)
	b = kbin.AppendInt8(kbin.AppendInt32(b, m.previousEpoch), int8(m.state))
	b = noTags(appendAssignment(appendAssignment(b, m.assigned), m.revoking))
	return coordinator.Record{Key: consumerKey(assignmentKind, groupID, m.id), Value: b}
}

func regexRecord(groupID, regex string, r resolvedRegex) coordinator.Record {
	b := appendStrings(kbin.AppendInt16(nil, 0), r.topics)
	b = noTags(kbin.AppendInt64(kbin.AppendInt64(b, r.version), r.timestamp))
	return coordinator.Record{Key: consumerKey(regexKind, groupID, regex), Value: b}
}

func tombstone(kind int16, names ...string) coordinator.Record {
	return coordinator.Record{Key: consumerKey(kind, names...)}
}

func appendStrings(b []byte, list []string) []byte {
	b = kbin.AppendCompactArrayLen(b, len(list))
	for _, s := range list {
		b = kbin.AppendCompactString(b, s)
	}
	return b
}

func appendAssignment(b []byte, a assignment) []byte {
	b = kbin.AppendCompactArrayLen(b, len(a))
	for _, topic := range a.topics() {
		b = append(b, topic[:]...)
		b = kbin.AppendCompactArrayLen(b, len(a[topic]))
		for _, p := range a[topic] {
			b = kbin.AppendInt32(b, p)
		}
		b = noTags(b)
	}
	return b
}

// recordReader reads what the functions above wrote, and what later versions add in tags.
type recordReader struct{ kbin.Reader }

// count reads the length of an array whose elements take size bytes or more.
func (r *recordReader) count(size int) int {
	n := int(r.CompactArrayLen())
	if n < 0 || n > len(r.Src)/size {
		if n > 0 {
			r.Src = nil
			r.Int8() // which is not there
		}
		return 0
	}
	return n
}

func (r *recordReader) strings() []string {
	list := make([]string, r.count(1))
	for i := range list {
		list[i] = r.CompactString()
	}
	return list
}

// tags reads tagged fields; each is given the bytes of those it knows.
func (r *recordReader) tags(known func(tag uint32, value []byte)) {
	for n := r.Uvarint(); n > 0 && r.Ok(); n-- {
		tag, size := r.Uvarint(), int(r.Uvarint())
		value := r.Span(size)
		if known != nil && r.Ok() {
			known(tag, value)
		}
	}
}

func (r *recordReader) assignment() assignment {
	topics := map[metadata.UUID][]int32{}
	for range r.count(18) {
		id := metadata.UUID(r.Uuid())
		partitions := make([]int32, r.count(4))
		for i := range partitions {
			partitions[i] = r.Int32()
		}
		r.tags(nil)
		topics[id] = partitions
	}
	return assignmentOf(topics)
}

// replayConsumer replays a record of a consumer group. at is when it was appended, in ms.
func (s *Shard) replayConsumer(kind int16, r coordinator.Record, at int64) error {
	key := recordReader{kbin.Reader{Src: r.Key[2:]}}
	groupID, name := key.String(), ""
	if kind != epochKind && kind != targetKind {
		name = key.String()
	}
	if err := key.Complete(); err != nil {
		return fmt.Errorf("%w: key of kind %d: %w", ErrBadRecord, kind, err)
	}
	if r.Value == nil {
		s.replayConsumerTombstone(kind, groupID, name)
		return nil
	}
	value := recordReader{kbin.Reader{Src: r.Value}}
	if version := value.Int16(); version != 0 {
		return fmt.Errorf("%w: value of kind %d, group %q: version %d", ErrBadRecord, kind, groupID, version)
	}
	apply := value.consumer(kind, name)
	if err := value.Complete(); err != nil {
		return fmt.Errorf("%w: value of kind %d, group %q: %w", ErrBadRecord, kind, groupID, err)
	}
	g := s.group(groupID)
	if g.consumer == nil {
		g.becomeConsumer()
	}
	apply(g.consumer)
	if m := g.consumer.members[name]; kind == assignmentKind && m != nil && m.epoch == leaveStaticEpoch {
		away := *m
		away.left = time.UnixMilli(at)
		g.consumer.put(&away)
	}
	if s.live {
		s.armMember(g, kind, name, time.UnixMilli(at))
	}
	return nil
}

// consumer reads the value of a record and returns what it does to the group.
func (r *recordReader) consumer(kind int16, name string) func(*consumerGroup) {
	switch kind {
	case epochKind:
		epoch, hash := r.Int32(), int64(0)
		r.tags(func(tag uint32, value []byte) {
			if tag == 0 && len(value) == 8 {
				hash = int64(binary.BigEndian.Uint64(value))
			}
		})
		return func(c *consumerGroup) { c.epoch, c.metadataHash = epoch, hash }
	case memberKind:
		m := r.member(name)
		return func(c *consumerGroup) {
			if old := c.members[name]; old != nil {
				m.epoch, m.previousEpoch, m.state, m.assigned, m.revoking = old.epoch, old.previousEpoch, old.state, old.assigned, old.revoking
				m.left = old.left
			}
			c.put(m)
		}
	case targetKind:
		epoch := r.Int32()
		r.tags(nil)
		return func(c *consumerGroup) { c.assignmentEpoch = epoch }
	case targetOfKind:
		target := r.assignment()
		r.tags(nil)
		return func(c *consumerGroup) { c.targets[name] = target }
	case assignmentKind:
		epoch, previous, state, assigned, revoking := r.Int32(), r.Int32(), r.Int8(), r.assignment(), r.assignment()
		r.tags(nil)
		return func(c *consumerGroup) {
			next := consumerMember{id: name}
			if old := c.members[name]; old != nil {
				next = *old
			}
			next.epoch, next.previousEpoch, next.state, next.assigned, next.revoking = epoch, previous, memberState(state), assigned, revoking
			c.put(&next)
		}
	}
	resolved := resolvedRegex{topics: r.strings(), version: r.Int64(), timestamp: r.Int64()}
	r.tags(nil)
	slices.Sort(resolved.topics)
	return func(c *consumerGroup) { c.regexes[name] = resolved }
}

func (r *recordReader) member(id string) *consumerMember {
	m := &consumerMember{id: id, instanceID: r.CompactNullableString(), rackID: r.CompactNullableString(),
		clientID: r.CompactString(), clientHost: r.CompactString(), topics: r.strings()}
	if regex := r.CompactNullableString(); regex != nil {
		m.regex = *regex
	}
	m.rebalanceTimeout = time.Duration(r.Int32()) * time.Millisecond
	m.assignor = r.CompactNullableString()
	slices.Sort(m.topics)
	r.tags(func(tag uint32, value []byte) {
		if tag != 0 || len(value) == 0 || value[0] == 0xff {
			return
		}
		c := recordReader{kbin.Reader{Src: value[1:]}}
		m.classic = &classicMember{sessionTimeout: time.Duration(c.Int32()) * time.Millisecond}
		for range c.count(3) {
			p := Protocol{Name: c.CompactString(), Metadata: slices.Clone(c.CompactBytes())}
			c.tags(nil)
			m.classic.protocols = append(m.classic.protocols, p)
		}
		c.tags(nil)
		if c.Complete() != nil {
			r.Src = nil
			r.Int8() // which fails the record
		}
	})
	return m
}

// replayConsumerTombstone removes what a record had set.
func (s *Shard) replayConsumerTombstone(kind int16, groupID, name string) {
	g := s.groups[groupID]
	if g == nil || g.consumer == nil {
		return
	}
	c := g.consumer
	switch kind {
	case epochKind:
		g.consumer = nil
		s.forget(g)
	case memberKind:
		c.remove(name)
	case targetKind:
		c.assignmentEpoch = 0
	case targetOfKind:
		delete(c.targets, name)
	case assignmentKind:
		if m := c.members[name]; m != nil {
			gone := *m
			gone.epoch, gone.previousEpoch, gone.state, gone.assigned, gone.revoking = leaveEpoch, leaveEpoch, memberStable, nil, nil
			c.put(&gone)
		}
	case regexKind:
		delete(c.regexes, name)
	}
}

// tombstones are the records that remove the group, its offsets excepted.
func (c *consumerGroup) tombstones(groupID string) (records []coordinator.Record) {
	for _, id := range c.sortedIDs() {
		records = append(records, leaveRecords(groupID, id)...)
	}
	for _, regex := range sortedKeys(c.regexes) {
		records = append(records, tombstone(regexKind, groupID, regex))
	}
	return append(records, tombstone(targetKind, groupID), tombstone(epochKind, groupID))
}

// leaveRecords are the records that remove a member.
func leaveRecords(groupID, memberID string) []coordinator.Record {
	return []coordinator.Record{tombstone(assignmentKind, groupID, memberID), tombstone(targetOfKind, groupID, memberID),
		tombstone(memberKind, groupID, memberID)}
}
