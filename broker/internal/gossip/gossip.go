// Package gossip finds the nodes of a cluster over hashicorp/memberlist: who there is,
// at which addresses, in which roles. It decides nothing: who is a member, who leads
// and who is alive are records of the metadata quorum. What it says may be late, and
// differ from node to node.
//
// Nodes of another label are not heard, nor are those that do not encrypt with one of
// the keys when there are keys, nor those that say they are of another cluster: two
// clusters on one network never merge.
package gossip

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/rs/zerolog"
)

// Meta is what a node says of itself, at most 512 bytes of JSON.
type Meta struct {
	Node       int32  `json:"n"` // -1 while it has no id
	Broker     bool   `json:"b,omitempty"`
	Controller bool   `json:"v,omitempty"`
	Rack       string `json:"r,omitempty"`
	Cluster    string `json:"c,omitempty"` // the cluster's id; empty while the node has none
	Internal   string `json:"i,omitempty"` // HOST:PORT of the inter-node listener
	Client     string `json:"k,omitempty"` // HOST:PORT that clients are told
	Expect     int    `json:"e,omitempty"` // the number of controllers that form its cluster
}

// Member is a node that is there.
type Member struct {
	// Name is unique: that of the node's data directory.
	Name string
	// Address is where the node gossips, HOST:PORT.
	Address string
	Meta
}

// Config configures a Gossip.
type Config struct {
	// Name of this node; see Member.
	Name string
	// Bind is the address to gossip at, HOST:PORT; UDP and TCP. Port 0 takes a free one.
	Bind string
	// Advertise is the HOST:PORT others reach it at. Default: where it is bound.
	Advertise string
	// Label names the network: others are not heard. Default: none.
	Label string
	// Keys are 16, 24 or 32 bytes each: the first encrypts, each is accepted. None: not
	// encrypted.
	Keys [][]byte
	// Join are addresses of other nodes, tried until one answers and again when all are
	// gone.
	Join []string
	Meta Meta
	// Changed is called when a member came, went or changed, Received when another
	// member sent a message: on goroutines of memberlist; they must not block.
	Changed func()
	// Gone is called when a member went, by itself or because it is not there any more:
	// as Changed.
	Gone     func(Meta)
	Received func(from string, message []byte)
	Logger   zerolog.Logger
}

const (
	// firstRetry and laterRetry are the times between two attempts to join: before the
	// first success, and after it, to heal what was torn.
	firstRetry = 200 * time.Millisecond
	laterRetry = 5 * time.Second
	// leaveTimeout bounds a clean good-bye.
	leaveTimeout = 500 * time.Millisecond
	// updateTimeout bounds the wait until a change of Meta is on its way.
	updateTimeout = time.Second
)

// ErrUnknownMember says that there is no member of that name now.
var ErrUnknownMember = errors.New("gossip: no such member")

// Gossip is a running node of the network. Safe for concurrent use.
type Gossip struct {
	cfg   Config
	list  *memberlist.Memberlist
	stop  chan struct{}
	tasks sync.WaitGroup
	meta  chan struct{} // holds one token when meta changed

	mu      sync.Mutex
	own     Meta
	members map[string]Member
}

// Start joins the network. It does not wait for others.
func Start(cfg Config) (*Gossip, error) {
	if cfg.Changed == nil {
		cfg.Changed = func() {}
	}
	if cfg.Gone == nil {
		cfg.Gone = func(Meta) {}
	}
	if cfg.Received == nil {
		cfg.Received = func(string, []byte) {}
	}
	g := &Gossip{cfg: cfg, stop: make(chan struct{}), meta: make(chan struct{}, 1), own: cfg.Meta, members: map[string]Member{}}
	c, err := g.config()
	if err != nil {
		return nil, err
	}
	if n := len(g.NodeMeta(memberlist.MetaMaxSize)); n == 0 {
		return nil, fmt.Errorf("gossip: what this node says of itself does not fit into %d bytes: use shorter names of rack and hosts", memberlist.MetaMaxSize)
	}
	if g.list, err = memberlist.Create(c); err != nil {
		return nil, fmt.Errorf("gossip at %s: %w", cfg.Bind, err)
	}
	g.tasks.Go(g.run)
	return g, nil
}

