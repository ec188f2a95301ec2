package replica

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/leatlog/leat/broker/internal/metadata"
	"github.com/leatlog/leat/broker/internal/mutant"
	"github.com/leatlog/leat/broker/internal/record"
	"github.com/leatlog/leat/broker/internal/storage"
)

// Replica is this broker's copy of one partition: the shell around the core and
// a log. Safe for concurrent use.
type Replica struct {
	manager   *Manager
	topic     metadata.UUID
	name      string
	partition int32
	log       *storage.Log // nil when it could not be opened
	onSynced  func(synced int64, err error)

	// verifyMu keeps markers out between the check of a transaction and the append
	// that follows from it. It is taken before appendMu.
	verifyMu sync.Mutex
	appendMu sync.Mutex

	mu        sync.Mutex
	core      *Partition
	failure   error
	full      bool      // the disk had no room for what the leader sent last
	fullSince time.Time // when it said so last
	gaveUp    time.Time // when it last asked that another one leads, for a full disk
	syncing   bool      // the committer has been asked
	deadline  Deadline
	expires   time.Time           // what deadline is set to, zero when it is not
	meta      *metadata.Partition // as last applied

	fetched atomic.Pointer[followed] // by the fetcher that has it, nil without one

	traffic traffic
	codec   atomic.Int32 // record.Codec of the topic, or keepCodec; see convert.go
	// throttledLeader and throttledFollower say that copies of it, and this copy of it, are
	// throttled while they are not in sync.
	throttledLeader, throttledFollower atomic.Bool
}

// throttle takes over which replicas of the topic are throttled.
func (r *Replica) throttle(leader, follower metadata.ThrottledReplicas) {
	node := r.manager.cfg.NodeID
	r.throttledLeader.Store(leader.Has(r.partition, node))
	r.throttledFollower.Store(follower.Has(r.partition, node))
}

// catchesUp says that this broker is not in sync, as far as it knows.
func (r *Replica) catchesUp() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.meta == nil || !slices.Contains(r.meta.ISR, r.manager.cfg.NodeID)
}

func (r *Replica) logStart() int64 {
	if r.log == nil {
		return -1
	}
	return r.log.StartOffset()
}

// effectsPool holds Effects that are not in use.
var effectsPool = sync.Pool{New: func() any { return new(Effects) }}

// TopicID, Topic and Index name the partition.
func (r *Replica) TopicID() metadata.UUID { return r.topic }
func (r *Replica) Topic() string          { return r.name }
func (r *Replica) Index() int32           { return r.partition }

// Log is the replica's log, nil when it could not be opened. Appends must go
// through the replica.
func (r *Replica) Log() *storage.Log { return r.log }

// Leader returns who leads the partition, -1 when nobody does, and the leader epoch.
func (r *Replica) Leader() (id, epoch int32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.core.Leader(), r.core.LeaderEpoch()
}

func (r *Replica) leaderEpoch() int32 {
	_, epoch := r.Leader()
	return epoch
}

// Role returns what this broker is to the partition.
func (r *Replica) Role() Role {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.core.Role()
}

// UnderMinISR says that this broker leads the partition with fewer replicas in sync
// than min.insync.replicas: appends with acks=all are refused.
func (r *Replica) UnderMinISR() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.core.Role() == Leader && r.core.underMin()
}

// HighWatermark is the exclusive end of what is durable on all in-sync replicas.
func (r *Replica) HighWatermark() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.core.HighWatermark()
}

// step runs a step of the core and carries out its effects.
func (r *Replica) step(f func(*Partition, *Effects)) {
	fx := effectsPool.Get().(*Effects)
	r.mu.Lock()
	f(r.core, fx)
	r.mu.Unlock()
	r.carryOut(fx)
}

