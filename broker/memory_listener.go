package broker

import (
	"context"
	"net"
	"sync"
)

// MemoryListener is a net.Listener whose connections never leave the process: a
// program that embeds a broker gives it to Config.Listener and Dial to its
// clients. Safe for concurrent use.
type MemoryListener struct {
	address memoryAddress
	accept  chan net.Conn
	closed  chan struct{}
	once    sync.Once
}

// NewMemoryListener returns a listener that clients are told to reach at address,
// a HOST:PORT of the caller's liking.
func NewMemoryListener(address string) *MemoryListener {
	return &MemoryListener{address: memoryAddress(address), accept: make(chan net.Conn), closed: make(chan struct{})}
}

// Accept implements net.Listener.
func (l *MemoryListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.accept:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *MemoryListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr implements net.Listener.
func (l *MemoryListener) Addr() net.Addr { return l.address }

// Dial connects to the listener; it fits the dial functions of Kafka clients.
// network and address do not matter.
func (l *MemoryListener) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	client, server := net.Pipe()
	refused := func(err error) (net.Conn, error) {
		client.Close()
		server.Close()
		return nil, &net.OpError{Op: "dial", Net: network, Addr: l.address, Err: err}
	}
	select {
	case l.accept <- server:
		return client, nil
	case <-l.closed:
		return refused(net.ErrClosed)
	case <-ctx.Done():
		return refused(ctx.Err())
	}
}

type memoryAddress string

func (a memoryAddress) Network() string { return "memory" }
func (a memoryAddress) String() string  { return string(a) }