func (g *Gossip) config() (*memberlist.Config, error) {
	c := memberlist.DefaultLANConfig()
	c.Name, c.Label = g.cfg.Name, g.cfg.Label
	var err error
	if c.BindAddr, c.BindPort, err = resolve(g.cfg.Bind); err != nil {
		return nil, err
	}
	c.AdvertisePort = c.BindPort
	if g.cfg.Advertise != "" {
		if c.AdvertiseAddr, c.AdvertisePort, err = resolve(g.cfg.Advertise); err != nil {
			return nil, err
		}
	}
	if len(g.cfg.Keys) > 0 {
		if c.Keyring, err = memberlist.NewKeyring(g.cfg.Keys, g.cfg.Keys[0]); err != nil {
			return nil, fmt.Errorf("gossip: key: %w", err)
		}
	}
	// Clusters are small and nodes are near: rather find out soon.
	c.ProbeInterval, c.ProbeTimeout = 500*time.Millisecond, 250*time.Millisecond
	c.GossipInterval, c.PushPullInterval = 100*time.Millisecond, 5*time.Second
	c.TCPTimeout = 2 * time.Second
	c.DeadNodeReclaimTime = time.Second
	c.LogOutput, c.Logger = nil, log.New(logWriter{g.cfg.Logger}, "", 0)
	c.Delegate, c.Events, c.Alive = g, g, g
	return c, nil
}

// resolve splits HOST:PORT and looks the host up: memberlist wants an address.
func resolve(address string) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(address)
	if err == nil {
		port, err = strconv.Atoi(text)
	}
	if err != nil {
		return "", 0, fmt.Errorf("gossip: address %.200q: must be HOST:PORT", address)
	}
	if host == "" {
		return "0.0.0.0", port, nil
	}
	if net.ParseIP(host) != nil {
		return host, port, nil
	}
	found, err := net.LookupHost(host)
	if err != nil || len(found) == 0 {
		return "", 0, fmt.Errorf("gossip: address %.200q: %w", address, err)
	}
	return found[0], port, nil
}

// Address returns where this node is reached, HOST:PORT.
func (g *Gossip) Address() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.members[g.cfg.Name].Address
}

// Members returns the nodes that are there, this one included, by name.
func (g *Gossip) Members() []Member {
	g.mu.Lock()
	defer g.mu.Unlock()
	list := make([]Member, 0, len(g.members))
	for _, m := range g.members {
		list = append(list, m)
	}
	slices.SortFunc(list, func(a, b Member) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// SetMeta changes what this node says of itself; the others learn it soon.
func (g *Gossip) SetMeta(m Meta) {
	g.mu.Lock()
	same := g.own == m
	g.own = m
	g.mu.Unlock()
	if same {
		return
	}
	select {
	case g.meta <- struct{}{}:
	default:
	}
}

// envelope is a message as it is sent.
type envelope struct {
	From string `json:"f"`
	Body []byte `json:"b"`
}

// Send sends a message to a member over a connection of its own. It blocks for up to
// some seconds; nil does not say that the member has taken it.
func (g *Gossip) Send(name string, message []byte) error {
	data, err := json.Marshal(envelope{g.cfg.Name, message})
	if err != nil {
		return err
	}
	g.mu.Lock()
	m, ok := g.members[name]
	g.mu.Unlock()
	if !ok {
		return fmt.Errorf("%w: %.100q", ErrUnknownMember, name)
	}
	// Not one of memberlist's own nodes, which it changes while it sends.
	to, err := netip.ParseAddrPort(m.Address)
	if err != nil {
		return fmt.Errorf("gossip: address of member %.100q: %w", name, err)
	}
	return g.list.SendReliable(&memberlist.Node{Name: name, Addr: to.Addr().AsSlice(), Port: to.Port()}, data)
}

// Close says good-bye and leaves the network.
func (g *Gossip) Close() error {
	close(g.stop)
	g.tasks.Wait()
	if err := g.list.Leave(leaveTimeout); err != nil {
		g.cfg.Logger.Debug().Err(err).Msg("gossip: the others may take this node for failed")
	}
	return g.list.Shutdown()
}

// Kill leaves the network without a word, as a process that dies does.
func (g *Gossip) Kill() error {
	close(g.stop)
	g.tasks.Wait()
	return g.list.Shutdown()
}

// run joins, and keeps the others informed of changes of Meta.
func (g *Gossip) run() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-g.stop:
			return
		case <-g.meta:
			if err := g.list.UpdateNode(updateTimeout); err != nil {
				g.cfg.Logger.Debug().Err(err).Msg("gossip: the others learn late what changed here")
			}
		case <-timer.C:
			timer.Reset(g.join())
		}
	}
}

