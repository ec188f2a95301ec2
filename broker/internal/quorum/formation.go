package quorum

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"

	"github.com/rs/zerolog"

	"github.com/leatlog/leat/broker/internal/vfs"
)

// Candidate is a node that is there, as gossip has it.
type Candidate struct {
	Directory Directory
	// Node is the node's id, less than 0 when it has none yet.
	Node int32
	// Address orders nodes without an id; it must differ from node to node.
	Address string
	// Controller says that the node can vote, Expect how many voters its cluster is to
	// begin with; 0 when it only joins.
	Controller bool
	Expect     int
	// Cluster is the id of the node's cluster, empty while it has none.
	Cluster string
}

// FormationConfig configures a Formation. All but Logger are required.
type FormationConfig struct {
	// Dir is the directory of the metadata log; created when missing.
	Dir string
	FS  vfs.FS
	// Self is this node; its Directory is drawn by NewDirectory when the directory is
	// new, and read from it otherwise.
	Self         Candidate
	NewDirectory func() (Directory, error)
	// NewClusterID draws the id of a cluster that may be formed.
	NewClusterID func() (string, error)
	// Send carries a message to another node, which gives it to Receive. It must not
	// block and may lose, repeat and reorder.
	Send   func(to Directory, message []byte)
	Logger zerolog.Logger
}

// Formation brings about the first quorum of a cluster, or finds the cluster to join.
// It is driven by See, Receive and Tick, and owns no goroutine and no clock. Not safe
// for concurrent use. After an error (its disk failed) it must not be used.
//
// # How one quorum forms
//
// A node that sees as many controllers as its cluster is to begin with, all of them
// expecting that number and none in a cluster, and that comes first among them, makes
// a proposal: an id for the cluster, the voters, and ids for nodes without one. It
// forms when every voter has voted for it. A vote is on disk before it is cast, and a
// node votes for one proposal at a time. Only the proposer may withdraw a proposal,
// before it has all votes, and only then is a voter free again. So of two proposals
// that share a voter at most one forms, whatever is lost, repeated or restarted.
//
// When proposals compete, the one of the node that comes first stays. A proposer that
// loses its disk leaves its voters bound, as in any two-phase commit; they say so in
// the log.
type Formation struct {
	cfg      FormationConfig
	saved    formationRecord
	seen     []Candidate
	accepted map[Directory]bool // who voted for the own proposal
	waiting  int                // ticks since the vote for another's proposal
	missing  int                // ticks since a voter of the own proposal was last seen to be gone
}

// formationFile keeps a Formation's state.
const formationFile = "formation.json"

// formationRecord is what a node must not forget. The checksum covers the rest.
type formationRecord struct {
	Version   int       `json:"version"`
	Directory Directory `json:"directory"`
	// Node is the node's id; -1 until it is known.
	Node int32 `json:"node"`
	// Cluster is the id of the cluster the node is in; empty until there is one.
	Cluster string `json:"cluster,omitempty"`
	// Proposal is what the node voted for; with a Cluster, what its cluster began with.
	// Nil when it voted for none or joined a cluster.
	Proposal *firstQuorum `json:"proposal,omitempty"`
	Checksum uint32       `json:"checksum"`
}

// firstQuorum is a proposal for the first quorum.
type firstQuorum struct {
	Cluster  string    `json:"cluster"`
	Proposer Directory `json:"proposer"`
	// Rank orders proposals: the lowest stays.
	Rank   string          `json:"rank"`
	Voters []proposedVoter `json:"voters"`
}

type proposedVoter struct {
	Node      int32     `json:"node"`
	Directory Directory `json:"directory"`
}

func (p *firstQuorum) voter(d Directory) (proposedVoter, bool) {
	n := slices.IndexFunc(p.Voters, func(v proposedVoter) bool { return v.Directory == d })
	if n < 0 {
		return proposedVoter{}, false
	}
	return p.Voters[n], true
}

// Outcome is what a Formation came to.
type Outcome struct {
	// Cluster is the id of the cluster.
	Cluster string
	// Node is this node's id, -1 when the cluster has to give it one.
	Node      int32
	Directory Directory
	// Voters are the first quorum, of which this node is one; nil for a node that joins.
	Voters []Replica
}

// ErrFormation says that nodes cannot form a cluster as they are set.
var ErrFormation = errors.New("quorum: the cluster cannot be formed")

