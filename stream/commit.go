package stream

import (
	"context"
	"errors"
	"time"

	"github.com/leatlog/leat/stream/client"
	"github.com/leatlog/leat/stream/internal/task"
)

// commit makes everything that the worker's tasks did part of the past, in the
// order of docs/architecture.md, "State and commits": caches into outputs and
// changelogs, acknowledged by the cluster; then the offsets; then, with
// ExactlyOnce, the end of the transaction that holds them; then the stores. After
// an error the tasks must be started again from what is committed.
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
	offsets := make(map[client.Partition]client.Offset)
	var list []task.Offset
	for _, r := range dirty {
		list = r.task.Offsets(list[:0])
		for _, o := range list {
			p := client.Partition{Topic: o.Topic, Partition: r.id.Partition}
			offsets[p] = client.Offset{Offset: o.Offset, LeaderEpoch: o.LeaderEpoch, Metadata: o.Note}
		}
	}
	if err := w.publish(ctx, offsets); err != nil {
		return err
	}
	w.app.failpoint("before store apply")
	var failed []error
	for _, r := range dirty {
		r.logged = false
		if err := r.task.Committed(); err != nil {
			failed = append(failed, err)
		}
		r.fresh.commit(offsets)
	}
	if err := errors.Join(failed...); err != nil {
		return err
	}
	w.notePurgeable(offsets)
	w.resets = 0
	w.app.metrics.commits.Observe(w.app.cfg.Clock.Now().Sub(begin).Seconds())
	w.app.failpoint("before checkpoint")
	err := w.checkpoint()
	w.app.failpoint("after checkpoint")
	return err
}

// publish makes the output and the offsets of a commit count.
func (w *worker) publish(ctx context.Context, offsets map[client.Partition]client.Offset) error {
	w.app.failpoint("before produce")
	if err := w.producer.Flush(ctx); err != nil {
		return err
	}
	w.app.failpoint("after produce")
	if w.app.cfg.Guarantee == AtLeastOnce {
		return w.app.group.Commit(ctx, offsets)
	}
	if err := w.producer.SendOffsets(ctx, w.app.group, offsets); err != nil {
		return err
	}
	w.app.failpoint("after offsets")
	if err := w.producer.EndTransaction(ctx, true); err != nil {
		return err
	}
	w.app.failpoint("after end")
	return nil
}

// abandonTimeout bounds the abort of a transaction at the end of the App: if it
// is not reached, the cluster aborts by the transaction's timeout.
const abandonTimeout = 2 * time.Second

// abandon aborts the transaction that the last commit has left open, so that the
// next owners of the tasks need not wait for its timeout.
func (w *worker) abandon() {
	if !w.producer.InTransaction() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), abandonTimeout)
	defer cancel()
	if err := w.producer.EndTransaction(ctx, false); err != nil {
		w.log.Debug().Err(err).Msg("aborting the transaction failed; the cluster will by its timeout")
	}
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
