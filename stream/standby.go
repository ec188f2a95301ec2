package stream

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/leatlog/leat/stream/client"
	"github.com/leatlog/leat/stream/internal/assign"
	"github.com/leatlog/leat/stream/internal/task"
	"github.com/leatlog/leat/topology/plan"
)

const (
	// standbyInterval is how often a standby tells how far it is.
	standbyInterval = 500 * time.Millisecond
	// standbyRetry is how long a standby waits after its first failure, and then twice as
	// long each time, up to longestStandbyRetry.
	standbyRetry        = time.Second
	longestStandbyRetry = 30 * time.Second
	// askAgain is how long a warm-up that has caught up waits before it asks for another
	// assignment again: the leader has found that it has not.
	askAgain = 10 * time.Second
)

// standbys are the tasks that this process follows, each on a goroutine of its own: neither
// the workers nor each other wait for them.
type standbys struct {
	app     *App
	fetcher *client.Fetcher // its own: a task may read what a standby has just left

	mu     sync.Mutex
	copies map[plan.TaskID]*standby
	handed map[plan.TaskID]*warmCopy // copies whose tasks come to run here, until they are opened
	closed bool
}

// standby follows the changelogs of a task's stores.
type standby struct {
	set    *standbys
	id     plan.TaskID
	log    zerolog.Logger
	inbox  *client.Inbox
	cancel context.CancelFunc
	done   chan struct{} // closed when the goroutine has ended
	warmUp atomic.Bool   // its task is to run here when it has caught up

	// The goroutine's, and whoever has waited for its end.
	stores  []*followed
	whole   bool // every store is open, and nothing has failed
	asked   time.Time
	attempt int

	mu     sync.Mutex
	health StandbyHealth
	held   uint64 // sum of the offsets that the stores have reached
}

// followed is a store of a standby.
type followed struct {
	partition client.Partition
	name      string
	store     *task.LoggedStore
	writer    *changelogWriter
	next      int64
	target    int64 // end of the changelog when it was opened: from there on it is warm
	end       int64 // last known end
	keptAt    time.Time
	feed
}

func newStandbys(a *App) *standbys {
	return &standbys{
		app: a, copies: make(map[plan.TaskID]*standby), handed: make(map[plan.TaskID]*warmCopy),
		fetcher: a.client.NewFetcher(client.FetcherConfig{BufferBytes: a.cfg.BufferBytes, ReadCommitted: true}),
	}
}

// settle ends the standbys that are not wanted any more. What they have of tasks that come
// to run here waits for them (see claim); all else is made durable and closed.
func (s *standbys) settle(wanted []assign.Standby, coming map[plan.TaskID]int) {
	s.mu.Lock()
	var ended []*standby
	for id, b := range s.copies {
		if !slices.ContainsFunc(wanted, func(w assign.Standby) bool { return w.Task == id }) {
			ended = append(ended, b)
			delete(s.copies, id)
			b.cancel()
		}
	}
	s.mu.Unlock()
	for _, b := range ended {
		<-b.done
		w := &warmCopy{stores: b.stores, log: b.log}
		b.stores = nil
		if _, comes := coming[b.id]; comes && b.whole {
			s.mu.Lock()
			s.handed[b.id] = w
			s.mu.Unlock()
		} else {
			w.keep()
			w.close()
		}
		s.app.metrics.forgetStandby(b.id, s.app.plan)
	}
}

// follow begins the standbys that are wanted and not there yet. The tasks that this process
// gives up are closed before.
func (s *standbys) follow(wanted []assign.Standby) {
	for _, w := range wanted {
		s.claim(w.Task).close() // what came here to run, and has left again before it did
		s.mu.Lock()
		b := s.copies[w.Task]
		if b == nil && !s.closed {
			b = s.newStandby(w.Task)
			s.copies[w.Task] = b
		}
		if b != nil {
			b.warmUp.Store(w.WarmUp)
		}
		s.mu.Unlock()
	}
	s.app.metrics.standbys.Set(float64(len(wanted)))
}

