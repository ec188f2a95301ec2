package broker

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/leatlog/leat/broker/internal/controller"
	"github.com/leatlog/leat/broker/internal/metadata"
	"github.com/leatlog/leat/broker/internal/quorum"
)

// maxEntryBytes bounds what consecutive proposals are merged to.
const maxEntryBytes = 4 << 20

// proposer is what the shell needs of the quorum.
type proposer interface {
	ProposeAsync(epoch int32, value []byte, done func(offset int64, err error))
}

// controllerShell runs the pure controller: one goroutine feeds it events and
// commits what it proposes. One entry is in flight at a time; what is proposed
// meanwhile goes into the next one, so that a burst of requests costs few fsyncs,
// and a proposal is never tried after an earlier one failed.
type controllerShell struct {
	core     *controller.Controller
	now      func() time.Time
	random   io.Reader
	log      *metadataLog
	quorum   proposer
	logger   zerolog.Logger
	inbox    *mailbox[message]
	isActive atomic.Bool
	// clusterID returns the id that the cluster was formed with, empty when it is to be
	// drawn. Default: it is drawn.
	clusterID func() string
	// onActive, if it is set, is called when this node has become the active controller.
	onActive func()

	// Of the goroutine.
	answers    map[uint64]func(controller.Answer)
	lastID     uint64
	queue      []controller.Proposal
	inFlight   bool
	generation int // of the leadership; results of an earlier one are stale
	epoch      int32
}

// message is one thing for the shell's goroutine: an event, a request with the
// function to answer it, or the result of an entry.
type message struct {
	event   controller.Event
	request func(id uint64) controller.Event
	answer  func(controller.Answer)
	result  *result
	gone    *controller.BrokerGone
}

type result struct {
	generation int
	proposal   uint64
	image      *metadata.Image
	err        error
}

func newControllerShell(core *controller.Controller, log *metadataLog, env Environment) *controllerShell {
	return &controllerShell{core: core, now: env.Now, random: env.Random, log: log, logger: *env.Logger,
		inbox: newMailbox[message](), answers: map[uint64]func(controller.Answer){}}
}

// leaderChanged is called by the quorum when leadership of the metadata log moves.
func (s *controllerShell) leaderChanged(self bool, epoch int32, image *metadata.Image) {
	if !self {
		s.inbox.put(message{event: controller.Resigned{}})
		return
	}
	id, err := s.newClusterID()
	if err != nil {
		s.logger.Error().Err(err).Msg("no cluster id: this node does not become the active controller")
		return
	}
	s.inbox.put(message{event: controller.BecameLeader{Epoch: epoch, Image: image, ClusterID: id}})
}

// newClusterID returns the id for a cluster whose metadata log has none yet.
func (s *controllerShell) newClusterID() (metadata.UUID, error) {
	if s.clusterID != nil {
		if text := s.clusterID(); text != "" {
			return metadata.ParseUUID(text)
		}
	}
	return metadata.NewUUID(s.random)
}

// submit hands a request to the controller; answer is called exactly once, on the
// shell's goroutine or, once that has ended, on the caller's: it must not block.
func (s *controllerShell) submit(request func(id uint64) controller.Event, answer func(controller.Answer)) {
	if !s.inbox.put(message{request: request, answer: answer}) {
		answer(controller.Answer{Err: kerr.NotController})
	}
}

// call is submit that waits.
func (s *controllerShell) call(ctx context.Context, request func(id uint64) controller.Event) (any, error) {
	answers := make(chan controller.Answer, 1)
	s.submit(request, func(a controller.Answer) { answers <- a })
	select {
	case a := <-answers:
		if a.Err != nil {
			return nil, a.Err
		}
		return a.Response, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// run feeds the controller until stop is closed; then it refuses what waits.
func (s *controllerShell) run(stop <-chan struct{}) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		wait := time.Hour
		if deadline := s.core.NextDeadline(); !deadline.IsZero() {
			wait = max(deadline.Sub(s.now()), 0)
		}
		timer.Reset(wait)
		select {
		case <-stop:
			s.close()
			return
		case <-timer.C:
			s.step(controller.Tick{})
		case <-s.inbox.wake:
			for _, m := range s.inbox.take() {
				s.handle(m)
			}
		}
		s.propose()
		if active := s.core.Active(); s.isActive.Swap(active) != active && active && s.onActive != nil {
			s.onActive()
		}
	}
}

