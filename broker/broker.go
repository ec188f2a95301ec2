// Package broker runs a broker: a replicated, durable, partitioned log that speaks
// the Apache Kafka protocol. A program embeds one with Start; `leat broker` is one
// on its own.
//
//	config := broker.DefaultConfig()
//	config.DataDir = "data"
//	b, err := broker.Start(ctx, config)
//	...
//	defer b.Close()
//	// Any Kafka client connects to b.Addr().
//
// The package is wiring: it starts the parts of broker/internal in order, hands
// them to one another, and stops them in the reverse order.
package broker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/leatlog/leat/broker/internal/group"
	"github.com/leatlog/leat/broker/internal/handler"
	"github.com/leatlog/leat/broker/internal/peer"
	"github.com/leatlog/leat/broker/internal/quorum"
	"github.com/leatlog/leat/broker/internal/replica"
	"github.com/leatlog/leat/broker/internal/storage"
	"github.com/leatlog/leat/broker/internal/wire"
)

// ErrClosed says that the broker was closed.
var ErrClosed = errors.New("broker is closed")

// Broker is a running broker. All methods are safe for concurrent use.
type Broker struct {
	cfg    Config
	env    Environment
	logger zerolog.Logger

	listener     net.Listener
	advertise    advertised
	metrics      *metrics
	admin        *adminServer
	directory    *storage.Directory
	replicas     *replica.Manager
	coordinators coordinators
	tasks        tasks // of the coordinators
	groups       *group.Service
	transactions *transactions
	producerIDs  handler.ProducerIDs
	log          *metadataLog
	cluster      *clusterTopic
	shell        *controllerShell
	liveness     *liveness
	asking       *asking
	suspicions   *suspicions

	membership      *membership
	internal        net.Listener // nil in a cluster of one that no node can join, as are the next
	internalAddress string       // as other nodes are told
	peerListener    *peer.Listener
	peers           *peer.Client
	internalTable   atomic.Pointer[wire.Table]

	ready    atomic.Bool
	failed   chan struct{} // closed when err is set
	failOnce sync.Once
	err      error

	mu       sync.Mutex
	parts    []part // what runs, in the order of its start
	closing  bool
	closed   chan struct{} // closed when all is stopped
	closeErr error
}

// part is something that was started and has to be stopped.
type part struct {
	name string
	stop func(ctx context.Context) error
}

// advertised is the address that clients are told.
type advertised struct {
	host string
	port int32
}

// Start starts a broker and returns when it serves clients, or fails with one
// line that says what to do about it: ErrConfig for a setting. ctx bounds the start
// only; the broker runs until Close. After an error nothing runs any more.
func Start(ctx context.Context, cfg Config) (*Broker, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	b := &Broker{cfg: cfg, failed: make(chan struct{}), closed: make(chan struct{}), asking: newAsking()}
	b.env = cfg.Environment.withDefaults()
	b.logger = *b.env.Logger
	b.log = newMetadataLog(b.logger)
	b.log.onFatal = b.fail
	b.suspicions = newSuspicions(b)
	b.metrics = newMetrics(b)
	if err := b.start(ctx); err != nil {
		_ = b.Close() // what stopped the start is what counts
		if cfg.Listener != nil {
			_ = cfg.Listener.Close()
		}
		return nil, err
	}
	return b, nil
}

// GossipAddr returns the HOST:PORT at which nodes that join find this one; empty when
// none can.
func (b *Broker) GossipAddr() string { return b.cfg.Gossip }

// ListenAddr returns the address that the listener is bound to.
func (b *Broker) ListenAddr() string { return b.listener.Addr().String() }

// Addr returns the HOST:PORT that clients are told to connect to.
func (b *Broker) Addr() string {
	return net.JoinHostPort(b.advertise.host, fmt.Sprint(b.advertise.port))
}