// carryOut tells sinks and waiters and takes fx back. No lock may be held.
func (r *Replica) carryOut(fx *Effects) {
	start := int64(-1)
	if len(fx.Answered) > 0 {
		start = r.logStart()
	}
	for i := range fx.Answered {
		a := &fx.Answered[i]
		if a.Err != nil {
			a.Sink.Appended(a.Tag, a.Err, -1, -1, start)
		} else {
			a.Sink.Appended(a.Tag, nil, a.BaseOffset, a.LogAppendTime, start)
		}
	}
	for i := range fx.Woken {
		if w := &fx.Woken[i]; w.Bytes < 0 {
			w.Waiter.Interrupted()
		} else {
			w.Waiter.Readable(w.Bytes)
		}
	}
	if fx.Proposal != nil {
		r.manager.bring(r, fx.Proposal)
	}
	fx.Reset()
	effectsPool.Put(fx)
}

// Append appends one record batch as the leader. storage verifies its CRC and
// sets offset and leader epoch in place. sink is told how it ended, exactly once:
// with acks 0 and 1 when written, with acks -1 when all in-sync replicas have it on
// disk, or at the deadline (zero: none) with REQUEST_TIMED_OUT. The batch is not
// kept. Append blocks on the write, not on the sync.
func (r *Replica) Append(batch []byte, acks int16, deadline time.Time, tag int, sink AppendSink) {
	o := r.offer(batch, acks, deadline, tag, sink)
	r.tell(&o)
}

// offered is a batch that was offered to the log, of which nobody has been told yet.
type offered struct {
	fx      *Effects
	info    storage.AppendInfo
	refused *kerr.Error
	acks    int16
	tag     int
	sink    AppendSink
}

// offer appends a batch. tell must follow, with no lock held.
func (r *Replica) offer(batch []byte, acks int16, deadline time.Time, tag int, sink AppendSink) offered {
	o := offered{fx: effectsPool.Get().(*Effects), acks: acks, tag: tag, sink: sink}
	batch, failure := r.convert(batch)
	if failure != nil {
		o.refused = r.appendError(failure)
		return o
	}
	o.info, o.refused, failure = r.append(batch, acks, Parked{Sink: sink, Tag: tag, Deadline: deadline}, o.fx)
	if failure != nil {
		o.refused = r.verdict(r.appendError(failure))
	}
	return o
}

// tell tells the sink and all others of what offer did.
func (r *Replica) tell(o *offered) {
	switch {
	case o.refused != nil:
		o.sink.Appended(o.tag, o.refused, -1, -1, r.logStart())
	case o.acks != -1:
		o.sink.Appended(o.tag, nil, o.info.BaseOffset, o.info.LogAppendTime, o.info.LogStartOffset)
	}
	r.settle(o)
}

// settle is tell without the sink of a batch that was refused.
func (r *Replica) settle(o *offered) {
	r.requestSync()
	r.carryOut(o.fx)
}

// AppendVerified is Append for a transactional batch whose transaction was verified
// with its coordinator when ended transactions of the producer had ended here
// (storage.TransactionState). It returns false, having done nothing, when another
// has ended since and none is open: the transaction has to be verified again.
func (r *Replica) AppendVerified(batch []byte, ended uint32, acks int16, deadline time.Time, tag int, sink AppendSink) bool {
	o, ok := r.offerVerified(batch, ended, acks, deadline, tag, sink)
	if ok {
		r.tell(&o)
	}
	return ok
}

// offerVerified is offer, unless a transaction of the producer has ended since and none
// is open.
func (r *Replica) offerVerified(batch []byte, ended uint32, acks int16, deadline time.Time, tag int, sink AppendSink) (o offered, ok bool) {
	if r.log == nil {
		return r.offer(batch, acks, deadline, tag, sink), true // which says why not
	}
	header := record.Batch(batch)
	r.verifyMu.Lock()
	defer r.verifyMu.Unlock()
	if s := r.log.TransactionState(header.ProducerID(), header.ProducerEpoch()); !s.Open && s.Ended != ended {
		return o, false
	}
	return r.offer(batch, acks, deadline, tag, sink), true
}

// ErrTransactionEnded is what AppendOffsets refuses with where AppendVerified returns false.
var ErrTransactionEnded = errors.New("a transaction of the producer has ended since this one was verified")

