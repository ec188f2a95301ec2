package brokertest

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"testing"

	"github.com/leatlog/leat/broker"
)

// nodesVariable is the environment variable that has Start start a cluster.
const nodesVariable = "LEAT_TEST_NODES"

// nodesOfTests is the number of nodes that Start is to start.
func nodesOfTests(t testing.TB) int {
	t.Helper()
	text := os.Getenv(nodesVariable)
	if text == "" {
		return 1
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("brokertest: %s=%q: want a number of nodes, 1 or more", nodesVariable, text)
	}
	return n
}

// isAlone says that nothing was said about the broker's place in a cluster.
func (b *Broker) isAlone() bool {
	c, d := &b.config, broker.DefaultConfig()
	return c.NodeID == 0 && c.Gossip == "" && len(c.Join) == 0 && c.Internal == "" && c.Listener == nil &&
		c.BootstrapExpect == d.BootstrapExpect && len(c.Roles) == len(d.Roles)
}

// startAsCluster starts n nodes and returns a face for them.
func startAsCluster(t testing.TB, n int, opts []Option) *Broker {
	t.Helper()
	all := []Option{Set("default.replication.factor", strconv.Itoa(min(n, 3))), Set("min.insync.replicas", strconv.Itoa(min(n, 2)))}
	all = append(all, opts...)
	all = append(all, func(o *options) { o.memoryNetwork = false })
	c := StartCluster(t, n, all...)
	return &Broker{t: t, config: c.nodes[0].config, all: c}
}

// dial connects to the node that has the address, without what stands before it.
func (c *Cluster) dial(ctx context.Context, address string) (net.Conn, error) {
	for _, b := range c.nodes {
		if b.Addr() == address {
			return b.Dial(ctx, "tcp", address)
		}
	}
	return nil, fmt.Errorf("brokertest: no node of the cluster has the address %s", address)
}

// killAll kills all nodes at once.
func (c *Cluster) killAll() {
	var all sync.WaitGroup
	for _, b := range c.nodes {
		all.Go(b.Kill)
	}
	all.Wait()
}

// cutAll cuts the power of all nodes at once.
func (c *Cluster) cutAll(seed uint64) {
	c.t.Helper()
	c.killAll()
	for i, b := range c.nodes {
		b.PowerCut(seed + uint64(i)<<32)
	}
}
