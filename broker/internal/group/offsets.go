package group

import (
	"encoding/binary"
	"errors"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/leatlog/leat/broker/internal/coordinator"
)

// Commit handles OffsetCommit. respond gets one error for the whole request, or
// nil and one for each offset.
func (s *Shard) Commit(r *CommitRequest, now time.Time, respond func(*kerr.Error, []*kerr.Error)) coordinator.Result {
	var g string
	var err *kerr.Error
	if r.Transaction != nil {
		g, err = s.transactionalCommitter(r)
	} else {
		g, err = s.committer(r, now)
	}
	if err != nil {
		respond(err, nil)
		return coordinator.Result{}
	}
	errs := make([]*kerr.Error, len(r.Offsets))
	var records []coordinator.Record
	for i, o := range r.Offsets {
		if !s.exists(o.Topic) {
			errs[i] = kerr.UnknownTopicOrPartition
			continue
		}
		if len(o.Metadata) > s.cfg.OffsetMetadataMaxSize {
			errs[i] = kerr.OffsetMetadataTooLarge
			continue
		}
		o.CommitTimestamp, o.ExpireTimestamp = now.UnixMilli(), -1
		if r.RetentionMillis >= 0 {
			o.ExpireTimestamp = o.CommitTimestamp + r.RetentionMillis
		}
		records = append(records, offsetRecord(g, o.TopicPartition, o.Offset))
	}
	return coordinator.Result{Records: records, Transaction: r.Transaction, Done: func(err error) coordinator.Result {
		switch {
		case errors.Is(err, coordinator.ErrTooLarge):
			respond(kerr.InvalidCommitOffsetSize, nil)
		case err != nil:
			respond(errorOf(err), nil)
		default:
			respond(nil, errs)
		}
		return coordinator.Result{}
	}}
}

// committer checks that the request may commit and returns the group's id. A
// commit without member and generation is that of a consumer which manages its
// partitions itself; it may commit while nobody else is in the group.
func (s *Shard) committer(r *CommitRequest, now time.Time) (string, *kerr.Error) {
	g := s.groups[r.GroupID]
	if g == nil {
		if r.Generation >= 0 {
			return "", kerr.GroupIDNotFound
		}
		return r.GroupID, nil
	}
	if g.consumer != nil {
		return g.id, g.consumer.validateCommit(r)
	}
	if r.Generation < 0 && g.state == Empty {
		return g.id, nil
	}
	if r.Generation < 0 && r.MemberID == "" && r.InstanceID == nil {
		return "", kerr.UnknownMemberID
	}
	m, err := g.validate(r.MemberID, r.InstanceID, r.Generation)
	if err != nil {
		return "", err
	}
	if g.state == CompletingRebalance {
		return "", kerr.RebalanceInProgress
	}
	m.heard(now)
	return g.id, nil
}

// FetchRequest is an OffsetFetch request for one group.
type FetchRequest struct {
	GroupID string
	// Partitions are those asked for, unless All asks for what the group committed.
	Partitions []TopicPartition
	All        bool
	// RequireStable refuses to tell of a partition for which an open transaction has an
	// offset (KIP-447).
	RequireStable bool
	// MemberID and MemberEpoch are checked if the member says them: in groups of the
	// consumer protocol only (nil and below 0 otherwise).
	MemberID    *string
	MemberEpoch int32
}

// Fetch handles OffsetFetch. The answer waits until all that it tells is committed: a
// client must never see an offset that a crash takes back.
func (s *Shard) Fetch(r *FetchRequest, respond func(*kerr.Error, []FetchedOffset)) coordinator.Result {
	if g := s.groups[r.GroupID]; g != nil && g.consumer != nil && (r.MemberID != nil || r.MemberEpoch >= 0) {
		if err := g.consumer.validateMember(orEmpty(r.MemberID), r.MemberEpoch); err != nil {
			respond(err, nil)
			return coordinator.Result{}
		}
	}
	list := s.fetch(r.GroupID, r.Partitions, r.All)
	offsets := make([]FetchedOffset, len(list))
	g := s.groups[r.GroupID]
	for i, o := range list {
		offsets[i].PartitionOffset = o
		if r.RequireStable && g != nil && g.unstable[o.TopicPartition] > 0 {
			offsets[i] = FetchedOffset{PartitionOffset{o.TopicPartition, Offset{Offset: -1, LeaderEpoch: -1}}, kerr.UnstableOffsetCommit}
		}
	}
	return coordinator.Result{Done: func(err error) coordinator.Result {
		if err != nil {
			respond(errorOf(err), nil)
		} else {
			respond(nil, offsets)
		}
		return coordinator.Result{}
	}}
}

// fetch returns what a group committed for the partitions asked, or all of it
// when all is set, in the order of topics and partitions. A partition without a
// commit has offset -1.
func (s *Shard) fetch(groupID string, partitions []TopicPartition, all bool) []PartitionOffset {
	g := s.groups[groupID]
	if g == nil {
		g = newGroup(groupID)
	}
	if all {
		partitions = make([]TopicPartition, 0, len(g.offsets))
		for p := range g.offsets {
			partitions = append(partitions, p)
		}
		slices.SortFunc(partitions, comparePartitions)
	}
	list := make([]PartitionOffset, 0, len(partitions))
	for _, p := range partitions {
		o, ok := g.offsets[p]
		if !ok {
			o = Offset{Offset: -1, LeaderEpoch: -1}
		}
		list = append(list, PartitionOffset{p, o})
	}
	return list
}

