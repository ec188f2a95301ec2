package brokertest

import (
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/leatlog/leat/broker"
	"github.com/leatlog/leat/broker/internal/vfs"
)

// Cluster is a cluster of brokers that runs in a test. Its methods may be called
// from one goroutine at a time.
type Cluster struct {
	t     testing.TB
	nodes []*Broker
}

// StartCluster starts a cluster of n nodes on the loopback interface, each a broker
// and a controller with a directory of its own, and stops it when the test ends. It
// returns when every node serves clients. A node that dies is fenced after 2 s,
// sooner than by default.
//
// Each is to be one of n controllers, unless an option sets BootstrapExpect.
//
// Options hold for every node. Dir makes each node a folder of that directory, and
// InMemoryDisk gives each a disk of its own; InMemoryNetwork is not possible.
func StartCluster(t testing.TB, n int, opts ...Option) *Cluster {
	t.Helper()
	c := &Cluster{t: t}
	gossip := make([]string, n)
	for i := range gossip {
		gossip[i] = FreeAddress(t)
	}
	for i := range n {
		b := newBroker(t, opts)
		if b.memory {
			t.Fatal("brokertest: a cluster needs a network: leave InMemoryNetwork out")
		}
		switch b.config.Environment.FS.(type) {
		case *vfs.Mem:
			b.config.Environment.FS = vfs.NewMem()
		default:
			b.config.DataDir = filepath.Join(b.config.DataDir, fmt.Sprint("node-", i))
		}
		b.config.Gossip = gossip[i]
		if b.config.BootstrapExpect == broker.DefaultConfig().BootstrapExpect {
			b.config.BootstrapExpect = n
		}
		if i > 0 {
			b.config.Join = gossip[:1]
		}
		if d := broker.DefaultConfig(); b.config.Cluster == d.Cluster {
			b.config.Cluster.Heartbeat, b.config.Cluster.Session = 250*time.Millisecond, 2*time.Second
		}
		c.nodes = append(c.nodes, b)
	}
	t.Cleanup(c.Stop)
	c.Restart()
	for _, b := range c.nodes {
		if len(b.config.Roles) == 0 || slices.Contains(b.config.Roles, broker.ControllerRole) { // others have to say whom to join
			b.config.Join = nil // a node that restarts finds the others by what it remembers
		}
	}
	return c
}

// Node returns node i, from 0 on, to be killed, stopped or restarted.
func (c *Cluster) Node(i int) *Broker { return c.nodes[i] }

// Size is the number of nodes, those that do not run included.
func (c *Cluster) Size() int { return len(c.nodes) }

// Addrs returns the addresses of all nodes, for clients to begin with.
func (c *Cluster) Addrs() []string {
	var list []string
	for _, b := range c.nodes {
		list = append(list, b.Addr())
	}
	return list
}

// Kill ends node i as kill -9 would; see Broker.Kill.
func (c *Cluster) Kill(i int) { c.nodes[i].Kill() }

// PowerCut cuts the power of node i; see Broker.PowerCut.
func (c *Cluster) PowerCut(i int, seed uint64) { c.nodes[i].PowerCut(seed) }

// Wipe kills node i and gives it an empty disk. It keeps its id.
func (c *Cluster) Wipe(i int) {
	c.t.Helper()
	b := c.nodes[i]
	if r := b.Running(); r != nil {
		b.config.NodeID = r.NodeID()
	}
	b.Kill()
	b.config.Join = []string{c.nodes[(i+1)%len(c.nodes)].config.Gossip} // it remembers nobody
	if _, memory := b.config.Environment.FS.(*vfs.Mem); memory {
		b.config.Environment.FS = vfs.NewMem()
		return
	}
	b.config.DataDir += "-wiped"
}

// Restart starts nodes again on what is on their disks, all at once and in no order,
// without telling them of one another, and returns when they serve clients. Without nodes it starts those that do not run.
func (c *Cluster) Restart(nodes ...int) {
	c.t.Helper()
	var starting []*Broker
	for _, b := range c.nodes {
		if len(nodes) == 0 && b.Running() == nil {
			starting = append(starting, b)
		}
	}
	for _, i := range nodes {
		c.nodes[i].Stop()
		starting = append(starting, c.nodes[i])
	}
	errs := make([]error, len(starting))
	var all sync.WaitGroup
	for n, b := range starting {
		all.Go(func() { errs[n] = b.start() })
	}
	all.Wait()
	for n, err := range errs {
		if err != nil {
			c.t.Fatalf("brokertest: start of a node at %s: %v", starting[n].config.Gossip, err)
		}
	}
}

// Stop stops all nodes cleanly.
func (c *Cluster) Stop() {
	var all sync.WaitGroup
	for _, b := range c.nodes {
		all.Go(b.Stop)
	}
	all.Wait()
}

// Controller returns the place of the node that is the active controller, as a node
// that runs has it; -1 while there is none.
func (c *Cluster) Controller() int {
	for _, b := range c.nodes {
		r := b.Running()
		if r == nil {
			continue
		}
		for i, other := range c.nodes {
			if o := other.Running(); o != nil && o.NodeID() == r.Controller() {
				return i
			}
		}
	}
	return -1
}