// AdminAddr returns the HOST:PORT of /healthz, /readyz and /metrics; empty without.
func (b *Broker) AdminAddr() string {
	if b.admin == nil {
		return ""
	}
	return b.admin.listener.Addr().String()
}

// NodeID returns the node's id in its cluster.
func (b *Broker) NodeID() int32 { return b.cfg.NodeID }

// Voter says that this node votes in the metadata quorum; one that does not follows it.
func (b *Broker) Voter() bool { return b.cluster.node.Role() == quorum.Voter }

// Controller returns the id of the node that is the active controller, as far as this
// node knows; -1 when it knows of none.
func (b *Broker) Controller() int32 {
	leader, _ := b.log.Leader()
	return leader
}

// ClusterID returns the id of the cluster: 22 characters, made at the first start.
func (b *Broker) ClusterID() string { return b.log.Published().ClusterID() }

// Ready says that the broker serves clients.
func (b *Broker) Ready() bool { return b.ready.Load() && b.Err() == nil }

// Done is closed when the broker cannot go on, as when the disk of its metadata
// log fails; Err says why. It must be closed nevertheless.
func (b *Broker) Done() <-chan struct{} { return b.failed }

// Err returns why the broker cannot go on, nil while it can.
func (b *Broker) Err() error {
	select {
	case <-b.failed:
		return b.err
	default:
		return nil
	}
}

// fail notes that the broker cannot go on.
func (b *Broker) fail(err error) {
	b.failOnce.Do(func() {
		b.err = err
		close(b.failed)
	})
}

// Close stops the broker cleanly: what was acknowledged and what was only written
// is on disk when it returns, and no goroutine is left.
func (b *Broker) Close() error { return b.Shutdown(context.Background()) }

// Shutdown is Close with a limit: when ctx ends, connections that still wait for
// an answer are cut instead of waited for, and when it has ended already, the node
// leaves its cluster without a word. A second call waits for the first.
func (b *Broker) Shutdown(ctx context.Context) error {
	b.mu.Lock()
	first := !b.closing
	b.closing = true
	b.mu.Unlock()
	if !first {
		<-b.closed
		return b.closeErr
	}
	b.ready.Store(false)
	var failed []error
	for n := len(b.parts) - 1; n >= 0; n-- {
		if err := b.parts[n].stop(ctx); err != nil {
			failed = append(failed, fmt.Errorf("stop %s: %w", b.parts[n].name, err))
		}
	}
	b.closeErr = errors.Join(failed...)
	b.logger.Info().Err(b.closeErr).Msg("broker stopped")
	close(b.closed)
	return b.closeErr
}

// started notes a part that Shutdown has to stop.
func (b *Broker) started(name string, stop func(ctx context.Context) error) {
	b.parts = append(b.parts, part{name, stop})
}

// background runs a goroutine until Shutdown closes its channel.
func (b *Broker) background(name string, run func(stop <-chan struct{})) {
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		run(stop)
	}()
	b.started(name, func(context.Context) error {
		close(stop)
		<-done
		return nil
	})
}

// healthy says what is wrong with the node, nil when nothing is.
func (b *Broker) healthy() error {
	if err := b.Err(); err != nil {
		return err
	}
	return b.directory.Damaged()
}

// serving says why clients are not served, nil when they are.
func (b *Broker) serving() error {
	if err := b.healthy(); err != nil {
		return err
	}
	if !b.ready.Load() {
		return errors.New("starting or stopping")
	}
	return nil
}

// quorumDir holds the metadata log, next to the topics' partitions.
func (c *Config) quorumDir() string { return path.Join(c.DataDir, "quorum") }

// ticker sends one value per period until stop is closed.
func ticker(period time.Duration, ticks chan<- struct{}) func(stop <-chan struct{}) {
	return func(stop <-chan struct{}) {
		t := time.NewTicker(period)
		defer t.Stop()
		for {
			select {
			case <-stop:
				return
			case <-t.C:
			}
			select {
			case ticks <- struct{}{}:
			case <-stop:
				return
			}
		}
	}
}
