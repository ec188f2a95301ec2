package peer

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// lane is a connection for requests to a node, made when it is needed.
type lane struct {
	client *Client
	node   int32
	name   string

	connecting sync.Mutex // held by the one that connects
	pause      pause      // under connecting

	mu   sync.Mutex
	open *session
}

// session is one connection of a lane.
type session struct {
	conn      net.Conn
	apis      map[int16]API
	formatter *kmsg.RequestFormatter
	limit     int

	write sync.Mutex // orders waiting as the connection

	mu      sync.Mutex
	last    int32
	waiting []*call // in the order of their requests
	err     error   // why the session ended
}

// call is a request that waits for its answer.
type call struct {
	id       int32
	response kmsg.Response
	done     chan struct{}
	err      error
}

func (l *lane) request(ctx context.Context, request kmsg.Request) (kmsg.Response, error) {
	s, err := l.session(ctx)
	if err != nil {
		return nil, err
	}
	k, err := s.send(request)
	if err != nil {
		if !errors.Is(err, ErrUnsupported) {
			l.drop(err)
		}
		return nil, fmt.Errorf("node %d: %w", l.node, err)
	}
	select {
	case <-k.done:
		if k.err != nil {
			return nil, fmt.Errorf("node %d: %w", l.node, k.err)
		}
		return k.response, nil
	case <-ctx.Done():
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			// Nobody knows whether the connection still works.
			l.dropSession(s, fmt.Errorf("%w: no answer in time", ErrUnreachable))
		}
		return nil, ctx.Err()
	}
}

// session returns the open session, or connects.
func (l *lane) session(ctx context.Context) (*session, error) {
	if s := l.current(); s != nil {
		return s, nil
	}
	l.connecting.Lock()
	defer l.connecting.Unlock()
	if s := l.current(); s != nil {
		return s, nil
	}
	if err := l.pause.wait(ctx); err != nil {
		return nil, err
	}
	conn, theirs, err := l.client.connect(ctx, l.node, l.name)
	if err == nil && len(theirs.APIs) == 0 {
		// What it says now would hold for the life of the connection.
		conn.Close()
		err = fmt.Errorf("%w: node %d serves nothing yet, it is starting", ErrUnreachable, l.node)
	}
	if err != nil {
		l.pause.failed()
		return nil, err
	}
	l.pause = pause{}
	s := &session{conn: conn, apis: map[int16]API{}, limit: l.client.cfg.MaxResponseBytes,
		formatter: kmsg.NewRequestFormatter(kmsg.FormatterClientID(fmt.Sprint("node ", l.client.cfg.Self.Node)))}
	for _, a := range theirs.APIs {
		s.apis[a.Key] = a
	}
	c := l.client
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		conn.Close()
		return nil, ErrClosed
	}
	l.mu.Lock()
	l.open = s
	l.mu.Unlock()
	c.tasks.Go(func() { l.dropSession(s, s.read()) })
	return s, nil
}

func (l *lane) current() *session {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open
}

// drop closes the open session.
func (l *lane) drop(err error) {
	if s := l.current(); s != nil {
		l.dropSession(s, err)
	}
}

func (l *lane) dropSession(s *session, err error) {
	l.mu.Lock()
	if l.open == s {
		l.open = nil
	}
	l.mu.Unlock()
	s.end(err)
}

// send writes a request and returns the call that waits for its answer.
func (s *session) send(request kmsg.Request) (*call, error) {
	api, ok := s.apis[request.Key()]
	version := min(api.Max, request.MaxVersion())
	if !ok || version < api.Min {
		return nil, fmt.Errorf("%w: %s", ErrUnsupported, kmsg.NameForKey(request.Key()))
	}
	request.SetVersion(version)
	s.write.Lock()
	defer s.write.Unlock()
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return nil, s.err
	}
	s.last++
	k := &call{id: s.last, response: request.ResponseKind(), done: make(chan struct{})}
	s.waiting = append(s.waiting, k)
	s.mu.Unlock()
	if _, err := s.conn.Write(s.formatter.AppendRequest(nil, request, k.id)); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	return k, nil
}

// read hands out answers until the connection ends.
func (s *session) read() error {
	for {
		if err := s.readOne(); err != nil {
			return fmt.Errorf("%w: %w", ErrUnreachable, err)
		}
	}
}

func (s *session) readOne() error {
	var header [8]byte
	if _, err := io.ReadFull(s.conn, header[:]); err != nil {
		return err
	}
	size, id := int(int32(binary.BigEndian.Uint32(header[:]))), int32(binary.BigEndian.Uint32(header[4:]))
	if size < 4 || size > s.limit {
		return fmt.Errorf("an answer claims %d bytes, the most is %d", size, s.limit)
	}
	body, err := readGrowing(s.conn, size-4)
	if err != nil {
		return err
	}
	s.mu.Lock()
	if len(s.waiting) == 0 || s.waiting[0].id != id {
		s.mu.Unlock()
		return fmt.Errorf("an answer to request %d, which is not the oldest", id)
	}
	k := s.waiting[0]
	s.waiting = s.waiting[1:]
	s.mu.Unlock()
	k.err = decodeResponse(k.response, body)
	close(k.done)
	return k.err
}

// decodeResponse reads what follows the correlation id.
func decodeResponse(r kmsg.Response, body []byte) error {
	if r.IsFlexible() && r.Key() != int16(kmsg.ApiVersions) {
		// The header's tags: none is known, and no node of this program sends any.
		if len(body) == 0 || body[0] != 0 {
			return errors.New("an answer has header tags")
		}
		body = body[1:]
	}
	if err := r.ReadFrom(body); err != nil {
		return fmt.Errorf("an answer cannot be read: %w", err)
	}
	return nil
}

// end closes the session; what waits fails.
func (s *session) end(err error) {
	s.mu.Lock()
	if s.err == nil {
		s.err = err
	}
	waiting := s.waiting
	s.waiting = nil
	s.mu.Unlock()
	s.conn.Close()
	for _, k := range waiting {
		k.err = err
		close(k.done)
	}
}

// firstRead is what is allocated before more has arrived.
const firstRead = 64 << 10

// readGrowing reads n bytes into memory that grows with what arrives.
func readGrowing(r io.Reader, n int) ([]byte, error) {
	data := make([]byte, min(n, firstRead))
	if _, err := io.ReadFull(r, data); err != nil {
		return nil, err
	}
	for len(data) < n {
		more := min(n-len(data), len(data))
		grown := make([]byte, len(data)+more)
		copy(grown, data)
		if _, err := io.ReadFull(r, grown[len(data):]); err != nil {
			return nil, err
		}
		data = grown
	}
	return data, nil
}