// AppendOffsets is AppendVerified for what a coordinator writes in a client's
// transaction, with acks -1. It returns why the batch is refused, and then does not tell
// the sink.
func (r *Replica) AppendOffsets(batch []byte, ended uint32, sink AppendSink) error {
	o, ok := r.offerVerified(batch, ended, -1, time.Time{}, 0, sink)
	if !ok {
		return ErrTransactionEnded
	}
	r.settle(&o)
	if o.refused != nil {
		return o.refused
	}
	return nil
}

// AppendMarker appends the batch that ends a transaction (storage.AppendMarker), with
// acks -1. With raised, the marker is late when a transaction is open in its own epoch,
// and is refused with INVALID_PRODUCER_EPOCH: it is of the one before.
func (r *Replica) AppendMarker(batch []byte, raised bool, sink AppendSink) {
	r.verifyMu.Lock()
	if b := record.Batch(batch); raised && r.TransactionState(b.ProducerID(), b.ProducerEpoch()).Open {
		r.verifyMu.Unlock()
		sink.Appended(0, kerr.InvalidProducerEpoch, -1, -1, -1)
		return
	}
	o := r.offer(batch, -1, time.Time{}, 0, sink)
	r.verifyMu.Unlock()
	r.tell(&o)
}

// TransactionState returns the state of a producer's transaction in this partition.
func (r *Replica) TransactionState(producerID int64, epoch int16) storage.TransactionState {
	if r.log == nil {
		return storage.TransactionState{}
	}
	return r.log.TransactionState(producerID, epoch)
}

// Producers returns the producers that are known, by id, or why nobody may ask here. Any
// replica may be asked.
func (r *Replica) Producers() ([]storage.Producer, *kerr.Error) {
	if now := r.lookCore(-1, true); now.err != nil {
		return nil, now.err
	}
	return r.log.Producers(), nil
}

// append writes the batch and steps the core. With acks -1 and no error, parked
// is answered by the core; else by the caller.
func (r *Replica) append(batch []byte, acks int16, parked Parked, fx *Effects) (info storage.AppendInfo, refused *kerr.Error, failure error) {
	r.appendMu.Lock()
	defer r.appendMu.Unlock()
	r.mu.Lock()
	refused, epoch := r.core.CheckAppend(acks), r.core.LeaderEpoch()
	r.mu.Unlock()
	if refused != nil {
		return info, refused, nil
	}
	if info, failure = r.log.Append(batch, epoch); failure != nil {
		return info, nil, failure
	}
	parked.BaseOffset, parked.LogAppendTime = info.BaseOffset, info.LogAppendTime
	if acks != -1 {
		parked.Sink, parked.Deadline = nil, time.Time{}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case !info.Duplicate:
		r.traffic.appended(batch)
		r.core.Appended(info.LastOffset+1, int64(len(batch)), parked, fx)
	case acks == -1:
		parked.End = info.LastOffset + 1
		r.core.Park(parked, fx)
	}
	if r.manager.cfg.Flush != FlushSync {
		r.core.Synced(info.LastOffset+1, fx)
	}
	r.expireAt(parked.Deadline)
	return info, nil, nil
}

// requestSync asks the committer for a sync if one is needed and none is under
// way: one request serves all appends until it is answered.
func (r *Replica) requestSync() {
	r.mu.Lock()
	request := !r.syncing && r.core.end > r.core.synced && r.core.fault == nil
	r.syncing = r.syncing || request
	r.mu.Unlock()
	if request {
		r.manager.committer.Request(r.log, r.onSynced)
	}
}

// synced is the committer's answer.
func (r *Replica) synced(synced int64, err error) {
	if err != nil {
		r.damaged(err)
		return
	}
	r.step(func(p *Partition, fx *Effects) {
		r.syncing = false
		r.noteSynced(p, synced, fx)
	})
	r.requestSync()
}

// noteSynced tells the core what a sync answered, which is void as far as the log
// was cut meanwhile. The caller holds mu.
func (r *Replica) noteSynced(p *Partition, synced int64, fx *Effects) {
	p.Synced(min(synced, r.log.SyncedOffset()), fx)
}

