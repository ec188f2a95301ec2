package group

import (
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/leatlog/leat/broker/internal/coordinator"
)

// transaction is what a producer's open transaction has committed here so far. It
// counts only when a marker says so.
type transaction struct {
	epoch   int16
	offsets map[groupPartition]Offset
}

// groupPartition names a partition that a group commits.
type groupPartition struct {
	groupID string
	TopicPartition
}

var _ coordinator.TransactionalShard = (*Shard)(nil)

// ReplayInTransaction implements coordinator.TransactionalShard: an offset that
// becomes the group's when the transaction commits.
func (s *Shard) ReplayInTransaction(r coordinator.Record, producerID int64, epoch int16) error {
	if !isOffset(r.Key) {
		return fmt.Errorf("%w: a record of a transaction that is no offset", ErrBadRecord)
	}
	groupID, p, o, err := readOffset(r)
	if err != nil {
		return err
	}
	if o == nil {
		return fmt.Errorf("%w: group %q: a transaction cannot remove an offset", ErrBadRecord, groupID)
	}
	t := s.transactions[producerID]
	if t == nil {
		t = &transaction{offsets: map[groupPartition]Offset{}}
		s.transactions[producerID] = t
	}
	t.epoch = epoch
	key := groupPartition{groupID, p}
	if _, again := t.offsets[key]; !again {
		s.group(groupID).unstable[p]++
	}
	s.offsetsReplayed++
	o.order = s.offsetsReplayed
	t.offsets[key] = *o
	return nil
}

// ReplayMarker implements coordinator.TransactionalShard. Of two commits of the same
// partition the one that is later in the log counts, whichever became certain later.
func (s *Shard) ReplayMarker(producerID int64, epoch int16, commit bool) {
	t := s.transactions[producerID]
	if t == nil || t.epoch > epoch {
		return
	}
	delete(s.transactions, producerID)
	for key, o := range t.offsets {
		g := s.group(key.groupID)
		g.stabilize(key.TopicPartition)
		if old, ok := g.offsets[key.TopicPartition]; commit && (!ok || old.order < o.order) {
			g.offsets[key.TopicPartition] = o
		}
		s.forget(g)
	}
}

// stabilize notes that one transaction less has an offset of the partition.
func (g *group) stabilize(p TopicPartition) {
	if g.unstable[p]--; g.unstable[p] <= 0 {
		delete(g.unstable, p)
	}
}

// dropPending forgets what open transactions committed for a partition.
func (s *Shard) dropPending(g *group, p TopicPartition) {
	if g.unstable[p] == 0 {
		return
	}
	for id, t := range s.transactions {
		if delete(t.offsets, groupPartition{g.id, p}); len(t.offsets) == 0 {
			delete(s.transactions, id)
		}
	}
	delete(g.unstable, p)
}

// committed returns the partitions for which the group has an offset, also one of a
// transaction that is open, sorted.
func (g *group) committed() []TopicPartition {
	list := make([]TopicPartition, 0, len(g.offsets)+len(g.unstable))
	for p := range g.offsets {
		list = append(list, p)
	}
	for p := range g.unstable {
		if _, ok := g.offsets[p]; !ok {
			list = append(list, p)
		}
	}
	slices.SortFunc(list, comparePartitions)
	return list
}

// transactionalCommitter checks that a transaction may commit offsets of the group and
// returns the group's id. Old clients say nothing of a member; what they do say must be
// true. A rebalance that is being completed is no hindrance.
func (s *Shard) transactionalCommitter(r *CommitRequest) (string, *kerr.Error) {
	g := s.groups[r.GroupID]
	if g != nil && g.consumer != nil {
		if r.Generation < 0 && r.MemberID == "" && r.InstanceID == nil {
			return g.id, nil
		}
		err := g.consumer.validateCommit(r)
		if err == kerr.StaleMemberEpoch {
			err = kerr.IllegalGeneration
		}
		return g.id, err
	}
	switch {
	case g == nil && r.Generation >= 0:
		return "", kerr.IllegalGeneration
	case g == nil,
		r.Generation < 0 && g.state == Empty,
		r.Generation < 0 && r.MemberID == "" && r.InstanceID == nil:
		return r.GroupID, nil
	}
	if _, err := g.validate(r.MemberID, r.InstanceID, r.Generation); err != nil {
		return "", err
	}
	return g.id, nil
}
