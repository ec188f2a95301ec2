package broker

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/leatlog/leat/broker/internal/controller"
	"github.com/leatlog/leat/broker/internal/metadata"
)

// suspicions look at brokers that may have died, so that a leader that was killed is
// replaced before its session is over. What gives rise to one decides nothing: a
// connection that ended, gossip that misses a node, a new active controller. The
// active controller then tries to reach the broker itself, and gives it up when
//
//   - its machine refused several connections in a row: no process listens there; or
//   - for a third of the session no connection could be made at all,
//
// and nothing was heard from it meanwhile, be it a message of raft or a heartbeat. A
// process that is paused or short of CPU refuses nothing: it has that third, in which
// one answer is enough. A broker that was given up by mistake comes back with its next
// heartbeat.
type suspicions struct {
	broker *Broker
	shell  atomic.Pointer[controllerShell] // nil until it is started

	running atomic.Int32
	mu      sync.Mutex
	checks  map[int32]*suspicion
}

// suspicion is one that is looked into.
type suspicion struct {
	heard atomic.Bool // something came from the broker
}

const (
	// probeTimeout bounds one attempt to reach a broker, and probePause is the time
	// between two.
	probeTimeout = 500 * time.Millisecond
	probePause   = 50 * time.Millisecond
	// refusals in a row are proof enough.
	refusals = 3
)

func newSuspicions(b *Broker) *suspicions {
	return &suspicions{broker: b, checks: map[int32]*suspicion{}}
}

// hear notes a message from a node. It costs nothing while nobody is suspected.
func (s *suspicions) hear(node int32) {
	if s.running.Load() == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.checks[node]; c != nil {
		c.heard.Store(true)
	}
}

// raise has a node looked at, if this one is the active controller. It does not block.
func (s *suspicions) raise(node int32) {
	b, shell := s.broker, s.shell.Load()
	if shell == nil || !shell.isActive.Load() || node == b.cfg.NodeID || b.peers == nil {
		return
	}
	if x, ok := b.log.Published().Broker(node); !ok || x.Fenced {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.checks[node] != nil {
		return
	}
	c := &suspicion{}
	s.checks[node] = c
	s.running.Add(1)
	if !b.asking.start(func(ctx context.Context) { s.check(ctx, node, c) }) {
		s.forget(node)
	}
}

// raiseAll looks at all brokers: a new active controller does not know who ended while
// there was none.
func (s *suspicions) raiseAll() {
	for _, x := range s.broker.log.Published().Brokers() {
		s.raise(x.ID)
	}
}

// forget ends a check. The caller holds mu.
func (s *suspicions) forget(node int32) {
	delete(s.checks, node)
	s.running.Add(-1)
}

func (s *suspicions) check(ctx context.Context, node int32, c *suspicion) {
	b := s.broker
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.forget(node)
	}()
	x, ok := b.log.Published().Broker(node)
	if !ok {
		return
	}
	suspected := *x
	since := b.env.Now()
	for refused := 0; refused < refusals; {
		if !s.open(&suspected) {
			return
		}
		attempt, cancel := context.WithTimeout(ctx, probeTimeout)
		err := b.peers.Probe(attempt, node)
		cancel()
		switch {
		case err == nil || c.heard.Load() || ctx.Err() != nil:
			return
		case errors.Is(err, syscall.ECONNREFUSED):
			refused++
		default:
			refused = 0
			if b.env.Now().Sub(since) > b.cfg.Cluster.Session/3 {
				refused = refusals
			}
		}
		if refused < refusals && !sleep(ctx, probePause) {
			return
		}
	}
	if c.heard.Load() {
		return
	}
	b.logger.Warn().Int32("broker", node).Dur("after", b.env.Now().Sub(since)).Msg("a broker cannot be reached and says nothing: others take over what it leads")
	s.shell.Load().inbox.put(message{gone: &controller.BrokerGone{Broker: node, BrokerEpoch: suspected.Epoch, Since: since}})
}

// open says that there is still something to find out about the registration.
func (s *suspicions) open(suspected *metadata.Broker) bool {
	now, ok := s.broker.log.Published().Broker(suspected.ID)
	return ok && !now.Fenced && now.Epoch == suspected.Epoch && s.shell.Load().isActive.Load()
}

// sleep returns false when ctx ends first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
