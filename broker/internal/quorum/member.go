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
	applied  uint64
	readable atomic.Int64 // the offset after the last applied entry, for readers on other goroutines
	// sinceEntries and sinceBytes count what was applied since the last checkpoint.
	sinceEntries int
	sinceBytes   int64

	leader   int32 // as last told to the state machine
	epoch    int32
	isLeader bool

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
	m := &Member{cfg: cfg, disk: d, voters: start.voters, applied: start.index, leader: -1, epoch: -1}
	m.readable.Store(int64(start.index))
	if err := cfg.StateMachine.Restore(int64(start.index), int32(start.term), start.state); err != nil {
		return nil, errors.Join(fmt.Errorf("quorum: restore checkpoint %s: %w", start.name(), err), d.log.Close())
	}
	m.raft, err = raft.NewRawNode(&raft.Config{
		ID:                        raftID(cfg.NodeID),
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
	if len(m.voters.GetVoters()) == 1 && m.voters.GetVoters()[0] == raftID(cfg.NodeID) {
		// Nobody else can lead: no reason to wait for an election timeout.
		if err := m.raft.Campaign(); err != nil {
			return nil, errors.Join(fmt.Errorf("quorum: campaign: %w", err), d.log.Close())
		}
	}
	return m, nil
}

// Tick advances raft's logical clock by one.
func (m *Member) Tick() { m.raft.Tick() }

// Step takes a message from another member.
func (m *Member) Step(message *raftpb.Message) error { return m.raft.Step(message) }

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
		if err := m.maybeCheckpoint(); err != nil {
			return err
		}
	}
	return nil
}

// send hands messages to the transport. Of a snapshot raft wants to know whether
// it arrived; the transport cannot tell, so it is reported as sent: the follower
// refuses what comes next if it was lost, and gets another one.
func (m *Member) send(messages []*raftpb.Message) {
	if m.cfg.Transport == nil || len(messages) == 0 {
		return
	}
	m.cfg.Transport.Send(messages)
	for _, message := range messages {
		if message.GetType() == raftpb.MsgSnap {
			m.raft.ReportSnapshot(message.GetTo(), raft.SnapshotFinish)
		}
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
	for _, p := range open {
		p.done(-1, err)
	}
}

func (m *Member) install(s *raftpb.Snapshot) error {
	if err := m.disk.install(s); err != nil {
		return err
	}
	meta := s.GetMetadata()
	m.voters, m.applied = raftpb.EnsureConfState(meta.GetConfState()), meta.GetIndex()
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

func (m *Member) applyVoterChange(e *raftpb.Entry) error {
	var change raftpb.ConfChangeI
	var err error
	if e.GetType() == raftpb.EntryConfChange {
		c := &raftpb.ConfChange{}
		err, change = proto.Unmarshal(e.GetData(), c), c
	} else {
		c := &raftpb.ConfChangeV2{}
		err, change = proto.Unmarshal(e.GetData(), c), c
	}
	if err != nil {
		return fmt.Errorf("quorum: voter change at %d: %w", e.GetIndex(), err)
	}
	m.voters = m.raft.ApplyConfChange(change)
	return nil
}

// tellLeader reports a change of leader. On the leader itself it waits until
// the entry that opens its epoch is applied, so that its state is complete.
func (m *Member) tellLeader() {
	status := m.raft.BasicStatus()
	leader, epoch := int32(-1), int32(status.GetTerm())
	if status.Lead != raft.None {
		leader = nodeID(status.Lead)
	}
	if leader == m.leader && epoch == m.epoch {
		return
	}
	if leader == m.cfg.NodeID {
		if term, err := m.disk.Term(m.applied); err != nil || int32(term) != epoch {
			leader = -1 // not yet
		}
		if leader == m.leader && epoch == m.epoch {
			return
		}
	}
	m.leader, m.epoch, m.isLeader = leader, epoch, leader == m.cfg.NodeID
	m.cfg.StateMachine.LeaderChanged(leader, epoch)
}

func (m *Member) maybeCheckpoint() error {
	if m.sinceEntries < m.cfg.SnapshotEntries && m.sinceBytes < m.cfg.SnapshotBytes {
		return nil
	}
	if err := m.disk.compact(m.applied, m.voters, m.cfg.StateMachine.Snapshot()); err != nil {
		return err
	}
	m.sinceEntries, m.sinceBytes = 0, 0
	return nil
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
