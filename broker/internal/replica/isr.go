package replica

import (
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/leatlog/leat/broker/internal/mutant"
)

// DefaultLag is Kafka's default of replica.lag.time.max.ms.
const DefaultLag = 30 * time.Second

// follower is what a leader knows of another replica in this leader epoch.
type follower struct {
	id          int32
	brokerEpoch int64 // of the registration it fetched under, -1 unknown
	synced      int64 // exclusive; -1: it has not fetched
	lost        bool  // it says that it cannot vouch for its log
	refused     bool  // the controller did not take it in since the last Tick or BrokersJoined

	caughtUp time.Time // when it last was known to have all there was
	fetched  time.Time // when it last fetched
	endThen  int64     // the own log's end at that time
}

// Member is an in-sync replica as the leader proposes it.
type Member struct {
	ID          int32
	BrokerEpoch int64 // -1 for the leader's own, which the shell knows
}

// Proposal is an ISR that a leader asks the controller to commit (KIP-497). At
// most one is under way. Until it is settled both it and the committed ISR count:
// the high watermark waits for every replica that may be in sync.
type Proposal struct {
	ISR            []Member
	LeaderEpoch    int32
	PartitionEpoch int32 // of the state it is to replace

	brokers uint64 // Partition.brokers when it was made
}

// Alteration is the controller's answer to a Proposal.
type Alteration struct {
	Err            *kerr.Error // nil: committed as what follows says
	LeaderEpoch    int32
	PartitionEpoch int32
	ISR            []int32
}

// SetLag sets replica.lag.time.max.ms: how long an in-sync replica may be behind.
func (p *Partition) SetLag(d time.Duration) { p.lag = d }

// ISR returns the committed in-sync replicas. The slice is valid until the next step.
func (p *Partition) ISR() []int32 { return p.isr }

// InSync says that metadata has this broker in sync.
func (p *Partition) InSync() bool { return slices.Contains(p.isr, p.self) }

// EpochStart is where a leader's epoch began: once the high watermark reaches it,
// all that earlier leaders committed is below.
func (p *Partition) EpochStart() int64 { return p.epochStart }

// lead sets up what a leader knows of the others and advances the high watermark.
func (p *Partition) lead(newEpoch bool, fx *Effects) {
	known := p.followers
	p.followers = nil
	for _, id := range p.replicas {
		if id == p.self {
			continue
		}
		f := follower{id: id, brokerEpoch: -1, synced: -1}
		if i := slices.IndexFunc(known, func(k follower) bool { return k.id == id }); i >= 0 && !newEpoch {
			f = known[i]
		}
		p.followers = append(p.followers, f)
	}
	if newEpoch {
		p.epochStart, p.hold, p.oneByOne = p.end, false, false
	}
	if len(p.pending) == p.head && p.high < p.end {
		p.pending = append(p.pending, pending{Parked: Parked{End: p.end}, bytes: unknownBytes})
	}
	p.settled(fx)
}

// settled follows a change of the ISR: it may free the high watermark, or leave
// too few in sync for what is parked.
func (p *Partition) settled(fx *Effects) {
	p.advance(fx)
	if p.underMin() {
		p.failParked(kerr.NotEnoughReplicasAfterAppend, fx)
	}
}

// maybeInSync says that a replica is in sync by the committed ISR or by the one
// that is proposed.
func (p *Partition) maybeInSync(id int32) bool {
	if mutant.Is(mutant.ProposedReplicaIgnored) {
		return slices.Contains(p.isr, id)
	}
	if mutant.Is(mutant.ProposalTakenForCommitted) && p.proposal != nil {
		return slices.ContainsFunc(p.proposal.ISR, func(m Member) bool { return m.ID == id })
	}
	return slices.Contains(p.isr, id) ||
		p.proposal != nil && slices.ContainsFunc(p.proposal.ISR, func(m Member) bool { return m.ID == id })
}