// OpenFormation opens the directory and goes on where it left off.
func OpenFormation(cfg FormationConfig) (*Formation, error) {
	f := &Formation{cfg: cfg, accepted: map[Directory]bool{}}
	if err := cfg.FS.MkdirAll(cfg.Dir); err != nil {
		return nil, fmt.Errorf("quorum: %w", err)
	}
	if err := cfg.FS.SyncDir(path.Dir(cfg.Dir)); err != nil {
		return nil, fmt.Errorf("quorum: %w", err)
	}
	saved, found, err := readFormation(cfg.FS, cfg.Dir)
	if err != nil {
		return nil, err
	}
	if found {
		f.saved = saved
	} else if err := f.begin(); err != nil {
		return nil, err
	}
	f.cfg.Self.Directory = f.saved.Directory
	if f.saved.Node >= 0 {
		if own := f.cfg.Self.Node; own >= 0 && own != f.saved.Node {
			return nil, fmt.Errorf("%w: %s belongs to node %d, not %d", ErrFormation, cfg.Dir, f.saved.Node, own)
		}
		f.cfg.Self.Node = f.saved.Node
	}
	f.cfg.Self.Cluster = f.saved.Cluster
	return f, nil
}

// begin writes the first record of a new directory.
func (f *Formation) begin() error {
	directory, err := f.cfg.NewDirectory()
	if err != nil {
		return err
	}
	return f.save(formationRecord{Directory: directory, Node: f.cfg.Self.Node})
}

// Located says where the others find this node; see Candidate.Address.
func (f *Formation) Located(address string) { f.cfg.Self.Address = address }

// Self is this node as the others should see it.
func (f *Formation) Self() Candidate { return f.cfg.Self }

// Outcome returns what it came to, nil until then.
func (f *Formation) Outcome() *Outcome {
	if f.saved.Cluster == "" {
		return nil
	}
	o := &Outcome{Cluster: f.saved.Cluster, Node: f.saved.Node, Directory: f.saved.Directory}
	if p := f.saved.Proposal; p != nil {
		for _, v := range p.Voters {
			o.Voters = append(o.Voters, Replica(v))
		}
	}
	return o
}

// Named notes the id that the cluster gave to this node.
func (f *Formation) Named(node int32) error {
	r := f.saved
	r.Node = node
	return f.save(r)
}

// See tells which nodes are there, this one not necessarily included.
func (f *Formation) See(candidates []Candidate) error {
	f.seen = slices.DeleteFunc(slices.Clone(candidates), func(c Candidate) bool { return c.Directory == f.saved.Directory })
	if f.saved.Cluster != "" {
		return nil
	}
	p := f.saved.Proposal
	for _, c := range f.seen {
		switch {
		case c.Cluster == "":
		case p != nil && c.Cluster == p.Cluster:
			return f.commit(p) // that there is such a cluster shows that it was formed
		case p == nil:
			return f.joinCluster(c.Cluster)
		case p.Proposer == f.saved.Directory:
			if err := f.withdraw("a cluster is there already"); err != nil {
				return err
			}
			return f.joinCluster(c.Cluster)
		}
	}
	if p == nil {
		return f.propose()
	}
	return nil
}

func (f *Formation) joinCluster(id string) error {
	f.cfg.Logger.Info().Str("cluster", id).Msg("found the cluster; joining it")
	r := f.saved
	r.Cluster, r.Proposal = id, nil
	return f.save(r)
}

// rank orders candidates: those with an id first, by it, then by address.
func (c *Candidate) rank() string {
	node := int64(c.Node)
	if c.Node < 0 {
		node = 1 << 40
	}
	return fmt.Sprintf("%013d %s %08x", node, c.Address, uint32(c.Directory))
}

// propose makes a proposal when this node comes first among enough candidates.
func (f *Formation) propose() error {
	self := f.cfg.Self
	if !self.Controller || self.Expect < 1 {
		return nil
	}
	list := []Candidate{self}
	for _, c := range f.seen {
		if c.Controller && c.Expect == self.Expect {
			list = append(list, c)
		}
	}
	slices.SortFunc(list, func(a, b Candidate) int { return cmp.Compare(a.rank(), b.rank()) })
	if len(list) < self.Expect || list[0].Directory != self.Directory {
		return nil
	}
	taken := map[int32]bool{}
	for _, c := range f.seen { // also of those that will not vote
		taken[c.Node] = true
	}
	taken[self.Node] = true
	p := &firstQuorum{Proposer: self.Directory, Rank: self.rank()}
	next, given := int32(1), map[int32]bool{}
	for _, c := range list[:self.Expect] {
		if c.Node < 0 {
			for taken[next] {
				next++
			}
			c.Node, taken[next] = next, true
		}
		if given[c.Node] {
			f.cfg.Logger.Error().Int32("node", c.Node).Msg("two nodes have the same id: stop one and give it another with --node-id")
			return nil
		}
		given[c.Node] = true
		p.Voters = append(p.Voters, proposedVoter{c.Node, c.Directory})
	}
	var err error
	if p.Cluster, err = f.cfg.NewClusterID(); err != nil {
		return err
	}
	if err := f.vote(p); err != nil {
		return err
	}
	clear(f.accepted)
	f.accepted[self.Directory], f.missing = true, 0
	f.cfg.Logger.Info().Int("voters", len(p.Voters)).Str("cluster", p.Cluster).Msg("proposing to form a cluster")
	return f.solicit()
}