func (s *standbys) newStandby(id plan.TaskID) *standby {
	ctx, cancel := context.WithCancel(context.Background())
	b := &standby{
		set: s, id: id, log: s.app.log.With().Stringer("task", id).Logger(), inbox: client.NewInbox(),
		cancel: cancel, done: make(chan struct{}), health: StandbyHealth{Task: id.String()},
	}
	go b.run(ctx)
	return b
}

// claim returns what a standby has of a task that is opened here, nil when there is none.
// Safe for concurrent use.
func (s *standbys) claim(id plan.TaskID) *warmCopy {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.handed[id]
	delete(s.handed, id)
	return w
}

// following returns the standbys in order. Safe for concurrent use.
func (s *standbys) following() []*standby {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	out := slices.Collect(maps.Values(s.copies))
	slices.SortFunc(out, func(x, y *standby) int { return assign.CompareTasks(x.id, y.id) })
	return out
}

// close ends all standbys; what they have is durable then.
func (s *standbys) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.settle(nil, nil)
	for _, w := range s.handed {
		w.close()
	}
	s.fetcher.Close()
}

// run follows until the standby is ended; its stores are then open, if it is whole.
func (b *standby) run(ctx context.Context) {
	defer close(b.done)
	for {
		err := b.followOnce(ctx)
		if ctx.Err() != nil {
			return
		}
		b.whole = false
		w := warmCopy{stores: b.stores, log: b.log}
		w.close()
		b.stores = nil
		b.setHeld(0)
		wait := min(longestStandbyRetry, standbyRetry<<min(b.attempt, 10))
		b.attempt++
		b.log.Warn().Err(err).Dur("again_in", wait).Msg("a standby has failed; its task runs on elsewhere")
		b.set.app.status.report(fmt.Errorf("standby of task %s: %w", b.id, err))
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// followOnce opens the stores and follows their changelogs until ctx ends or something
// fails.
func (b *standby) followOnce(ctx context.Context) error {
	if err := b.open(ctx); err != nil {
		return err
	}
	fetcher := b.set.fetcher
	for _, f := range b.stores {
		fetcher.Add(f.partition, f.next, client.ResetFail, b.inbox)
	}
	defer func() {
		for _, f := range b.stores {
			fetcher.Remove(f.partition)
			f.feed.close()
		}
		for _, f := range b.inbox.Take(nil) {
			f.Release()
		}
	}()
	ticker := time.NewTicker(standbyInterval)
	defer ticker.Stop()
	if err := b.keepDue(time.Now()); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-b.inbox.Ready():
			if err := b.take(ctx); err != nil {
				return err
			}
		case <-ticker.C:
		}
		if err := b.keepDue(time.Now()); err != nil {
			return err
		}
		b.tell()
	}
}

// open opens the stores that have a changelog.
func (b *standby) open(ctx context.Context) error {
	a := b.set.app
	for _, spec := range a.plan.SubTopologies[b.id.SubTopology].Stores {
		if spec.NoChangelog {
			continue
		}
		writer := &changelogWriter{partition: b.id.Partition}
		store, err := a.openStore(ctx, b.id, spec, writer)
		if err != nil {
			return fmt.Errorf("store %q: %w", spec.Name, err)
		}
		f := &followed{partition: a.changelogPartition(b.id, spec), name: spec.Name, store: store, writer: writer}
		next, end, reason := store.RestoreFrom()
		f.next, f.target, f.end = next, end, end
		b.stores = append(b.stores, f)
		b.log.Info().Str("store", spec.Name).Int64("offsets", end-next).Str("reason", string(reason)).Msg("a standby follows the changelog of a store")
	}
	b.whole = true
	b.tell()
	return nil
}

