package peer

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// node is one side of the tests: it answers heartbeats.
type node struct {
	listener *Listener
	received chan string
	accepted sync.WaitGroup
	stall    chan struct{} // when set, answers wait for it
	starting atomic.Bool   // while set, nothing is served
}

func startNode(t *testing.T, id int32, cluster string, keys ...[]byte) *node {
	t.Helper()
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &node{received: make(chan string, 100)}
	n.listener = NewListener(inner, ListenerConfig{Self: Identity{id, "d"}, ClusterID: func() string { return cluster }, Keys: keys,
		APIs: func() []API {
			if n.starting.Load() {
				return nil
			}
			return []API{{63, 0, 1}, {18, 9, 9}}
		},
		Receive: func(_ Identity, message []byte) { n.received <- string(message) }, Logger: zerolog.Nop()})
	n.accepted.Go(func() {
		for {
			conn, err := n.listener.Accept()
			if err != nil {
				return
			}
			n.accepted.Go(func() { n.answer(conn) })
		}
	})
	t.Cleanup(func() {
		n.listener.Close()
		n.accepted.Wait()
	})
	return n
}

// answer answers every request with what a heartbeat of its version answers.
func (n *node) answer(conn net.Conn) {
	defer conn.Close()
	for {
		var size [4]byte
		if _, err := io.ReadFull(conn, size[:]); err != nil {
			return
		}
		frame := make([]byte, binary.BigEndian.Uint32(size[:]))
		if _, err := io.ReadFull(conn, frame); err != nil {
			return
		}
		if n.stall != nil {
			<-n.stall
		}
		r := &kmsg.BrokerHeartbeatResponse{Version: int16(binary.BigEndian.Uint16(frame[2:])), IsFenced: true}
		out := append([]byte{0, 0, 0, 0}, frame[4:8]...)
		out = r.AppendTo(append(out, 0))
		binary.BigEndian.PutUint32(out, uint32(len(out)-4))
		if _, err := conn.Write(out); err != nil {
			return
		}
	}
}

func (n *node) client(t *testing.T, id int32, cluster string, keys ...[]byte) *Client {
	t.Helper()
	c := NewClient(Config{Self: Identity{id, "c"}, Keys: keys, ClusterID: func() string { return cluster },
		Address: func(node int32) (string, bool) { return n.listener.Addr().String(), node < 9 }, Logger: zerolog.Nop()})
	t.Cleanup(c.Close)
	return c
}

func TestRequest(t *testing.T) {
	n := startNode(t, 2, "cluster", []byte("old"), []byte("key"))
	c := n.client(t, 1, "cluster", []byte("key"), []byte("old"))
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			r, err := c.Request(t.Context(), 2, &kmsg.BrokerHeartbeatRequest{BrokerID: 1})
			if err != nil || !r.(*kmsg.BrokerHeartbeatResponse).IsFenced || r.GetVersion() != 1 {
				t.Errorf("%v, %v", r, err)
			}
		})
	}
	all.Wait()
	for _, request := range []kmsg.Request{&kmsg.MetadataRequest{}, &kmsg.ApiVersionsRequest{}} {
		if _, err := c.Request(t.Context(), 2, request); !errors.Is(err, ErrUnsupported) {
			t.Errorf("%T: %v", request, err)
		}
	}
	if _, err := c.Request(t.Context(), 9, &kmsg.BrokerHeartbeatRequest{}); !errors.Is(err, ErrUnreachable) {
		t.Error(err)
	}
	c.Forget(2)
	if _, err := c.Request(t.Context(), 2, &kmsg.BrokerHeartbeatRequest{}); err != nil {
		t.Errorf("after the connection was closed: %v", err)
	}
}

// A node that shakes hands before it serves anything is asked again on a connection of
// its own: what it told first must not hold for ever.
func TestNodeThatIsStarting(t *testing.T) {
	n := startNode(t, 2, "cluster")
	n.starting.Store(true)
	c := n.client(t, 1, "cluster")
	for range 3 {
		if _, err := c.Request(t.Context(), 2, &kmsg.BrokerHeartbeatRequest{}); !errors.Is(err, ErrUnreachable) {
			t.Errorf("while it starts: %v", err)
		}
	}
	n.starting.Store(false)
	if _, err := c.Request(t.Context(), 2, &kmsg.BrokerHeartbeatRequest{}); err != nil {
		t.Error(err)
	}
}

