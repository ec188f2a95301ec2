package group

import (
	"container/heap"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/leatlog/leat/broker/internal/coordinator"
)

// Shard holds the groups of one partition. It implements coordinator.Shard and
// is used under the runtime's lock. Answers come through the callbacks given
// with the requests, exactly once each.
type Shard struct {
	cfg       Config
	groups    map[string]*group
	deadlines deadlines
	// transactions are the open ones, by producer id.
	transactions map[int64]*transaction
	// offsetsReplayed counts offsets, which gives them their order.
	offsetsReplayed int64
	// live says that loading is over: records replayed are the shard's own.
	live bool
	// retentionAt is when offsets are next checked for expiry.
	retentionAt time.Time
}

var _ coordinator.Shard = (*Shard)(nil)

// NewShard returns an empty shard.
func NewShard(cfg Config) *Shard {
	return &Shard{cfg: cfg, groups: map[string]*group{}, transactions: map[int64]*transaction{}}
}

// errorOf maps why an append failed to what Kafka's coordinator answers.
func errorOf(err error) *kerr.Error {
	if errors.Is(err, coordinator.ErrTooLarge) {
		return kerr.UnknownServerError // as Kafka; OffsetCommit has an error of its own
	}
	if errors.Is(err, coordinator.ErrTransactionEnded) {
		return kerr.CoordinatorLoadInProgress // try again: it is verified anew
	}
	var code *kerr.Error
	if errors.As(err, &code) {
		switch code {
		case kerr.NotEnoughReplicas, kerr.NotEnoughReplicasAfterAppend, kerr.UnknownTopicOrPartition, kerr.RequestTimedOut:
			return kerr.CoordinatorNotAvailable
		case kerr.NotLeaderForPartition, kerr.KafkaStorageError:
			return kerr.NotCoordinator
		}
		return code
	}
	return kerr.NotCoordinator
}

// deadlines is a heap of groups by their deadline.
type deadlines []*group

func (d deadlines) Len() int           { return len(d) }
func (d deadlines) Less(i, j int) bool { return d[i].deadline.Before(d[j].deadline) }
func (d deadlines) Swap(i, j int) {
	d[i], d[j] = d[j], d[i]
	d[i].heapAt, d[j].heapAt = i, j
}

// Push implements heap.Interface.
func (d *deadlines) Push(x any) {
	g := x.(*group)
	g.heapAt = len(*d)
	*d = append(*d, g)
}

// Pop implements heap.Interface.
func (d *deadlines) Pop() any {
	old := *d
	g := old[len(old)-1]
	old[len(old)-1] = nil
	*d = old[:len(old)-1]
	g.heapAt = -1
	return g
}

// schedule puts the group where its next deadline belongs. It is called after
// every event of the group.
func (s *Shard) schedule(g *group) {
	g.deadline = g.nextDeadline()
	switch {
	case g.deadline.IsZero() && g.heapAt >= 0:
		heap.Remove(&s.deadlines, g.heapAt)
	case g.deadline.IsZero():
	case g.heapAt >= 0:
		heap.Fix(&s.deadlines, g.heapAt)
	default:
		heap.Push(&s.deadlines, g)
	}
	s.forget(g)
}

// sooner is schedule for something that was added to what is due.
func (s *Shard) sooner(g *group, at time.Time) {
	switch {
	case g.heapAt < 0:
		g.deadline = at
		heap.Push(&s.deadlines, g)
	case at.Before(g.deadline):
		g.deadline = at
		heap.Fix(&s.deadlines, g.heapAt)
	}
}

// NextDeadline implements coordinator.Shard.
func (s *Shard) NextDeadline() (time.Time, bool) {
	next := s.retentionAt
	if len(s.deadlines) > 0 && (next.IsZero() || s.deadlines[0].deadline.Before(next)) {
		next = s.deadlines[0].deadline
	}
	return next, !next.IsZero()
}

// Expire implements coordinator.Shard: at most one thing that gives a result is
// done per call, the rest when the runtime asks again.
func (s *Shard) Expire(now time.Time) coordinator.Result {
	for len(s.deadlines) > 0 && !s.deadlines[0].deadline.After(now) {
		g := s.deadlines[0]
		result := s.expireGroup(g, now)
		s.schedule(g)
		if len(result.Records) > 0 || result.Done != nil {
			return result
		}
	}
	if !s.retentionAt.IsZero() && !s.retentionAt.After(now) {
		s.retentionAt = now.Add(s.cfg.OffsetsRetentionCheck)
		return s.expireOffsets(now)
	}
	return coordinator.Result{}
}

func (s *Shard) expireGroup(g *group, now time.Time) coordinator.Result {
	if g.consumer != nil {
		return s.expireConsumers(g, now)
	}
	removed := false
	for id, until := range g.pending {
		if !until.After(now) {
			delete(g.pending, id)
		}
	}
	if !g.joinBy.IsZero() && !g.joinBy.After(now) {
		return s.joinTimeout(g, now)
	}
	if !g.syncBy.IsZero() && !g.syncBy.After(now) {
		g.syncBy = time.Time{}
		for _, m := range g.sorted() {
			if m.syncPending {
				s.removeMember(g, m, kerr.UnknownMemberID)
				removed = true
			}
		}
	}
	for _, m := range g.sorted() {
		if (!m.waiting() || m.isNew) && !m.expires.After(now) {
			s.removeMember(g, m, kerr.UnknownMemberID)
			removed = true
		}
	}
	if removed {
		return s.afterRemoval(g, now)
	}
	return s.maybeCompleteJoin(g, now)
}

// Loaded implements coordinator.Shard: members of a loaded generation have a
// session timeout to be heard of, and offsets of topics that are gone are forgotten.
func (s *Shard) Loaded(now time.Time) coordinator.Result {
	for _, id := range s.sortedIDs() {
		g := s.groups[id]
		for _, m := range g.members {
			m.heard(now)
		}
		if g.consumer != nil {
			s.loadedConsumers(g, now)
		}
		s.schedule(g)
	}
	s.live = true
	s.retentionAt = now.Add(s.cfg.OffsetsRetentionCheck)
	return s.DeleteTopics(func(topic string) bool { return !s.exists(topic) })
}

// Unload implements coordinator.Shard.
func (s *Shard) Unload() {
	for _, id := range s.sortedIDs() {
		for _, m := range s.groups[id].sorted() {
			m.answerJoin(JoinResponse{Err: kerr.NotCoordinator, Generation: -1, MemberID: m.id})
			m.answerSync(SyncResponse{Err: kerr.NotCoordinator})
		}
	}
}

// group returns the group, making it when it is not there.
func (s *Shard) group(id string) *group {
	g := s.groups[id]
	if g == nil {
		g = newGroup(id)
		s.groups[id] = g
	}
	return g
}

// validate checks that a request comes from a member of the current generation.
func (g *group) validate(memberID string, instanceID *string, generation int32) (*member, *kerr.Error) {
	if instanceID != nil {
		switch id, ok := g.static[*instanceID]; {
		case !ok:
			return nil, kerr.UnknownMemberID
		case id != memberID:
			return nil, kerr.FencedInstanceID
		}
	}
	m := g.members[memberID]
	if m == nil {
		return nil, kerr.UnknownMemberID
	}
	if generation != g.generation {
		return nil, kerr.IllegalGeneration
	}
	return m, nil
}
