package replica

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/leatlog/leat/broker/internal/metadata"
	"github.com/leatlog/leat/broker/internal/mutant"
)

// Role is what this broker is to a partition.
//
//	Offline -> Leader | Follower   metadata names a leader and the log is healthy
//	Leader <-> Follower            metadata moves the leadership
//	any -> Offline                 no leader, the log is damaged, or the replica is closed
type Role int8

// The roles.
const (
	Offline Role = iota
	Follower
	Leader
)

func (r Role) String() string {
	return [...]string{"offline", "follower", "leader"}[r]
}

// AppendSink is told how an append ended, exactly once per append. It is called
// with no lock held, on any goroutine, and must not block. tag is the one given
// with the append. On an error the offsets are -1 except logStart.
type AppendSink interface {
	Appended(tag int, err *kerr.Error, baseOffset, logAppendTime, logStart int64)
}

// Waiter is told what happens to a partition on which it waits. It is called
// with no lock held, on any goroutine, and must not block. A call may still be on
// its way when Unwait returns.
type Waiter interface {
	// Readable says that bytes more became readable since the last call, or since
	// the position with which the waiter registered.
	Readable(bytes int64)
	// Interrupted says that the partition's leadership changed or ended: reading it
	// will tell how. The registration is over.
	Interrupted()
}

// Parked is an append that waits for the high watermark to reach End.
type Parked struct {
	End           int64 // exclusive
	Sink          AppendSink
	Tag           int
	Deadline      time.Time // zero: none
	BaseOffset    int64
	LogAppendTime int64 // ms, -1: the batch keeps its create time
}

// Answered is an append's end. Err nil means it is durable on all in-sync replicas.
type Answered struct {
	Parked
	Err *kerr.Error
}

// Woken is a waiter to be told. Bytes is negative when it is interrupted.
type Woken struct {
	Waiter Waiter
	Bytes  int64
}

// Effects is what the shell must do after a step of a Partition. The caller owns
// it and reuses it; steps append.
type Effects struct {
	Answered []Answered
	Woken    []Woken
	// Proposal, when set, is to be brought to the controller; Altered takes the answer.
	Proposal *Proposal
}

// Reset empties e and keeps its memory, without keeping what it pointed to.
func (e *Effects) Reset() {
	clear(e.Answered)
	clear(e.Woken)
	e.Answered, e.Woken, e.Proposal = e.Answered[:0], e.Woken[:0], nil
}

// pending is a stretch of the log between the high watermark and the end: one
// append, with its parked answer if one waits. Stretches are ordered by End.
type pending struct {
	Parked
	bytes int64
}

// waiting is a registered waiter. Tokens rise. A removed one has no waiter and
// goes at the next sweep.
type waiting struct {
	token  uint64
	seen   int64
	waiter Waiter
}

// unknownBytes is the size given to a stretch of log appended before this
// broker led it: waiters are woken rather early than late.
const unknownBytes = math.MaxInt32

// Partition is the state machine of one replica. Its methods are steps: they
// change the state and append to fx what the shell has to do. Not safe for
// concurrent use. The zero value is not ready; use NewPartition.
type Partition struct {
	self           int32
	role           Role
	fault          *kerr.Error // why Offline, nil when it is only that nobody leads
	leader         int32
	leaderEpoch    int32
	partitionEpoch int32
	replicas       []int32
	isr            []int32
	minISR         int

	// Of a leader; see isr.go.
	epochStart int64     // own log end when this leader epoch began
	proposal   *Proposal // brought to the controller and not settled
	hold       bool      // the controller refused: no proposal before the next Tick or BrokersJoined
	oneByOne   bool      // the controller refused in this epoch: one replica joins at a time
	brokers    uint64    // rises with BrokersJoined
	lag        time.Duration

	end       int64 // own log end, exclusive
	synced    int64 // own durable end, exclusive, at most end
	high      int64 // high watermark; never falls while the log is not truncated
	followers []follower

	readable  int64 // bytes that passed the high watermark since the start
	pending   []pending
	head      int // first live element of pending
	waiters   []waiting
	removed   int // elements of waiters without one
	tails     []waiting
	lastToken uint64
}

