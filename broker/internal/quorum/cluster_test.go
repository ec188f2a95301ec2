package quorum

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/leatlog/leat/broker/internal/vfs"
)

// cluster is members on one goroutine, in virtual time: messages are lost and
// reordered, links are cut, members crash and come back from what their disks kept.
type cluster struct {
	t        *testing.T
	random   *rand.Rand
	loss     int // percent
	nodes    []*testNode
	inFlight []flight
	cut      func(from, to int32) bool // nil: no link is
}

// testNode is one node of a cluster; its member is nil while it is down.
type testNode struct {
	id        int32
	directory Directory
	disk      *vfs.Mem
	member    *Member
	machine   *listMachine
	joining   bool
	voters    []Replica
}

type flight struct {
	from, to int32
	message  []byte
}

// link is the transport of one node.
type link struct {
	cluster *cluster
	from    int32
}

func (l link) Send(node int32, message []byte) {
	l.cluster.inFlight = append(l.cluster.inFlight, flight{l.from, node, message})
}

// newCluster starts a quorum of the nodes 1 to n.
func newCluster(t *testing.T, seed uint64, n int) *cluster {
	c := &cluster{t: t, random: rand.New(rand.NewPCG(seed, 0))}
	var voters []Replica
	for i := range n {
		voters = append(voters, Replica{int32(i + 1), Directory(100 + i)})
	}
	for _, r := range voters {
		c.nodes = append(c.nodes, &testNode{id: r.Node, directory: r.Directory, disk: vfs.NewMem(), voters: voters})
		c.open(r.Node)
	}
	t.Cleanup(func() {
		for _, n := range c.nodes {
			if n.member != nil {
				if err := n.member.Close(); err != nil {
					t.Error(err)
				}
			}
		}
	})
	return c
}

// join starts a node that waits to be taken in.
func (c *cluster) join(id int32, d Directory) *testNode {
	n := &testNode{id: id, directory: d, disk: vfs.NewMem(), joining: true}
	c.nodes = append(c.nodes, n)
	c.open(id)
	return n
}

func (c *cluster) node(id int32) *testNode {
	for _, n := range c.nodes {
		if n.id == id {
			return n
		}
	}
	return nil
}

func (c *cluster) open(id int32) {
	c.t.Helper()
	n := c.node(id)
	n.machine = &listMachine{}
	cfg := testConfig(n.disk, id, n.machine)
	cfg.Directory, cfg.Voters, cfg.Joining, cfg.Transport = n.directory, n.voters, n.joining, link{c, id}
	cfg.SnapshotEntries, cfg.KeepEntries = 20, 10
	m, err := OpenMember(cfg)
	if err != nil {
		c.t.Fatalf("open member %d: %v", id, err)
	}
	n.member = m
}

// kill loses what a node did not sync; open starts it again.
func (c *cluster) kill(id int32) {
	n := c.node(id)
	n.disk = n.disk.Crash(c.random)
	n.member.abandon(errors.New("crashed"))
	n.member = nil
}

func (c *cluster) crash(id int32) {
	c.t.Helper()
	c.kill(id)
	c.open(id)
}

// wipe gives a node that is down a new disk: it comes back as another replica.
func (c *cluster) wipe(id int32) {
	n := c.node(id)
	n.disk, n.joining, n.voters = vfs.NewMem(), true, nil
	n.directory += 1000
	c.open(id)
}

// step lets everything happen once: a tick now and then, deliveries, readies.
func (c *cluster) step() {
	c.t.Helper()
	for _, n := range c.nodes {
		if n.member != nil && c.random.IntN(3) == 0 {
			n.member.Tick()
		}
	}
	messages := c.inFlight
	c.inFlight = nil
	c.random.Shuffle(len(messages), func(i, j int) { messages[i], messages[j] = messages[j], messages[i] })
	for _, f := range messages {
		n := c.node(f.to)
		if n == nil || n.member == nil || c.random.IntN(100) < c.loss || c.cut != nil && c.cut(f.from, f.to) {
			continue
		}
		// A message of an earlier term or to an earlier replica is refused with an error.
		_ = n.member.Receive(f.message)
	}
	for _, n := range c.nodes {
		if n.member == nil {
			continue
		}
		if err := n.member.Process(); err != nil {
			c.t.Fatalf("member %d: %v", n.id, err)
		}
	}
	c.checkLeaders()
}

