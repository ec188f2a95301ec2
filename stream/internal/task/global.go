package task

import (
	"context"

	"github.com/leatlog/leat/state"
	"github.com/leatlog/leat/topology/plan"
)

// Global is a global table: the latest value of each key of a topic. Apply and Close are
// for one goroutine, Reader's methods for any.
type Global struct {
	engine state.Engine
	batch  state.Batch
}

// NewGlobal returns the empty table of a topic.
func NewGlobal(ctx context.Context, backend state.Backend, topic string) (*Global, error) {
	engine, err := backend.Open(ctx, "global-"+topic, state.Spec{Name: "global", InMemory: true, NoChangelog: true})
	if err != nil {
		return nil, err
	}
	return &Global{engine: engine}, nil
}

// Apply takes records of a partition, in order. Those without a key are left out; a null
// value removes its key. Nothing is kept of the records' memory.
func (g *Global) Apply(records []plan.Record) error {
	g.batch.Reset()
	for i := range records {
		switch r := &records[i]; {
		case r.Key == nil:
		case r.Value == nil:
			g.batch.Delete(r.Key)
		default:
			g.batch.Put(r.Key, r.Value)
		}
	}
	if g.batch.Len() == 0 {
		return nil
	}
	return g.engine.Apply(&g.batch)
}

// Reader reads the table as it is at the moment. Safe for concurrent use.
func (g *Global) Reader() state.Reader { return g.engine }

// Bytes is the size of all keys and values.
func (g *Global) Bytes() int64 { return g.engine.Size() }

// Close drops the table.
func (g *Global) Close() error { return g.engine.Close() }