// FollowerFetched says that a follower, registered under brokerEpoch, fetched from
// offset, and that its log up to there agrees with this one: it has all below on
// disk. An offset of -1 says that the follower lost its log. Brokers that are no
// replicas and earlier registrations are ignored.
func (p *Partition) FollowerFetched(id int32, brokerEpoch, offset int64, now time.Time, fx *Effects) {
	i := slices.IndexFunc(p.followers, func(f follower) bool { return f.id == id })
	if p.role != Leader || i < 0 || brokerEpoch < p.followers[i].brokerEpoch {
		return
	}
	f := &p.followers[i]
	if brokerEpoch > f.brokerEpoch {
		*f = follower{id: id, brokerEpoch: brokerEpoch, synced: -1, caughtUp: f.caughtUp}
	}
	f.lost = offset < 0
	switch {
	case offset >= p.end:
		f.caughtUp = now
	case f.fetched.IsZero() || f.lost:
	case offset >= f.endThen && f.fetched.After(f.caughtUp):
		f.caughtUp = f.fetched
	}
	f.synced, f.fetched, f.endThen = offset, now, p.end
	p.advance(fx)
	if in := slices.Contains(p.isr, id); in && f.lost || !in && !f.lost && p.eligible(f) {
		p.propose(now, fx)
	}
}

// Near returns which of the brokers a reader at offset is sent to when this one leads:
// the in-sync follower among them that has most, and all below offset. 0 for none.
func (p *Partition) Near(ids []int32, offset int64) int32 {
	best := -1
	for i := range p.followers {
		f := &p.followers[i]
		if slices.Contains(ids, f.id) && slices.Contains(p.isr, f.id) && f.synced >= offset &&
			(best < 0 || f.synced > p.followers[best].synced) {
			best = i
		}
	}
	if p.role != Leader || best < 0 {
		return 0
	}
	return p.followers[best].id
}

// eligible says that a follower has all that is committed: what is below the high
// watermark, and what this leader started with.
func (p *Partition) eligible(f *follower) bool { return f.synced >= p.high && f.synced >= p.epochStart }

// Tick has a leader propose to drop the followers that have been behind for longer
// than replica.lag.time.max.ms. It should come several times in that time.
func (p *Partition) Tick(now time.Time, fx *Effects) {
	if p.role != Leader {
		return
	}
	p.retry()
	for i := range p.followers {
		// One that has everything need not fetch to be in sync. The time is noted, so
		// that it is given its time when the log grows.
		if f := &p.followers[i]; f.synced == p.end || f.caughtUp.IsZero() {
			f.caughtUp = now
		}
	}
	p.propose(now, fx)
}

// BrokersJoined says that brokers became active: followers that were not in sync for
// that reason may be now, even if they have nothing to fetch.
func (p *Partition) BrokersJoined(now time.Time, fx *Effects) {
	p.brokers++
	p.retry()
	if p.fault != nil {
		p.GiveUp(fx) // somebody is there now who may lead
		return
	}
	p.propose(now, fx)
}

// propose asks for the ISR as it should be, if it is not and nothing is under way.
func (p *Partition) propose(now time.Time, fx *Effects) {
	if p.proposal != nil || p.hold || p.role != Leader {
		return
	}
	isr := []Member{{ID: p.self, BrokerEpoch: -1}}
	changed, joins := false, false
	for i := range p.followers {
		f := &p.followers[i]
		was := slices.Contains(p.isr, f.id)
		is := f.synced >= 0 && f.brokerEpoch >= 0 && !f.refused && p.eligible(f) && !(p.oneByOne && joins)
		joins = joins || is && !was
		if was {
			is = !f.lost && (f.synced == p.end || now.Sub(f.caughtUp) <= p.lag || f.caughtUp.IsZero())
		}
		changed = changed || is != was
		if is {
			isr = append(isr, Member{ID: f.id, BrokerEpoch: f.brokerEpoch})
		}
	}
	if !changed {
		return
	}
	p.proposal = &Proposal{ISR: isr, LeaderEpoch: p.leaderEpoch, PartitionEpoch: p.partitionEpoch, brokers: p.brokers}
	fx.Proposal = p.proposal
}