// checkLeaders fails when two members lead in one epoch.
func (c *cluster) checkLeaders() {
	c.t.Helper()
	leaders := map[int32]int32{}
	for _, n := range c.nodes {
		if n.member == nil || !n.member.isLeader {
			continue
		}
		if other, ok := leaders[n.member.epoch]; ok {
			c.t.Fatalf("nodes %d and %d lead in epoch %d", other, n.id, n.member.epoch)
		}
		leaders[n.member.epoch] = n.id
	}
}

// leader returns the leader of the highest epoch, nil when there is none.
func (c *cluster) leader() *Member {
	var best *Member
	for _, n := range c.nodes {
		if n.member != nil && n.member.isLeader && (best == nil || n.member.epoch > best.epoch) {
			best = n.member
		}
	}
	return best
}

// until steps until the condition holds.
func (c *cluster) until(what string, holds func() bool) {
	c.t.Helper()
	for range 20_000 {
		if holds() {
			return
		}
		c.step()
	}
	c.t.Fatalf("never saw: %s", what)
}

// commit has a value committed, whoever leads, and tried again until it is.
func (c *cluster) commit(value string) {
	c.t.Helper()
	open, done := false, false
	c.until("the commit of "+value, func() bool {
		if leader := c.leader(); !open && !done && leader != nil {
			open = true
			leader.Propose(AnyEpoch, []byte(value), func(_ int64, err error) { open, done = false, err == nil })
		}
		return done
	})
}

// caughtUp waits until all members that run have applied the same values.
func (c *cluster) caughtUp(last string) {
	c.t.Helper()
	c.until("all to catch up", func() bool {
		var values []string
		for _, n := range c.nodes {
			switch {
			case n.member == nil:
			case values == nil:
				values = n.machine.values
			case !slices.Equal(values, n.machine.values):
				return false
			}
		}
		return slices.Contains(values, last)
	})
}

// replica is who a node is now.
func (c *cluster) replica(id int32) Replica { return Replica{id, c.node(id).directory} }

// admit asks for a replica to be taken in until it is a voter, or a learner.
func (c *cluster) admit(id int32, voter bool) {
	c.t.Helper()
	n := c.node(id)
	round := 0
	c.until(fmt.Sprint("node ", id, " to be taken in"), func() bool {
		if leader := c.leader(); leader != nil && round%10 == 0 {
			leader.Join(JoinRequest{Directory: n.directory, Node: id, Voter: voter}, func(Replica, error) {})
		}
		round++
		voters, learners := n.member.Members()
		return slices.Contains(voters, c.replica(id)) || !voter && slices.Contains(learners, c.replica(id))
	})
}

func TestVotersKeepWhatWasCommitted(t *testing.T) {
	for _, size := range []int{3, 5} {
		for seed := range uint64(12) {
			t.Run(fmt.Sprint(size, " voters, seed ", seed), func(t *testing.T) { keepCommitted(t, seed, size) })
		}
	}
}

