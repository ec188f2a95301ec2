package stream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/leatlog/leat/state"
	"github.com/leatlog/leat/state/changelog"
	"github.com/leatlog/leat/stream/client"
	"github.com/leatlog/leat/stream/internal/task"
	"github.com/leatlog/leat/topology/plan"
)

// opened is what the opening of a task has found.
type opened struct {
	stores []*task.LoggedStore
	begins []begin // by source; zero for those the task does not read
	err    error
}

// begin is where a source begins.
type begin struct {
	offset    int64
	committed bool
	note      string
}

// close gives up stores that no task has taken over.
func (o *opened) close() {
	for _, s := range o.stores {
		_ = s.Close() // nothing was written
	}
	o.stores = nil
}

// open begins to open tasks: stores and offsets are looked up aside, so that the
// other tasks of the worker go on.
func (w *worker) open(ids []plan.TaskID) {
	for _, id := range ids {
		ctx, cancel := context.WithCancel(context.Background())
		r := &running{worker: w, id: id, cancel: cancel, opened: make(chan struct{}), result: &opened{}}
		for _, s := range r.sub().Sources {
			r.sources = append(r.sources, source{partition: client.Partition{Topic: s.FullName(w.app.cfg.AppID), Partition: id.Partition}})
		}
		w.keep(r)
		writers := w.changelogs(id)
		go func() {
			r.result.err = w.app.lookUp(ctx, r, writers)
			close(r.opened)
			w.post(func() { w.takeOver(r) })
		}()
	}
}

// changelogs are what the stores of a task write their changes to, by store; nil for
// those without a changelog.
func (w *worker) changelogs(id plan.TaskID) []*client.ProducerTopic {
	var out []*client.ProducerTopic
	for _, spec := range w.app.plan.SubTopologies[id.SubTopology].Stores {
		var topic *client.ProducerTopic
		if !spec.NoChangelog {
			topic = w.producer.Known(plan.ChangelogTopic(w.app.cfg.AppID, spec.Name))
		}
		out = append(out, topic)
	}
	return out
}

// lookUp opens a task's stores and finds the offsets to go on at. It runs beside
// the worker.
func (a *App) lookUp(ctx context.Context, r *running, writers []*client.ProducerTopic) error {
	sub := r.sub()
	partitions := a.sourcePartitions(r.id)
	committed, err := a.client.CommittedOffsets(ctx, a.cfg.AppID, partitions)
	if err != nil {
		return err
	}
	r.result.begins = make([]begin, len(sub.Sources))
	for i, s := range sub.Sources {
		p := r.sources[i].partition
		if r.id.Partition >= a.layout.Partitions[p.Topic] {
			continue
		}
		if o, ok := committed[p]; ok {
			r.result.begins[i] = begin{offset: o.Offset, committed: true, note: o.Metadata}
			continue
		}
		at := client.EarliestOffset
		if s.Start == plan.Latest {
			at = client.LatestOffset
		}
		offset, err := a.client.ListOffset(ctx, p, at)
		if err != nil {
			return err
		}
		r.result.begins[i] = begin{offset: offset}
	}
	warm := a.standbys.claim(r.id)
	defer warm.close()
	for i, spec := range sub.Stores {
		s, err := a.takeUpStore(ctx, r, spec, writers[i], warm)
		if err != nil {
			return fmt.Errorf("store %q: %w", spec.Name, err)
		}
		r.result.stores = append(r.result.stores, s)
	}
	return nil
}

// takeUpStore opens a store of a task, or takes over the warm copy of it.
func (a *App) takeUpStore(ctx context.Context, r *running, spec state.Spec, topic *client.ProducerTopic, warm *warmCopy) (*task.LoggedStore, error) {
	if topic == nil {
		return a.openStore(ctx, r.id, spec, nil)
	}
	if c, ok := warm.find(spec.Name); ok {
		bounds, err := a.changelogBounds(ctx, r.id, spec)
		if err != nil {
			return nil, err
		}
		if c.store.Promote(bounds) {
			warm.take(spec.Name)
			c.writer.topic, c.writer.task = topic, r
			return c.store, nil
		}
		warm.drop(spec.Name)
	}
	return a.openStore(ctx, r.id, spec, &changelogWriter{topic: topic, task: r, partition: r.id.Partition})
}

// openStore opens a store and finds what its changelog holds; writer is nil for a store
// without.
func (a *App) openStore(ctx context.Context, id plan.TaskID, spec state.Spec, writer *changelogWriter) (*task.LoggedStore, error) {
	var log task.Changelog
	var bounds changelog.Bounds
	if writer != nil {
		var err error
		if bounds, err = a.changelogBounds(ctx, id, spec); err != nil {
			return nil, err
		}
		log = writer
	}
	return task.OpenStore(ctx, a.backend(spec), id, spec, log, bounds, a.checkpointInterval(id))
}

// changelogBounds looks up the ends of the changelog of a task's store.
func (a *App) changelogBounds(ctx context.Context, id plan.TaskID, spec state.Spec) (b changelog.Bounds, err error) {
	p := a.changelogPartition(id, spec)
	if b.Start, err = a.client.ListOffset(ctx, p, client.EarliestOffset); err != nil {
		return b, err
	}
	b.End, err = a.client.ListOffset(ctx, p, client.LatestOffset)
	return b, err
}

// changelogPartition is the changelog of a task's store.
func (a *App) changelogPartition(id plan.TaskID, spec state.Spec) client.Partition {
	return client.Partition{Topic: plan.ChangelogTopic(a.cfg.AppID, spec.Name), Partition: id.Partition}
}

