// Package brokertest runs a real broker inside a test.
//
//	func TestOrders(t *testing.T) {
//		b := brokertest.Start(t)
//		client, err := kgo.NewClient(kgo.SeedBrokers(b.Addr()))
//		...
//	}
//
// The broker listens on a free port of the loopback interface, or with
// InMemoryNetwork on connections that never leave the process; it stores under
// t.TempDir(). It is stopped and removed when the test ends. Kill and Restart
// show how a program takes the death of its broker.
//
// With the environment variable LEAT_TEST_NODES=3 the same tests run on a cluster of three
// nodes; see Start.
//
// Other than a broker by default, this one lets a group's first member go ahead
// without waiting for others, takes session timeouts from 100 ms on, and gives
// __consumer_offsets five partitions.
package brokertest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/leatlog/leat/broker"
	"github.com/leatlog/leat/broker/internal/vfs"
)

// Option changes how a test's broker is started.
type Option func(*options)

type options struct {
	memoryNetwork bool
	logs          bool
	configure     []func(*broker.Config)
}

// InMemoryNetwork has clients connect through Broker.Dial instead of a port.
func InMemoryNetwork() Option { return func(o *options) { o.memoryNetwork = true } }

// InMemoryDisk stores in memory: nothing is left of it, and PowerCut is possible.
func InMemoryDisk() Option {
	return Configure(func(c *broker.Config) { c.Environment.FS, c.DataDir = vfs.NewMem(), "data" })
}

// Dir stores under dir instead of t.TempDir().
func Dir(dir string) Option {
	return Configure(func(c *broker.Config) { c.DataDir = dir })
}

// Set changes a setting by Kafka's broker configuration name. A name or value
// that is not allowed fails the test.
func Set(name, value string) Option {
	return func(o *options) {
		o.configure = append(o.configure, func(c *broker.Config) {
			if err := c.Set(name, value); err != nil {
				panic(err)
			}
		})
	}
}

// Configure changes the broker's configuration.
func Configure(f func(*broker.Config)) Option {
	return func(o *options) { o.configure = append(o.configure, f) }
}

// Logs writes the broker's log into the test's.
func Logs() Option { return func(o *options) { o.logs = true } }

// startTimeout bounds a start: it takes milliseconds unless the machine is
// overloaded.
const startTimeout = time.Minute

// Broker is a broker that runs in a test. Its methods may be called from several
// goroutines, but only one of Kill, Stop and Restart at a time.
type Broker struct {
	t      testing.TB
	config broker.Config
	memory bool
	disk   *killableFS
	all    *Cluster // the nodes of which this one is the face; see Start

	running  atomic.Pointer[broker.Broker]
	listener atomic.Pointer[broker.MemoryListener]
}

// memoryAddress is what clients of an in-memory broker are told to dial.
const memoryAddress = "broker.test:9092"

// Start starts a broker and stops it when the test ends. It fails the test when
// the broker does not start.
//
// With LEAT_TEST_NODES=N it starts a cluster of N nodes in its place, with default
// replication factor 3 and min.insync.replicas 2, or N when there are fewer. The Broker
// it returns has the address of the first of them, and what is done to it, such as Kill
// and Restart, is done to all nodes at once. Options hold for every node, as in
// StartCluster, except that InMemoryNetwork is ignored. A broker that an option gives a
// place in a cluster (an id, roles, gossip) is started alone.
func Start(t testing.TB, opts ...Option) *Broker {
	t.Helper()
	b := newBroker(t, opts)
	if n := nodesOfTests(t); n > 1 && b.isAlone() {
		return startAsCluster(t, n, opts)
	}
	t.Cleanup(b.Stop)
	b.Restart()
	return b
}

// networkName is one that no other process has: nodes of tests that run at the same time,
// or whose ports are taken over, do not hear one another.
var networkName = sync.OnceValue(func() string { return fmt.Sprintf("test-%d-%d", os.Getpid(), time.Now().UnixNano()) })

