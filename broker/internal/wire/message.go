package wire

import (
	"io"
	"net"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Header is the header of a request, versions 1 and 2.
type Header struct {
	Key           int16
	Version       int16
	CorrelationID int32
	ClientID      string // empty when null
}

// Request is one request of a client.
//
// The byte slices in Body alias the frame that was received. For Produce they are
// valid until the Responder is called, for then its buffer is used for another
// request; for all other APIs they stay valid, and keep the frame in memory, for
// as long as they are referred to.
type Request struct {
	Header
	// Body is of the kmsg type of Key, at version Version.
	Body kmsg.Request
	// Unsupported says that this is an ApiVersions request of a version that is not
	// supported. Its body was not read: Body is empty and at version 0, which is the
	// version to answer in (KIP-511).
	Unsupported bool
	Conn        *Conn
	Size        int // bytes of the frame, without the size field
}

// Response answers a request in one of three ways: by Body; by Chunks, the bytes
// of the body already encoded; or by neither, when nothing is sent (Produce with
// acks=0).
type Response struct {
	// Body is of the kmsg type of the request's response. It is encoded at the version
	// it is set to, the request's with ResponseKind, by the connection's writer: it
	// must not be changed any more.
	Body kmsg.Response
	// Chunks are the encoded body, in order. Their bytes must not be changed until
	// Release is called.
	Chunks []Chunk
	// Release, when set, is called exactly once, when the response has been sent or
	// will never be. It must not block.
	Release func()
	// Failed, when set, is called before Release when a chunk's file could not be read.
	Failed func(*Chunk)
	// Close has the connection closed after the response is sent, or at once when
	// nothing is to be sent.
	Close bool
}

// Chunk is a piece of a response: either bytes or a range of a file.
type Chunk struct {
	Bytes []byte

	File     File
	Position int64
	Size     int
}

// Len is the number of bytes of the chunk.
func (c *Chunk) Len() int {
	if c.File != nil {
		return c.Size
	}
	return len(c.Bytes)
}

// File is a file that a range is sent from. It is read at positions only.
type File interface {
	io.ReaderAt
	// Fd returns the operating system's descriptor, false when there is none.
	Fd() (uintptr, bool)
}

// Responder answers a request, exactly once, from any goroutine. It does not
// block. A call after the first is ignored.
type Responder func(Response)

// Conn is what is known of a connection.
type Conn struct {
	ID         uint64   // unique in the life of the process
	RemoteAddr net.Addr // never nil
	// Listener is the name of the listener that the connection came through, as in
	// the addresses that brokers register.
	Listener string
	// Peer is the id of the node that is at the other end of the inter-node listener,
	// by its handshake; -1 for clients.
	Peer int32
	// Principal is who the client is: "User:ANONYMOUS" without authentication.
	Principal string

	software atomic.Pointer[Software]
}

// Software is what a client says it is (KIP-511).
type Software struct{ Name, Version string }

// SetSoftware notes what the client says it is.
func (c *Conn) SetSoftware(s Software) { c.software.Store(&s) }

// Software returns what the client said it is, empty when it did not.
func (c *Conn) Software() Software {
	if s := c.software.Load(); s != nil {
		return *s
	}
	return Software{}
}
