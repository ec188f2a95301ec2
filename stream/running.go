package stream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/leatlog/leat/stream/client"
	"github.com/leatlog/leat/stream/internal/task"
	"github.com/leatlog/leat/topology/plan"
)

// chunkRecords is how many records are decoded at a time for a task.
const chunkRecords = 1024

// phase is where a task of a worker is.
type phase uint8

const (
	phaseOpening   phase = iota // its stores are opened and its offsets looked up
	phaseRestoring              // its stores read their changelogs
	phaseRunning
)

// running is a task of a worker with everything around it.
type running struct {
	worker *worker
	id     plan.TaskID
	phase  phase

	cancel context.CancelFunc // of the opening
	opened chan struct{}      // closed when the opening has ended
	result *opened            // what it found; read after opened is closed

	task     *task.Task
	stores   []*task.LoggedStore
	sources  []source
	restores []restore
	fresh    *freshness
	logged   bool          // a store was written since the last commit
	counted  counted       // what the metrics were told
	busy     time.Duration // of turns since then
}

// source is a partition that the task reads.
type source struct {
	partition client.Partition
	feed
}

// restore is a store that reads its changelog.
type restore struct {
	partition client.Partition
	store     *task.LoggedStore
	name      string
	next, end int64 // of the changelog: it is done when next reaches end
	begin     int64
	told      time.Time // when progress was last reported
	noted     time.Time // when it was last logged
	feed
}

// feed decodes what was fetched, a chunk at a time, in memory that is used
// again.
type feed struct {
	backlog []*client.Fetched
	inUse   []*client.Fetched // whose bytes the chunk aliases
	chunk   client.Records
	end     int64 // end of the log at the last fetch
}

// fill decodes the next chunk. moved says that there was something; the chunk
// may still be empty, when nothing in it was of use.
func (f *feed) fill() (moved bool, err error) {
	f.drop()
	f.chunk.Reset()
	for len(f.backlog) > 0 && len(f.chunk.Records) < chunkRecords {
		first := f.backlog[0]
		if first.Err != nil {
			return moved, first.Err
		}
		moved = true
		f.end = first.HighWatermark
		if err := first.Decode(&f.chunk, chunkRecords); err != nil {
			return moved, err
		}
		if first.Done() {
			f.inUse = append(f.inUse, first)
			f.backlog[0] = nil
			f.backlog = f.backlog[1:]
		}
	}
	return moved, nil
}

// drop gives back the memory behind the chunk.
func (f *feed) drop() {
	for i, used := range f.inUse {
		used.Release()
		f.inUse[i] = nil
	}
	f.inUse = f.inUse[:0]
}

// close gives everything back.
func (f *feed) close() {
	f.drop()
	for _, b := range f.backlog {
		b.Release()
	}
	f.backlog = nil
}

// dirty says whether a commit would change something.
func (r *running) dirty() bool { return r.phase == phaseRunning && (r.logged || r.task.Dirty()) }

// turn gives the task its share of the worker's time.
func (r *running) turn() (worked bool, err error) {
	switch r.phase {
	case phaseRestoring:
		return r.restoreOn()
	case phaseRunning:
		return r.process()
	}
	return false, nil
}

// process runs records until the budget is used or there are none.
func (r *running) process() (worked bool, err error) {
	for done := 0; done < taskBudget; {
		for i := range r.sources {
			if err := r.feedSource(i); err != nil {
				return worked, err
			}
		}
		n, err := r.task.Process(taskBudget - done)
		if err != nil {
			return worked, err
		}
		if n == 0 {
			break
		}
		done += n
		worked = true
	}
	return worked, nil
}

// feedSource fills the queue of a source that has run empty.
func (r *running) feedSource(i int) error {
	s := &r.sources[i]
	if !r.task.Needs(i) {
		return nil
	}
	moved, err := s.fill()
	if err != nil {
		return fmt.Errorf("task %s: source %q: %w", r.id, r.sub().Sources[i].Operator, err)
	}
	if !moved {
		return nil
	}
	r.task.Add(i, s.chunk.Records, s.chunk.Next, s.chunk.LeaderEpoch)
	if len(s.backlog) == 0 && s.chunk.Next >= s.end {
		r.task.CaughtUp(i)
	}
	return nil
}