// vote has a proposal on disk before anybody hears that this node voted for it.
func (f *Formation) vote(p *firstQuorum) error {
	r := f.saved
	r.Proposal = p
	f.waiting = 0
	return f.save(r)
}

// solicit asks for the votes that are missing, and forms the cluster when none is.
func (f *Formation) solicit() error {
	p := f.saved.Proposal
	all := true
	for _, v := range p.Voters {
		if !f.accepted[v.Directory] {
			all = false
			f.send(v.Directory, formationMessage{Kind: proposeKind, Proposal: p})
		}
	}
	if !all {
		return nil
	}
	return f.commit(p)
}

func (f *Formation) commit(p *firstQuorum) error {
	own, ok := p.voter(f.saved.Directory)
	if !ok {
		return fmt.Errorf("%w: cluster %s was formed without this node's vote", ErrFormation, p.Cluster)
	}
	r := f.saved
	r.Cluster, r.Node, r.Proposal = p.Cluster, own.Node, p
	if err := f.save(r); err != nil {
		return err
	}
	f.cfg.Logger.Info().Str("cluster", p.Cluster).Int32("node", own.Node).Int("voters", len(p.Voters)).Msg("formed a cluster")
	if p.Proposer == f.saved.Directory {
		f.tell(p, formationMessage{Kind: commitKind, Proposal: p})
	}
	return nil
}

// withdraw gives the own proposal up; its voters are free.
func (f *Formation) withdraw(reason string) error {
	p := f.saved.Proposal
	f.cfg.Logger.Info().Str("cluster", p.Cluster).Str("reason", reason).Msg("withdrawing the proposal to form a cluster")
	if err := f.vote(nil); err != nil {
		return err
	}
	f.tell(p, formationMessage{Kind: abortKind, Proposal: p})
	return nil
}

// tell sends a message to the other voters of a proposal.
func (f *Formation) tell(p *firstQuorum, m formationMessage) {
	for _, v := range p.Voters {
		if v.Directory != f.saved.Directory {
			f.send(v.Directory, m)
		}
	}
}

// save replaces the record on disk and in memory.
func (f *Formation) save(r formationRecord) error {
	if err := writeFormation(f.cfg.FS, f.cfg.Dir, &r); err != nil {
		return err
	}
	f.saved = r
	f.cfg.Self.Cluster = r.Cluster
	if r.Node >= 0 {
		f.cfg.Self.Node = r.Node
	}
	return nil
}

// Numbers of ticks.
const (
	// missingTicks is for how long a voter that has not voted may be gone before its
	// proposal is withdrawn.
	missingTicks = 10
	// boundTicks is after how long a vote for a silent proposer is worth a warning.
	boundTicks = 300
)

// Tick repeats what may have been lost. A tick is 100 ms or so.
func (f *Formation) Tick() error {
	p := f.saved.Proposal
	switch {
	case p == nil && f.saved.Cluster == "":
		return f.propose()
	case p == nil:
		return nil
	case f.saved.Cluster != "":
		if p.Proposer == f.saved.Directory {
			for _, c := range f.seen {
				if _, ok := p.voter(c.Directory); ok && c.Cluster == "" {
					f.send(c.Directory, formationMessage{Kind: commitKind, Proposal: p})
				}
			}
		}
		return nil
	case p.Proposer != f.saved.Directory:
		if f.waiting++; f.waiting%boundTicks == 0 {
			f.cfg.Logger.Warn().Str("cluster", p.Cluster).Msg("this node voted to form a cluster and the node that proposed it does not answer: start that node; if its disk is lost, and no node of this cluster runs, stop this node and remove its quorum directory")
		}
		f.send(p.Proposer, formationMessage{Kind: askKind, Proposal: p})
		return nil
	}
	if f.gone(p) {
		if f.missing++; f.missing >= missingTicks {
			return f.withdraw("a voter is gone")
		}
	} else {
		f.missing = 0
	}
	return f.solicit()
}

// gone says that a voter that has not voted is not to be seen.
func (f *Formation) gone(p *firstQuorum) bool {
	for _, v := range p.Voters {
		if !f.accepted[v.Directory] && !slices.ContainsFunc(f.seen, func(c Candidate) bool { return c.Directory == v.Directory }) {
			return true
		}
	}
	return false
}

