package quorum

import (
	"errors"
	"fmt"
	"sync/atomic"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// Member is one controller of the quorum, without goroutine or clock: its driver
// calls Tick at a steady rate, Step with each message received, Propose, and
// Process after any of them. Not safe for concurrent use. After an error of
// Process the member is broken (its disk failed) and must be closed.
type Member struct {
	cfg  Config
	raft *raft.RawNode
	disk *disk

	voters   *raftpb.ConfState
	role     atomic.Int32 // a Role, for readers on other goroutines
	voted    atomic.Bool  // it was a voter since the start; as role
	applied  uint64
	readable atomic.Int64 // the offset after the last applied entry, for readers on other goroutines
	// sinceEntries and sinceBytes count what was applied since the last checkpoint.
	sinceEntries int
	sinceBytes   int64

	leader   int32 // as last told to the state machine
	epoch    int32
	isLeader bool

	ticks         int            // since the start
	ledSince      int            // the tick at which this member last became leader
	heard         map[uint64]int // the tick at which each member was last heard
	snapshots     map[uint64]int // the tick at which each member was sent a checkpoint that it did not confirm
	caughtUp      map[uint64]int // the tick at which each member last had caught up; nil unless this one leads
	lastAtTick    uint64         // the log's last index at the last tick
	changing      *voterChange   // of this leader; nil when none is under way
	checkpointDue bool

	// queued are proposals that raft took but did not number yet, in order. waiting
	// are those with an index, in order.
	queued  []proposal
	waiting []proposal
}

type proposal struct {
	index uint64
	done  func(offset int64, err error)
}

// OpenMember opens the directory, creating it on the first start, restores the
// state machine and joins the quorum as a follower.
func OpenMember(cfg Config) (*Member, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	d, start, err := openDisk(&cfg)
	if err != nil {
		return nil, err
	}
	m := &Member{cfg: cfg, disk: d, applied: start.index, leader: -1, epoch: -1, snapshots: map[uint64]int{}}
	m.setVoters(start.voters)
	m.readable.Store(int64(start.index))
	if err := cfg.StateMachine.Restore(int64(start.index), int32(start.term), start.state); err != nil {
		return nil, errors.Join(fmt.Errorf("quorum: restore checkpoint %s: %w", start.name(), err), d.log.Close())
	}
	m.raft, err = raft.NewRawNode(&raft.Config{
		ID:                        m.self().raftID(),
		ElectionTick:              cfg.ElectionTicks,
		HeartbeatTick:             1,
		Storage:                   d,
		Applied:                   start.index,
		MaxSizePerMsg:             1 << 20,
		MaxUncommittedEntriesSize: 64 << 20,
		MaxInflightMsgs:           256,
		CheckQuorum:               true,
		PreVote:                   true,
		// The active controller computes its records from its own state: a proposal
		// forwarded from a follower would be computed from an older one.
		DisableProposalForwarding: true,
		StepDownOnRemoval:         true,
		Logger:                    raftLogger{cfg.Logger},
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("quorum: start raft: %w", err), d.log.Close())
	}
	if voters, _ := m.Members(); len(voters) == 1 && voters[0] == m.self() {
		// Nobody else can lead: no reason to wait for an election timeout.
		if err := m.raft.Campaign(); err != nil {
			return nil, errors.Join(fmt.Errorf("quorum: campaign: %w", err), d.log.Close())
		}
	}
	return m, nil
}

// Tick advances raft's logical clock by one.
func (m *Member) Tick() {
	m.ticks++
	m.raft.Tick()
	m.noteCaughtUp()
	for id, since := range m.snapshots {
		if m.ticks-since >= snapshotTicks {
			delete(m.snapshots, id)
			m.raft.ReportSnapshot(id, raft.SnapshotFailure) // send it again, if it is still needed
		}
	}
}

// snapshotTicks is after how many ticks a checkpoint that was sent and not confirmed
// is taken for lost.
const snapshotTicks = 100

// raftMessage says that what follows is a message of raft.
const raftMessage = 1

// Receive takes a message that another member sent. One that is not for this replica,
// as from those who do not know yet that its node lost its disk, is dropped.
func (m *Member) Receive(message []byte) error {
	if len(message) == 0 || message[0] != raftMessage {
		return fmt.Errorf("quorum: a message of %d bytes is of no kind that is known", len(message))
	}
	r := &raftpb.Message{}
	if err := proto.Unmarshal(message[1:], r); err != nil {
		return fmt.Errorf("quorum: a message of %d bytes cannot be read: %w", len(message), err)
	}
	if r.GetTo() != m.self().raftID() || r.GetFrom() == r.GetTo() || raft.IsLocalMsg(r.GetType()) {
		return fmt.Errorf("quorum: message from %s to %s is not for %s", replicaOf(r.GetFrom()), replicaOf(r.GetTo()), m.self())
	}
	m.hear(r.GetFrom())
	return m.raft.Step(r)
}

// Propose offers a value; done is called once, from Process or Close, with its
// offset when it is committed and applied here, or with ErrNotLeader (nothing
// happened), ErrLeadershipLost (unknown) or ErrTooLarge. With an epoch of 0 or
// more it is offered in that epoch only: what was decided under one leadership
// must not be committed under the next.
func (m *Member) Propose(epoch int32, value []byte, done func(offset int64, err error)) {
	if now := int32(m.raft.BasicStatus().GetTerm()); epoch >= 0 && epoch != now {
		done(-1, fmt.Errorf("%w in epoch %d: it is %d now", ErrNotLeader, epoch, now))
		return
	}
	if len(value) > m.cfg.MaxEntryBytes {
		done(-1, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(value), m.cfg.MaxEntryBytes))
		return
	}
	batch := newEntryBatch(value, m.cfg.Now().UnixMilli())
	if err := m.raft.Propose(batch); err != nil {
		done(-1, fmt.Errorf("%w: %w", ErrNotLeader, err))
		return
	}
	m.queued = append(m.queued, proposal{done: done})
}