func keepCommitted(t *testing.T, seed uint64, size int) {
	c := newCluster(t, seed, size)
	var committed []string
	c.loss = 10
	for i := range 60 {
		c.until("a leader", func() bool { return c.leader() != nil })
		value := fmt.Sprint("value ", i)
		answered := false
		c.leader().Propose(AnyEpoch, []byte(value), func(_ int64, err error) {
			answered = true
			if err == nil {
				committed = append(committed, value)
			}
		})
		if i%7 == 3 {
			c.crash(1 + c.random.Int32N(int32(size)))
		}
		if i%10 == 5 { // one node is cut off, in one direction or in both, for a while
			alone, both := 1+c.random.Int32N(int32(size)), c.random.IntN(2) == 0
			c.cut = func(from, to int32) bool { return to == alone || both && from == alone }
		}
		if i%10 == 9 {
			c.cut = nil
		}
		for range c.random.IntN(20) {
			c.step()
		}
		if i%4 == 0 {
			c.until("an answer", func() bool { return answered })
		}
	}
	c.loss, c.cut = 0, nil
	c.commit("end")
	c.caughtUp("end")
	if len(committed) < 15 {
		t.Fatalf("only %d of 60 proposals were committed; the test shows nothing", len(committed))
	}
	at := -1
	for _, v := range committed {
		i := slices.Index(c.nodes[0].machine.values, v)
		if i <= at {
			t.Fatalf("%q was committed but is at %d after %d", v, i, at)
		}
		at = i
	}
}

// All nodes lose power at once, again and again.
func TestAllVotersCrashAtOnce(t *testing.T) {
	c := newCluster(t, 1, 3)
	for round := range 10 {
		value := fmt.Sprint("round ", round)
		c.commit(value)
		for id := int32(1); id <= 3; id++ {
			c.kill(id)
		}
		for id := int32(1); id <= 3; id++ {
			c.open(id)
		}
	}
	c.commit("end")
	c.caughtUp("end")
	if got := len(c.nodes[0].machine.values); got < 11 {
		t.Fatalf("%d values are there", got)
	}
}

// A minority commits nothing, and what it took is gone when it meets the majority.
func TestPartition(t *testing.T) {
	c := newCluster(t, 2, 5)
	c.commit("before")
	old := c.leader().cfg.NodeID
	friend := old%5 + 1
	minority := func(id int32) bool { return id == old || id == friend }
	c.cut = func(from, to int32) bool { return minority(from) != minority(to) }
	var lost error
	c.node(old).member.Propose(AnyEpoch, []byte("minority"), func(_ int64, err error) { lost = err })
	c.until("another leader", func() bool { l := c.leader(); return l != nil && !minority(l.cfg.NodeID) })
	c.until("the old leader to give up", func() bool { return !c.node(old).member.isLeader })
	c.commit("majority")
	if !errors.Is(lost, ErrLeadershipLost) {
		t.Errorf("the minority's proposal: %v", lost)
	}
	c.cut = nil
	c.commit("after")
	c.caughtUp("after")
	if slices.Contains(c.node(old).machine.values, "minority") {
		t.Error("what a minority took was committed")
	}
}

// A node that was cut off does not disturb the leader when it is back (pre-vote).
func TestReturningNodeDoesNotDisturb(t *testing.T) {
	c := newCluster(t, 3, 3)
	c.commit("before")
	_, epoch := c.leader().Leader()
	away := c.leader().cfg.NodeID%3 + 1
	c.cut = func(from, to int32) bool { return from == away || to == away }
	for range 300 {
		c.step()
	}
	c.cut = nil
	c.commit("after")
	c.caughtUp("after")
	if _, now := c.leader().Leader(); now != epoch {
		t.Errorf("epoch %d became %d", epoch, now)
	}
}

func TestLeadershipIsTransferred(t *testing.T) {
	c := newCluster(t, 4, 3)
	c.commit("before")
	leader := c.leader()
	_, epoch := leader.Leader()
	if !leader.TransferLeadership() {
		t.Fatal("nobody to transfer to")
	}
	steps := 0
	c.until("another leader", func() bool { steps++; l := c.leader(); return l != nil && l != leader })
	if _, now := c.leader().Leader(); now != epoch+1 || steps > 20 {
		t.Errorf("epoch %d after %d, %d steps", now, epoch, steps)
	}
	if leader.TransferLeadership() {
		t.Error("a follower transferred leadership")
	}
}