// restoreOn applies what has come of the changelogs; the task runs when all of
// its stores are where their changelogs end.
func (r *running) restoreOn() (worked bool, err error) {
	ready := true
	for i := range r.restores {
		s := &r.restores[i]
		if s.next >= s.end {
			continue
		}
		moved, err := s.fill()
		if err != nil {
			return worked, fmt.Errorf("task %s: restore of store %q from %s: %w", r.id, s.name, s.partition, err)
		}
		if moved {
			worked = true
			if err := s.store.Restore(s.chunk.Records, s.chunk.Next, s.chunk.LeaderEpoch); err != nil {
				return worked, fmt.Errorf("task %s: restore of store %q: %w", r.id, s.name, err)
			}
			s.next = max(s.next, s.chunk.Next)
			r.reportRestore(s)
		}
		if s.next < s.end {
			ready = false
			continue
		}
		r.endRestore(s)
	}
	if !ready {
		return worked, nil
	}
	return true, r.start()
}

// endRestore stops reading a changelog.
func (r *running) endRestore(s *restore) {
	r.worker.app.fetcher.Remove(s.partition)
	delete(r.worker.targets, s.partition)
	s.close()
	r.worker.log.Info().Stringer("task", r.id).Str("store", s.name).Int64("offsets", s.end-s.begin).Msg("restored a store")
}

// reportInterval is how often a restore tells its progress.
const reportInterval = 500 * time.Millisecond

// noteInterval is how often a long restore says in the log how far it is.
const noteInterval = 10 * time.Second

func (r *running) reportRestore(s *restore) {
	a := r.worker.app
	now := time.Now()
	if s.next < s.end && now.Sub(s.told) < reportInterval {
		return
	}
	s.told = now
	left := max(0, s.end-s.next)
	a.metrics.restoreLeft.WithLabelValues(r.id.String(), s.name).Set(float64(left))
	if s.noted.IsZero() {
		s.noted = now
	}
	if now.Sub(s.noted) >= noteInterval {
		s.noted = now
		r.worker.log.Info().Stringer("task", r.id).Str("store", s.name).Int64("restored", s.end-s.begin-left).Int64("of", s.end-s.begin).Msg("restoring a store")
	}
	a.queries.Load().restoring(r.id, RestoreHealth{Store: s.name, Restored: s.end - s.begin - left, Total: s.end - s.begin})
	if a.cfg.OnRestore == nil {
		return
	}
	a.status.listen.Lock()
	defer a.status.listen.Unlock()
	a.cfg.OnRestore(RestoreProgress{Task: r.id, Store: s.name, Restored: s.end - s.begin - left, Total: s.end - s.begin})
}

// start compiles the task and begins to fetch its sources.
func (r *running) start() error {
	for _, s := range r.stores {
		if err := s.Restored(); err != nil {
			return fmt.Errorf("task %s: %w", r.id, err)
		}
	}
	if err := r.task.Start(); err != nil {
		return err
	}
	a := r.worker.app
	r.phase = phaseRunning
	for i := range r.sources {
		s := &r.sources[i]
		if !r.task.Reads(i) {
			continue
		}
		r.worker.targets[s.partition] = target{task: r, source: i, store: -1}
		reset := client.ResetEarliest
		if r.sub().Sources[i].Start == plan.Latest {
			reset = client.ResetLatest
		}
		a.fetcher.Add(s.partition, r.task.Position(i), reset, r.worker.inbox)
	}
	a.queries.Load().add(r)
	a.status.addRestoring(-1)
	r.worker.log.Info().Stringer("task", r.id).Msg("the task runs")
	return nil
}

// close ends the task. committed says that its last commit covers all it did:
// then its stores checkpoint, so that they need not be restored.
func (r *running) close(committed bool) {
	a := r.worker.app
	a.queries.Load().remove(r.id)
	if r.phase == phaseOpening {
		r.cancel()
		<-r.opened
		r.result.close()
	}
	if r.phase != phaseRunning {
		a.status.addRestoring(-1)
	}
	for i := range r.sources {
		r.drop(r.sources[i].partition, &r.sources[i].feed)
	}
	for i := range r.restores {
		r.drop(r.restores[i].partition, &r.restores[i].feed)
	}
	if r.task == nil {
		return
	}
	var failed []error
	if committed && r.phase == phaseRunning {
		for _, s := range r.stores {
			failed = append(failed, s.Checkpoint(time.Now()))
		}
	}
	failed = append(failed, r.task.Close())
	if err := errors.Join(failed...); err != nil {
		r.worker.log.Warn().Err(err).Stringer("task", r.id).Msg("closing a task failed; its stores restore more at the next start")
		a.status.report(err)
	}
	a.metrics.forget(r)
}

func (r *running) drop(p client.Partition, f *feed) {
	if t, ok := r.worker.targets[p]; ok && t.task == r {
		r.worker.app.fetcher.Remove(p)
		delete(r.worker.targets, p)
	}
	f.close()
}

func (r *running) sub() *plan.SubTopology { return &r.worker.app.plan.SubTopologies[r.id.SubTopology] }
