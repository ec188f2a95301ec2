package server

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/leatlog/leat/broker/internal/wire"
)

// readBufferBytes is the buffer of a connection's reader. Larger requests are read
// past it.
const readBufferBytes = 16 << 10

// Reasons for which a connection is closed.
var (
	errTooLarge = errors.New("request is larger than allowed")
	errTooSmall = errors.New("request is smaller than a header")
	errIdle     = errors.New("connection was idle for too long")
	errPanic    = errors.New("handler panicked")
	errAsked    = errors.New("handler asked to close the connection")
	errDrained  = errors.New("server shut down")
)

// conn is one connection.
//
// mu guards the queue. Whoever sets closed closes the socket; what was popped by
// the writer before is released by the writer.
type conn struct {
	server *Server
	socket net.Conn
	info   wire.Conn
	logger zerolog.Logger
	ctx    context.Context
	cancel context.CancelFunc

	// Of the reader.
	buffer     []byte
	start, end int // of the unread bytes in buffer

	mu       sync.Mutex
	ready    sync.Cond // the head of the queue is answered, or the connection ends
	room     sync.Cond // the queue has room, or the connection ends
	queue    []*pending
	bytes    int       // of the requests in queue
	sending  bool      // answers that were taken from the queue are on their way
	sent     time.Time // when the last of them had left
	draining bool      // no more requests are read
	closed   bool
}

// pending is a request in the queue of its connection.
type pending struct {
	conn     *conn
	request  *wire.Request
	frame    *frame
	arrived  time.Time
	response wire.Response
	answered bool
	sent     int // bytes of the answer
}

// peerConn is a connection of another node, after its handshake: whose it is, and
// the socket that carries it.
type peerConn interface {
	Peer() int32
	Inner() net.Conn
}

func newConn(s *Server, socket net.Conn, listener string) *conn {
	c := &conn{server: s, socket: socket}
	c.info.ID, c.info.Listener, c.info.Principal = s.lastID.Add(1), listener, "User:ANONYMOUS"
	c.info.RemoteAddr = socket.RemoteAddr()
	c.info.Peer = -1
	if node, ok := socket.(peerConn); ok {
		c.info.Peer, c.socket = node.Peer(), node.Inner()
	}
	c.logger = s.cfg.Logger.With().Uint64("connection", c.info.ID).Stringer("client", c.info.RemoteAddr).Logger()
	c.ready.L, c.room.L = &c.mu, &c.mu
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c
}

// close ends the connection for a reason. Only the first call does anything.
func (c *conn) close(reason error) {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return
	}
	c.closed = true
	var releases []func() // of those answered; who answers later releases itself
	for _, p := range c.queue {
		if p.answered && p.response.Release != nil {
			releases = append(releases, p.response.Release)
		}
	}
	c.queue, c.bytes = nil, 0
	c.ready.Broadcast()
	c.room.Broadcast()
	c.mu.Unlock()
	c.cancel()
	c.socket.Close()
	for _, release := range releases {
		release()
	}
	c.logger.Debug().AnErr("reason", reason).Msg("connection closed")
}

// drain stops the reader and has what waits answered; the writer then closes.
func (c *conn) drain() {
	c.mu.Lock()
	c.draining = true
	c.room.Broadcast()
	c.ready.Broadcast()
	c.mu.Unlock()
	_ = c.socket.SetReadDeadline(time.Unix(1, 0)) // the reader, when it reads, ends
	c.cancel()
}

// read runs the reader.
func (c *conn) read() {
	defer func() {
		if v := recover(); v != nil {
			c.logger.Error().Interface("panic", v).Bytes("stack", debug.Stack()).
				Msg("a request made its handler panic: closing its connection; please report this")
			c.close(errPanic)
		}
	}()
	for c.waitForRoom() {
		p, err := c.next()
		if err != nil {
			c.refuse(err)
			return
		}
		p.request.Conn = &c.info
		if !c.push(p) {
			c.server.frames.put(p.frame)
			return
		}
		c.server.cfg.Handle(c.ctx, p.request, p.respond)
	}
}

// refuse ends the reader after an error.
func (c *conn) refuse(err error) {
	c.mu.Lock()
	draining := c.draining
	c.mu.Unlock()
	if draining {
		return // the writer closes when it has sent what is left
	}
	var network net.Error
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, errIdle), errors.As(err, &network),
		errors.Is(err, io.ErrClosedPipe):
	default:
		c.server.cfg.Metrics.RequestRefused()
	}
	c.close(err)
}

// waitForRoom waits until another request may be read; false ends the reader.
func (c *conn) waitForRoom() bool {
	limits := &c.server.cfg.Limits
	c.mu.Lock()
	defer c.mu.Unlock()
	full := func() bool { return len(c.queue) >= limits.InFlight || c.bytes >= limits.InFlightBytes }
	if !c.closed && !c.draining && full() {
		// Nobody sees the client leave while nothing is read.
		timer := time.AfterFunc(limits.Idle, func() { c.close(errIdle) })
		defer timer.Stop()
	}
	for !c.closed && !c.draining && full() {
		c.room.Wait()
	}
	return !c.closed && !c.draining
}

