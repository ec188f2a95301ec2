package stream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/leatlog/leat/state"
	"github.com/leatlog/leat/stream/client"
	"github.com/leatlog/leat/stream/internal/assign"
	"github.com/leatlog/leat/topology/plan"
)

const (
	// taskBudget is how many records of a task run before the next task's turn.
	taskBudget = 4096
	// punctuateInterval is the longest time between two punctuations of a task.
	punctuateInterval = time.Second
	// maxResets is how often in a row, without a commit between, a worker starts its
	// tasks anew after an error that this cures.
	maxResets = 3
)

// worker runs tasks on one goroutine. Fields are that goroutine's unless said
// otherwise.
type worker struct {
	app      *App
	index    int
	log      zerolog.Logger
	inbox    *client.Inbox
	producer *client.Producer // replaced under mu
	tasks    []*running       // ordered by id
	targets  map[client.Partition]target
	fetched  []*client.Fetched // reused

	now           time.Time // of this turn of the loop
	nextCommit    time.Time
	nextPunctuate time.Time
	resets        int
	stopped       bool
	stopError     error // of the last commit; read after run has returned

	wake  chan struct{}
	ended chan struct{} // closed when run has returned

	mu        sync.Mutex
	calls     []func()
	cancel    context.CancelFunc // of the commit under way
	lost      bool               // the tasks are to be closed without a commit
	purgeable map[client.Partition]int64
}

// target is who gets what is fetched of a partition: a source or a store of a
// task.
type target struct {
	task   *running
	source int
	store  int // -1: a source
}

func newWorker(ctx context.Context, a *App, index int) (*worker, error) {
	w := &worker{
		app: a, index: index, log: a.log.With().Int("worker", index).Logger(), inbox: client.NewInbox(),
		targets: make(map[client.Partition]target), wake: make(chan struct{}, 1), ended: make(chan struct{}), purgeable: make(map[client.Partition]int64),
	}
	if err := w.openProducer(ctx); err != nil {
		return nil, err
	}
	return w, nil
}

