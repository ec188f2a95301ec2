package quorum

import (
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/tracker"
)

type progress = tracker.Progress

// Status describes the quorum as a member sees it.
type Status struct {
	// Leader is the leader's node id, -1 when none is known; Epoch is its epoch.
	Leader, Epoch int32
	// End is the offset after the last committed entry.
	End int64
	// Voters and Learners are in order of node ids.
	Voters, Learners []ReplicaStatus
}

// ReplicaStatus describes a member.
type ReplicaStatus struct {
	Replica
	// End is the offset after the last entry that the leader knows to be on its disk; -1
	// when this node is not the leader, or does not know.
	End int64
	// Active says that the leader heard of it lately.
	Active bool
	// Heard and CaughtUp are how many ticks ago the leader heard of it, and knew it to have
	// all that the log had; -1 when this node is not the leader, or does not know.
	Heard, CaughtUp int
}

// Status describes the quorum. Only the leader knows how far the others are.
func (m *Member) Status() Status {
	s := Status{Leader: m.leader, Epoch: m.epoch, End: m.readable.Load()}
	ends := map[uint64]int64{}
	if m.isLeader {
		m.raft.WithProgress(func(id uint64, _ raft.ProgressType, p progress) { ends[id] = int64(p.Match) })
	}
	describe := func(replicas []Replica) (list []ReplicaStatus) {
		for _, r := range replicas {
			end, ok := ends[r.raftID()]
			if !ok || end == 0 {
				end = -1
			}
			heard, caughtUp := m.since(r)
			list = append(list, ReplicaStatus{r, end, m.isLeader && (r == m.self() || m.active(r)), heard, caughtUp})
		}
		slices.SortFunc(list, func(a, b ReplicaStatus) int { return int(a.Node) - int(b.Node) })
		return list
	}
	voters, learners := m.Members()
	s.Voters, s.Learners = describe(voters), describe(learners)
	return s
}

// since returns how many ticks ago a member was heard, and had caught up.
func (m *Member) since(r Replica) (heard, caughtUp int) {
	switch {
	case !m.isLeader:
		return -1, -1
	case r == m.self():
		return 0, 0
	}
	heard, caughtUp = -1, -1
	if last, ok := m.heard[r.raftID()]; ok {
		heard = m.ticks - last
	}
	if last, ok := m.caughtUp[r.raftID()]; ok {
		caughtUp = m.ticks - last
	}
	return heard, caughtUp
}

// noteCaughtUp notes, once a tick, who has all that the log had a tick ago.
func (m *Member) noteCaughtUp() {
	if !m.isLeader {
		m.caughtUp = nil
		return
	}
	if m.caughtUp == nil {
		m.caughtUp = map[uint64]int{}
	}
	m.raft.WithProgress(func(id uint64, _ raft.ProgressType, p progress) {
		if p.Match > 0 && p.Match >= m.lastAtTick {
			m.caughtUp[id] = m.ticks
		}
	})
	if last, err := m.disk.LastIndex(); err == nil {
		m.lastAtTick = last
	}
}