// changelogWriter is one partition of a changelog topic. Topic and task are nil as long as
// the store is a standby's, which writes nothing.
type changelogWriter struct {
	topic     *client.ProducerTopic
	task      *running
	partition int32
}

// Append implements task.Changelog.
func (c *changelogWriter) Append(timestamp int64, key, value []byte) error {
	c.task.logged = true
	return c.topic.Append(c.partition, timestamp, key, value, nil)
}

// NextOffset implements task.Changelog.
func (c *changelogWriter) NextOffset() int64 { return c.topic.NextOffset(c.partition) }

// takeOver makes the task of what was found, unless it has been closed since.
func (w *worker) takeOver(r *running) {
	if kept, ok := w.find(r.id); !ok || kept != r {
		return // closed meanwhile; close has given up the stores
	}
	r.cancel()
	if err := r.result.err; err != nil {
		w.app.fail(fmt.Errorf("task %s: open: %w", r.id, err))
		return
	}
	if err := w.begin(r); err != nil {
		w.app.fail(err)
	}
}

// begin makes the task and starts to restore its stores.
func (w *worker) begin(r *running) error {
	sub := r.sub()
	found := r.result
	cfg := task.Config{
		App: w.app.cfg.AppID, Sub: sub, ID: r.id, PartitionOf: client.PartitionOf,
		WallTime:    func() int64 { return w.now.UnixMilli() },
		CacheBytes:  w.app.cacheShare(),
		IdleTimeout: w.app.cfg.IdleTimeout,
		Globals:     w.app.globals.readers(),
		Dropped:     w.app.dropped,
	}
	for _, s := range r.sources {
		cfg.Partitions = append(cfg.Partitions, w.app.layout.Partitions[s.partition.Topic])
	}
	for _, s := range sub.Sinks {
		cfg.Outputs = append(cfg.Outputs, w.producer.Known(s.FullName(w.app.cfg.AppID)))
	}
	for _, s := range found.stores {
		cfg.Stores = append(cfg.Stores, s)
	}
	t, err := task.New(cfg)
	if err != nil {
		return err
	}
	r.task, r.stores, r.phase = t, found.stores, phaseRestoring
	r.fresh = &freshness{seen: w.app.fetcher.Seen}
	for i, b := range found.begins {
		if t.Reads(i) {
			t.Begin(i, b.offset, b.committed, b.note)
			r.fresh.sources = append(r.fresh.sources, freshSource{partition: r.sources[i].partition, committed: b.offset})
		}
	}
	for i, s := range r.stores {
		from, end, reason := s.RestoreFrom()
		if from >= end {
			continue
		}
		message := "restoring a store from its changelog"
		if reason == task.FromStandby {
			message = "catching up with the changelog of a store from its warm copy"
		}
		w.log.Info().Stringer("task", r.id).Str("store", sub.Stores[i].Name).Int64("offsets", end-from).Str("reason", string(reason)).Msg(message)
		p := w.app.changelogPartition(r.id, sub.Stores[i])
		r.restores = append(r.restores, restore{
			partition: p, store: s, name: sub.Stores[i].Name, begin: from, next: from, end: end,
		})
		w.targets[p] = target{task: r, store: len(r.restores) - 1}
		r.reportRestore(&r.restores[len(r.restores)-1])
		// Not to be passed over: the store would miss what the changelog has lost.
		w.app.fetcher.Add(p, from, client.ResetFail, w.inbox)
	}
	return nil
}

// cacheShare is a task's part of the write-back cache.
func (a *App) cacheShare() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return int(a.cfg.CacheBytes / int64(max(1, len(a.owned))))
}

// dropped counts a record that an operator left out.
func (a *App) dropped(operator string, reason plan.DropReason, err error) {
	a.metrics.dropped.WithLabelValues(operator, string(reason)).Inc()
	if err != nil {
		a.log.Debug().Err(err).Str("operator", operator).Str("reason", string(reason)).Msg("left out a record")
	}
}

// checkpointInterval spreads the checkpoints of tasks over time.
func (a *App) checkpointInterval(id plan.TaskID) time.Duration {
	step := a.cfg.CheckpointInterval / 16
	return a.cfg.CheckpointInterval - step*time.Duration((id.SubTopology*3+int(id.Partition))%8)
}

// checkpoint lets the stores make durable what is committed, when it is time.
// Nothing has been written since the commit.
func (w *worker) checkpoint() error {
	now := time.Now()
	var failed []error
	for _, r := range w.tasks {
		if r.phase != phaseRunning || r.dirty() {
			continue
		}
		for _, s := range r.stores {
			if s.CheckpointDue(now) {
				failed = append(failed, s.Checkpoint(now))
			}
		}
	}
	return errors.Join(failed...)
}

// forget takes the tasks of a worker out of what the process owns: they were
// closed though the group had not said so.
func (a *App) forget(worker int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	kept := make(map[plan.TaskID]int, len(a.owned))
	for id, at := range a.owned {
		if at != worker {
			kept[id] = at
		}
	}
	a.owned = kept
}

// writtenTopics are the topics that tasks write, changelogs included.
func (a *App) writtenTopics() []string {
	var names []string
	for i := range a.plan.SubTopologies {
		s := &a.plan.SubTopologies[i]
		for _, sink := range s.Sinks {
			names = append(names, sink.FullName(a.cfg.AppID))
		}
		for _, spec := range s.Stores {
			if !spec.NoChangelog {
				names = append(names, plan.ChangelogTopic(a.cfg.AppID, spec.Name))
			}
		}
	}
	return names
}
