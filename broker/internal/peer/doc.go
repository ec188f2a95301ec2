// Package peer connects nodes of a cluster: requests and one-way messages between
// their inter-node listeners.
//
// # Connections
//
// A node dials another one when it first has something for it: one connection per
// lane. A lane keeps requests that wait long, as fetches do, from holding up others,
// since a connection is answered in the order of its requests. Messages have a
// connection of their own.
//
// # Handshake
//
// Before anything else both sides say who they are, in frames of a size (4 bytes, at
// most 16 KiB) and JSON:
//
//	dialer    hello{version, cluster, node, to, directory, lane, nonce}
//	listener  hello{version, cluster, node, directory, nonce, apis, proof} or {error}
//	dialer    proof
//	listener  {} or {error}
//
// A node of another cluster is refused, and so is a dialer that means another node.
// With a key a proof is the HMAC-SHA256 over the role and both hellos, nonces
// included, so that neither side can be taken in by one that does not know the key or
// repeats what it heard. The key proves who speaks; it does not hide what is said.
//
// # Frames
//
// After the handshake a request lane is a Kafka connection: see Listener.Accept.
// On a message lane the dialer sends frames, and the listener answers each with one
// byte 1:
//
//	size   4 bytes, of what follows
//	kind   1 byte: 0 a message, 1 a part of a large one, 2 its last part
//	bytes
//
// Large messages go in parts, so that small ones overtake them.
package peer

import "errors"

// Errors callers branch on.
var (
	// ErrUnreachable says that the node could not be asked, or that the connection
	// ended before it answered: whether it did what was asked is unknown.
	ErrUnreachable = errors.New("peer: node cannot be reached")
	// ErrRefused says that the other side did not take the handshake.
	ErrRefused = errors.New("peer: handshake refused")
	// ErrUnsupported says that the other node does not serve a request, or no version of
	// it that this program knows.
	ErrUnsupported = errors.New("peer: request is not served")
	// ErrClosed says that the client was closed.
	ErrClosed = errors.New("peer: closed")
)

// API is a request that a node serves on its inter-node listener: key and versions.
type API struct {
	Key int16 `json:"k"`
	Min int16 `json:"l"`
	Max int16 `json:"h"`
}

// Identity is who a node is.
type Identity struct {
	// Node is the node's id.
	Node int32
	// Directory is the id of its data directory: a node that lost its disk comes
	// back with another one.
	Directory string
}