// Altered takes the controller's answer to a proposal. It returns true when the
// same proposal is to be brought again, later: nobody knows whether it was committed.
func (p *Partition) Altered(of *Proposal, a Alteration, now time.Time, fx *Effects) (again bool) {
	if of != p.proposal {
		return false // settled by metadata
	}
	switch a.Err {
	case nil:
		if a.LeaderEpoch != p.leaderEpoch || a.PartitionEpoch < p.partitionEpoch {
			return false // newer metadata is on its way
		}
		p.proposal, p.partitionEpoch = nil, a.PartitionEpoch
		p.isr = append(p.isr[:0], a.ISR...)
		p.settled(fx)
		if p.oneByOne {
			p.propose(now, fx)
		}
	case kerr.IneligibleReplica, kerr.OperationNotAttempted:
		if of.brokers != p.brokers {
			of.brokers = p.brokers
			return true // the refusal may be older than the change that makes it possible
		}
		p.proposal = nil
		p.refused(of)
		p.advance(fx)
		p.propose(now, fx)
	case kerr.FencedLeaderEpoch, kerr.InvalidUpdateVersion, kerr.InvalidRequest, kerr.NewLeaderElected,
		kerr.UnknownTopicOrPartition, kerr.UnknownTopicID, kerr.NotLeaderForPartition:
		// The controller knows more than this broker does. An earlier try of the same
		// may have been committed, so it counts until metadata tells.
	default:
		return true
	}
	return false
}

// refused notes that the controller did not commit a proposal because of somebody in it,
// without saying who: from now on replicas join one by one, so that one that is fenced
// keeps no other out, and who was refused alone is not proposed before the next Tick or
// BrokersJoined.
func (p *Partition) refused(of *Proposal) {
	var joined []*follower
	for i := range p.followers {
		f := &p.followers[i]
		if !slices.Contains(p.isr, f.id) && slices.ContainsFunc(of.ISR, func(m Member) bool { return m.ID == f.id }) {
			joined = append(joined, f)
		}
	}
	switch len(joined) {
	case 0:
		p.hold = true
	case 1:
		joined[0].refused = true
	}
	p.oneByOne = true
}

// retry has proposals made again that were refused.
func (p *Partition) retry() {
	p.hold = false
	for i := range p.followers {
		p.followers[i].refused = false
	}
}

// FollowerAppended says that the own log grew to end by what the leader sent.
func (p *Partition) FollowerAppended(end, bytes int64) {
	p.end = end
	p.push(pending{Parked: Parked{End: end}, bytes: bytes})
}

// Truncated says that the own log was cut to end, all of which is durable.
func (p *Partition) Truncated(end int64, fx *Effects) {
	p.end, p.synced, p.high = end, end, min(p.high, end)
	for n := len(p.pending); n > p.head && p.pending[n-1].End > end; n-- {
		p.answer(&p.pending[n-1], kerr.NotLeaderForPartition, fx)
		p.pending[n-1] = pending{}
		p.pending = p.pending[:n-1]
	}
	if p.high < end && len(p.pending) == p.head {
		p.push(pending{Parked: Parked{End: end}, bytes: unknownBytes})
	}
	p.compact()
}

// LeaderHigh takes over the leader's high watermark, as far as the own log goes.
func (p *Partition) LeaderHigh(high int64, fx *Effects) {
	if p.role == Follower {
		p.raise(min(high, p.end), fx)
	}
}

// Recovered takes a replica back that Fault took offline, with a log that is
// empty and ends at end. Metadata then says what it becomes.
func (p *Partition) Recovered(end int64, fx *Effects) {
	p.fault, p.partitionEpoch, p.leaderEpoch = nil, -1, -1
	p.Truncated(end, fx)
}