// Leader returns the leader's node id, -1 when none is known, and the epoch.
func (m *Member) Leader() (leader, epoch int32) { return m.leader, m.epoch }

// Process does what raft has ready: it stores, sends, and applies.
func (m *Member) Process() error {
	for m.raft.HasReady() {
		ready := m.raft.Ready()
		if !raft.IsEmptySnap(ready.Snapshot) {
			if err := m.install(ready.Snapshot); err != nil {
				return err
			}
		}
		m.number(ready.Entries)
		if err := m.disk.save(ready.HardState, ready.Entries); err != nil {
			return err
		}
		m.send(ready.Messages)
		for _, e := range ready.CommittedEntries {
			if err := m.apply(e); err != nil {
				return err
			}
		}
		if ready.SoftState != nil && ready.SoftState.RaftState != raft.StateLeader {
			m.abandon(ErrLeadershipLost)
		}
		m.raft.Advance(ready)
		m.tellLeader()
		m.settleVoterChange()
		if err := m.maybeCheckpoint(); err != nil {
			return err
		}
	}
	return nil
}

// send hands messages to the transport. Raft learns that a checkpoint arrived by the
// follower's answer; when that does not come, Tick has it sent again.
func (m *Member) send(messages []*raftpb.Message) {
	if m.cfg.Transport == nil {
		return
	}
	for _, message := range messages {
		if message.GetType() == raftpb.MsgSnap {
			m.snapshots[message.GetTo()] = m.ticks
		}
		data, err := proto.MarshalOptions{}.MarshalAppend([]byte{raftMessage}, message)
		if err != nil {
			m.cfg.Logger.Error().Err(err).Msg("a message of raft cannot be encoded; please report this")
			continue
		}
		m.cfg.Transport.Send(replicaOf(message.GetTo()).Node, data)
	}
}

// number gives queued proposals their indexes: on a leader, the entries with a
// payload that become ready are its own proposals, in order.
func (m *Member) number(entries []*raftpb.Entry) {
	for _, e := range entries {
		if len(m.queued) == 0 {
			return
		}
		if e.GetType() == raftpb.EntryNormal && len(e.GetData()) > 0 {
			p := m.queued[0]
			p.index = e.GetIndex()
			m.queued = m.queued[1:]
			m.waiting = append(m.waiting, p)
		}
	}
}

// abandon fails every open proposal.
func (m *Member) abandon(err error) {
	open := append(m.waiting, m.queued...)
	m.waiting, m.queued = nil, nil
	if c := m.changing; c != nil {
		m.changing = nil
		c.done(err)
	}
	for _, p := range open {
		p.done(-1, err)
	}
}