// openProducer makes a producer that knows every topic the plan writes.
func (w *worker) openProducer(ctx context.Context) error {
	p, err := w.app.client.NewProducer(ctx, client.ProducerConfig{
		Codec: w.app.cfg.Compression, TransactionalID: w.app.transactionalID(w.index), TransactionTimeout: w.app.cfg.TransactionTimeout,
	})
	if err != nil {
		return err
	}
	if err := p.Topics(ctx, w.app.writtenTopics()...); err != nil {
		p.Close()
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.producer = p
	return nil
}

// post runs call on the worker's goroutine. Safe for concurrent use.
func (w *worker) post(call func()) {
	w.mu.Lock()
	w.calls = append(w.calls, call)
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// interrupt ends whatever waits for the cluster, and keeps commits from beginning
// before the tasks are closed. Safe for concurrent use.
func (w *worker) interrupt() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lost = true
	if w.cancel != nil {
		w.cancel()
	}
	w.producer.Abort()
}

// await waits for a call of the worker, or its end.
func (w *worker) await(done <-chan struct{}) {
	select {
	case <-done:
	case <-w.ended:
	}
}

// stop commits for the last time and ends run.
func (w *worker) stop() {
	// A worker that waits for a cluster that does not answer is let go.
	late := time.AfterFunc(w.app.cfg.StopTimeout, w.interrupt)
	w.post(func() {
		inTime := late.Stop()
		w.stopped = true
		ctx, cancel := context.WithTimeout(context.Background(), w.app.cfg.StopTimeout)
		defer cancel()
		err, _ := w.commitWithin(ctx)
		if err != nil && (!inTime || !errors.Is(err, client.ErrFenced)) {
			w.stopError = fmt.Errorf("the last commit failed, what it held will be processed again: %w", err)
		}
		w.closeTasks(func(*running) bool { return true }, err == nil)
	})
}

// revoke commits and closes tasks; the channel is closed when that is done.
func (w *worker) revoke(ids []plan.TaskID) <-chan struct{} {
	done := make(chan struct{})
	w.post(func() {
		defer close(done)
		leaves := func(r *running) bool { return slices.Contains(ids, r.id) }
		var err error
		if slices.ContainsFunc(w.tasks, func(r *running) bool { return leaves(r) && r.dirty() }) {
			err = w.tryCommit()
		}
		w.closeTasks(leaves, err == nil)
		switch {
		case err == nil:
		case w.app.cfg.Guarantee == ExactlyOnce:
			// The transaction holds what the leaving tasks have written: it must not be
			// committed with the others, which start again from their last commit.
			w.recoverFrom(fmt.Errorf("%w: tasks have left without a commit", client.ErrProducerFailed))
		case errors.Is(err, state.ErrDamaged):
			w.recoverFrom(err)
		}
	})
	return done
}

// lose closes every task without a commit.
func (w *worker) lose() <-chan struct{} {
	done := make(chan struct{})
	w.interrupt()
	w.post(func() {
		defer close(done)
		w.mu.Lock()
		w.lost = false
		w.mu.Unlock()
		w.closeTasks(func(*running) bool { return true }, false)
		w.renewProducer()
	})
	return done
}

// add opens tasks.
func (w *worker) add(ids []plan.TaskID) { w.post(func() { w.open(ids) }) }

// run is the worker's goroutine. It returns after stop.
func (w *worker) run() {
	defer close(w.ended)
	for {
		w.now = w.app.cfg.Clock.Now()
		w.runCalls()
		if w.stopped {
			return
		}
		w.take()
		worked, err := w.runTasks()
		if err == nil {
			err = w.due()
		}
		if err != nil {
			w.recoverFrom(err)
			continue
		}
		if !worked {
			w.idle()
		}
	}
}

func (w *worker) runCalls() {
	w.mu.Lock()
	calls := w.calls
	w.calls = nil
	w.mu.Unlock()
	for _, call := range calls {
		call()
	}
}

// take hands what was fetched to its tasks.
func (w *worker) take() {
	w.fetched = w.inbox.Take(w.fetched[:0])
	for i, f := range w.fetched {
		w.fetched[i] = nil
		t, ok := w.targets[f.Partition]
		switch {
		case !ok:
			f.Release() // its task has gone
		case t.store >= 0:
			t.task.restores[t.store].backlog = append(t.task.restores[t.store].backlog, f)
		default:
			t.task.sources[t.source].backlog = append(t.task.sources[t.source].backlog, f)
		}
	}
}

// runTasks gives each task its turn; worked says that one had something to do.
func (w *worker) runTasks() (worked bool, err error) {
	paused := w.app.paused.Load()
	for _, r := range w.tasks {
		if paused && r.phase == phaseRunning {
			continue
		}
		begin := time.Now()
		did, err := r.turn()
		if err != nil {
			return worked, err
		}
		if did {
			r.busy += time.Since(begin)
		}
		worked = worked || did
	}
	return worked, nil
}

// due punctuates and commits when it is time.
func (w *worker) due() error {
	if !w.now.Before(w.nextPunctuate) {
		w.nextPunctuate = w.now.Add(punctuateInterval)
		for _, r := range w.tasks {
			if r.phase == phaseRunning && !w.app.paused.Load() {
				if err := r.task.Punctuate(); err != nil {
					return err
				}
			}
		}
	}
	if w.now.Before(w.nextCommit) {
		return nil
	}
	w.nextCommit = w.now.Add(w.app.cfg.CommitInterval)
	w.updateMetrics()
	if !slices.ContainsFunc(w.tasks, (*running).dirty) {
		return nil
	}
	err, interrupted := w.commitWithin(context.Background())
	if interrupted {
		return nil // what interrupted it is next in the calls
	}
	return err
}

// commitWithin commits so that interrupt can end it.
func (w *worker) commitWithin(ctx context.Context) (err error, interrupted bool) {
	within, cancel := context.WithCancel(ctx)
	defer cancel()
	w.mu.Lock()
	if w.lost {
		w.mu.Unlock()
		return client.ErrFenced, true
	}
	w.cancel = cancel
	w.mu.Unlock()
	err = w.commit(within)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cancel = nil
	return err, err != nil && w.lost
}

// idle sends what waits in the producer and sleeps until there is something to
// do.
func (w *worker) idle() {
	// Without a failed producer, which the next commit reports, this only starts to
	// send: output need not wait for the commit when there is nothing else to do.
	_ = w.producer.Send()
	until := w.nextPunctuate
	for _, r := range w.tasks {
		if r.dirty() && w.nextCommit.Before(until) {
			until = w.nextCommit
		}
		if r.phase != phaseRunning || w.app.paused.Load() {
			continue
		}
		if ms, waits := r.task.WaitsUntil(); waits {
			if at := time.UnixMilli(ms); at.Before(until) {
				until = at
			}
		}
	}
	timer := time.NewTimer(max(time.Millisecond, until.Sub(w.app.cfg.Clock.Now())))
	defer timer.Stop()
	select {
	case <-w.inbox.Ready():
	case <-w.wake:
	case <-timer.C:
	}
}

// recoverFrom goes on after an error: a lost membership is the group's to
// report; after one that a new start of the tasks cures they start again, with a new
// producer; all else stops the App.
func (w *worker) recoverFrom(err error) {
	w.mu.Lock()
	lost := w.lost
	w.mu.Unlock()
	switch {
	case lost:
		return // the call that closes the tasks is on its way
	case errors.Is(err, client.ErrFenced):
		// Nothing more is committed: the tasks go when the group says so.
		w.app.group.Rejoin()
		w.closeTasks(func(*running) bool { return true }, false)
		w.renewProducer()
		w.app.forget(w.index)
		return
	case restartable(err) != "" && w.resets < maxResets:
		w.resets++
		w.log.Warn().Err(err).Msg(restartable(err) + "; starting the tasks again from their last commit")
		w.app.status.report(err)
		if w.restart() {
			return
		}
	default:
		w.app.fail(err)
	}
	// Wait for stop.
	w.closeTasks(func(*running) bool { return true }, false)
}

// restartable says what has happened when a new start of the tasks cures err, "" when none
// does.
func restartable(err error) string {
	switch {
	case errors.Is(err, client.ErrProducerFailed):
		return "the producer has failed"
	case errors.Is(err, state.ErrDamaged):
		return "a store is damaged and is rebuilt"
	case errors.Is(err, client.ErrOffsetOutOfRange): // sources reset theirs
		return "the changelog has lost what a restore was to read next"
	}
	return ""
}

// restart opens every task of the worker again with a new producer; what was not
// committed is given up.
func (w *worker) restart() bool {
	ids := make([]plan.TaskID, len(w.tasks))
	for i, r := range w.tasks {
		ids[i] = r.id
	}
	w.closeTasks(func(*running) bool { return true }, false)
	if !w.renewProducer() {
		return false
	}
	w.app.status.addRestoring(len(ids))
	w.open(ids)
	return true
}

// renewProducer replaces the producer, whose batches in flight no longer count.
func (w *worker) renewProducer() bool {
	w.producer.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if err := w.openProducer(ctx); err != nil {
		w.app.fail(err)
		return false
	}
	return true
}

// closeTasks closes the tasks that match; committed says that nothing of them
// is lost by it.
func (w *worker) closeTasks(matches func(*running) bool, committed bool) {
	w.tasks = slices.DeleteFunc(w.tasks, func(r *running) bool {
		if !matches(r) {
			return false
		}
		r.close(committed)
		return true
	})
}

// tryCommit commits outside the loop's turn; after an error the tasks must be closed
// without.
func (w *worker) tryCommit() error {
	ctx, cancel := context.WithTimeout(context.Background(), w.app.cfg.StopTimeout)
	defer cancel()
	err, _ := w.commitWithin(ctx)
	if err == nil {
		return nil
	}
	w.log.Warn().Err(err).Msg("the commit before tasks move has failed; their new owners start from the commit before")
	w.app.status.report(err)
	if !errors.Is(err, client.ErrFenced) && restartable(err) == "" && ctx.Err() == nil {
		w.app.fail(err) // an operator or a store: the other tasks of the worker cannot go on either
	}
	return err
}

// find returns a task of the worker.
func (w *worker) find(id plan.TaskID) (*running, bool) {
	i := slices.IndexFunc(w.tasks, func(r *running) bool { return r.id == id })
	if i < 0 {
		return nil, false
	}
	return w.tasks[i], true
}

// keep adds a task in its place.
func (w *worker) keep(r *running) {
	w.tasks = append(w.tasks, r)
	slices.SortFunc(w.tasks, func(a, b *running) int { return assign.CompareTasks(a.id, b.id) })
}

// takePurgeable returns how far repartition partitions are committed. Safe for
// concurrent use.
func (w *worker) takePurgeable() map[client.Partition]int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := w.purgeable
	w.purgeable = make(map[client.Partition]int64)
	return out
}