// push puts a request into the queue; false when the connection has ended.
func (c *conn) push(p *pending) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.queue = append(c.queue, p)
	c.bytes += p.request.Size
	return true
}

// next reads and decodes one request.
func (c *conn) next() (*pending, error) {
	if err := c.fill(4+wire.HeaderPrefix, true); err != nil {
		return nil, err
	}
	size := int(int32(binary.BigEndian.Uint32(c.buffer[c.start:])))
	if size < wire.HeaderPrefix {
		return nil, fmt.Errorf("%w: %d bytes", errTooSmall, size)
	}
	limit, pooled := c.server.cfg.Limits.OrdinaryBytes, false
	key := wire.PeekKey(c.buffer[c.start+4:])
	if key == wire.ProduceKey {
		limit, pooled = c.server.cfg.Limits.RequestBytes, true
	}
	if size > limit {
		return nil, fmt.Errorf("%w: %s of %d bytes, the most is %d", errTooLarge, wire.Name(key), size, limit)
	}
	c.start += 4
	f, err := c.frame(size, pooled)
	if err != nil {
		return nil, err
	}
	request, err := c.server.cfg.Table.Decode(f.bytes)
	if err != nil {
		c.server.frames.put(f)
		return nil, err
	}
	return &pending{conn: c, request: request, frame: f, arrived: time.Now()}, nil
}

// frame reads size bytes into memory of their own.
func (c *conn) frame(size int, pooled bool) (*frame, error) {
	frames := &c.server.frames
	f := frames.get(min(size, firstFrameBytes), pooled)
	n := copy(f.bytes[:min(size, cap(f.bytes))], c.buffer[c.start:c.end])
	f.bytes = f.bytes[:n]
	c.start += n
	for len(f.bytes) < size {
		if len(f.bytes) == cap(f.bytes) {
			f = frames.grow(f, size, pooled)
		}
		n, err := c.receive(f.bytes[len(f.bytes):min(size, cap(f.bytes))], false)
		f.bytes = f.bytes[:len(f.bytes)+n]
		if err != nil {
			frames.put(f)
			return nil, err
		}
	}
	return f, nil
}

// fill has n unread bytes in the buffer. between says that no byte of the request
// needs to have arrived yet.
func (c *conn) fill(n int, between bool) error {
	if c.buffer == nil {
		c.buffer = make([]byte, readBufferBytes)
	}
	if c.start == c.end {
		c.start, c.end = 0, 0
	} else if len(c.buffer)-c.start < n {
		c.end = copy(c.buffer, c.buffer[c.start:c.end])
		c.start = 0
	}
	for c.end-c.start < n {
		got, err := c.receive(c.buffer[c.end:], between && c.start == c.end)
		c.end += got
		if err != nil {
			return err
		}
	}
	return nil
}

// receive reads from the socket, at least one byte. Between requests silence is
// an error only when no request waits for its answer, and none was answered lately.
func (c *conn) receive(b []byte, between bool) (int, error) {
	idle := c.server.cfg.Limits.Idle
	for until := time.Now().Add(idle); ; {
		if err := c.setReadDeadline(until); err != nil {
			return 0, err
		}
		n, err := c.socket.Read(b)
		switch {
		case n > 0:
			return n, nil
		case err == nil:
			continue
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return 0, err
		}
		now := time.Now()
		if until = c.lastMove(now).Add(idle); !between || !until.After(now) {
			return 0, errIdle
		}
	}
}

// lastMove says when the connection last did something for its client: now, while a
// request waits or its answer is on its way.
func (c *conn) lastMove(now time.Time) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.queue) > 0 || c.sending {
		return now
	}
	return c.sent
}

// setReadDeadline says until when silence is borne. It does not undo the deadline that
// drain sets.
func (c *conn) setReadDeadline(until time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.draining {
		return errDrained
	}
	return c.socket.SetReadDeadline(until)
}

// respond is the wire.Responder of the request.
func (p *pending) respond(r wire.Response) {
	c := p.conn
	c.mu.Lock()
	if p.answered {
		c.mu.Unlock()
		c.logger.Error().Str("api", wire.Name(p.request.Key)).Msg("a request was answered twice, the second answer is dropped; please report this")
		if r.Release != nil {
			r.Release()
		}
		return
	}
	p.answered, p.response = true, r
	closed := c.closed
	if !closed && c.queue[0] == p {
		c.ready.Signal()
	}
	c.mu.Unlock()
	c.server.frames.put(p.frame)
	if closed && r.Release != nil {
		r.Release()
	}
}