// newBroker returns a broker that does not run.
func newBroker(t testing.TB, opts []Option) *Broker {
	var o options
	for _, opt := range opts {
		opt(&o)
	}
	c := broker.DefaultConfig()
	c.DataDir = t.TempDir()
	c.Listen = "127.0.0.1:0"
	if !o.memoryNetwork {
		c.Listen = FreeAddress(t)
	}
	c.ClusterName = networkName()
	c.Groups.InitialRebalanceDelay = -1
	c.Groups.MinSession = 100 * time.Millisecond
	c.Topics.OffsetsPartitions = 5
	if o.logs {
		logger := zerolog.New(zerolog.NewConsoleWriter(zerolog.ConsoleTestWriter(t))).With().Timestamp().Logger()
		c.Environment.Logger = &logger
	}
	for _, f := range o.configure {
		f(&c)
	}
	if c.Environment.FS == nil {
		c.Environment.FS = vfs.OS{}
	}
	return &Broker{t: t, config: c, memory: o.memoryNetwork}
}

// Addr returns the address that clients connect to, HOST:PORT: where the broker
// listens, unless Config.Advertise says otherwise.
func (b *Broker) Addr() string {
	switch {
	case b.memory:
		return memoryAddress
	case b.config.Advertise != "":
		return b.config.Advertise
	}
	return b.config.Listen
}

// Listening returns the HOST:PORT that the broker listens on, which a proxy before
// it forwards to. It means nothing with InMemoryNetwork.
func (b *Broker) Listening() string { return b.config.Listen }

// Dial connects to the broker, whatever address is asked for; it fits kgo.Dialer
// and sarama's Net.Proxy.Dialer with a small adapter. It works over any network
// that the broker was started with, and across restarts.
func (b *Broker) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	if b.all != nil {
		return b.all.dial(ctx, address)
	}
	if b.memory {
		return b.listener.Load().Dial(ctx, network, address)
	}
	var d net.Dialer
	return d.DialContext(ctx, "tcp", b.config.Listen)
}

// Running returns the broker itself; nil after Kill and Stop.
func (b *Broker) Running() *broker.Broker {
	if b.all != nil {
		return b.all.nodes[0].Running()
	}
	return b.running.Load()
}

// ClusterID returns the id of the cluster.
func (b *Broker) ClusterID() string { return b.Running().ClusterID() }

// Stop stops the broker cleanly. Stopping one that does not run does nothing.
func (b *Broker) Stop() {
	if b.all != nil {
		b.all.Stop()
		return
	}
	if r := b.running.Swap(nil); r != nil {
		if err := r.Close(); err != nil {
			b.t.Errorf("brokertest: stop: %v", err)
		}
	}
}

// Kill ends the broker as kill -9 would: from one moment on nothing reaches its
// disk any more, and its connections break.
func (b *Broker) Kill() {
	if b.all != nil {
		b.all.killAll()
		return
	}
	if r := b.running.Swap(nil); r != nil {
		b.disk.kill()
		dead, cancel := context.WithCancel(context.Background())
		cancel()
		_ = r.Shutdown(dead) // it cannot close cleanly: its disk is gone
	}
}

// PowerCut kills the broker and has its in-memory disk lose what was not synced:
// each 4 KiB block, file length and directory entry survives or is lost by a
// choice drawn from seed. It needs InMemoryDisk.
func (b *Broker) PowerCut(seed uint64) {
	b.t.Helper()
	if b.all != nil {
		b.all.cutAll(seed)
		return
	}
	disk, ok := b.config.Environment.FS.(*vfs.Mem)
	if !ok {
		b.t.Fatal("brokertest: PowerCut needs a broker with InMemoryDisk")
	}
	b.Kill()
	b.config.Environment.FS = disk.Crash(rand.New(rand.NewPCG(seed, 0)))
}

// Restart starts the broker again on what is in its directory, at the address it
// had. A running one is stopped first.
func (b *Broker) Restart() {
	b.t.Helper()
	b.Stop()
	if b.all != nil {
		b.all.Restart()
		return
	}
	if err := b.start(); err != nil {
		b.t.Fatalf("brokertest: start: %v", err)
	}
}

func (b *Broker) start() error {
	c := b.config
	b.disk = newKillableFS(c.Environment.FS)
	c.Environment.FS = b.disk
	if b.memory {
		l := broker.NewMemoryListener(memoryAddress)
		b.listener.Store(l)
		c.Listener, c.Advertise = l, memoryAddress
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	r, err := broker.Start(ctx, c)
	if err != nil {
		return err
	}
	if !b.memory && b.config.Listen != r.ListenAddr() {
		b.config.Listen = r.ListenAddr() // a port 0 became this one, which the next start takes again
	}
	b.running.Store(r)
	return nil
}
