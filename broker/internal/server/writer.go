package server

import (
	"errors"
	"fmt"
	"net"
	"runtime/debug"
	"sync"
	"time"

	"github.com/leatlog/leat/broker/internal/wire"
)

const (
	// flushBytes is how much is gathered before it is sent.
	flushBytes = 256 << 10
	// copyBytes is the size of a buffer through which a file is copied.
	copyBytes = 64 << 10
	// copiedBytes is the size up to which pieces are copied together.
	copiedBytes = 1 << 10
	// sendfileFrom is the size from which a range of a file is sent by sendfile:
	// below, reading and writing is faster.
	sendfileFrom = 64 << 10
)

// write runs the writer: it sends answers until the connection ends, and closes it.
func (c *conn) write() {
	defer func() {
		if v := recover(); v != nil {
			c.logger.Error().Interface("panic", v).Bytes("stack", debug.Stack()).
				Msg("a response could not be encoded: closing its connection; please report this")
			c.close(errPanic)
		}
	}()
	var batch []*pending
	for {
		batch = c.pop(batch[:0])
		if len(batch) == 0 {
			c.close(errDrained) // unless it is closed already
			return
		}
		if err := c.send(batch); err != nil {
			c.close(err)
			return
		}
		clear(batch)
	}
}

// pop waits for the head of the queue to be answered and takes it and those that
// are answered after it. It returns none when the connection ends.
func (c *conn) pop(batch []*pending) []*pending {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sending {
		c.sending, c.sent = false, time.Now()
	}
	for !c.closed && (len(c.queue) == 0 || !c.queue[0].answered) {
		if len(c.queue) == 0 && c.draining {
			return nil
		}
		c.ready.Wait()
	}
	for _, p := range c.queue {
		if !p.answered {
			break
		}
		batch = append(batch, p)
		c.bytes -= p.request.Size
	}
	n := copy(c.queue, c.queue[len(batch):])
	clear(c.queue[n:])
	c.queue = c.queue[:n]
	c.room.Signal()
	c.sending = len(batch) > 0
	return batch
}

// output gathers what is to be sent.
type output struct {
	conn    *conn
	head    []byte      // headers, encoded bodies, small chunks
	sealed  int         // bytes of head that are in list
	list    net.Buffers // in order: parts of head and large chunks
	sending net.Buffers // list, while it is sent
	size    int         // bytes gathered
}

var outputPool = sync.Pool{New: func() any { return new(output) }}

// send sends the answers of a batch, releases them and counts them.
func (c *conn) send(batch []*pending) error {
	o := outputPool.Get().(*output)
	o.conn = c
	defer func() { // also when encoding panics
		for _, p := range batch {
			if p.response.Release != nil {
				p.response.Release()
			}
		}
		o.free()
	}()
	for _, p := range batch {
		if err := o.add(p); err != nil {
			return err
		}
		if p.response.Close {
			if err := o.flush(); err != nil {
				return err
			}
			return errAsked
		}
	}
	if err := o.flush(); err != nil {
		return err
	}
	now := time.Now()
	for _, p := range batch {
		c.server.cfg.Metrics.RequestServed(p.request.Key, p.request.Size, p.sent, now.Sub(p.arrived))
	}
	return nil
}

// free gives the memory back. Nothing of it may be on its way any more.
func (o *output) free() {
	if cap(o.head) > 2*flushBytes {
		o.head = nil
	}
	list := o.list[:cap(o.list)]
	clear(list)
	*o = output{head: o.head[:0], list: list[:0]}
	outputPool.Put(o)
}

// add takes an answer in, and sends what has gathered when it is much.
func (o *output) add(p *pending) error {
	if p.response.Empty() {
		return nil
	}
	before := len(o.head)
	var err error
	if o.head, err = wire.AppendResponse(o.head, p.request, &p.response); err != nil {
		o.conn.logger.Error().Err(err).Msg("a handler gave a wrong answer: closing its connection; please report this")
		return err
	}
	p.sent = len(o.head) - before
	o.size += p.sent
	for i := range p.response.Chunks {
		chunk := &p.response.Chunks[i]
		if chunk.File != nil {
			err = o.addFile(chunk)
		} else {
			o.addBytes(chunk.Bytes)
		}
		if err != nil {
			if errors.Is(err, errUnreadable) && p.response.Failed != nil {
				p.response.Failed(chunk)
			}
			return err
		}
		p.sent += chunk.Len()
	}
	if o.size >= flushBytes {
		return o.flush()
	}
	return nil
}

// addBytes copies what is small: one more piece costs the kernel more.
func (o *output) addBytes(b []byte) {
	o.size += len(b)
	if len(b) <= copiedBytes {
		o.head = append(o.head, b...)
		return
	}
	o.seal()
	o.list = append(o.list, b)
}

// errUnreadable says that a file that is sent from could not be read.
var errUnreadable = errors.New("a log cannot be read")

// addFile sends a large range of a file, and reads a small one.
func (o *output) addFile(chunk *wire.Chunk) error {
	if chunk.Size >= sendfileFrom {
		if err := o.flush(); err != nil {
			return err
		}
		if sent, err := o.sendFile(chunk); sent || err != nil {
			return err
		}
	}
	for at := 0; at < chunk.Size; {
		n := min(chunk.Size-at, copyBytes)
		start := len(o.head)
		o.head = append(o.head, make([]byte, n)...)
		if _, err := chunk.File.ReadAt(o.head[start:], chunk.Position+int64(at)); err != nil {
			return fmt.Errorf("%w: %d bytes at %d: %w", errUnreadable, n, chunk.Position+int64(at), err)
		}
		at += n
		if o.size += n; o.size >= flushBytes {
			if err := o.flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

// seal puts what is new in head into the list.
func (o *output) seal() {
	if n := len(o.head); n > o.sealed {
		o.list = append(o.list, o.head[o.sealed:n:n])
		o.sealed = n
	}
}

// flush sends everything that has gathered.
func (o *output) flush() error {
	o.seal()
	if len(o.list) == 0 {
		return nil
	}
	if err := o.extendDeadline(); err != nil {
		return err
	}
	o.sending = o.list
	_, err := o.sending.WriteTo(o.conn.socket)
	o.list, o.head, o.sealed, o.size = o.list[:0], o.head[:0], 0, 0
	return err
}

// extendDeadline gives the client another Idle to take what is sent.
func (o *output) extendDeadline() error {
	return o.conn.socket.SetWriteDeadline(time.Now().Add(o.conn.server.cfg.Limits.Idle))
}
