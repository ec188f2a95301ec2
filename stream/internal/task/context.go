package task

import (
	"fmt"

	"github.com/leatlog/leat/state"
	"github.com/leatlog/leat/topology/plan"
)

// taskContext is what a task's operators see of it.
type taskContext struct{ t *Task }

var _ plan.Context = taskContext{}

// Task implements plan.Context.
func (c taskContext) Task() plan.TaskID { return c.t.cfg.ID }

// TopicName implements plan.Context.
func (c taskContext) TopicName(source int) string { return c.t.queues[source].topic }

// Store implements plan.Context.
func (c taskContext) Store(name string) state.Store {
	s, ok := c.t.stores[name]
	if !ok {
		panic(fmt.Sprintf("task %s: sub-topology %d declares no store %q", c.t.cfg.ID, c.t.cfg.Sub.ID, name))
	}
	return s
}

// Global implements plan.Context.
func (c taskContext) Global(topic string) state.Reader {
	g, ok := c.t.cfg.Globals[topic]
	if !ok {
		panic(fmt.Sprintf("task %s: the plan has no global table of topic %q", c.t.cfg.ID, topic))
	}
	return g
}

// Emit implements plan.Context.
func (c taskContext) Emit(i int, r *plan.Record) error {
	t := c.t
	s := &t.sinks[i]
	partition := s.sticky
	if r.Key != nil {
		partition = t.cfg.PartitionOf(r.Key, s.partitions)
	}
	t.emitted++
	if err := s.out.Append(partition, r.Timestamp, r.Key, r.Value, r.Headers); err != nil {
		return fmt.Errorf("sink %q, topic %q: %w", t.cfg.Sub.Sinks[i].Operator, t.cfg.Sub.Sinks[i].FullName(t.cfg.App), err)
	}
	return nil
}

// Advance implements plan.Context.
func (c taskContext) Advance(_ int, timestamp int64) {
	if timestamp > c.t.streamTime {
		c.t.streamTime = timestamp
	}
}

// StreamTime implements plan.Context.
func (c taskContext) StreamTime() int64 { return c.t.streamTime }

// WallTime implements plan.Context.
func (c taskContext) WallTime() int64 { return c.t.cfg.WallTime() }

// Dropped implements plan.Context.
func (c taskContext) Dropped(operator string, reason plan.DropReason, err error) {
	if c.t.cfg.Dropped != nil {
		c.t.cfg.Dropped(operator, reason, err)
	}
}

// CacheBytes implements plan.Context.
func (c taskContext) CacheBytes() int { return c.t.cfg.CacheBytes }

// Changed implements plan.Context.
func (c taskContext) Changed() { c.t.dirty = true }
