package peer

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Config configures a Client.
type Config struct {
	// Self is this node.
	Self Identity
	// Dial connects to an address, HOST:PORT. Default: TCP.
	Dial func(ctx context.Context, address string) (net.Conn, error)
	// Address returns where a node's inter-node listener is, false when that is not
	// known. Required; called often, so that a node may move.
	Address func(node int32) (string, bool)
	// ClusterID returns the id of the cluster, empty while there is none. Required.
	ClusterID func() string
	// Keys prove that a node belongs to the cluster; see the package's documentation.
	Keys [][]byte
	// MaxResponseBytes bounds an answer. Default 256 MiB.
	MaxResponseBytes int
	Logger           zerolog.Logger
}

const (
	// firstPause and longestPause bound the time between two attempts to connect.
	firstPause   = 20 * time.Millisecond
	longestPause = 100 * time.Millisecond // a node that comes back leads soon after
)

// Client is the way from this node to the others. Safe for concurrent use.
type Client struct {
	cfg    Config
	ctx    context.Context
	cancel context.CancelFunc
	tasks  sync.WaitGroup

	mu     sync.Mutex
	closed bool
	lanes  map[laneKey]*lane
	outbox map[int32]*outbox
}

type laneKey struct {
	node int32
	name string
}

// NewClient returns a client without connections.
func NewClient(cfg Config) *Client {
	if cfg.Dial == nil {
		cfg.Dial = func(ctx context.Context, address string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", address)
		}
	}
	if cfg.MaxResponseBytes == 0 {
		cfg.MaxResponseBytes = 256 << 20
	}
	c := &Client{cfg: cfg, lanes: map[laneKey]*lane{}, outbox: map[int32]*outbox{}}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c
}

// laneOf keeps apart what waits for data, what keeps a broker alive, and the rest.
func laneOf(request kmsg.Request) string {
	switch request.(type) {
	case *kmsg.FetchRequest:
		return "fetch"
	case *kmsg.BrokerHeartbeatRequest:
		return "liveness"
	}
	return "requests"
}

// Request asks a node and waits for its answer, whose type is that of the request's
// ResponseKind. The request's version is set to the highest that both nodes know; the
// byte slices of the answer are the caller's. It fails with ErrUnreachable,
// ErrUnsupported, ErrClosed or the error of ctx. Requests of one lane are executed in
// order, and a connection on which an answer did not come before the deadline of ctx
// is closed. After a failure the next attempt to connect waits a little: up to 0.1 s.
func (c *Client) Request(ctx context.Context, node int32, request kmsg.Request) (kmsg.Response, error) {
	return c.RequestOn(ctx, node, laneOf(request), request)
}

// RequestOn is Request on a lane of the caller's own, which nothing else delays.
func (c *Client) RequestOn(ctx context.Context, node int32, name string, request kmsg.Request) (kmsg.Response, error) {
	key := laneKey{node, "r:" + name}
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil, ErrClosed
	}
	l := c.lanes[key]
	if l == nil {
		l = &lane{client: c, node: node, name: key.name}
		c.lanes[key] = l
	}
	c.mu.Unlock()
	return l.request(ctx, request)
}

// Probe finds out whether a node can be reached: it connects anew, at once, and shakes
// hands. Its error wraps that of the operating system, such as syscall.ECONNREFUSED.
func (c *Client) Probe(ctx context.Context, node int32) error {
	conn, _, err := c.connect(ctx, node, "r:probe")
	if err != nil {
		return err
	}
	return conn.Close()
}

// Send sends a message to a node. It never blocks; the message is lost when the node
// cannot be reached or does not keep up. The slice must not be changed any more.
func (c *Client) Send(node int32, message []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	o := c.outbox[node]
	if o == nil {
		o = &outbox{client: c, node: node, wake: make(chan struct{}, 1)}
		c.outbox[node] = o
		c.tasks.Go(o.run)
	}
	o.put(message)
}

// Forget closes the connections to a node, as when it moved.
func (c *Client) Forget(node int32) {
	c.mu.Lock()
	var gone []*lane
	for key, l := range c.lanes {
		if key.node == node {
			gone = append(gone, l)
		}
	}
	c.mu.Unlock()
	for _, l := range gone {
		l.drop(fmt.Errorf("%w: node %d was forgotten", ErrUnreachable, node))
	}
}

// Close closes all connections; what waits fails with ErrUnreachable.
func (c *Client) Close() {
	c.mu.Lock()
	c.closed = true
	lanes := c.lanes
	c.lanes = map[laneKey]*lane{}
	c.mu.Unlock()
	c.cancel()
	for _, l := range lanes {
		l.drop(ErrClosed)
	}
	c.tasks.Wait()
}

// connect dials a node and shakes hands.
func (c *Client) connect(ctx context.Context, node int32, lane string) (net.Conn, hello, error) {
	address, ok := c.cfg.Address(node)
	if !ok {
		return nil, hello{}, fmt.Errorf("%w: node %d: its address is not known", ErrUnreachable, node)
	}
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	stop := context.AfterFunc(c.ctx, cancel)
	defer stop()
	conn, err := c.cfg.Dial(ctx, address)
	if err != nil {
		return nil, hello{}, fmt.Errorf("%w: node %d at %s: %w", ErrUnreachable, node, address, err)
	}
	cut := context.AfterFunc(ctx, func() { conn.Close() })
	theirs, err := sayHello(ctx, conn, c.cfg.Self, c.cfg.ClusterID(), c.cfg.Keys, node, lane)
	if err == nil && !cut() {
		err = context.Cause(ctx)
	}
	if err != nil {
		cut()
		conn.Close()
		return nil, hello{}, fmt.Errorf("%w: node %d at %s: %w", ErrUnreachable, node, address, err)
	}
	return conn, theirs, nil
}

// pause is the time until the next attempt to connect.
type pause struct {
	length time.Duration
	until  time.Time
}

func (p *pause) failed() {
	p.length = min(max(2*p.length, firstPause), longestPause)
	p.until = time.Now().Add(p.length)
}

// wait waits for the end of the pause.
func (p *pause) wait(ctx context.Context) error {
	rest := time.Until(p.until)
	if rest <= 0 {
		return nil
	}
	timer := time.NewTimer(rest)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
