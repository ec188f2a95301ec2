package peer

import (
	"errors"
	"net"
	"sync"

	"github.com/rs/zerolog"
)

// ListenerConfig configures a Listener.
type ListenerConfig struct {
	// Self is this node.
	Self Identity
	// ClusterID returns the id of the cluster, empty while there is none. Required.
	ClusterID func() string
	// Keys prove that a node belongs to the cluster; see the package's documentation.
	Keys [][]byte
	// APIs returns what is served, for nodes that connect. Required.
	APIs func() []API
	// Receive takes a message of another node. It is called by one goroutine per
	// connection and may block: that slows the sender down. The slice is its own.
	Receive func(from Identity, message []byte)
	// Ended is called, if it is set, when a node's connection of messages has ended and
	// all that came over it was received. It must not block.
	Ended  func(from Identity)
	Logger zerolog.Logger
}

// Listener is the inter-node listener of this node. It shakes hands, takes the
// connections of messages itself, and gives those of requests to whoever accepts.
type Listener struct {
	net.Listener
	cfg    ListenerConfig
	accept chan net.Conn
	closed chan struct{}
	tasks  sync.WaitGroup

	mu    sync.Mutex
	ended bool
	err   error // why accepting ended
	open  map[net.Conn]bool
}

// maxPeers bounds the connections that shake hands or carry messages.
const maxPeers = 1024

// Conn is a connection whose handshake is done.
type Conn struct {
	net.Conn
	identity Identity
}

// Peer returns the node at the other end.
func (c *Conn) Peer() int32 { return c.identity.Node }

// Identity returns who is at the other end.
func (c *Conn) Identity() Identity { return c.identity }

// Inner returns the connection below, for system calls that need it.
func (c *Conn) Inner() net.Conn { return c.Conn }

// NewListener starts to accept on inner, which is closed with the Listener.
func NewListener(inner net.Listener, cfg ListenerConfig) *Listener {
	l := &Listener{Listener: inner, cfg: cfg, accept: make(chan net.Conn), closed: make(chan struct{}), open: map[net.Conn]bool{}}
	l.tasks.Go(l.run)
	return l
}

func (l *Listener) run() {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			var temporary interface{ Temporary() bool }
			if errors.As(err, &temporary) && temporary.Temporary() {
				continue
			}
			l.mu.Lock()
			l.err = err
			l.mu.Unlock()
			l.shut()
			return
		}
		if l.note(conn) {
			l.tasks.Go(func() { l.serve(conn) })
		}
	}
}

// note keeps a connection to be closed with the listener; false refuses it.
func (l *Listener) note(conn net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended || len(l.open) >= maxPeers {
		conn.Close()
		return false
	}
	l.open[conn] = true
	return true
}

func (l *Listener) forget(conn net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.open, conn)
}

func (l *Listener) serve(conn net.Conn) {
	defer l.forget(conn)
	theirs, err := hearHello(conn, l.cfg.Self, l.cfg.ClusterID(), l.cfg.Keys, l.cfg.APIs())
	if err != nil {
		conn.Close()
		l.cfg.Logger.Debug().Stringer("address", conn.RemoteAddr()).Int32("node", theirs.Node).Err(err).Msg("a connection to the inter-node listener was refused")
		return
	}
	identity := Identity{theirs.Node, theirs.Directory}
	if theirs.Lane != messageLane {
		select {
		case l.accept <- &Conn{conn, identity}:
		case <-l.closed:
			conn.Close()
		}
		return
	}
	defer conn.Close()
	err = receive(conn, func(message []byte) { l.cfg.Receive(identity, message) })
	l.cfg.Logger.Debug().Int32("node", theirs.Node).AnErr("reason", err).Msg("connection from a node ended")
	if l.cfg.Ended != nil {
		l.cfg.Ended(identity)
	}
}

// Accept returns the next connection of requests, a *Conn: what follows on it is
// Kafka's protocol.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.accept:
		return conn, nil
	case <-l.closed:
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.err != nil {
			return nil, l.err
		}
		return nil, net.ErrClosed
	}
}

// shut has everything end.
func (l *Listener) shut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return
	}
	l.ended = true
	close(l.closed)
	for conn := range l.open {
		conn.Close()
	}
}

// Close closes the listener and the connections of messages and waits for them.
// Those that were accepted are their owner's.
func (l *Listener) Close() error {
	l.shut()
	err := l.Listener.Close()
	l.tasks.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
