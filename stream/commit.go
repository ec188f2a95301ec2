package stream

import (
	"context"
	"errors"

	"github.com/leatlog/leat/stream/client"
	"github.com/leatlog/leat/stream/internal/task"
)

// commit makes everything that the worker's tasks did part of the past, in the
// order of docs/architecture.md, "State and commits": caches into outputs and
// changelogs, acknowledged by the cluster; then the offsets; then the stores. An error leaves the last commit as
// it was: the tasks must be started again from it.
func (w *worker) commit(ctx context.Context) error {
	begin := w.app.cfg.Clock.Now()
	var dirty []*running
	for _, r := range w.tasks {
		if r.dirty() {
			if err := r.task.Prepare(); err != nil {
				return err
			}
			dirty = append(dirty, r)
		}
	}
	if len(dirty) == 0 {
		return nil
	}
	if err := w.producer.Flush(ctx); err != nil {
		return err
	}
	offsets := make(map[client.Partition]client.Offset)
	var list []task.Offset
	for _, r := range dirty {
		list = r.task.Offsets(list[:0])
		for _, o := range list {
			p := client.Partition{Topic: o.Topic, Partition: r.id.Partition}
			offsets[p] = client.Offset{Offset: o.Offset, LeaderEpoch: o.LeaderEpoch, Metadata: o.Note}
		}
	}
	if err := w.app.group.Commit(ctx, offsets); err != nil {
		return err
	}
	var failed []error
	for _, r := range dirty {
		if err := r.task.Committed(); err != nil {
			failed = append(failed, err)
		}
	}
	if err := errors.Join(failed...); err != nil {
		return err
	}
	w.notePurgeable(offsets)
	w.resets = 0
	w.app.metrics.commits.Observe(w.app.cfg.Clock.Now().Sub(begin).Seconds())
	return w.checkpoint()
}

// notePurgeable remembers how far repartition partitions are processed.
func (w *worker) notePurgeable(offsets map[client.Partition]client.Offset) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for p, o := range offsets {
		if w.app.repartition[p.Topic] {
			w.purgeable[p] = o.Offset
		}
	}
}
