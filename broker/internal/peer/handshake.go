package peer

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

const (
	handshakeVersion = 1
	// maxHello bounds a frame of the handshake: all a stranger can make a node read.
	maxHello = 16 << 10
	// handshakeTimeout bounds the whole handshake.
	handshakeTimeout = 5 * time.Second
	nonceBytes       = 32
)

// hello is what a side says of itself.
type hello struct {
	Version   int    `json:"version"`
	Cluster   string `json:"cluster,omitempty"` // empty while the node has none
	Node      int32  `json:"node"`
	To        int32  `json:"to"` // who the dialer means; the dialer, in the answer
	Directory string `json:"directory,omitempty"`
	Lane      string `json:"lane,omitempty"`
	Nonce     []byte `json:"nonce"`
	APIs      []API  `json:"apis,omitempty"`
	Proof     []byte `json:"proof,omitempty"`
	Error     string `json:"error,omitempty"`
}

// messageLane is the lane of Client.Send; every other name is a lane of requests.
const messageLane = "messages"

// secrets are the keys of a cluster: the first proves, each is accepted. None:
// nothing is proved.
type secrets [][]byte

// proof is what shows that a side knows the key, for the hellos as they were sent.
func proof(key []byte, side string, first, second []byte) []byte {
	sum := hmac.New(sha256.New, key)
	for _, part := range [][]byte{[]byte("leat peer 1 " + side), first, second} {
		sum.Write(binary.BigEndian.AppendUint32(nil, uint32(len(part))))
		sum.Write(part)
	}
	return sum.Sum(nil)
}

func (s secrets) prove(side string, first, second []byte) []byte {
	if len(s) == 0 {
		return nil
	}
	return proof(s[0], side, first, second)
}

func (s secrets) accept(side string, given, first, second []byte) bool {
	if len(s) == 0 {
		return true
	}
	accepted := false
	for _, key := range s {
		accepted = hmac.Equal(given, proof(key, side, first, second)) || accepted
	}
	return accepted
}

func writeHello(w io.Writer, data []byte) error {
	frame := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(data)), uint32(len(data)))
	_, err := w.Write(append(frame, data...))
	return err
}

func readHello(r io.Reader) (data []byte, h hello, err error) {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, h, err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n > maxHello {
		return nil, h, fmt.Errorf("%w: its first frame claims %d bytes", ErrRefused, n)
	}
	data = make([]byte, n)
	if _, err := io.ReadFull(r, data); err != nil {
		return nil, h, err
	}
	if err := json.Unmarshal(data, &h); err != nil {
		return nil, h, fmt.Errorf("%w: it does not speak this protocol", ErrRefused)
	}
	if h.Error != "" {
		return nil, h, fmt.Errorf("%w by node %d: %.200q", ErrRefused, h.Node, h.Error)
	}
	return data, h, nil
}

// newHello fills in what every hello has.
func newHello(self Identity, cluster string, to int32) (hello, error) {
	h := hello{Version: handshakeVersion, Cluster: cluster, Node: self.Node, To: to, Directory: self.Directory, Nonce: make([]byte, nonceBytes)}
	if _, err := rand.Read(h.Nonce); err != nil {
		return h, fmt.Errorf("peer: nonce: %w", err)
	}
	return h, nil
}

func marshalHello(h hello) []byte {
	data, err := json.Marshal(h)
	if err != nil {
		panic(err) // plain data
	}
	return data
}

// sayHello is the dialer's side. It returns what the other side serves.
func sayHello(ctx context.Context, conn net.Conn, self Identity, cluster string, keys secrets, to int32, lane string) (hello, error) {
	deadline := time.Now().Add(handshakeTimeout)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	if err := conn.SetDeadline(deadline); err != nil {
		return hello{}, err
	}
	mine, err := newHello(self, cluster, to)
	if err != nil {
		return hello{}, err
	}
	mine.Lane = lane
	first := marshalHello(mine)
	if err := writeHello(conn, first); err != nil {
		return hello{}, err
	}
	_, theirs, err := readHello(conn)
	if err != nil {
		return hello{}, err
	}
	given := theirs.Proof
	theirs.Proof = nil
	second := marshalHello(theirs)
	switch {
	case theirs.Node != to:
		return hello{}, fmt.Errorf("%w: node %d answers at the address of node %d", ErrRefused, theirs.Node, to)
	case foreign(cluster, theirs.Cluster):
		return hello{}, fmt.Errorf("%w: node %d is of cluster %.40q, this one of %.40q", ErrRefused, to, theirs.Cluster, cluster)
	case !keys.accept("listener", given, first, second):
		return hello{}, fmt.Errorf("%w: node %d does not know the key: set gossip.encryption.key alike on all nodes", ErrRefused, to)
	}
	if err := writeHello(conn, marshalHello(hello{Node: self.Node, Proof: keys.prove("dialer", first, second)})); err != nil {
		return hello{}, err
	}
	if _, _, err := readHello(conn); err != nil {
		return hello{}, err
	}
	return theirs, conn.SetDeadline(time.Time{})
}

// hearHello is the listener's side. It returns who dialed.
func hearHello(conn net.Conn, self Identity, cluster string, keys secrets, apis []API) (hello, error) {
	if err := conn.SetDeadline(time.Now().Add(handshakeTimeout)); err != nil {
		return hello{}, err
	}
	first, theirs, err := readHello(conn)
	if err != nil {
		return theirs, err
	}
	refuse := func(reason string) (hello, error) {
		err := writeHello(conn, marshalHello(hello{Version: handshakeVersion, Node: self.Node, Error: reason}))
		return theirs, errors.Join(fmt.Errorf("%w: %s", ErrRefused, reason), err)
	}
	switch {
	case theirs.Version != handshakeVersion || len(theirs.Nonce) != nonceBytes:
		return refuse(fmt.Sprintf("handshake version %d, this node speaks %d", theirs.Version, handshakeVersion))
	case foreign(cluster, theirs.Cluster):
		return refuse("this node is of another cluster")
	case theirs.To != self.Node:
		return refuse(fmt.Sprintf("this is node %d, not %d", self.Node, theirs.To))
	}
	mine, err := newHello(self, cluster, theirs.Node)
	if err != nil {
		return theirs, err
	}
	mine.APIs = apis
	second := marshalHello(mine)
	mine.Proof = keys.prove("listener", first, second)
	if err := writeHello(conn, marshalHello(mine)); err != nil {
		return theirs, err
	}
	_, last, err := readHello(conn)
	if err != nil {
		return theirs, err
	}
	if !keys.accept("dialer", last.Proof, first, second) {
		return refuse("the key is not that of this cluster: set gossip.encryption.key alike on all nodes")
	}
	if err := writeHello(conn, marshalHello(hello{Node: self.Node})); err != nil {
		return theirs, err
	}
	return theirs, conn.SetDeadline(time.Time{})
}

// foreign says that two nodes are of different clusters. A node that has none yet
// is of every cluster.
func foreign(a, b string) bool { return a != "" && b != "" && a != b }
