package sim

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/wire"
)

// errUnreachable is what a caller gets whose request or answer was lost.
var errUnreachable = errors.New("sim: no answer")

// place is somebody on the network: a node by its id, a client by one from
// firstClient on.
type place = int32

const firstClient place = 1000

// network loses, delays, reorders and repeats messages, and is cut between any two
// places, in one direction or both.
type network struct {
	c       *Cluster
	cut     map[[2]place]bool
	loss    int           // of 1,000 messages
	slow    int           // of 1,000 messages that take up to late
	repeat  int           // of 1,000 messages that may arrive twice
	late    time.Duration // of a slow one
	streams map[stream]*connection
}

// stream names a connection.
type stream struct {
	from, to place
	lane     string
}

// connection keeps the order of its messages, and breaks when one is lost.
type connection struct {
	generation int
	requests   time.Duration // when the last request arrives
	answers    time.Duration // when the last answer does
}

func newNetwork(c *Cluster) *network {
	return &network{c: c, cut: map[[2]place]bool{}, streams: map[stream]*connection{}}
}

// reaches says whether a message arrives, and after what time.
func (n *network) reaches(from, to place) (time.Duration, bool) {
	s, stats := n.c.s, &n.c.stats
	if n.cut[[2]place{from, to}] {
		stats.CutMessages++
		return 0, false
	}
	if s.chance(n.loss) {
		stats.LostMessages++
		return 0, false
	}
	delay := s.between(50*time.Microsecond, 1500*time.Microsecond)
	if s.chance(n.slow) {
		stats.LateMessages++
		delay = s.between(delay, n.late)
	}
	return delay, true
}

// send brings a message that belongs to no connection: it may be lost, overtake
// others and arrive twice.
func (n *network) send(from, to place, deliver func(message []byte), message []byte) {
	times := 1
	if n.c.s.chance(n.repeat) {
		n.c.stats.RepeatedMessages++
		times = 2
	}
	for range times {
		if delay, ok := n.reaches(from, to); ok {
			n.c.s.after(delay, func() { deliver(message) })
		}
	}
}

// on returns the connection of a stream.
func (n *network) on(k stream) *connection {
	c := n.streams[k]
	if c == nil {
		c = &connection{}
		n.streams[k] = c
	}
	return c
}

// inOrder is when a message that takes delay arrives on a connection whose last one
// arrives at last.
func (n *network) inOrder(last *time.Duration, delay time.Duration) time.Duration {
	*last = max(n.c.s.now+delay, *last+time.Microsecond)
	return *last - n.c.s.now
}

// server takes requests. reply sends the encoded answer.
type server interface {
	serve(from place, frame []byte, internal bool, reply func(answer []byte))
	alive() *life // of now
}

// call sends a request and has done called with the answer, or with an error when
// there was none in time. It is done's to see to whose life it belongs.
func (n *network) call(k stream, to server, internal bool, request kmsg.Request, timeout time.Duration, done func(kmsg.Response, error)) {
	s := n.c.s
	n.c.stats.Requests++
	frame := kmsg.NewRequestFormatter(kmsg.FormatterClientID("sim")).AppendRequest(nil, request, 7)[4:]
	over := false
	finish := func(r kmsg.Response, err error) {
		if !over {
			over = true
			done(r, err)
		}
	}
	s.after(timeout, func() { finish(nil, errUnreachable) })
	conn := n.on(k)
	generation := conn.generation
	broken := func() {
		// A connection that lost something delivers nothing after it.
		if conn.generation == generation {
			conn.generation++
		}
		s.after(s.between(0, 50*time.Millisecond), func() { finish(nil, errUnreachable) })
	}
	answer := func(data []byte) {
		delay, ok := n.reaches(k.to, k.from)
		if !ok || conn.generation != generation {
			broken()
			return
		}
		s.after(n.inOrder(&conn.answers, delay), func() {
			if over {
				return
			}
			response, err := decodeResponse(request, data)
			if err != nil {
				n.c.fail("I10: answer to %s: %v", kmsg.NameForKey(request.Key()), err)
			}
			finish(response, err)
		})
	}
	delay, ok := n.reaches(k.from, k.to)
	if !ok {
		broken()
		return
	}
	s.after(n.inOrder(&conn.requests, delay), func() {
		l := to.alive()
		if l == nil || conn.generation != generation {
			broken()
			return
		}
		l.do(func() { to.serve(k.from, frame, internal, answer) })
	})
	if !internal && n.c.s.chance(n.repeat) && repeatable(request) {
		// A client that tries again what is still under way.
		n.c.stats.RepeatedRequests++
		copied := append([]byte(nil), frame...)
		s.after(s.between(0, 20*time.Millisecond), func() {
			if l := to.alive(); l != nil && !n.cut[[2]place{k.from, k.to}] {
				l.do(func() { to.serve(k.from, copied, internal, func([]byte) {}) })
			}
		})
	}
}

// repeatable says that an idempotent producer may send the request twice.
func repeatable(request kmsg.Request) bool {
	r, ok := request.(*kmsg.ProduceRequest)
	return ok && r.TransactionID == nil
}

// wait is call for tasks.
func (n *network) wait(k stream, to server, internal bool, request kmsg.Request, timeout time.Duration) (response kmsg.Response, err error) {
	n.c.s.park(func(wake func()) {
		n.call(k, to, internal, request, timeout, func(r kmsg.Response, e error) {
			response, err = r, e
			wake()
		})
	})
	return response, err
}

// encodeResponse returns the bytes that the server would write.
func encodeResponse(request *wire.Request, r *wire.Response) ([]byte, error) {
	data, err := wire.AppendResponse(nil, request, r)
	if err != nil {
		return nil, err
	}
	for i := range r.Chunks {
		chunk := &r.Chunks[i]
		if chunk.File == nil {
			data = append(data, chunk.Bytes...)
			continue
		}
		at := len(data)
		data = append(data, make([]byte, chunk.Size)...)
		if _, err := chunk.File.ReadAt(data[at:], chunk.Position); err != nil {
			if r.Failed != nil {
				r.Failed(chunk)
			}
			return nil, err
		}
	}
	return data, nil
}

func decodeResponse(request kmsg.Request, data []byte) (kmsg.Response, error) {
	head := 8
	if request.IsFlexible() && request.Key() != wire.APIVersionsKey {
		head++
	}
	if len(data) < head || int(binary.BigEndian.Uint32(data)) != len(data)-4 {
		return nil, fmt.Errorf("a frame of %d bytes says that it has %d", len(data), binary.BigEndian.Uint32(data))
	}
	response := request.ResponseKind()
	return response, response.ReadFrom(data[head:])
}
