package broker

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"path"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/leatlog/leat/broker/internal/gossip"
	"github.com/leatlog/leat/broker/internal/metadata"
	"github.com/leatlog/leat/broker/internal/quorum"
)

// membership finds the other nodes, forms a cluster with them or finds the one to
// join, and keeps this node a member of its quorum. One goroutine runs it; what other
// goroutines ask is behind atomics.
type membership struct {
	cfg       *Config
	logger    zerolog.Logger
	meta      gossip.Meta    // what this node says of itself
	gossip    *gossip.Gossip // nil in a cluster of one that no node can join
	formation *quorum.Formation
	courier   *courier
	inbox     *mailbox[letter]
	book      *addressBook
	image     func() *metadata.Image
	node      atomic.Pointer[quorum.Node] // nil until it is started

	outcome atomic.Pointer[quorum.Outcome]
	known   chan struct{} // closed when outcome is there and has a node id
	failed  func(error)
	gone    func(node int32) // a broker is missed
	refused string           // why the cluster did not take this node in, as last logged
}

// letter is a message between memberships.
type letter struct {
	from string
	body []byte
}

// envelope is a letter's body, as JSON: one of its fields is set.
type envelope struct {
	Formation json.RawMessage `json:"formation,omitempty"`
	Join      *joinRequest    `json:"join,omitempty"`
	Joined    *joinAnswer     `json:"joined,omitempty"`
}

// joinRequest asks the active controller to take a replica into the quorum.
type joinRequest struct {
	Directory quorum.Directory `json:"directory"`
	Node      int32            `json:"node"` // -1: any that is free
	Voter     bool             `json:"voter"`
}

type joinAnswer struct {
	Cluster string `json:"cluster"`
	Node    int32  `json:"node"`
	Error   string `json:"error,omitempty"`
}

const (
	// formationTick is the time between two ticks of the formation.
	formationTick = 100 * time.Millisecond
	// joinTicks is the number of ticks between two requests to be taken in.
	joinTicks = 5
)

// memberName names a data directory in gossip.
func memberName(d quorum.Directory) string { return fmt.Sprintf("%08x", uint32(d)) }

func directoryOf(name string) (quorum.Directory, bool) {
	n, err := strconv.ParseUint(name, 16, 32)
	return quorum.Directory(n), err == nil
}