// join contacts the nodes to join that are not there, and returns when to try again.
func (g *Gossip) join() time.Duration {
	present := map[string]bool{}
	for _, m := range g.Members() {
		present[m.Address] = true
	}
	for _, address := range g.cfg.Join {
		if host, port, err := resolve(address); err == nil && present[net.JoinHostPort(host, strconv.Itoa(port))] {
			continue
		}
		if _, err := g.list.Join([]string{address}); err != nil {
			g.cfg.Logger.Debug().Str("address", address).Err(err).Msg("gossip: a node to join does not answer; trying again")
		}
	}
	if len(g.Members()) > 1 || len(g.cfg.Join) == 0 {
		return laterRetry
	}
	return firstRetry
}

// NodeMeta implements memberlist.Delegate.
func (g *Gossip) NodeMeta(limit int) []byte {
	g.mu.Lock()
	defer g.mu.Unlock()
	data, err := json.Marshal(g.own)
	if err != nil || len(data) > limit {
		return nil
	}
	return data
}

// NotifyMsg implements memberlist.Delegate.
func (g *Gossip) NotifyMsg(data []byte) {
	var e envelope
	if err := json.Unmarshal(data, &e); err != nil {
		g.cfg.Logger.Debug().Err(err).Msg("gossip: a message cannot be read")
		return
	}
	g.cfg.Received(e.From, e.Body)
}

// GetBroadcasts implements memberlist.Delegate.
func (g *Gossip) GetBroadcasts(int, int) [][]byte { return nil }

// LocalState implements memberlist.Delegate.
func (g *Gossip) LocalState(bool) []byte { return nil }

// MergeRemoteState implements memberlist.Delegate.
func (g *Gossip) MergeRemoteState([]byte, bool) {}

// NotifyAlive implements memberlist.AliveDelegate: it refuses nodes of other clusters.
func (g *Gossip) NotifyAlive(n *memberlist.Node) error {
	m, err := memberOf(n)
	if err != nil {
		return err
	}
	g.mu.Lock()
	own := g.own.Cluster
	g.mu.Unlock()
	if own != "" && m.Cluster != "" && own != m.Cluster {
		return fmt.Errorf("node at %s is of cluster %.40q, this one of %.40q", m.Address, m.Cluster, own)
	}
	return nil
}

// NotifyJoin implements memberlist.EventDelegate.
func (g *Gossip) NotifyJoin(n *memberlist.Node) { g.note(n) }

// NotifyUpdate implements memberlist.EventDelegate.
func (g *Gossip) NotifyUpdate(n *memberlist.Node) { g.note(n) }

// NotifyLeave implements memberlist.EventDelegate.
func (g *Gossip) NotifyLeave(n *memberlist.Node) {
	g.mu.Lock()
	was := g.members[n.Name]
	delete(g.members, n.Name)
	g.mu.Unlock()
	g.cfg.Changed()
	g.cfg.Gone(was.Meta)
}

func (g *Gossip) note(n *memberlist.Node) {
	m, err := memberOf(n)
	if err != nil {
		g.cfg.Logger.Debug().Err(err).Msg("gossip: a node is not understood")
		return
	}
	g.mu.Lock()
	g.members[m.Name] = m
	g.mu.Unlock()
	g.cfg.Changed()
}

func memberOf(n *memberlist.Node) (Member, error) {
	m := Member{Name: n.Name, Address: n.Address()}
	if err := json.Unmarshal(n.Meta, &m.Meta); err != nil {
		return m, fmt.Errorf("node at %s says what is not understood: %w", m.Address, err)
	}
	return m, nil
}

// logWriter hands memberlist's log lines to zerolog, one level down: what it warns
// of, it mends.
type logWriter struct{ logger zerolog.Logger }

var _ io.Writer = logWriter{}

func (w logWriter) Write(line []byte) (int, error) {
	w.logger.Debug().Msg(strings.TrimSpace(string(line)))
	return len(line), nil
}
