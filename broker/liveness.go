package broker

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/leatlog/leat/broker/internal/controller"
	"github.com/leatlog/leat/broker/internal/metadata"
)

// liveness keeps the broker registered and alive in the eyes of the active
// controller: it registers with an incarnation of its own, heartbeats, and
// registers again when it is told that its epoch is stale.
type liveness struct {
	client    *controllerClient
	log       *metadataLog
	logger    zerolog.Logger
	register  controller.RegisterBroker // but for its ID
	heartbeat time.Duration
	session   time.Duration
	now       func() time.Time
	epoch     atomic.Int64 // of the registration; -1 until there is one
	// onRegistered is called after the first registration, with an image that holds
	// it; the broker asks to be unfenced after that.
	onRegistered func(*metadata.Image) error
	// onEpoch keeps the epoch of a registration for the next one.
	onEpoch  func(epoch int64) error
	unfenced chan struct{} // closed when the broker is first unfenced

	leaving  chan struct{}             // closed when the broker is to give up what it leads
	left     chan struct{}             // closed when it leads nothing any more, or is not registered
	answered atomic.Int64              // heartbeats that the controller answered
	heard    atomic.Pointer[time.Time] // when the last one that was answered was sent; nil before
}

// settleDelay is the time between two tries until the broker is unfenced: as
// short as a commit, so that the start does not wait for a heartbeat interval.
const settleDelay = 2 * time.Millisecond

// run returns when ctx ends.
func (l *liveness) run(ctx context.Context) {
	fenced, first, leaving := true, true, false
	var reported string
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-l.soonLeaving(leaving):
			leaving = true
		}
		var err error
		if l.epoch.Load() < 0 {
			err = l.tryRegister(ctx)
		}
		if err == nil {
			fenced, err = l.beat(ctx, leaving)
		}
		switch {
		case ctx.Err() != nil:
			return
		case leaving && (err == errMayStop || err == kerr.StaleBrokerEpoch):
			close(l.left)
			return
		case err == kerr.StaleBrokerEpoch:
			l.epoch.Store(-1)
		case err == nil && !fenced && first:
			first = false
			close(l.unfenced)
		}
		reported = l.report(err, reported)
		if fenced || leaving || err != nil {
			timer.Reset(settleDelay)
		} else {
			timer.Reset(l.heartbeat)
		}
	}
}

// report logs an error once, not at every try.
func (l *liveness) report(err error, reported string) string {
	if err == nil {
		return ""
	}
	if err.Error() != reported && err != kerr.NotController {
		l.logger.Warn().Err(err).Msg("the controller does not take this broker's heartbeat; trying again")
	}
	return err.Error()
}

func (l *liveness) tryRegister(ctx context.Context) error {
	answer, err := l.client.registerBroker(ctx, l.register)
	if err != nil {
		return err
	}
	if err := l.onEpoch(answer.BrokerEpoch); err != nil {
		return err
	}
	l.register.PreviousEpoch = answer.BrokerEpoch
	image, err := l.registered(ctx, answer.BrokerEpoch)
	if err != nil {
		return err
	}
	// Before the replicas start: their first fetch tells the leader which registration
	// they are of, and it takes none but the last one into the in-sync replicas.
	l.epoch.Store(answer.BrokerEpoch)
	if l.onRegistered != nil {
		if err := l.onRegistered(image); err != nil {
			l.epoch.Store(-1)
			return err
		}
		l.onRegistered = nil
	}
	return nil
}

// registered returns the first image of this node that holds the registration. A controller
// on another node may answer before that: what this node knew at its start is as old as its
// last checkpoint, and replicas that led by such an image would show and take what later
// leaders have long replaced.
func (l *liveness) registered(ctx context.Context, epoch int64) (*metadata.Image, error) {
	for {
		image := l.log.Published()
		if b, ok := image.Broker(l.register.Broker); ok && b.Epoch >= epoch {
			return image, nil
		}
		next := make(chan struct{})
		l.log.whenPublished(image.Offset()+1, func() { close(next) })
		select {
		case <-next:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// errMayStop says that the controller moved all that a leaving broker led.
var errMayStop = errors.New("the broker leads nothing any more")

// soonLeaving returns what tells that the broker is to leave, nil once that is known.
func (l *liveness) soonLeaving(leaving bool) <-chan struct{} {
	if leaving {
		return nil
	}
	return l.leaving
}

func (l *liveness) beat(ctx context.Context, leaving bool) (fenced bool, err error) {
	sent := l.now()
	answer, err := l.client.heartbeat(ctx, controller.BrokerHeartbeat{Broker: l.register.Broker, BrokerEpoch: l.epoch.Load(),
		Offset: l.log.Published().Offset(), WantShutDown: leaving})
	if err != nil {
		return true, err
	}
	l.hear(answer, sent)
	if answer.ShouldShutDown {
		return true, errMayStop
	}
	return answer.Fenced, nil
}

// hear takes over the answer to a heartbeat that was sent at a time.
func (l *liveness) hear(answer controller.HeartbeatAnswer, sent time.Time) {
	l.answered.Add(1)
	if !answer.Fenced { // else others lead what this broker may not have heard of yet
		l.heard.Store(&sent)
	}
}

// current says that no other broker can have been made the leader of what this one leads
// without this one having heard of it, clocks that run evenly given: the controller fences
// no broker that it has heard of within a third of the session (see suspicion.go), unless
// the broker's process is gone.
func (l *liveness) current() bool {
	heard := l.heard.Load()
	return heard != nil && l.now().Sub(*heard) < l.session/3
}

const (
	// leaveTimeout bounds how long a stop waits until others lead what this broker led,
	// and silentTimeout how long it waits for one answer of the controller to that.
	leaveTimeout  = 10 * time.Second
	silentTimeout = time.Second
)

// leave has the controller move what this broker leads to others, and returns when that
// is done, when the controller is silent, or when ctx ends.
func (l *liveness) leave(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, leaveTimeout)
	defer cancel()
	answered := l.answered.Load()
	close(l.leaving)
	silent := time.NewTicker(silentTimeout)
	defer silent.Stop()
	for {
		select {
		case <-l.left:
			return
		case <-silent.C:
			now := l.answered.Load()
			if now != answered {
				answered = now
				continue
			}
		case <-ctx.Done():
		}
		l.logger.Warn().Msg("the controller did not move what this broker leads; it stops all the same, and the others notice by its silence")
		return
	}
}

// leave has others lead what this broker leads before it stops, if there are others.
func (b *Broker) leave(ctx context.Context) {
	if ctx.Err() != nil || !slices.Contains(b.cfg.Roles, BrokerRole) {
		return
	}
	image := b.log.Published()
	if slices.ContainsFunc(image.Brokers(), func(x metadata.Broker) bool { return x.ID != b.cfg.NodeID && image.Active(x.ID) }) {
		b.liveness.leave(ctx)
	}
}