// expireAt sets the replica's deadline if at is earlier. The caller holds mu.
func (r *Replica) expireAt(at time.Time) {
	if at.IsZero() || !r.expires.IsZero() && !at.Before(r.expires) {
		return
	}
	r.expires = at
	r.manager.deadlines.Set(&r.deadline, at, r.expire)
}

// expire answers what is overdue. Most times nothing is: what was parked when
// the deadline was set has long been answered.
func (r *Replica) expire() {
	now := r.manager.clock.Now()
	r.step(func(p *Partition, fx *Effects) {
		p.Expire(now, fx)
		r.expires = time.Time{}
		r.expireAt(p.NextDeadline())
	})
}

// damaged fences this partition, and only this one, because its log failed.
func (r *Replica) damaged(err error) {
	r.step(func(p *Partition, fx *Effects) {
		if p.fault != nil {
			return
		}
		r.failure = err
		r.manager.logger.Error().Err(err).Str("topic", r.name).Int32("partition", r.partition).
			Msg("the log is damaged or its disk failed: the replica is offline. Where another one has it all, that leads, and this one is copied again; else restore it from a backup, or restart the broker if the disk is sound again")
		p.Fault(kerr.KafkaStorageError, fx)
	})
	if p := r.fetched.Load(); p != nil {
		r.manager.cfg.Go(p.mark) // the leader counts on it until it is told; here locks are held
	}
}

// Failure returns why the replica is offline because of its log or disk, nil
// when it is not.
func (r *Replica) Failure() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failure
}

// become takes over what metadata says. It waits for a running append, so that
// none is written under an epoch that has ended.
func (r *Replica) become(meta *metadata.Partition) {
	fx := effectsPool.Get().(*Effects)
	r.appendMu.Lock()
	r.mu.Lock()
	if meta.Leader == r.manager.cfg.NodeID && meta.LeaderEpoch > r.core.LeaderEpoch() && r.log != nil && r.failure == nil {
		r.log.AssignEpoch(meta.LeaderEpoch) // before anybody can ask where earlier ones end
	}
	r.meta = meta
	was := r.core.LeaderEpoch()
	r.core.Become(meta, fx)
	if mutant.Is(mutant.TruncateByHighWatermark) && r.core.Role() == Follower && was != meta.LeaderEpoch && r.log != nil && r.failure == nil {
		if r.log.TruncateTo(max(r.core.HighWatermark(), r.log.StartOffset())) == nil {
			r.core.Truncated(r.log.EndOffset(), fx)
		}
	}
	r.mu.Unlock()
	r.appendMu.Unlock()
	r.carryOut(fx)
}

// end takes the replica out of service with the error that clients get from now
// on. The log is left to the caller.
func (r *Replica) end(err *kerr.Error) {
	fx := effectsPool.Get().(*Effects)
	r.appendMu.Lock()
	r.mu.Lock()
	r.core.Fault(err, fx)
	r.mu.Unlock()
	r.appendMu.Unlock()
	r.manager.deadlines.Cancel(&r.deadline)
	r.carryOut(fx)
}

// Wait registers w for what becomes readable after a position that Read
// returned, in that leader epoch. It may call w before it returns.
func (r *Replica) Wait(w Waiter, position int64, leaderEpoch int32) (token uint64) {
	r.step(func(p *Partition, fx *Effects) { token = p.Wait(w, position, leaderEpoch, fx) })
	return token
}

// WaitEnd registers w for the growth of the log beyond the End of ReadFollower, in
// that leader epoch. It may call w before it returns.
func (r *Replica) WaitEnd(w Waiter, end int64, leaderEpoch int32) (token uint64) {
	r.step(func(p *Partition, fx *Effects) { token = p.WaitEnd(w, end, leaderEpoch, fx) })
	return token
}

// Unwait ends a registration; one that is over or 0 is fine.
func (r *Replica) Unwait(token uint64) {
	if token == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.core.Unwait(token)
}
