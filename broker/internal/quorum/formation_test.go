package quorum

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/rs/zerolog"

	"github.com/leatlog/leat/broker/internal/vfs"
)

// forming is nodes that form a cluster, in virtual time: views are late and differ,
// messages are lost, repeated and reordered, nodes start late, crash and come back.
type forming struct {
	t        *testing.T
	random   *rand.Rand
	loss     int
	nodes    []*formingNode
	inFlight []formingMessage
	ids      int
}

type formingNode struct {
	index     int
	candidate Candidate
	disk      *vfs.Mem
	formation *Formation // nil while the node is down
	outcome   *Outcome   // the first that was seen
}

type formingMessage struct {
	to   Directory
	data []byte
}

func newForming(t *testing.T, seed uint64, nodes, expect int) *forming {
	f := &forming{t: t, random: rand.New(rand.NewPCG(seed, 1))}
	for n := range nodes {
		f.nodes = append(f.nodes, &formingNode{index: n, disk: vfs.NewMem(),
			candidate: Candidate{Node: -1, Address: fmt.Sprint("127.0.0.1:", 7000+n), Controller: true, Expect: expect}})
	}
	return f
}

func (f *forming) open(n *formingNode) {
	f.t.Helper()
	formation, err := OpenFormation(FormationConfig{Dir: "quorum", FS: n.disk, Self: n.candidate, Logger: zerolog.Nop(),
		NewDirectory: func() (Directory, error) { f.ids++; return Directory(f.ids), nil },
		NewClusterID: func() (string, error) { f.ids++; return fmt.Sprint("cluster-", f.ids), nil },
		Send: func(to Directory, message []byte) {
			f.inFlight = append(f.inFlight, formingMessage{to, slices.Clone(message)})
		},
	})
	if err != nil {
		f.t.Fatal(err)
	}
	n.formation = formation
}

func (f *forming) crash(n *formingNode) {
	n.disk, n.formation = n.disk.Crash(f.random), nil
}

// look tells a node who is there: each of the others with a chance of percent.
func (f *forming) look(n *formingNode, percent int) {
	f.t.Helper()
	var seen []Candidate
	for _, other := range f.nodes {
		if other.formation != nil && other != n && f.random.IntN(100) < percent {
			seen = append(seen, other.formation.Self())
		}
	}
	f.ok(n.formation.See(seen))
}

func (f *forming) ok(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f *forming) step(view int) {
	f.t.Helper()
	messages := f.inFlight
	f.inFlight = nil
	f.random.Shuffle(len(messages), func(i, j int) { messages[i], messages[j] = messages[j], messages[i] })
	for _, m := range messages {
		if f.random.IntN(100) < f.loss {
			continue
		}
		if f.random.IntN(20) == 0 {
			f.inFlight = append(f.inFlight, m) // and once more later
		}
		for _, n := range f.nodes {
			if n.formation != nil && n.formation.Self().Directory == m.to {
				f.ok(n.formation.Receive(m.data))
			}
		}
	}
	for _, n := range f.nodes {
		if n.formation == nil {
			continue
		}
		if f.random.IntN(2) == 0 {
			f.look(n, view)
		}
		if f.random.IntN(2) == 0 {
			f.ok(n.formation.Tick())
		}
		f.check(n)
	}
}

// check fails when a node changes its mind, or two clusters were formed.
func (f *forming) check(n *formingNode) {
	f.t.Helper()
	o := n.formation.Outcome()
	if o == nil {
		if n.outcome != nil {
			f.t.Fatalf("node %d was in cluster %s and is in none", n.index, n.outcome.Cluster)
		}
		return
	}
	if n.outcome == nil {
		n.outcome = o
	}
	if n.outcome.Cluster != o.Cluster || !slices.Equal(n.outcome.Voters, o.Voters) {
		f.t.Fatalf("node %d: %v became %v", n.index, n.outcome, o)
	}
	for _, other := range f.nodes {
		if other.outcome == nil || other == n {
			continue
		}
		if other.outcome.Cluster != o.Cluster {
			f.t.Fatalf("nodes %d and %d: %v and %v", n.index, other.index, o, other.outcome)
		}
		if o.Voters != nil && other.outcome.Voters != nil && (!slices.Equal(o.Voters, other.outcome.Voters) || o.Node == other.outcome.Node) {
			f.t.Fatalf("nodes %d and %d: %v and %v", n.index, other.index, o, other.outcome)
		}
	}
}

func (f *forming) formed() bool {
	return !slices.ContainsFunc(f.nodes, func(n *formingNode) bool { return n.outcome == nil })
}

