package quorum

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestDirectoryIDs(t *testing.T) {
	random := rand.NewChaCha8([32]byte{1})
	for range 100 {
		d, err := NewDirectory(random)
		if err != nil || d == 0 {
			t.Fatal(d, err)
		}
		if back, ok := DirectoryOf(d.ID()); !ok || back != d {
			t.Fatalf("%d became %d, %v", d, back, ok)
		}
		if r := (Replica{1<<31 - 1, d}); replicaOf(r.raftID()) != r {
			t.Fatalf("%v became %v", r, replicaOf(r.raftID()))
		}
	}
	if d, ok := DirectoryOf([16]byte{}); d != 0 || !ok {
		t.Error("the directory without a name")
	}
	if _, ok := DirectoryOf([16]byte{1, 2, 3}); ok {
		t.Error("a foreign id was taken")
	}
}

// Learners get everything, by checkpoint and by entries, and survive crashes; they
// have no vote.
func TestLearnersFollow(t *testing.T) {
	for seed := range uint64(5) {
		c := newCluster(t, seed, 1)
		for _, v := range values(50) { // the first entries are in a checkpoint only
			c.commit(v)
		}
		c.loss = 10
		for id := int32(2); id <= 4; id++ {
			c.join(id, Directory(id))
			c.admit(id, false)
			c.commit(fmt.Sprint("node ", id))
			c.crash(id)
		}
		c.loss = 0
		c.commit("end")
		c.caughtUp("end")
		if voters, learners := c.leader().Members(); len(voters) != 1 || len(learners) != 3 {
			t.Fatalf("voters %v, learners %v", voters, learners)
		}
		c.kill(1)
		for range 300 {
			c.step()
		}
		if c.leader() != nil {
			t.Fatal("a learner leads")
		}
		c.open(1)
		c.commit("again")
		c.caughtUp("again")
	}
}

// A quorum grows from one to five voters and shrinks to two, under loss and crashes.
func TestVotersComeAndGo(t *testing.T) {
	for seed := range uint64(5) {
		c := newCluster(t, seed, 1)
		c.commit("first")
		c.loss = 5
		for id := int32(2); id <= 5; id++ {
			c.join(id, Directory(id))
			c.admit(id, true)
			c.commit(fmt.Sprint("node ", id))
			c.crash(1 + c.random.Int32N(id))
		}
		for id := int32(1); id <= 3; id++ { // also the one that leads
			gone := c.replica(id)
			c.until(fmt.Sprint("node ", id, " to lose its vote"), func() bool {
				leader := c.leader()
				if leader == nil {
					return false
				}
				voters, _ := leader.Members()
				if slices.Contains(voters, gone) {
					leader.RemoveVoter(gone, func(error) {})
					return false
				}
				return true
			})
			c.commit(fmt.Sprint("without ", id))
		}
		c.loss = 0
		c.commit("end")
		c.caughtUp("end")
		voters, learners := c.leader().Members()
		if !slices.Equal(voters, []Replica{c.replica(4), c.replica(5)}) {
			t.Fatalf("seed %d: voters %v, learners %v", seed, voters, learners)
		}
	}
}

// A voter that lost its disk comes back as somebody else: it is no voter until it has
// caught up, so that nothing is forgotten when another one fails.
func TestWipedVoter(t *testing.T) {
	for seed := range uint64(8) {
		c := newCluster(t, seed, 3)
		for _, v := range values(45) {
			c.commit(v)
		}
		victim := 1 + c.random.Int32N(3)
		other := victim%3 + 1
		// What is committed now is on the victim and one other node only.
		late := other%3 + 1
		c.cut = func(from, to int32) bool { return from == late || to == late }
		c.commit("on two disks")
		old := c.replica(victim)
		c.kill(victim)
		c.wipe(victim)
		c.cut = nil
		// The wiped node and the late one must not agree that nothing was committed.
		c.cut = func(from, to int32) bool { return from == other || to == other }
		for range 400 {
			c.step()
		}
		if l := c.leader(); l != nil && l.cfg.NodeID != other {
			t.Fatalf("seed %d: node %d leads without what was committed", seed, l.cfg.NodeID)
		}
		c.cut = nil
		c.admit(victim, false)
		voters, learners := c.leader().Members()
		if !slices.Contains(voters, old) || !slices.Contains(learners, c.replica(victim)) {
			t.Fatalf("seed %d: voters %v, learners %v", seed, voters, learners)
		}
		c.admit(victim, true)
		c.commit("end")
		c.caughtUp("end")
		voters, learners = c.leader().Members()
		if len(voters) != 3 || len(learners) != 0 || slices.Contains(voters, old) || !slices.Contains(voters, c.replica(victim)) {
			t.Fatalf("seed %d: voters %v, learners %v", seed, voters, learners)
		}
		if !slices.Contains(c.node(victim).machine.values, "on two disks") {
			t.Fatalf("seed %d: a committed value is gone", seed)
		}
	}
}