// keys decodes the settings' keys.
func (c *Config) keys() ([][]byte, error) {
	var keys [][]byte
	for _, text := range c.GossipKeys {
		key, err := base64.StdEncoding.DecodeString(text)
		if n := len(key); err != nil || n != 16 && n != 24 && n != 32 {
			return nil, invalid("gossip.encryption.key", "(hidden)", "must be 16, 24 or 32 bytes in base64, several with commas between them")
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// clustered says that other nodes can reach this one.
func (c *Config) clustered() bool { return c.Gossip != "" }

// startMembership opens what is known of the cluster, finds the others, and returns
// when this node knows its cluster and its id.
func (b *Broker) startMembership(ctx context.Context) error {
	identity, err := readIdentity(b.env.FS, b.cfg.DataDir)
	if err != nil {
		return err
	}
	if err := identity.admit(&b.cfg); err != nil {
		return err
	}
	m := &membership{cfg: &b.cfg, logger: b.logger, inbox: newMailbox[letter](), known: make(chan struct{}),
		image: b.log.Published, failed: b.fail, gone: b.suspicions.raise}
	b.membership = m
	if m.book, err = openAddressBook(b.env.FS, b.cfg.DataDir, b.logger); err != nil {
		return err
	}
	if err := b.bindInternal(); err != nil {
		return err
	}
	old, err := quorum.WithoutFormation(b.env.FS, b.cfg.quorumDir())
	if err != nil {
		return err
	}
	if old {
		m.outcome.Store(&quorum.Outcome{Cluster: identity.cluster, Node: identity.node})
		close(m.known)
	} else if err := b.openFormation(identity); err != nil {
		return err
	}
	if err := m.startGossip(b.internalAddress, b.Addr()); err != nil {
		return err
	}
	if b.cfg.clustered() {
		b.started("gossip", func(ctx context.Context) error { return m.leave(ctx) })
	}
	b.background("membership", m.run)
	select {
	case <-m.known:
	case <-ctx.Done():
		return fmt.Errorf("start of the broker: it is in no cluster yet: %w", ctx.Err())
	case <-b.failed:
		return b.err
	}
	outcome := m.outcome.Load()
	b.cfg.NodeID = outcome.Node
	return identity.keep(b.env.FS, b.cfg.DataDir, outcome)
}

func (b *Broker) openFormation(identity identity) error {
	m := b.membership
	self := quorum.Candidate{Node: b.cfg.NodeID, Controller: slices.Contains(b.cfg.Roles, ControllerRole), Expect: b.cfg.BootstrapExpect}
	if identity.node > 0 {
		self.Node = identity.node
	}
	if self.Node == 0 {
		self.Node = -1
	}
	self.Address = b.cfg.Gossip
	if len(b.cfg.Join) > 0 && b.cfg.BootstrapExpect == 1 || !self.Controller {
		self.Expect = 0
	}
	if identity.cluster != "" {
		self.Expect = 0 // the node was in a cluster: it must not make another one
	}
	formation, err := quorum.OpenFormation(quorum.FormationConfig{
		Dir: b.cfg.quorumDir(), FS: b.env.FS, Self: self, Send: m.sendFormation, Logger: b.logger,
		NewDirectory: func() (quorum.Directory, error) { return quorum.NewDirectory(b.env.Random) },
		NewClusterID: func() (string, error) {
			id, err := metadata.NewUUID(b.env.Random)
			return id.String(), err
		},
	})
	if err != nil {
		return err
	}
	m.formation = formation
	if err := formation.See(nil); err != nil { // a cluster of one needs nobody
		return err
	}
	if !b.cfg.clustered() && formation.Outcome() == nil {
		return fmt.Errorf("%w: data directory %s was in cluster %s, and its %s is gone: restore it, or join that cluster again",
			ErrConfig, b.cfg.DataDir, identity.cluster, b.cfg.quorumDir())
	}
	return m.conclude()
}

// startGossip joins the network of nodes.
func (m *membership) startGossip(internal, client string) error {
	if !m.cfg.clustered() {
		return nil
	}
	keys, err := m.cfg.keys()
	if err != nil {
		return err
	}
	m.courier = newCourier()
	m.meta = gossip.Meta{Node: -1, Broker: slices.Contains(m.cfg.Roles, BrokerRole), Controller: slices.Contains(m.cfg.Roles, ControllerRole),
		Rack: m.cfg.Rack, Internal: internal, Client: client}
	if m.formation != nil {
		m.meta.Expect = m.formation.Self().Expect
	}
	m.describe(&m.meta)
	name := memberName(0)
	if m.formation != nil {
		name = memberName(m.formation.Self().Directory)
	}
	bind := m.cfg.Gossip
	if host, port, err := splitAddress(bind); err == nil && port == 0 {
		bind = m.book.keptAddress(host, m.book.page().Gossip)
	}
	m.gossip, err = gossip.Start(gossip.Config{Name: name, Bind: bind, Label: m.cfg.ClusterName, Keys: keys,
		Join: m.book.joinAddresses(m.cfg.Join), Meta: m.meta, Logger: m.logger,
		Gone: func(was gossip.Meta) {
			if was.Broker && was.Node > 0 {
				m.gone(was.Node)
			}
		},
		Received: func(from string, body []byte) { m.inbox.put(letter{from, slices.Clone(body)}) },
	})
	if err != nil {
		return err
	}
	m.courier.send = m.gossip.Send
	m.cfg.Gossip = m.gossip.Address()
	if m.formation != nil {
		m.formation.Located(m.cfg.Gossip)
	}
	return m.book.keep(func(p *addressPage) { p.Gossip = m.cfg.Gossip })
}

// describe fills in what is known only after a while.
func (m *membership) describe(meta *gossip.Meta) {
	if o := m.outcome.Load(); o != nil {
		meta.Node, meta.Cluster = o.Node, m.clusterID()
	} else if m.formation != nil {
		meta.Node = m.formation.Self().Node
	}
}

// clusterID returns the cluster's id, empty while there is none.
func (m *membership) clusterID() string {
	if o := m.outcome.Load(); o != nil && o.Cluster != "" {
		return o.Cluster
	}
	return m.image().ClusterID()
}

// leave says good-bye, unless ctx has ended: then it goes without a word.
func (m *membership) leave(ctx context.Context) error {
	m.courier.close()
	if ctx.Err() != nil {
		return m.gossip.Kill()
	}
	return m.gossip.Close()
}

// run drives the membership until stop is closed.
func (m *membership) run(stop <-chan struct{}) {
	ticker := time.NewTicker(formationTick)
	defer ticker.Stop()
	defer m.inbox.close()
	for tick := 0; ; tick++ {
		var err error
		select {
		case <-stop:
			return
		case <-m.inbox.wake:
			for _, l := range m.inbox.take() {
				err = errors.Join(err, m.open(l))
			}
		case <-ticker.C:
			err = m.tick(tick)
		}
		if err != nil {
			m.failed(fmt.Errorf("membership: %w", err))
			<-stop
			return
		}
	}
}

func (m *membership) tick(tick int) error {
	if m.gossip == nil {
		return nil
	}
	members := m.gossip.Members()
	if m.formation != nil {
		if err := errors.Join(m.formation.See(m.candidates(members)), m.formation.Tick(), m.conclude()); err != nil {
			return err
		}
	}
	if err := m.book.remember(members, m.cfg.Gossip); err != nil {
		return err
	}
	// Not from what gossip has at this address: that may still be of a node whose disk
	// was lost.
	m.describe(&m.meta)
	m.gossip.SetMeta(m.meta)
	if err := m.noteVote(); err != nil {
		return err
	}
	if tick%joinTicks == 0 {
		m.askIn(members)
	}
	return nil
}

func (m *membership) candidates(members []gossip.Member) []quorum.Candidate {
	var list []quorum.Candidate
	for _, x := range members {
		if d, ok := directoryOf(x.Name); ok {
			list = append(list, quorum.Candidate{Directory: d, Node: x.Node, Address: x.Address, Controller: x.Controller, Expect: x.Expect, Cluster: x.Cluster})
		}
	}
	return list
}

// conclude publishes what the formation came to.
func (m *membership) conclude() error {
	o := m.formation.Outcome()
	if o == nil {
		return nil
	}
	before := m.outcome.Load()
	if before != nil && before.Node == o.Node {
		return nil
	}
	m.outcome.Store(o)
	if o.Node >= 0 {
		close(m.known)
	}
	return nil
}

// askIn asks the controllers to take this node into the quorum, and into the voters
// when it is set to, until they did: the active one does. A vote that was taken from it by
// RemoveRaftVoter only comes back by AddRaftVoter.
func (m *membership) askIn(members []gossip.Member) {
	o := m.outcome.Load()
	if o == nil || m.formation == nil {
		return
	}
	node := m.node.Load()
	request := joinRequest{Directory: o.Directory, Node: o.Node, Voter: m.cfg.AutoJoin && slices.Contains(m.cfg.Roles, ControllerRole) &&
		m.book.page().Voted != o.Directory}
	switch {
	case node == nil && o.Node >= 0:
		return // it is about to start
	case node == nil:
	case node.Role() == quorum.Voter, node.Role() == quorum.Learner && !request.Voter:
		return
	}
	for _, x := range members {
		if x.Controller && x.Cluster == o.Cluster && x.Address != m.cfg.Gossip {
			m.post(x.Name, envelope{Join: &request})
		}
	}
}

// noteVote remembers that this node was a voter.
func (m *membership) noteVote() error {
	o, node := m.outcome.Load(), m.node.Load()
	if o == nil || node == nil || !node.Voted() || m.book.page().Voted == o.Directory {
		return nil
	}
	return m.book.keep(func(p *addressPage) { p.Voted = o.Directory })
}

func (m *membership) sendFormation(to quorum.Directory, message []byte) {
	m.post(memberName(to), envelope{Formation: message})
}

func (m *membership) post(to string, e envelope) {
	data, err := json.Marshal(e)
	if err != nil {
		m.logger.Error().Err(err).Msg("a message between nodes cannot be encoded; please report this")
		return
	}
	if m.courier != nil {
		m.courier.post(to, data)
	}
}

// open acts on a letter.
func (m *membership) open(l letter) error {
	var e envelope
	if err := json.Unmarshal(l.body, &e); err != nil {
		m.logger.Debug().Err(err).Str("from", l.from).Msg("a message between nodes cannot be read")
		return nil
	}
	switch {
	case e.Formation != nil && m.formation != nil:
		return errors.Join(m.formation.Receive(e.Formation), m.conclude())
	case e.Join != nil:
		m.takeIn(l.from, *e.Join)
	case e.Joined != nil && m.formation != nil:
		return m.takenIn(*e.Joined)
	}
	return nil
}

// takeIn has a node taken into the quorum, if this node is the active controller.
func (m *membership) takeIn(from string, r joinRequest) {
	node, cluster := m.node.Load(), m.clusterID()
	if node == nil || cluster == "" {
		return
	}
	used := map[int32]bool{}
	for _, b := range m.image().Brokers() {
		used[b.ID] = true
	}
	for _, x := range m.gossip.Members() {
		used[x.Node] = true
	}
	request := quorum.JoinRequest{Directory: r.Directory, Node: r.Node, Voter: r.Voter, Used: func(id int32) bool { return used[id] }}
	node.Join(request, func(joined quorum.Replica, err error) {
		switch {
		case err == nil:
			m.post(from, envelope{Joined: &joinAnswer{Cluster: cluster, Node: joined.Node}})
		case errors.Is(err, quorum.ErrNodeInUse):
			m.post(from, envelope{Joined: &joinAnswer{Cluster: cluster, Node: r.Node, Error: err.Error()}})
		default:
			m.logger.Debug().Err(err).Str("from", from).Msg("a node is not taken in now")
		}
	})
}

// takenIn notes the id that the cluster gave to this node.
func (m *membership) takenIn(a joinAnswer) error {
	o := m.formation.Outcome()
	switch {
	case o == nil || a.Cluster != o.Cluster:
		return nil
	case a.Error != "":
		if a.Error != m.refused {
			m.refused = a.Error
			m.logger.Error().Str("reason", a.Error).Msg("the cluster does not take this node in; trying again. Is another node running with this id?")
		}
		return nil
	case o.Node >= 0:
		return nil
	}
	if err := m.formation.Named(a.Node); err != nil {
		return err
	}
	m.logger.Info().Int32("node", a.Node).Str("cluster", a.Cluster).Msg("the cluster gave this node its id")
	return m.conclude()
}

// address returns where a node's inter-node listener is: as gossip has it, as the
// cluster has it, or as it was.
func (m *membership) address(node int32) (string, bool) {
	if m.gossip != nil {
		for _, x := range m.gossip.Members() {
			if x.Node == node && x.Internal != "" {
				return x.Internal, true
			}
		}
	}
	if b, ok := m.image().Broker(node); ok {
		if l, ok := b.Listener(internalListenerName); ok {
			return net.JoinHostPort(l.Host, fmt.Sprint(l.Port)), true
		}
	}
	return m.book.address(node)
}

// courier carries letters, one at a time to each member, off the goroutine of the
// membership. What does not fit is lost; it is sent again.
type courier struct {
	send func(to string, body []byte) error

	tasks  sync.WaitGroup
	mu     sync.Mutex
	closed bool
	queues map[string][][]byte // of members that a goroutine sends to
}

// maxLetters bounds the letters that wait for one member.
const maxLetters = 16

func newCourier() *courier { return &courier{queues: map[string][][]byte{}} }

func (c *courier) post(to string, body []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	queue, busy := c.queues[to]
	if c.closed || c.send == nil || len(queue) >= maxLetters {
		return
	}
	c.queues[to] = append(queue, body)
	if !busy {
		c.tasks.Go(func() { c.deliver(to) })
	}
}

func (c *courier) deliver(to string) {
	for {
		c.mu.Lock()
		queue := c.queues[to]
		if len(queue) == 0 || c.closed {
			delete(c.queues, to)
			c.mu.Unlock()
			return
		}
		c.queues[to] = queue[1:]
		c.mu.Unlock()
		_ = c.send(to, queue[0]) // it is sent again while it matters
	}
}

func (c *courier) close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.tasks.Wait()
}

// quorumConfig returns how the node takes part in the quorum.
func (b *Broker) quorumConfig() quorum.Config {
	o := b.membership.outcome.Load()
	cfg := quorum.Config{NodeID: o.Node, Directory: o.Directory, Voters: o.Voters, Joining: b.membership.formation != nil && o.Voters == nil,
		Dir: b.cfg.quorumDir(), FS: b.env.FS, Now: b.env.Now, StateMachine: b.log, Logger: b.logger}
	if b.peers != nil {
		cfg.Transport = b.peers
	}
	return cfg
}

// membersFile keeps the addresses of nodes.
const membersFile = "members.json"

func membersPath(dir string) string { return path.Join(dir, membersFile) }
