package streamtest

import (
	"context"

	"github.com/leatlog/leat/stream/internal/task"
)

// global is a global table and how much of each partition of its topic it has.
type global struct {
	*task.Global
	next []int64
}

// openGlobals reads the topics of the global tables.
func (d *Driver) openGlobals() error {
	d.globals = make(map[string]*global)
	for _, topic := range d.plan.Globals {
		g, err := task.NewGlobal(context.Background(), d.backend, topic)
		if err != nil {
			return err
		}
		d.globals[topic] = &global{g, make([]int64, len(d.log.topics[topic]))}
	}
	return d.followGlobals()
}

// followGlobals has the global tables hold what their topics do.
func (d *Driver) followGlobals() error {
	for topic, g := range d.globals {
		for p := range g.next {
			records := d.log.partition(topic, int32(p))
			if err := g.Apply(records[g.next[p]:]); err != nil {
				return err
			}
			g.next[p] = int64(len(records))
		}
	}
	return nil
}
