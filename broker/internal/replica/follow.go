package replica

import (
	"errors"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/leatlog/leat/broker/internal/mutant"
	"github.com/leatlog/leat/broker/internal/storage"
	"github.com/leatlog/leat/broker/internal/vfs"
)

// FetchPoint is where a follower's log goes on.
type FetchPoint struct {
	LeaderEpoch int32 // of the leader it asks
	// Offset is the end of its log, all of which it has on disk; -1 when the log is
	// lost and has to be copied anew.
	Offset int64
	// LastEpoch is the newest epoch of the log, -1 without one. It may have no record:
	// this broker may have led in it and appended nothing.
	LastEpoch int32
	LogStart  int64
}

// Followed is what a leader answers to a FetchPoint.
type Followed struct {
	Err            *kerr.Error
	Records        []byte
	HighWatermark  int64
	LogStart       int64
	DivergingEpoch int32 // -1 when the logs agree
	DivergingEnd   int64
}

// FollowResult is what became of an answer.
type FollowResult int8

// The results.
const (
	FollowIdle    FollowResult = iota // nothing to tell the leader
	FollowMoved                       // there is another FetchPoint to tell, durable already
	FollowGrew                        // as FollowMoved, once the log is synced
	FollowBackOff                     // ask again, later
	FollowStale                       // the answer is to another question
)

// following returns the leader to fetch from and its epoch; ok is false when this
// broker is no follower. A damaged replica follows, too, until it is copied anew.
func (r *Replica) following() (leader, epoch int32, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.meta == nil || r.meta.Leader < 0 || r.meta.Leader == r.manager.cfg.NodeID || !slices.Contains(r.meta.Replicas, r.manager.cfg.NodeID) {
		return -1, -1, false
	}
	if r.core.Role() != Follower && r.failure == nil {
		return -1, -1, false
	}
	return r.meta.Leader, r.meta.LeaderEpoch, true
}

// FetchPoint returns where the log goes on in an epoch that following returned.
func (r *Replica) FetchPoint(epoch int32) FetchPoint {
	if r.Failure() != nil || r.log == nil || r.leaves() {
		return FetchPoint{LeaderEpoch: epoch, Offset: -1, LastEpoch: -1, LogStart: -1}
	}
	return FetchPoint{LeaderEpoch: epoch, Offset: r.log.EndOffset(), LastEpoch: r.log.LatestEpoch(), LogStart: r.log.StartOffset()}
}

// fullPause is how long a replica whose disk was full waits before it follows on. One that
// came back in sync as soon as nothing was left to append would leave with the next batch.
const fullPause = time.Second

// leaves says that a replica whose disk is full is still counted as in sync, or was full
// just now. It says then that its log is lost, so that nobody waits for it.
func (r *Replica) leaves() bool {
	now := r.manager.clock.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.full && r.meta != nil && (now.Sub(r.fullSince) < fullPause || slices.Contains(r.meta.ISR, r.manager.cfg.NodeID))
}

// durable says that all of the log is on disk, as far as the flush mode demands.
func (r *Replica) durable() bool {
	return r.manager.cfg.Flush != FlushSync || mutant.Is(mutant.FollowerAckBeforeSync) || r.log == nil || r.Failure() != nil || r.log.SyncedOffset() >= r.log.EndOffset()
}

// Follow takes over a leader's answer to asked. It appends the leader's bytes as
// they are, cuts what the leader's epochs do not have, and never cuts by the high
// watermark (KIP-101, KIP-595). It does I/O.
func (r *Replica) Follow(asked FetchPoint, a *Followed) FollowResult {
	fx := effectsPool.Get().(*Effects)
	result, err := r.follow(asked, a, fx)
	r.carryOut(fx)
	if err != nil {
		r.followError(err)
		return FollowBackOff
	}
	return result
}

func (r *Replica) follow(asked FetchPoint, a *Followed, fx *Effects) (FollowResult, error) {
	r.appendMu.Lock()
	defer r.appendMu.Unlock()
	leader, epoch, ok := r.following()
	switch {
	case !ok || epoch != asked.LeaderEpoch:
		return FollowStale, nil
	case asked.Offset < 0:
		return r.copyAnew(a, leader, fx), nil
	case r.log == nil || asked.Offset != r.log.EndOffset():
		return FollowStale, nil
	case a.Err == kerr.OffsetOutOfRange:
		return FollowMoved, r.restart(a, fx)
	case a.Err != nil:
		return FollowBackOff, nil
	case a.DivergingEpoch >= 0:
		return FollowMoved, r.truncate(a, fx)
	case len(a.Records) == 0:
		return FollowIdle, r.keepUp(a, fx)
	}
	if err := r.appendFetched(a.Records, fx); err != nil {
		return FollowBackOff, err
	}
	return FollowGrew, r.keepUp(a, fx)
}