// formationMessage is what nodes that form a cluster send one another, as JSON.
type formationMessage struct {
	Kind     formationKind `json:"kind"`
	From     Directory     `json:"from"`
	Proposal *firstQuorum  `json:"proposal"`
	// Held is what a node that refuses voted for.
	Held *firstQuorum `json:"held,omitempty"`
}

type formationKind string

const (
	proposeKind formationKind = "propose" // proposer to voter: vote for this
	acceptKind  formationKind = "accept"  // voter to proposer: voted
	refuseKind  formationKind = "refuse"  // voter to proposer: voted for Held
	commitKind  formationKind = "commit"  // proposer to voter: all voted, it is formed
	abortKind   formationKind = "abort"   // proposer to voter: withdrawn, will never be formed
	askKind     formationKind = "ask"     // voter to proposer: what became of this?
	yieldKind   formationKind = "yield"   // proposer to proposer of Held: this one comes first
)

func (f *Formation) send(to Directory, m formationMessage) {
	m.From = f.saved.Directory
	data, err := json.Marshal(m)
	if err != nil {
		panic(err) // plain data
	}
	f.cfg.Send(to, data)
}

// Receive takes a message that another node sent.
func (f *Formation) Receive(message []byte) error {
	var m formationMessage
	if err := json.Unmarshal(message, &m); err != nil || m.Proposal == nil {
		f.cfg.Logger.Debug().Err(err).Msg("a message about forming a cluster cannot be read")
		return nil
	}
	p := m.Proposal
	held := f.saved.Proposal
	mine := held != nil && held.Proposer == f.saved.Directory && f.saved.Cluster == ""
	same := held != nil && held.Cluster == p.Cluster
	switch m.Kind {
	case proposeKind:
		return f.asked(m.From, p)
	case acceptKind:
		if _, ok := p.voter(m.From); mine && same && ok {
			f.accepted[m.From] = true
			return f.solicit()
		}
	case refuseKind:
		if mine && same && m.Held != nil {
			if m.Held.Rank < held.Rank {
				return f.withdraw("another proposal comes first")
			}
			f.send(m.Held.Proposer, formationMessage{Kind: yieldKind, Proposal: p, Held: m.Held})
		}
	case yieldKind:
		if mine && m.Held != nil && m.Held.Cluster == held.Cluster && p.Rank < held.Rank {
			return f.withdraw("another proposal comes first")
		}
		if m.Held != nil && m.Held.Proposer == f.saved.Directory && !mine && (held == nil || held.Cluster != m.Held.Cluster) {
			f.tell(m.Held, formationMessage{Kind: abortKind, Proposal: m.Held})
		}
	case commitKind:
		if same && f.saved.Cluster == "" && m.From == p.Proposer {
			return f.commit(held)
		}
	case abortKind:
		if same && f.saved.Cluster == "" && m.From == p.Proposer && m.From != f.saved.Directory {
			return f.vote(nil)
		}
	case askKind:
		return f.inquired(m.From, p, same)
	}
	return nil
}

// asked answers a request for this node's vote.
func (f *Formation) asked(from Directory, p *firstQuorum) error {
	own, isVoter := p.voter(f.saved.Directory)
	held := f.saved.Proposal
	switch {
	case p.Proposer != from || !isVoter || f.cfg.Self.Node >= 0 && f.cfg.Self.Node != own.Node:
		return nil
	case held != nil && held.Cluster == p.Cluster:
		f.send(from, formationMessage{Kind: acceptKind, Proposal: p})
		return nil
	case f.saved.Cluster != "":
		return nil // the proposer sees by gossip that there is a cluster
	case held != nil && held.Proposer == f.saved.Directory && p.Rank < held.Rank:
		if err := f.withdraw("another proposal comes first"); err != nil {
			return err
		}
	case held != nil:
		f.send(from, formationMessage{Kind: refuseKind, Proposal: p, Held: held})
		return nil
	}
	if err := f.vote(p); err != nil {
		return err
	}
	f.send(from, formationMessage{Kind: acceptKind, Proposal: p})
	return nil
}

// inquired tells a voter what became of a proposal of this node: one that it does not
// hold any more was withdrawn, since it never makes the same one again.
func (f *Formation) inquired(from Directory, p *firstQuorum, same bool) error {
	switch {
	case p.Proposer != f.saved.Directory:
	case !same:
		f.send(from, formationMessage{Kind: abortKind, Proposal: p})
	case f.saved.Cluster != "":
		f.send(from, formationMessage{Kind: commitKind, Proposal: p})
	default:
		f.send(from, formationMessage{Kind: proposeKind, Proposal: p})
	}
	return nil
}