// NewPartition returns the state of an offline replica on broker self, whose log
// ends at end. All of an opened log counts as synced: recovery has read it back.
func NewPartition(self int32, end int64) *Partition {
	return &Partition{self: self, leader: -1, leaderEpoch: -1, partitionEpoch: -1, minISR: 1, lag: DefaultLag, end: end, synced: end}
}

// Role, Leader, LeaderEpoch and PartitionEpoch say where the partition stands; -1 unknown.
func (p *Partition) Role() Role            { return p.role }
func (p *Partition) Leader() int32         { return p.leader }
func (p *Partition) LeaderEpoch() int32    { return p.leaderEpoch }
func (p *Partition) PartitionEpoch() int32 { return p.partitionEpoch }

// HighWatermark is the exclusive end of what is durable on all in-sync replicas.
func (p *Partition) HighWatermark() int64 { return p.high }

// Position counts the bytes that became readable so far. A reader takes it
// before it reads and waits for it to grow.
func (p *Partition) Position() int64 { return p.readable }

// CheckLeader says whether requests of clients may be served: nil, or
// NOT_LEADER_OR_FOLLOWER, KAFKA_STORAGE_ERROR, or with a current leader epoch
// other than -1 FENCED_LEADER_EPOCH or UNKNOWN_LEADER_EPOCH (KIP-320).
func (p *Partition) CheckLeader(currentEpoch int32) *kerr.Error {
	switch {
	case p.fault != nil:
		return p.fault
	case currentEpoch >= 0 && currentEpoch < p.leaderEpoch:
		return kerr.FencedLeaderEpoch
	case currentEpoch > p.leaderEpoch:
		return kerr.UnknownLeaderEpoch
	case p.role != Leader:
		return kerr.NotLeaderForPartition
	}
	return nil
}

// CheckReplica is CheckLeader for what a follower serves, too (KIP-392).
func (p *Partition) CheckReplica(currentEpoch int32) *kerr.Error {
	if err := p.CheckLeader(currentEpoch); err != nil && (err != kerr.NotLeaderForPartition || p.role != Follower) {
		return err
	}
	return nil
}

// CheckAppend says whether an append with these acks may be made.
func (p *Partition) CheckAppend(acks int16) *kerr.Error {
	if err := p.CheckLeader(-1); err != nil {
		return err
	}
	if acks == -1 && p.underMin() {
		return kerr.NotEnoughReplicas
	}
	return nil
}

// underMin says that fewer replicas are in sync than min.insync.replicas. A
// partition that has fewer replicas than that needs all it has (KIP-966).
func (p *Partition) underMin() bool { return len(p.isr) < min(p.minISR, len(p.replicas)) }

// SetMinISR sets min.insync.replicas.
func (p *Partition) SetMinISR(n int) { p.minISR = max(n, 1) }

// Become takes over what metadata says. A state older than the known one is
// ignored. Losing the leadership fails what is parked; a new leader epoch
// interrupts the waiters.
func (p *Partition) Become(meta *metadata.Partition, fx *Effects) {
	if meta.PartitionEpoch < p.partitionEpoch {
		return
	}
	if p.role == Offline && p.fault != nil {
		p.stepAside(meta, fx)
		return
	}
	was, wasEpoch := p.role, p.leaderEpoch
	if meta.PartitionEpoch > p.partitionEpoch || meta.LeaderEpoch != wasEpoch {
		p.proposal = nil // settled by this, or void
	}
	p.leader, p.leaderEpoch, p.partitionEpoch = meta.Leader, meta.LeaderEpoch, meta.PartitionEpoch
	p.replicas = append(p.replicas[:0], meta.Replicas...)
	p.isr = append(p.isr[:0], meta.ISR...)
	switch {
	case meta.Leader == p.self:
		p.role = Leader
	case meta.Leader >= 0 && slices.Contains(meta.Replicas, p.self):
		p.role = Follower
	default:
		p.role = Offline
	}
	if was == Leader && p.role != Leader && !mutant.Is(mutant.OldLeaderAcknowledges) {
		p.failParked(kerr.NotLeaderForPartition, fx)
	}
	if was != p.role || wasEpoch != p.leaderEpoch {
		p.interrupt(fx)
	}
	if p.role == Leader {
		p.lead(was != Leader || wasEpoch != p.leaderEpoch, fx)
	}
}

