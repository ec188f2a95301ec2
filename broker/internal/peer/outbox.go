package peer

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	wholeMessage = 0
	messagePart  = 1
	lastPart     = 2

	// partBytes is the size of a part, and from which a message goes in parts.
	partBytes = 256 << 10
	// maxQueued and maxQueuedBytes bound the small messages that wait for a node.
	maxQueued      = 4096
	maxQueuedBytes = 64 << 20
	// maxMessage bounds a message.
	maxMessage = 1 << 30
	// ackTimeout is the silence after which a connection is taken for dead.
	ackTimeout = 2 * time.Second
)

// outbox holds what is to be sent to a node. Its goroutine ends with the client.
type outbox struct {
	client *Client
	node   int32
	wake   chan struct{}

	mu    sync.Mutex
	small [][]byte
	bytes int
	large []byte // one at a time; others are lost
}

// put queues a message, or drops it.
func (o *outbox) put(message []byte) {
	o.mu.Lock()
	switch {
	case len(message) > partBytes:
		if o.large == nil {
			o.large = message
		}
	case len(o.small) < maxQueued && o.bytes+len(message) <= maxQueuedBytes:
		o.small = append(o.small, message)
		o.bytes += len(message)
	}
	o.mu.Unlock()
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// take returns the frames to send next, none when there is nothing to send.
func (o *outbox) take(buffer []byte) []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	for n, message := range o.small {
		if n > 0 && len(buffer)+len(message) > partBytes {
			o.small = o.small[n:]
			return buffer
		}
		buffer = appendFrame(buffer, wholeMessage, message)
		o.bytes -= len(message)
	}
	o.small = nil
	if o.large != nil {
		if len(o.large) > partBytes {
			buffer = appendFrame(buffer, messagePart, o.large[:partBytes])
			o.large = o.large[partBytes:]
		} else {
			buffer = appendFrame(buffer, lastPart, o.large)
			o.large = nil
		}
	}
	return buffer
}

// clear drops what waits: after a pause it is old.
func (o *outbox) clear() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.small, o.bytes, o.large = nil, 0, nil
}

func appendFrame(dst []byte, kind byte, data []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(data)+1))
	dst = append(dst, kind)
	return append(dst, data...)
}

// run connects and sends until the client is closed.
func (o *outbox) run() {
	ctx := o.client.ctx
	var p pause
	reported := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-o.wake:
		}
		if p.wait(ctx) != nil {
			return
		}
		conn, _, err := o.client.connect(ctx, o.node, messageLane)
		if err != nil {
			p.failed()
			if err.Error() != reported {
				reported = err.Error()
				o.client.cfg.Logger.Debug().Int32("node", o.node).Err(err).Msg("cannot send to a node; trying again")
			}
			o.clear()
			continue
		}
		p, reported = pause{}, ""
		select {
		case o.wake <- struct{}{}: // what waits since before
		default:
		}
		err = o.serve(conn)
		conn.Close()
		o.client.cfg.Logger.Debug().Int32("node", o.node).AnErr("reason", err).Msg("connection to a node ended")
		o.clear()
	}
}

// errSilent says that the other side did not confirm what it was sent.
var errSilent = errors.New("the node does not confirm what it is sent")

// serve sends until the connection ends.
func (o *outbox) serve(conn net.Conn) error {
	var sent, confirmed atomic.Int64
	ended := make(chan error, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		acks := make([]byte, 1024)
		for {
			n, err := conn.Read(acks)
			confirmed.Add(int64(n))
			if err != nil {
				ended <- err
				return
			}
		}
	}()
	defer func() {
		conn.Close()
		<-done
	}()
	silence := time.NewTicker(ackTimeout)
	defer silence.Stop()
	overdue := int64(0) // confirmed when all that was sent by the last tick is
	var buffer []byte
	for {
		select {
		case <-o.client.ctx.Done():
			return nil
		case err := <-ended:
			return err
		case <-silence.C:
			if confirmed.Load() < overdue {
				return errSilent
			}
			overdue = sent.Load()
		case <-o.wake:
			for {
				if buffer = o.take(buffer[:0]); len(buffer) == 0 {
					break
				}
				if err := conn.SetWriteDeadline(time.Now().Add(ackTimeout)); err != nil {
					return err
				}
				if _, err := conn.Write(buffer); err != nil {
					return err
				}
				sent.Add(countFrames(buffer))
			}
		}
	}
}

// countFrames counts what take put into a buffer.
func countFrames(buffer []byte) (n int64) {
	for len(buffer) > 0 {
		buffer = buffer[4+binary.BigEndian.Uint32(buffer):]
		n++
	}
	return n
}

// receive reads messages and confirms them until the connection ends.
func receive(conn io.ReadWriter, take func(message []byte)) error {
	var large []byte
	for {
		var header [5]byte
		if _, err := io.ReadFull(conn, header[:]); err != nil {
			return err
		}
		size := int64(binary.BigEndian.Uint32(header[:])) - 1
		if size < 0 || size > partBytes {
			return errors.New("a frame has a size that is not allowed")
		}
		data, err := readGrowing(conn, int(size))
		if err != nil {
			return err
		}
		switch header[4] {
		case wholeMessage:
			take(data)
		case messagePart, lastPart:
			if len(large)+len(data) > maxMessage {
				return errors.New("a message is larger than allowed")
			}
			large = append(large, data...)
			if header[4] == lastPart {
				take(large)
				large = nil
			}
		default:
			return errors.New("a frame has a kind that is not known")
		}
		if _, err := conn.Write([]byte{1}); err != nil {
			return err
		}
	}
}