// take applies what was fetched. It looks at ctx between chunks: a task may wait for the
// stores.
func (b *standby) take(ctx context.Context) error {
	for _, fetched := range b.inbox.Take(nil) {
		i := slices.IndexFunc(b.stores, func(f *followed) bool { return f.partition == fetched.Partition })
		if i < 0 {
			fetched.Release()
			continue
		}
		b.stores[i].backlog = append(b.stores[i].backlog, fetched)
	}
	for _, f := range b.stores {
		for ctx.Err() == nil {
			moved, err := f.fill()
			if err != nil {
				return fmt.Errorf("changelog of store %q: %w", f.name, err)
			}
			if !moved {
				break
			}
			if err := f.store.Follow(f.chunk.Records, f.chunk.Next, f.chunk.LeaderEpoch); err != nil {
				b.whole = false
				return fmt.Errorf("store %q: %w", f.name, err)
			}
			f.next = max(f.next, f.chunk.Next)
			f.end = max(f.next, f.feed.end)
		}
	}
	return nil
}

// keepDue makes stores durable when it is time: when they have caught up for the first
// time, and at each checkpoint interval from then on.
func (b *standby) keepDue(now time.Time) error {
	for _, f := range b.stores {
		switch {
		case f.keptAt.IsZero():
			if f.next < f.target {
				continue
			}
			b.log.Info().Str("store", f.name).Int64("offset", f.next).Msg("a standby has caught up with a store")
		case now.Sub(f.keptAt) < b.set.app.checkpointInterval(b.id):
			continue
		}
		if err := f.store.Keep(); err != nil {
			b.whole = false
			return fmt.Errorf("store %q: %w", f.name, err)
		}
		f.keptAt = now
		b.attempt = 0
	}
	return nil
}

// tell notes how far the standby is, and asks for another assignment when its task can
// come.
func (b *standby) tell() {
	a := b.set.app
	h := StandbyHealth{Task: b.id.String(), WarmUp: b.warmUp.Load(), Following: b.whole}
	held, warm := uint64(0), b.whole
	for _, f := range b.stores {
		lag := max(0, f.end-f.next)
		h.Lag += lag
		h.Stores = append(h.Stores, StandbyStore{Store: f.name, Offset: f.next, End: f.end})
		a.metrics.standbyLag.WithLabelValues(h.Task, f.name).Set(float64(lag))
		held += uint64(f.next)
		warm = warm && !f.keptAt.IsZero()
	}
	b.mu.Lock()
	b.health, b.held = h, held
	b.mu.Unlock()
	if warm && h.WarmUp && h.Lag <= a.cfg.AcceptableRecoveryLag && time.Since(b.asked) >= askAgain {
		b.asked = time.Now()
		b.log.Info().Int64("lag", h.Lag).Msg("a standby is warm; asking for its task")
		a.group.Rejoin()
	}
}

func (b *standby) setHeld(held uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.held, b.health.Following = held, false
}

// reached returns the sum of the offsets that the stores have reached.
func (b *standby) reached() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.held
}

// warmCopy is the stores of a standby that has ended. A nil one has none.
type warmCopy struct {
	stores []*followed
	log    zerolog.Logger
}

// find returns a store by its name.
func (w *warmCopy) find(name string) (*followed, bool) {
	if w == nil {
		return nil, false
	}
	i := slices.IndexFunc(w.stores, func(f *followed) bool { return f.name == name })
	if i < 0 {
		return nil, false
	}
	return w.stores[i], true
}

// take leaves a store to the caller, drop closes it.
func (w *warmCopy) take(name string) {
	w.stores = slices.DeleteFunc(w.stores, func(f *followed) bool { return f.name == name })
}

func (w *warmCopy) drop(name string) {
	if f, ok := w.find(name); ok {
		if err := f.store.Close(); err != nil {
			w.log.Warn().Err(err).Str("store", name).Msg("closing a standby's store failed")
		}
		w.take(name)
	}
}

// keep makes durable what the stores have.
func (w *warmCopy) keep() {
	for _, f := range w.stores {
		if err := f.store.Keep(); err != nil {
			w.log.Warn().Err(err).Str("store", f.name).Msg("a checkpoint of a standby's store failed; it restores more at the next start")
		}
	}
}

// close closes the stores that nobody has taken.
func (w *warmCopy) close() {
	if w == nil {
		return
	}
	var failed []error
	for _, f := range w.stores {
		failed = append(failed, f.store.Close())
	}
	w.stores = nil
	if err := errors.Join(failed...); err != nil {
		w.log.Warn().Err(err).Msg("closing a standby's stores failed")
	}
}