// A replica that says it is a voter stands in for the one it replaced: the quorum then
// outlives another node. While both are counted it would not.
func TestReplacedVoterIsNoLongerNeeded(t *testing.T) {
	for seed := range uint64(20) {
		c := newCluster(t, seed, 3)
		c.commit("first")
		victim := 1 + c.random.Int32N(3)
		c.kill(victim)
		c.wipe(victim)
		joining := c.node(victim).member
		round := 0
		c.until("the wiped node to vote", func() bool {
			if leader := c.leader(); leader != nil && round%10 == 0 {
				leader.Join(JoinRequest{Directory: c.node(victim).directory, Node: victim, Voter: true}, func(Replica, error) {})
			}
			round++
			return joining.Role() == Voter
		})
		c.kill(victim%3 + 1)
		c.commit("without another one")
		c.open(victim%3 + 1)
		c.caughtUp("without another one")
	}
}

func TestChangesThatAreRefused(t *testing.T) {
	c := newCluster(t, 1, 3)
	c.commit("first")
	leader := c.leader()
	follower := c.replica(leader.cfg.NodeID%3 + 1)
	refused := func(what string, want error, change func(done func(error))) {
		t.Helper()
		var got error
		called := 0
		change(func(err error) { got = err; called++ })
		if called != 1 || !errors.Is(got, want) {
			t.Errorf("%s: %v, want %v; called %d times", what, got, want, called)
		}
	}
	refused("a voter that is one", ErrAlreadyVoter, func(done func(error)) { leader.AddVoter(follower, done) })
	refused("an unknown voter", ErrNotMember, func(done func(error)) { leader.AddVoter(Replica{9, 9}, done) })
	refused("no voter", ErrNotMember, func(done func(error)) { leader.RemoveVoter(Replica{9, 9}, done) })
	refused("no learner", ErrNotMember, func(done func(error)) { leader.Forget(follower, done) })
	refused("not the leader", ErrNotLeader, func(done func(error)) { c.node(follower.Node).member.RemoveVoter(follower, done) })
	refused("the id of a node that runs", ErrNodeInUse, func(done func(error)) {
		leader.Join(JoinRequest{Directory: 7, Node: follower.Node}, func(_ Replica, err error) { done(err) })
	})
	var first error
	leader.Join(JoinRequest{Directory: 7, Node: 7}, func(_ Replica, err error) { first = err })
	refused("two at once", ErrChangePending, func(done func(error)) {
		leader.Join(JoinRequest{Directory: 8, Node: 8}, func(_ Replica, err error) { done(err) })
	})
	c.commit("second")
	if first != nil {
		t.Error(first)
	}
	refused("a learner that is silent", ErrLagging, func(done func(error)) { leader.AddVoter(Replica{7, 7}, done) })
	one := newCluster(t, 1, 1)
	one.commit("first")
	refused("the last voter", ErrLastVoter, func(done func(error)) { one.leader().RemoveVoter(one.replica(1), done) })
}

// A node without an id gets the lowest that is free, and the same one again.
func TestNodeIDsAreGiven(t *testing.T) {
	c := newCluster(t, 1, 3)
	c.commit("first")
	join := func(d Directory) Replica {
		t.Helper()
		var got Replica
		done := false
		c.until("an id", func() bool {
			if leader := c.leader(); !done && leader != nil {
				leader.Join(JoinRequest{Directory: d, Node: -1, Used: func(id int32) bool { return id == 4 }}, func(r Replica, err error) {
					got, done = r, err == nil
				})
			}
			return done
		})
		return got
	}
	if got := join(50); got != (Replica{5, 50}) {
		t.Error(got)
	}
	if got := join(60); got != (Replica{6, 60}) {
		t.Error(got)
	}
	if got := join(50); got != (Replica{5, 50}) {
		t.Error(got)
	}
}