func (s *controllerShell) close() {
	s.step(controller.Resigned{})
	for _, m := range s.inbox.close() {
		if m.answer != nil {
			m.answer(controller.Answer{Err: kerr.NotController})
		}
	}
}

func (s *controllerShell) handle(m message) {
	switch {
	case m.request != nil:
		s.lastID++
		s.answers[s.lastID] = m.answer
		s.step(m.request(s.lastID))
	case m.result != nil:
		s.settle(m.result)
	case m.gone != nil:
		s.step(*m.gone)
	default:
		// Leadership began or ended: what was queued under the last one is void.
		s.queue, s.inFlight = nil, false
		s.generation++
		if e, ok := m.event.(controller.BecameLeader); ok {
			s.epoch = e.Epoch
		}
		s.step(m.event)
	}
}

func (s *controllerShell) settle(r *result) {
	if r.generation != s.generation {
		return
	}
	s.inFlight = false
	if r.err == nil {
		s.step(controller.Committed{Proposal: r.proposal, Image: r.image})
		return
	}
	s.queue = nil
	event := s.logger.Warn()
	if errors.Is(r.err, quorum.ErrClosed) {
		event = s.logger.Debug()
	}
	event.Err(r.err).Msg("a change of metadata was not committed; clients are told to try again")
	s.step(controller.Failed{Image: r.image})
}

func (s *controllerShell) step(e controller.Event) {
	fx := s.core.Step(s.now(), e)
	s.queue = append(s.queue, fx.Proposals...)
	for _, n := range fx.Notices {
		s.notice(n)
	}
	for _, a := range fx.Answers {
		if answer := s.answers[a.ID]; answer != nil {
			delete(s.answers, a.ID)
			answer(a)
		}
	}
}

// notice logs what an operator wants to know of.
func (s *controllerShell) notice(n controller.Notice) {
	switch n := n.(type) {
	case controller.BrokerHoldsNothing:
		s.logger.Info().Int32("broker", n.Broker).
			Msg("a broker takes part that has no replicas: `leat cluster rebalance --plan` says what could move there, --run moves it; with auto.partition.rebalance.enable it is moved by itself")
	case controller.RebalanceBegun:
		s.logger.Info().Int("partitions", n.Partitions).Int("copies", n.Copies).Msg("replicas are being moved so that brokers have as many as others")
	case controller.RebalanceEnded:
		s.logger.Info().Msg("replicas are moved")
	}
}

// propose commits the head of the queue as one entry when none is in flight.
func (s *controllerShell) propose() {
	if s.inFlight || len(s.queue) == 0 {
		return
	}
	value := metadata.Encode(s.queue[0].Changes)
	size, n := len(value), 1
	for ; n < len(s.queue); n++ {
		if size += len(metadata.Encode(s.queue[n].Changes)); size > maxEntryBytes {
			break
		}
	}
	if n > 1 {
		var changes []metadata.Change
		for _, p := range s.queue[:n] {
			changes = append(changes, p.Changes...)
		}
		value = metadata.Encode(changes)
	}
	last, generation := s.queue[n-1].ID, s.generation
	s.queue = s.queue[n:]
	s.inFlight = true
	s.quorum.ProposeAsync(s.epoch, value, func(offset int64, err error) {
		done := message{result: &result{generation, last, s.log.Image(), err}}
		if err != nil {
			s.inbox.put(done)
			return
		}
		s.log.whenPublished(offset, func() { s.inbox.put(done) })
	})
}