func comparePartitions(a, b TopicPartition) int {
	if c := strings.Compare(a.Topic, b.Topic); c != 0 {
		return c
	}
	return int(a.Partition) - int(b.Partition)
}

// DeleteOffsets handles OffsetDelete: offsets of topics that the group is
// subscribed to stay.
func (s *Shard) DeleteOffsets(groupID string, partitions []TopicPartition, respond func(*kerr.Error, []*kerr.Error)) coordinator.Result {
	g := s.groups[groupID]
	if g == nil {
		respond(kerr.GroupIDNotFound, nil)
		return coordinator.Result{}
	}
	subscribed := func(string) bool { return false }
	switch {
	case g.consumer != nil:
		subscribed = g.consumer.subscribed
	case g.state != Empty:
		if g.protocolType != "consumer" {
			respond(kerr.NonEmptyGroup, nil)
			return coordinator.Result{}
		}
		topics := g.subscriptions()
		subscribed = func(topic string) bool { return topics[topic] }
	}
	errs := make([]*kerr.Error, len(partitions))
	var records []coordinator.Record
	for i, p := range partitions {
		if subscribed(p.Topic) {
			errs[i] = kerr.GroupSubscribedToTopic
		} else if _, ok := g.offsets[p]; ok || g.unstable[p] > 0 {
			records = append(records, coordinator.Record{Key: offsetKey(g.id, p)})
		}
	}
	return coordinator.Result{Records: records, Several: true, Done: func(err error) coordinator.Result {
		if err != nil {
			respond(errorOf(err), nil)
		} else {
			respond(nil, errs)
		}
		return coordinator.Result{}
	}}
}

func (s *Shard) exists(topic string) bool {
	return s.cfg.TopicExists == nil || s.cfg.TopicExists(topic)
}

// DeleteTopics forgets, in all groups, what was committed for topics that were
// deleted, whether somebody still subscribes to them or not: a topic that is made
// anew under the name has other records at these offsets.
func (s *Shard) DeleteTopics(deleted func(topic string) bool) coordinator.Result {
	var records []coordinator.Record
	for _, id := range s.sortedIDs() {
		for _, p := range s.groups[id].committed() {
			if deleted(p.Topic) {
				records = append(records, coordinator.Record{Key: offsetKey(id, p)})
			}
		}
	}
	return coordinator.Result{Records: records, Several: true}
}

// subscriptions returns the topics that members of a consumer group read.
func (g *group) subscriptions() map[string]bool {
	topics := map[string]bool{}
	for _, m := range g.members {
		for _, p := range m.protocols {
			for t := range subscribedTopics(p.Metadata) {
				topics[t] = true
			}
		}
	}
	return topics
}

// subscribedTopics yields the topics of a subscription (the consumer protocol's
// ConsumerProtocolSubscription): a version, the topics, and more that does not
// matter here. It comes from a client: what cannot be read ends the sequence, and
// nothing is allocated by the lengths it claims.
func subscribedTopics(subscription []byte) iter.Seq[string] {
	return func(yield func(string) bool) {
		b := subscription
		if len(b) < 6 {
			return
		}
		count := int32(binary.BigEndian.Uint32(b[2:]))
		b = b[6:]
		for ; count > 0 && len(b) >= 2; count-- {
			n := int(binary.BigEndian.Uint16(b))
			if b = b[2:]; n > len(b) || !yield(string(b[:n])) {
				return
			}
			b = b[n:]
		}
	}
}

// expireOffsets forgets the offsets of empty groups that nobody has used for the
// retention time, and those of topics that a consumer group does not read any
// more; and empty groups without offsets (KIP-211). What an open transaction is
// about to replace stays.
func (s *Shard) expireOffsets(now time.Time) coordinator.Result {
	var records []coordinator.Record
	for _, id := range s.sortedIDs() {
		g := s.groups[id]
		subscribed := func(string) bool { return false }
		switch {
		case g.consumer != nil:
			subscribed = g.consumer.subscribed
		case g.state == Stable && g.protocolType == "consumer":
			topics := g.subscriptions()
			subscribed = func(topic string) bool { return topics[topic] }
		case g.state != Empty || len(g.pending) > 0:
			continue
		}
		left := len(g.offsets)
		for _, o := range s.fetch(id, nil, true) {
			if !subscribed(o.Topic) && g.unstable[o.TopicPartition] == 0 && s.expired(g, o.Offset, now) {
				records = append(records, coordinator.Record{Key: offsetKey(id, o.TopicPartition)})
				left--
			}
		}
		if left == 0 && len(g.unstable) == 0 && g.currentState() == Empty && (g.generation > 0 || g.consumer != nil) {
			records = append(records, g.tombstones()...)
		}
	}
	return coordinator.Result{Records: records, Several: true}
}

func (s *Shard) idleSince(millis int64, now time.Time) bool {
	return now.UnixMilli()-millis >= s.cfg.OffsetsRetention.Milliseconds()
}

func (s *Shard) expired(g *group, o Offset, now time.Time) bool {
	switch {
	case o.ExpireTimestamp >= 0:
		return now.UnixMilli() >= o.ExpireTimestamp
	case g.protocolType == "" || g.state != Empty:
		return s.idleSince(o.CommitTimestamp, now)
	}
	// A group's offsets count from when it became empty, or from a later commit.
	return s.idleSince(max(o.CommitTimestamp, g.stateSince), now)
}