func (m *Member) install(s *raftpb.Snapshot) error {
	if err := m.disk.install(s); err != nil {
		return err
	}
	meta := s.GetMetadata()
	m.setVoters(raftpb.EnsureConfState(meta.GetConfState()))
	m.applied = meta.GetIndex()
	m.readable.Store(int64(m.applied))
	m.sinceEntries, m.sinceBytes = 0, 0
	if err := m.cfg.StateMachine.Restore(int64(meta.GetIndex()), int32(meta.GetTerm()), s.GetData()); err != nil {
		return fmt.Errorf("quorum: restore checkpoint from leader at %d: %w", meta.GetIndex(), err)
	}
	return nil
}

func (m *Member) apply(e *raftpb.Entry) error {
	m.applied = e.GetIndex()
	m.readable.Store(int64(m.applied))
	m.sinceEntries++
	m.sinceBytes += int64(len(e.GetData()))
	if e.GetType() != raftpb.EntryNormal {
		return m.applyVoterChange(e)
	}
	if len(e.GetData()) == 0 {
		return nil
	}
	value, timestamp, err := valueOf(e.GetData())
	if err != nil {
		return fmt.Errorf("quorum: committed entry %d: %w", e.GetIndex(), err)
	}
	offset := int64(e.GetIndex()) - 1
	m.cfg.StateMachine.Apply(Entry{Offset: offset, Epoch: int32(e.GetTerm()), Timestamp: timestamp, Value: value})
	if len(m.waiting) > 0 && m.waiting[0].index == e.GetIndex() {
		p := m.waiting[0]
		m.waiting = m.waiting[1:]
		p.done(offset, nil)
	}
	return nil
}

// tellLeader reports a change of leader. On the leader itself it waits until
// the entry that opens its epoch is applied, so that its state is complete.
func (m *Member) tellLeader() {
	status := m.raft.BasicStatus()
	leader, epoch := int32(-1), int32(status.GetTerm())
	if status.Lead != raft.None {
		leader = replicaOf(status.Lead).Node
	}
	if leader == m.leader && epoch == m.epoch {
		return
	}
	self := status.Lead == m.self().raftID()
	if self {
		if term, err := m.disk.Term(m.applied); err != nil || int32(term) != epoch {
			leader, self = -1, false // not yet
		}
		if leader == m.leader && epoch == m.epoch {
			return
		}
	}
	if self && !m.isLeader {
		m.ledSince = m.ticks
	}
	m.leader, m.epoch, m.isLeader = leader, epoch, self
	m.cfg.StateMachine.LeaderChanged(leader, epoch)
}

func (m *Member) maybeCheckpoint() error {
	if !m.checkpointDue && m.sinceEntries < m.cfg.SnapshotEntries && m.sinceBytes < m.cfg.SnapshotBytes {
		return nil
	}
	if err := m.disk.compact(m.applied, m.voters, m.cfg.StateMachine.Snapshot(), m.cfg.KeepEntries); err != nil {
		return err
	}
	m.sinceEntries, m.sinceBytes, m.checkpointDue = 0, 0, false
	return nil
}

// TransferLeadership asks the voter that is furthest and alive to lead instead of this
// member; false when it does not lead or there is none. Proposals are refused until
// it worked or an election timeout has passed.
func (m *Member) TransferLeadership() bool {
	if !m.isLeader {
		return false
	}
	best, match := uint64(raft.None), uint64(0)
	m.raft.WithProgress(func(id uint64, kind raft.ProgressType, p progress) {
		if kind == raft.ProgressTypePeer && id != m.self().raftID() && p.Match > match && m.active(replicaOf(id)) {
			best, match = id, p.Match
		}
	})
	if best == raft.None {
		return false
	}
	m.raft.TransferLeader(best)
	return true
}

// Offsets returns the first offset on disk and the end of what is applied. Safe
// for concurrent use with the driver.
func (m *Member) Offsets() (start, end int64) {
	return m.disk.log.StartOffset(), m.readable.Load()
}

// Close fails what is open and closes the log. The quorum goes on without it.
func (m *Member) Close() error {
	m.abandon(ErrClosed)
	return m.disk.log.Close()
}
