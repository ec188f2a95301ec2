package brokertest_test

import (
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"

	"github.com/leatlog/leat/broker"
	"github.com/leatlog/leat/broker/brokertest"
)

// cuts are those of the connections to a broker, or to the nodes of a cluster: the first
// ones are cut after a number of bytes drawn from a seed, in the middle of requests and of
// answers.
type cuts struct {
	mu     sync.Mutex
	random *rand.Rand
	left   int // connections that are still to be cut
	cut    int
}

func newCuts(seed uint64, n int) *cuts {
	return &cuts{random: rand.New(rand.NewPCG(seed, 1)), left: n}
}

// before puts a cutter before each broker.
func (c *cuts) before(t *testing.T) brokertest.Option {
	return brokertest.Configure(func(config *broker.Config) {
		cutter := newCutter(t, c)
		config.Advertise = cutter.addr()
		cutter.forward(config.Listen)
	})
}

// made is how many connections were cut.
func (c *cuts) made() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cut
}

// draw returns after how many bytes to the broker, or from it, a new connection is cut.
func (c *cuts) draw() (bytes int64, toBroker bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.left == 0 {
		return 1 << 60, true
	}
	c.left--
	if c.random.IntN(2) == 0 {
		return 100 + c.random.Int64N(6000), true
	}
	return 300 + c.random.Int64N(700), false // answers are small
}

// cutter is a proxy before a broker that cuts connections.
type cutter struct {
	*cuts
	listener net.Listener
	target   string
	wait     sync.WaitGroup

	mu     sync.Mutex
	conns  map[net.Conn]bool
	closed bool
}

func newCutter(t *testing.T, cuts *cuts) *cutter {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cutter{cuts: cuts, listener: l, conns: map[net.Conn]bool{}}
	t.Cleanup(c.close)
	return c
}

func (c *cutter) addr() string { return c.listener.Addr().String() }

// forward begins to forward to the broker.
func (c *cutter) forward(target string) {
	c.target = target
	c.wait.Go(func() {
		for {
			client, err := c.listener.Accept()
			if err != nil {
				return
			}
			c.wait.Go(func() { c.serve(client) })
		}
	})
}

func (c *cutter) serve(client net.Conn) {
	broker, err := net.Dial("tcp", c.target)
	if err != nil {
		client.Close()
		return
	}
	budget, toBroker := c.draw()
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		client.Close()
		broker.Close()
		return
	}
	c.conns[client], c.conns[broker] = true, true
	c.mu.Unlock()
	closeBoth := func() {
		client.Close()
		broker.Close()
	}
	move := func(to, from net.Conn, limited bool) {
		defer closeBoth()
		var n int64
		var err error
		if limited {
			n, err = io.CopyN(to, from, budget)
		} else {
			_, err = io.Copy(to, from)
		}
		if limited && n == budget && !errors.Is(err, io.EOF) {
			c.cuts.mu.Lock()
			c.cut++
			c.cuts.mu.Unlock()
		}
	}
	var both sync.WaitGroup
	both.Go(func() { move(broker, client, toBroker) })
	both.Go(func() { move(client, broker, !toBroker) })
	both.Wait()
	c.mu.Lock()
	delete(c.conns, client)
	delete(c.conns, broker)
	c.mu.Unlock()
}

func (c *cutter) close() {
	c.listener.Close()
	c.mu.Lock()
	c.closed = true
	for conn := range c.conns {
		conn.Close()
	}
	c.mu.Unlock()
	c.wait.Wait()
}
