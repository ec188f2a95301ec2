package quorum

import (
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// Errors of changes of the quorum.
var (
	// ErrChangePending says that another change of the quorum is not finished yet.
	ErrChangePending = errors.New("quorum: another change of the voters is under way")
	// ErrNodeInUse says that a node with that id is a live member of the quorum.
	ErrNodeInUse = errors.New("quorum: the node id is in use")
	// ErrNotMember says that the replica is not where the change needs it.
	ErrNotMember = errors.New("quorum: not a member")
	// ErrAlreadyVoter says that the replica votes already.
	ErrAlreadyVoter = errors.New("quorum: already a voter")
	// ErrLagging says that the replica is silent or has not caught up.
	ErrLagging = errors.New("quorum: the replica has not caught up with the log")
	// ErrLastVoter says that the quorum would be left without a voter.
	ErrLastVoter = errors.New("quorum: the last voter cannot be removed")
)

// promotionLag is how many entries a learner may be behind when it becomes a voter.
const promotionLag = 1000

// voterChange is a change of the quorum that is under way.
type voterChange struct {
	done    func(error)
	applied bool
}

// Members returns the voters and the learners, as applied. Learners have the log and
// no vote.
func (m *Member) Members() (voters, learners []Replica) {
	return replicasOf(m.voters.GetVoters()), replicasOf(slices.Concat(m.voters.GetLearners(), m.voters.GetLearnersNext()))
}

// self is the replica of this member.
func (m *Member) self() Replica { return Replica{m.cfg.NodeID, m.cfg.Directory} }

// Role is what a replica is in the quorum.
type Role int32

// The roles, in rising order.
const (
	Outsider Role = iota // not taken in, as far as it knows
	Learner              // has the log, and no vote
	Voter
)

// Role returns what this replica is, as applied. Safe for concurrent use with the
// driver.
func (m *Member) Role() Role { return Role(m.role.Load()) }

// JoinRequest asks the leader to take a replica in.
type JoinRequest struct {
	Directory Directory
	// Node is the id that the node has; less than 0 to be given one.
	Node int32
	// Voter asks for a vote, too, when the replica has caught up.
	Voter bool
	// Used says which node ids are taken outside of the quorum. May be nil.
	Used func(node int32) bool
}

// Join takes a replica in as learner, and with Voter makes it a voter once it has
// caught up, in place of what the node had before it lost its disk. done is called
// once, from Join, Process or Close, with the replica as it is named; calling again
// changes nothing that is done. Errors: ErrNotLeader, ErrNodeInUse, ErrChangePending,
// ErrLeadershipLost. While a learner catches up it is asked for a vote again and
// again without an error.
func (m *Member) Join(r JoinRequest, done func(Replica, error)) {
	if !m.isLeader {
		done(Replica{}, ErrNotLeader)
		return
	}
	voters, learners := m.Members()
	node, err := m.nodeFor(r, slices.Concat(voters, learners))
	if err != nil {
		done(Replica{}, err)
		return
	}
	joining := Replica{node, r.Directory}
	finish := func(err error) { done(joining, err) }
	var changes []*raftpb.ConfChangeSingle
	add := func(kind raftpb.ConfChangeType, replica Replica) {
		changes = append(changes, singleChange(kind, replica))
	}
	switch {
	case slices.Contains(voters, joining), slices.Contains(learners, joining) && (!r.Voter || m.lagging(joining)):
		finish(nil)
		return
	case slices.Contains(learners, joining):
		add(raftpb.ConfChangeAddNode, joining)
		for _, old := range voters {
			if old.Node == node {
				add(raftpb.ConfChangeRemoveNode, old)
			}
		}
	default:
		add(raftpb.ConfChangeAddLearnerNode, joining)
	}
	for _, old := range learners {
		if old.Node == node && old != joining {
			add(raftpb.ConfChangeRemoveNode, old)
		}
	}
	m.change(changes, finish)
}

func singleChange(kind raftpb.ConfChangeType, r Replica) *raftpb.ConfChangeSingle {
	id := r.raftID()
	return &raftpb.ConfChangeSingle{Type: &kind, NodeId: &id}
}

// nodeFor returns the id that a joining replica has or gets.
func (m *Member) nodeFor(r JoinRequest, members []Replica) (int32, error) {
	for _, member := range members {
		if r.Directory != 0 && member.Directory == r.Directory && (r.Node < 0 || r.Node == member.Node) {
			return member.Node, nil
		}
	}
	if r.Node >= 0 {
		for _, member := range members {
			if member.Node == r.Node && (m.active(member) || member == m.self()) {
				return 0, fmt.Errorf("%w: node %d runs with another data directory", ErrNodeInUse, r.Node)
			}
		}
		return r.Node, nil
	}
	for node := int32(1); ; node++ {
		if !slices.ContainsFunc(members, func(x Replica) bool { return x.Node == node }) && (r.Used == nil || !r.Used(node)) {
			return node, nil
		}
	}
}

// AddVoter makes a learner that has caught up a voter, in place of what its node had
// before it lost its disk. See Join for done; more errors: ErrNotMember,
// ErrAlreadyVoter, ErrLagging.
func (m *Member) AddVoter(r Replica, done func(error)) {
	voters, learners := m.Members()
	switch {
	case !m.isLeader:
		done(ErrNotLeader)
	case slices.Contains(voters, r):
		done(fmt.Errorf("%w: %s", ErrAlreadyVoter, r))
	case !slices.Contains(learners, r):
		done(fmt.Errorf("%w: %s does not follow the metadata log; start it first", ErrNotMember, r))
	case m.lagging(r):
		done(fmt.Errorf("%w: %s", ErrLagging, r))
	default:
		m.Join(JoinRequest{Directory: r.Directory, Node: r.Node, Voter: true}, func(_ Replica, err error) { done(err) })
	}
}

// RemoveVoter takes the vote of a voter. One that runs stays a learner; one that does
// not is forgotten. See Join for done; more errors: ErrNotMember, ErrLastVoter.
func (m *Member) RemoveVoter(r Replica, done func(error)) {
	voters, _ := m.Members()
	switch {
	case !m.isLeader:
		done(ErrNotLeader)
	case !slices.Contains(voters, r):
		done(fmt.Errorf("%w: %s is no voter", ErrNotMember, r))
	case len(voters) == 1:
		done(ErrLastVoter)
	case r == m.self() || m.active(r):
		m.change([]*raftpb.ConfChangeSingle{singleChange(raftpb.ConfChangeAddLearnerNode, r)}, done)
	default:
		m.change([]*raftpb.ConfChangeSingle{singleChange(raftpb.ConfChangeRemoveNode, r)}, done)
	}
}

// Forget removes a learner, as when its node was taken out of the cluster.
func (m *Member) Forget(r Replica, done func(error)) {
	_, learners := m.Members()
	switch {
	case !m.isLeader:
		done(ErrNotLeader)
	case !slices.Contains(learners, r):
		done(fmt.Errorf("%w: %s is no learner", ErrNotMember, r))
	default:
		m.change([]*raftpb.ConfChangeSingle{singleChange(raftpb.ConfChangeRemoveNode, r)}, done)
	}
}

// change proposes a change of the quorum.
func (m *Member) change(changes []*raftpb.ConfChangeSingle, done func(error)) {
	if m.changing != nil || len(m.voters.GetVotersOutgoing()) > 0 {
		done(ErrChangePending)
		return
	}
	if err := m.raft.ProposeConfChange(&raftpb.ConfChangeV2{Changes: changes}); err != nil {
		done(fmt.Errorf("%w: %w", ErrNotLeader, err))
		return
	}
	m.changing = &voterChange{done: done}
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
	m.setVoters(m.raft.ApplyConfChange(change))
	voters, learners := m.Members()
	m.cfg.Logger.Info().Stringers("voters", stringers(voters)).Stringers("learners", stringers(learners)).Msg("members of the metadata quorum changed")
	// A replica that joins gets this checkpoint: it must name the replica as a member.
	m.checkpointDue = true
	if m.changing != nil {
		m.changing.applied = true
	}
	return nil
}

// settleVoterChange answers the change that is under way once it is finished: when
// both sets of voters agreed to leave the old one.
func (m *Member) settleVoterChange() {
	if m.changing == nil || !m.changing.applied || len(m.voters.GetVotersOutgoing()) > 0 {
		return
	}
	done := m.changing.done
	m.changing = nil
	done(nil)
}

func (m *Member) setVoters(state *raftpb.ConfState) {
	m.voters = state
	voters, learners := m.Members()
	switch {
	case slices.Contains(voters, m.self()) && (len(state.GetVotersOutgoing()) == 0 || slices.Contains(state.GetVotersOutgoing(), m.self().raftID())):
		m.role.Store(int32(Voter))
		m.voted.Store(true)
	case slices.Contains(voters, m.self()), slices.Contains(learners, m.self()):
		// Until the old voters are out, theirs are the votes that decide.
		m.role.Store(int32(Learner))
	default:
		m.role.Store(int32(Outsider))
	}
	m.heard = map[uint64]int{}
	for _, ids := range [][]uint64{state.GetVoters(), state.GetVotersOutgoing(), state.GetLearners()} {
		for _, id := range ids {
			m.heard[id] = m.ticks
		}
	}
}

// hear notes that a member gave a sign of life.
func (m *Member) hear(id uint64) {
	if _, ok := m.heard[id]; ok {
		m.heard[id] = m.ticks
	}
}

// active says that a member was heard within an election timeout, or that too little
// time has passed to say.
func (m *Member) active(r Replica) bool {
	last, ok := m.heard[r.raftID()]
	return ok && m.ticks-max(last, m.ledSince) <= 2*m.cfg.ElectionTicks
}

// lagging says that a learner is silent or far behind.
func (m *Member) lagging(r Replica) bool {
	behind := true
	last, err := m.disk.LastIndex()
	if err != nil {
		return true
	}
	m.raft.WithProgress(func(id uint64, _ raft.ProgressType, p progress) {
		if id == r.raftID() {
			behind = p.Match == 0 || p.Match+promotionLag < last
		}
	})
	return behind || !m.active(r)
}

func stringers(list []Replica) []fmt.Stringer {
	out := make([]fmt.Stringer, len(list))
	for n, r := range list {
		out[n] = r
	}
	return out
}