// followError keeps a replica that cannot follow now from stopping the others.
func (r *Replica) followError(err error) {
	switch {
	case errors.Is(err, vfs.ErrNoSpace):
		r.manager.diskFull(err)
		now := r.manager.clock.Now()
		r.mu.Lock()
		r.full, r.fullSince = true, now
		r.mu.Unlock()
	case errors.Is(err, errStillInSync):
		r.manager.logger.Error().Err(err).Str("topic", r.name).Int32("partition", r.partition).Msg("waiting to be taken out of sync before the log is copied anew")
	case errors.Is(err, storage.ErrFenced), errors.Is(err, storage.ErrDamaged):
		r.damaged(err)
	case errors.Is(err, storage.ErrClosed):
	default:
		r.manager.logger.Error().Err(err).Str("topic", r.name).Int32("partition", r.partition).Msg("what the leader sent cannot be appended; asking again")
	}
}

func (r *Replica) appendFetched(records []byte, fx *Effects) error {
	if err := r.log.AppendFollower(records); err != nil {
		return err
	}
	end := r.log.EndOffset()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.full = false
	r.core.FollowerAppended(end, int64(len(records)))
	if r.manager.cfg.Flush != FlushSync {
		r.core.Synced(end, fx)
	}
	return nil
}

// keepUp takes over the leader's high watermark and log start.
func (r *Replica) keepUp(a *Followed, fx *Effects) error {
	r.mu.Lock()
	r.core.LeaderHigh(a.HighWatermark, fx)
	high := r.core.HighWatermark()
	r.mu.Unlock()
	if start := min(a.LogStart, high); start > r.log.StartOffset() {
		return r.log.AdvanceStart(start)
	}
	return nil
}

// truncate cuts the log to what it may share with the leader's: the leader says
// that the largest epoch it knows up to the follower's last one ends at
// DivergingEnd.
func (r *Replica) truncate(a *Followed, fx *Effects) error {
	target := min(a.DivergingEnd, r.log.EndOffset())
	if _, end := r.log.EndOffsetForEpoch(a.DivergingEpoch); end >= 0 {
		target = min(target, end)
	}
	r.manager.logger.Info().Str("topic", r.name).Int32("partition", r.partition).Int64("from", r.log.EndOffset()).Int64("to", target).
		Int32("epoch", a.DivergingEpoch).Msg("the log is cut to what the leader has")
	var err error
	if target < r.log.StartOffset() {
		err = r.resetTo(target)
	} else {
		err = r.log.TruncateTo(target)
	}
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.core.Truncated(r.log.EndOffset(), fx)
	return nil
}

// errStillInSync says that a log that counts must not be given up.
var errStillInSync = errors.New("replica: the log does not fit the leader's and is still counted as in sync")

// resetTo empties the log, if nothing that was acknowledged depends on it.
func (r *Replica) resetTo(offset int64) error {
	r.mu.Lock()
	counts := slices.Contains(r.meta.ISR, r.manager.cfg.NodeID) && r.core.HighWatermark() > 0
	r.mu.Unlock()
	if counts {
		return errStillInSync
	}
	return r.log.ResetTo(offset)
}

// restart begins the log anew where the leader's begins: retention there has
// passed the end of this one.
func (r *Replica) restart(a *Followed, fx *Effects) error {
	r.manager.logger.Warn().Str("topic", r.name).Int32("partition", r.partition).Int64("log_end", r.log.EndOffset()).Int64("leader_start", a.LogStart).
		Msg("the leader's log does not reach this one; it is copied anew from the leader's start")
	if err := r.resetTo(max(a.LogStart, 0)); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.core.Truncated(r.log.EndOffset(), fx)
	return nil
}

// copyAnew brings a damaged replica back once the controller has taken it out of
// the in-sync replicas: until then it may be all that remembers what was
// acknowledged, and must not pass for empty.
func (r *Replica) copyAnew(a *Followed, leader int32, fx *Effects) FollowResult {
	r.mu.Lock()
	meta, failure := r.meta, r.failure
	r.mu.Unlock()
	if r.log == nil || failure == nil || a.Err != kerr.OffsetOutOfRange || slices.Contains(meta.ISR, r.manager.cfg.NodeID) {
		return FollowBackOff
	}
	if err := r.log.ResetTo(max(a.LogStart, 0)); err != nil {
		return FollowBackOff // the directory failed: only a restart on a sound disk helps
	}
	r.manager.logger.Warn().Str("topic", r.name).Int32("partition", r.partition).Int32("leader", leader).AnErr("failure", failure).
		Msg("the damaged log was emptied and is copied again from the leader")
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failure, r.syncing = nil, false
	r.core.Recovered(r.log.EndOffset(), fx)
	r.core.Become(meta, fx)
	return FollowMoved
}

// syncFollowed has the log synced and calls done after the core knows.
func (r *Replica) syncFollowed(done func()) {
	if mutant.Is(mutant.FollowerAckBeforeSync) {
		done()
		done = func() {}
	}
	if r.manager.cfg.Flush != FlushSync {
		done()
		return
	}
	r.manager.committer.Request(r.log, func(synced int64, err error) {
		if err != nil {
			r.damaged(err)
		} else {
			r.step(func(p *Partition, fx *Effects) { r.noteSynced(p, synced, fx) })
		}
		done()
	})
}