// However nodes start, see one another, crash and lose messages, they come to be in
// one cluster, whose voters agree on who they are.
func TestOneClusterForms(t *testing.T) {
	for seed := range uint64(400) {
		expect := []int{1, 3, 3, 5}[seed%4]
		extra := 0
		if expect == 3 {
			// One more than is expected, of which the views may differ; two quorums of
			// three need six.
			extra = int(seed/4) % 3
		}
		f := newForming(t, seed, expect+extra, expect)
		if expect == 1 {
			f.nodes = f.nodes[:1]
		}
		f.loss = int(seed/2) % 40
		for round := 0; !f.formed(); round++ {
			if round > 5000 {
				t.Fatalf("seed %d: no cluster after %d rounds", seed, round)
			}
			for _, n := range f.nodes {
				switch {
				case n.formation == nil && f.random.IntN(10) == 0:
					f.open(n)
				case n.formation != nil && round < 200 && f.random.IntN(40) == 0:
					f.crash(n)
				}
			}
			f.step([]int{100, 60, 90}[seed%3])
		}
		voters := 0
		for _, n := range f.nodes {
			if n.outcome.Voters != nil {
				voters++
			}
		}
		if voters != expect {
			t.Fatalf("seed %d: %d voters, expected %d", seed, voters, expect)
		}
	}
}

// A voter that never comes back does not hold up the others when there is another.
func TestFormationWithoutAVoterThatDied(t *testing.T) {
	f := newForming(t, 1, 4, 3)
	for _, n := range f.nodes[:3] {
		f.open(n)
	}
	f.look(f.nodes[0], 100) // proposes 0, 1, 2
	f.crash(f.nodes[1])
	f.open(f.nodes[3])
	for range 200 {
		f.step(100)
	}
	for _, n := range []int{0, 2, 3} {
		if o := f.nodes[n].outcome; o == nil || len(o.Voters) != 3 {
			t.Fatalf("node %d: %v", n, o)
		}
	}
	f.open(f.nodes[1])
	for range 100 {
		f.step(100)
	}
	if o := f.nodes[1].outcome; o == nil || o.Voters != nil || o.Node != -1 {
		t.Fatalf("the one that came late: %v", o)
	}
	if err := f.nodes[1].formation.Named(7); err != nil {
		t.Fatal(err)
	}
	f.crash(f.nodes[1])
	f.open(f.nodes[1])
	if o := f.nodes[1].formation.Outcome(); o.Node != 7 {
		t.Fatal(o)
	}
}

// Ids that were given are kept, the others are filled in, brokers do not vote, and
// nodes that expect another number are not counted.
func TestFormationKeepsNodeIDs(t *testing.T) {
	f := newForming(t, 3, 6, 3)
	f.nodes[2].candidate.Node = 1
	f.nodes[3].candidate.Controller = false
	f.nodes[3].candidate.Node = 2
	f.nodes[4].candidate.Expect = 5
	f.nodes[5].candidate.Expect = 0
	for _, n := range f.nodes {
		f.open(n)
	}
	for range 100 {
		f.step(100)
	}
	for n, want := range []int32{3, 4, 1, 2, -1, -1} {
		if o := f.nodes[n].outcome; o == nil || o.Node != want || (o.Voters != nil) != (n < 3) {
			t.Errorf("node %d: %v", n, o)
		}
	}
}

// Two nodes with one id form nothing.
func TestFormationRefusesOneIDTwice(t *testing.T) {
	f := newForming(t, 3, 3, 3)
	f.nodes[0].candidate.Node, f.nodes[1].candidate.Node = 1, 1
	for _, n := range f.nodes {
		f.open(n)
	}
	for range 100 {
		f.step(100)
	}
	for _, n := range f.nodes {
		if n.outcome != nil {
			t.Errorf("node %d: %v", n.index, n.outcome)
		}
	}
}

// A crash at any operation on the disk loses no vote that was cast.
func TestVotesSurviveCrashes(t *testing.T) {
	f := newForming(t, 1, 3, 3)
	for _, n := range f.nodes {
		f.open(n)
	}
	voter := f.nodes[1]
	f.look(f.nodes[0], 100)
	f.look(f.nodes[0], 100)
	for range 3 {
		f.step(100)
	}
	if voter.formation.saved.Proposal == nil {
		t.Fatal("it did not vote; the test shows nothing")
	}
	voted := voter.formation.saved.Proposal.Cluster
	f.crash(voter)
	f.open(voter)
	if p := voter.formation.saved.Proposal; p == nil || p.Cluster != voted {
		t.Fatalf("voted for %s and holds %v", voted, p)
	}
	other := voter.candidate
	other.Node = 99
	if _, err := OpenFormation(FormationConfig{Dir: "quorum", FS: voter.disk, Self: other, Logger: zerolog.Nop()}); voter.formation.saved.Node >= 0 && !errors.Is(err, ErrFormation) {
		t.Error(err)
	}
	file, err := voter.disk.OpenReadWrite("quorum/" + formationFile)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.WriteAt([]byte{'7'}, 40); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenFormation(FormationConfig{Dir: "quorum", FS: voter.disk, Self: voter.candidate, Logger: zerolog.Nop()}); err == nil {
		t.Error("a damaged vote was taken")
	}
}