// Fault takes the replica offline for good with the error that clients get, as
// when its log is damaged (KAFKA_STORAGE_ERROR) or its topic deleted
// (UNKNOWN_TOPIC_OR_PARTITION). A damaged one that leads gives that up.
func (p *Partition) Fault(err *kerr.Error, fx *Effects) {
	p.role, p.fault, p.proposal, p.hold = Offline, err, nil, false
	p.failParked(err, fx)
	p.interrupt(fx)
	p.GiveUp(fx)
}

// Appended says that the own log grew to end by an append of bytes. With a sink,
// the append is parked until the high watermark reaches it.
func (p *Partition) Appended(end, bytes int64, parked Parked, fx *Effects) {
	p.end = end
	parked.End = end
	e := pending{Parked: parked, bytes: bytes}
	if err := p.CheckLeader(-1); err != nil {
		p.answer(&e, err, fx) // the leadership or the disk was lost meanwhile
	}
	p.push(e)
	p.advance(fx)
	p.wakeTails(fx)
}

// Park parks the answer to an append that is in the log already, such as a
// producer's repeated batch: it is answered at once if the high watermark has
// passed parked.End.
func (p *Partition) Park(parked Parked, fx *Effects) {
	if parked.End <= p.high {
		fx.Answered = append(fx.Answered, Answered{Parked: parked})
		return
	}
	if err := p.CheckLeader(-1); err != nil {
		fx.Answered = append(fx.Answered, Answered{Parked: parked, Err: err})
		return
	}
	at, _ := slices.BinarySearchFunc(p.pending[p.head:], parked.End+1, func(e pending, end int64) int { return cmp.Compare(e.End, end) })
	p.pending = slices.Insert(p.pending, p.head+at, pending{Parked: parked})
}

// Synced says that the own log is durable up to end. It may run ahead of
// Appended: what is durable counts when its append is known.
func (p *Partition) Synced(end int64, fx *Effects) {
	if end > p.synced {
		p.synced = end
		p.advance(fx)
	}
}

// advance moves a leader's high watermark to the least synced offset of the
// in-sync replicas and answers whom it passed. It stands still while fewer are in
// sync than min.insync.replicas (KIP-966): what is below it is on that many disks.
func (p *Partition) advance(fx *Effects) {
	if p.role != Leader || p.underMin() && !mutant.Is(mutant.CommitsBelowMinISR) {
		return
	}
	high := min(p.synced, p.end)
	if mutant.Is(mutant.AckBeforeSync) {
		high = p.end
	}
	for i := range p.followers {
		if f := &p.followers[i]; p.maybeInSync(f.id) {
			high = min(high, f.synced)
		}
	}
	p.raise(high, fx)
}

// raise moves the high watermark up and answers whom it passed.
func (p *Partition) raise(high int64, fx *Effects) {
	if high <= p.high {
		return
	}
	p.high = high
	for p.head < len(p.pending) && p.pending[p.head].End <= high {
		e := &p.pending[p.head]
		p.readable += e.bytes
		if e.Sink != nil {
			fx.Answered = append(fx.Answered, Answered{Parked: e.Parked})
		}
		*e = pending{}
		p.head++
	}
	p.compact()
	p.wake(fx)
}

func (p *Partition) push(e pending) {
	p.compact()
	p.pending = append(p.pending, e)
}

// compact drops the dead front of pending once it is the larger half.
func (p *Partition) compact() {
	if p.head > 0 && p.head*2 >= len(p.pending) {
		n := copy(p.pending, p.pending[p.head:])
		clear(p.pending[n:])
		p.pending, p.head = p.pending[:n], 0
	}
}

// wake tells every waiter what became readable since it was told last.
func (p *Partition) wake(fx *Effects) {
	for i := range p.waiters {
		w := &p.waiters[i]
		if bytes := p.readable - w.seen; bytes > 0 && w.waiter != nil {
			w.seen = p.readable
			fx.Woken = append(fx.Woken, Woken{Waiter: w.waiter, Bytes: bytes})
		}
	}
}

// wakeTails tells who waits for the end of the log.
func (p *Partition) wakeTails(fx *Effects) {
	for i := range p.tails {
		if w := &p.tails[i]; p.end > w.seen {
			fx.Woken = append(fx.Woken, Woken{Waiter: w.waiter, Bytes: p.end - w.seen})
			w.seen = p.end
		}
	}
}

