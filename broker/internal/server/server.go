// Package server moves requests and responses over connections.
//
// A connection has two goroutines. The reader takes one frame after the other,
// decodes it and calls the handler, so that requests are executed in order; the
// handler parks the Responder of what has to wait and never blocks the reader. The
// writer sends the answers in the order of their requests, whenever they come. In
// between is a bounded queue: when too many requests, or too many bytes of them,
// wait for their answer, the reader stops reading, and TCP slows the client down.
//
// # Buffers
//
// A reader has a buffer of 16 KiB; a request gets memory of its own, which grows
// with the bytes that arrive and not with what the client says it will send. Only
// Produce requests, which are large and are not referred to after their answer,
// use pooled memory: it goes back when the request is answered and never before.
// A writer holds a buffer only while it has something to send. Large ranges of files go from the
// page cache to the socket by sendfile, at an explicit offset, where there is one.
//
// # Bad clients
//
// What a client does wrong closes its connection and is a line in the log at
// level debug. A panic of a handler is logged as an error with its stack, closes
// the connection, and nothing else.
package server

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/leatlog/leat/broker/internal/wire"
)

// ErrClosed is returned by Serve after Shutdown.
var ErrClosed = errors.New("server closed")

// Config configures a Server.
type Config struct {
	Table *wire.Table // what is served
	// Handle answers a request, see wire.Responder. It is called in the order of the
	// connection's requests and must not block. ctx ends with the connection, or when
	// the server wants waiting requests to be answered since it shuts down.
	Handle func(ctx context.Context, request *wire.Request, respond wire.Responder)
	Limits Limits
	Logger zerolog.Logger
	// Metrics may be nil.
	Metrics Metrics
}

// Limits bound what clients can take. Zero fields take the defaults.
type Limits struct {
	// RequestBytes is the largest Produce request. Default 100 MiB
	// (socket.request.max.bytes).
	RequestBytes int
	// OrdinaryBytes is the largest request of the other APIs. Default 8 MiB, or
	// RequestBytes when that is smaller.
	OrdinaryBytes int
	// Connections is the most connections. Default 10,000 (max.connections).
	Connections int
	// InFlight is the most requests of a connection that wait for their answer.
	// Default 64.
	InFlight int
	// InFlightBytes is the most bytes of such requests; one larger request is
	// accepted when no other waits. Default 16 MiB.
	InFlightBytes int
	// Idle is after how long a connection is closed on which nothing moves and
	// nothing waits for an answer. Default 10 min (connections.max.idle.ms).
	Idle time.Duration
}

func (l *Limits) setDefaults() {
	orDefault := func(v *int, otherwise int) {
		if *v <= 0 {
			*v = otherwise
		}
	}
	orDefault(&l.RequestBytes, 100<<20)
	orDefault(&l.OrdinaryBytes, min(8<<20, l.RequestBytes))
	orDefault(&l.Connections, 10_000)
	orDefault(&l.InFlight, 64)
	orDefault(&l.InFlightBytes, 16<<20)
	if l.Idle <= 0 {
		l.Idle = 10 * time.Minute
	}
}

// Metrics is told what happens. Its methods are called concurrently and must not
// block.
type Metrics interface {
	ConnectionOpened()
	ConnectionClosed()
	// RequestServed is called when a request has been answered. took is from its
	// arrival until its answer was sent.
	RequestServed(key int16, requestBytes, responseBytes int, took time.Duration)
	// RequestRefused is called when a connection is closed for what the client sent.
	RequestRefused()
}

type noMetrics struct{}

func (noMetrics) ConnectionOpened()                            {}
func (noMetrics) ConnectionClosed()                            {}
func (noMetrics) RequestServed(int16, int, int, time.Duration) {}
func (noMetrics) RequestRefused()                              {}

// Server serves connections. Safe for concurrent use.
type Server struct {
	cfg    Config
	frames framePool
	lastID atomic.Uint64

	mu        sync.Mutex
	closed    bool
	listeners map[net.Listener]bool
	conns     map[*conn]bool
	goroutine sync.WaitGroup // Serve calls and connections
}

// New returns a server without listeners.
func New(cfg Config) *Server {
	cfg.Limits.setDefaults()
	if cfg.Metrics == nil {
		cfg.Metrics = noMetrics{}
	}
	return &Server{cfg: cfg, listeners: map[net.Listener]bool{}, conns: map[*conn]bool{}}
}

// Connections is the number of open connections.
func (s *Server) Connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// Serve accepts connections until the listener fails, or returns ErrClosed after
// Shutdown. name is the listener's in the addresses that brokers register, see
// wire.Conn. A connection that has the methods of peerConn is another node's. The
// listener is closed when Serve returns.
func (s *Server) Serve(listener net.Listener, name string) error {
	defer listener.Close()
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return ErrClosed
	}
	s.listeners[listener] = true
	s.goroutine.Add(1)
	s.mu.Unlock()
	defer s.goroutine.Done()
	pause := time.Duration(0)
	for {
		socket, err := listener.Accept()
		if s.isClosed() {
			if err == nil {
				socket.Close()
			}
			return ErrClosed
		}
		if err == nil {
			pause = 0
			s.add(socket, name)
			continue
		}
		if !transient(err) {
			return err
		}
		// Out of descriptors, or a connection that ended in the backlog.
		pause = min(max(2*pause, 5*time.Millisecond), time.Second)
		s.cfg.Logger.Warn().Err(err).Dur("pause", pause).
			Msg("cannot accept a connection: close clients or raise the limit of open files")
		time.Sleep(pause)
	}
}

// transient says that a later Accept may succeed.
func transient(err error) bool {
	var temporary interface{ Temporary() bool }
	return errors.As(err, &temporary) && temporary.Temporary()
}

func (s *Server) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// add starts a connection, or refuses it when there are too many.
func (s *Server) add(socket net.Conn, listener string) {
	c := newConn(s, socket, listener)
	s.mu.Lock()
	full := len(s.conns) >= s.cfg.Limits.Connections
	if full || s.closed {
		s.mu.Unlock()
		socket.Close()
		if full {
			c.logger.Debug().Int("max.connections", s.cfg.Limits.Connections).Msg("too many connections: refusing one")
			s.cfg.Metrics.RequestRefused()
		}
		return
	}
	s.conns[c] = true
	s.goroutine.Add(2)
	s.mu.Unlock()
	s.cfg.Metrics.ConnectionOpened()
	go func() {
		defer s.goroutine.Done()
		c.read()
	}()
	go func() {
		defer s.goroutine.Done()
		defer s.remove(c)
		c.write()
	}()
}

func (s *Server) remove(c *conn) {
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
	s.cfg.Metrics.ConnectionClosed()
}

// Shutdown stops accepting and reading, has waiting requests answered, sends what
// is answered and closes the connections. When ctx ends first it closes those that
// are left and returns ctx's error.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	for l := range s.listeners {
		l.Close()
	}
	conns := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		conns = append(conns, c)
	}
	s.mu.Unlock()
	for _, c := range conns {
		c.drain()
	}
	done := make(chan struct{})
	go func() {
		s.goroutine.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	for _, c := range conns {
		c.close(ctx.Err())
	}
	<-done
	return ctx.Err()
}