func TestRequestIsGivenUp(t *testing.T) {
	n := startNode(t, 2, "cluster")
	n.stall = make(chan struct{})
	c := n.client(t, 1, "")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Request(ctx, 2, &kmsg.BrokerHeartbeatRequest{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	close(n.stall)
	if _, err := c.Request(t.Context(), 2, &kmsg.BrokerHeartbeatRequest{}); err != nil {
		t.Error(err)
	}
	c.Close()
	if _, err := c.Request(t.Context(), 2, &kmsg.BrokerHeartbeatRequest{}); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

func TestStrangersAreRefused(t *testing.T) {
	key := []byte("key")
	for name, c := range map[string]struct {
		cluster string
		to      int32
		keys    [][]byte
		want    string
	}{
		"another cluster": {"other", 2, [][]byte{key}, "another cluster"},
		"another key":     {"cluster", 2, [][]byte{[]byte("guess")}, "key"},
		"no key":          {"cluster", 2, nil, "key"},
		"another node":    {"cluster", 3, [][]byte{key}, "this is node 2"},
	} {
		t.Run(name, func(t *testing.T) {
			n := startNode(t, 2, "cluster", key)
			client := n.client(t, 1, c.cluster, c.keys...)
			_, err := client.Request(t.Context(), c.to, &kmsg.BrokerHeartbeatRequest{})
			if !errors.Is(err, ErrUnreachable) || !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
	t.Run("a client of Kafka", func(t *testing.T) {
		n := startNode(t, 2, "cluster", key)
		conn, err := net.Dial("tcp", n.listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		request := kmsg.NewRequestFormatter().AppendRequest(nil, &kmsg.ApiVersionsRequest{Version: 3}, 1)
		if _, err := conn.Write(request); err != nil {
			t.Fatal(err)
		}
		if answer, err := io.ReadAll(conn); len(answer) != 0 && err == nil {
			t.Errorf("answered %q", answer)
		}
	})
}

func TestMessages(t *testing.T) {
	n := startNode(t, 2, "cluster")
	c := n.client(t, 1, "cluster")
	large := strings.Repeat("x", 3*partBytes+5)
	c.Send(2, []byte("first"))
	for got := ""; got != "first"; {
		got = <-n.received
	}
	c.Send(2, []byte(large))
	c.Send(2, []byte("second"))
	sawSmall, sawLarge := false, false
	for !sawSmall || !sawLarge {
		switch got := <-n.received; got {
		case "second":
			sawSmall = true
		case large:
			sawLarge = true
		default:
			t.Fatalf("received %.20q of %d bytes", got, len(got))
		}
	}
}

// A node that comes back at its address is reached again.
func TestMessagesAfterRestart(t *testing.T) {
	n := startNode(t, 2, "")
	c := n.client(t, 1, "")
	c.Send(2, []byte("a"))
	<-n.received
	address := n.listener.Addr().String()
	n.listener.Close()
	inner, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	received := make(chan string, 1000)
	again := NewListener(inner, ListenerConfig{Self: Identity{2, "d"}, ClusterID: func() string { return "" }, APIs: func() []API { return nil },
		Receive: func(_ Identity, m []byte) { received <- string(m) }, Logger: zerolog.Nop()})
	defer again.Close()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-received:
			return
		case <-tick.C:
			c.Send(2, []byte("b"))
		case <-t.Context().Done():
			t.Fatal("never reached again")
		}
	}
}

// A connection that does not confirm is given up.
func TestSilentConnectionEnds(t *testing.T) {
	o := &outbox{client: NewClient(Config{Logger: zerolog.Nop()}), wake: make(chan struct{}, 1)}
	defer o.client.Close()
	near, far := net.Pipe()
	defer far.Close()
	go io.Copy(io.Discard, far)
	o.put([]byte("message"))
	start := time.Now()
	if err := o.serve(near); !errors.Is(err, errSilent) || time.Since(start) > 3*ackTimeout {
		t.Errorf("%v after %v", err, time.Since(start))
	}
}

// FuzzReceive gives the decoders of the listener anything: they never panic, and
// memory follows what arrived, not what is claimed.
func FuzzReceive(f *testing.F) {
	f.Add(appendFrame(nil, wholeMessage, []byte("x")))
	f.Add(appendFrame(appendFrame(nil, messagePart, []byte("x")), lastPart, []byte("y")))
	f.Add([]byte{0, 0, 0, 2, '{', '}'})
	f.Fuzz(func(t *testing.T, data []byte) {
		total := 0
		_ = receive(readWriter{bytes.NewReader(data), io.Discard}, func(m []byte) { total += len(m) })
		if total > len(data) {
			t.Fatal("more was received than sent")
		}
		_, _, _ = readHello(bytes.NewReader(data))
	})
}

type readWriter struct {
	io.Reader
	io.Writer
}