func (p *Partition) interrupt(fx *Effects) {
	for _, list := range [][]waiting{p.waiters, p.tails} {
		for _, w := range list {
			if w.waiter != nil {
				fx.Woken = append(fx.Woken, Woken{Waiter: w.waiter, Bytes: -1})
			}
		}
		clear(list)
	}
	p.waiters, p.tails, p.removed = p.waiters[:0], p.tails[:0], 0
}

// failParked answers everything parked with err. The stretches stay: their bytes
// are in the log.
func (p *Partition) failParked(err *kerr.Error, fx *Effects) {
	for i := p.head; i < len(p.pending); i++ {
		p.answer(&p.pending[i], err, fx)
	}
}

func (p *Partition) answer(e *pending, err *kerr.Error, fx *Effects) {
	if e.Sink == nil {
		return
	}
	fx.Answered = append(fx.Answered, Answered{Parked: e.Parked, Err: err})
	e.Sink, e.Deadline = nil, time.Time{}
}

// Wait registers w for what becomes readable after the position seen and returns
// a token for Unwait. When some has already, it is told at once. When epoch is not
// the current leader epoch, or nobody may read here, it is interrupted at once and
// the token is 0.
func (p *Partition) Wait(w Waiter, seen int64, epoch int32, fx *Effects) uint64 {
	if p.role == Offline || epoch != p.leaderEpoch {
		fx.Woken = append(fx.Woken, Woken{Waiter: w, Bytes: -1})
		return 0
	}
	if p.readable > seen {
		fx.Woken = append(fx.Woken, Woken{Waiter: w, Bytes: p.readable - seen})
	}
	p.lastToken++
	p.waiters = append(p.waiters, waiting{token: p.lastToken, seen: p.readable, waiter: w})
	return p.lastToken
}

// WaitEnd is Wait for the end of a leader's log, for followers: Readable is told
// offsets, the first time when the log ends beyond seen.
func (p *Partition) WaitEnd(w Waiter, seen int64, epoch int32, fx *Effects) uint64 {
	if p.role != Leader || epoch != p.leaderEpoch {
		fx.Woken = append(fx.Woken, Woken{Waiter: w, Bytes: -1})
		return 0
	}
	p.lastToken++
	p.tails = append(p.tails, waiting{token: p.lastToken, seen: seen, waiter: w})
	p.wakeTails(fx)
	return p.lastToken
}

// Unwait ends a registration; one that is over or 0 is fine.
func (p *Partition) Unwait(token uint64) {
	if i := slices.IndexFunc(p.tails, func(w waiting) bool { return w.token == token }); i >= 0 {
		p.tails = slices.Delete(p.tails, i, i+1)
		return
	}
	i, ok := slices.BinarySearchFunc(p.waiters, token, func(w waiting, t uint64) int { return cmp.Compare(w.token, t) })
	if !ok || p.waiters[i].waiter == nil {
		return
	}
	p.waiters[i].waiter = nil
	p.removed++
	// Sweep when half is removed: a thousand waiters that leave one by one cost no
	// thousand moves of the list.
	if p.removed*2 >= len(p.waiters) {
		p.waiters = slices.DeleteFunc(p.waiters, func(w waiting) bool { return w.waiter == nil })
		p.removed = 0
	}
}

// Waiters is the number of registrations.
func (p *Partition) Waiters() int { return len(p.waiters) - p.removed + len(p.tails) }

// Expire answers parked appends whose deadline has come with REQUEST_TIMED_OUT;
// what they appended stays in the log, as in Kafka.
func (p *Partition) Expire(now time.Time, fx *Effects) {
	for i := p.head; i < len(p.pending); i++ {
		if e := &p.pending[i]; !e.Deadline.IsZero() && !e.Deadline.After(now) {
			p.answer(e, kerr.RequestTimedOut, fx)
		}
	}
}

// NextDeadline is the earliest deadline of a parked append, zero when there is none.
func (p *Partition) NextDeadline() time.Time {
	var next time.Time
	for i := p.head; i < len(p.pending); i++ {
		if d := p.pending[i].Deadline; !d.IsZero() && (next.IsZero() || d.Before(next)) {
			next = d
		}
	}
	return next
}
