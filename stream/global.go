package stream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/leatlog/leat/state"
	"github.com/leatlog/leat/stream/client"
	"github.com/leatlog/leat/stream/internal/task"
)

// globals are the global tables of a process, and what follows their topics. Every process
// reads every partition, outside of the group.
type globals struct {
	app     *App
	tables  map[string]*task.Global
	fetcher *client.Fetcher
	inbox   *client.Inbox
	feeds   map[client.Partition]*globalFeed
	fetched []*client.Fetched
	stop    context.CancelFunc
	done    chan struct{} // closed when the following has ended
}

// globalFeed is a partition of a global table's topic.
type globalFeed struct {
	feed
	next, end int64 // the table is restored when next reaches end
}

// openGlobals reads the topics of all global tables to their ends, and follows them from
// then on. ctx bounds the first.
func (a *App) openGlobals(ctx context.Context) error {
	if len(a.plan.Globals) == 0 {
		return nil
	}
	follow, stop := context.WithCancel(context.Background())
	g := &globals{
		app: a, tables: make(map[string]*task.Global), inbox: client.NewInbox(), feeds: make(map[client.Partition]*globalFeed),
		// Its own: the same partition may be the source of a task.
		fetcher: a.client.NewFetcher(client.FetcherConfig{BufferBytes: a.cfg.BufferBytes, ReadCommitted: true}),
		stop:    stop, done: make(chan struct{}),
	}
	a.globals = g
	err := g.restore(ctx)
	if err != nil {
		close(g.done)
		return err
	}
	go func() {
		defer close(g.done)
		for g.await(follow) == nil {
			if err := g.take(); err != nil {
				a.fail(err)
				return
			}
		}
	}()
	return nil
}

// restore has every table hold what its topic held at the beginning.
func (g *globals) restore(ctx context.Context) error {
	begin := time.Now()
	topics, err := g.app.client.Topics(ctx, g.app.plan.Globals...)
	if err != nil {
		return err
	}
	for _, name := range g.app.plan.Globals {
		t, ok := topics[name]
		if !ok {
			return fmt.Errorf("topic %q of a global table does not exist: create it, empty if need be", name)
		}
		if g.tables[name], err = task.NewGlobal(ctx, g.app.memory, name); err != nil {
			return fmt.Errorf("global table of %q: %w", name, err)
		}
		for i := range t.Partitions {
			if err := g.add(ctx, client.Partition{Topic: name, Partition: int32(i)}); err != nil {
				return err
			}
		}
	}
	for !g.restored() {
		if err := g.await(ctx); err != nil {
			return err
		}
		if err := g.take(); err != nil {
			return err
		}
	}
	for name, table := range g.tables {
		g.app.log.Info().Str("topic", name).Int64("bytes", table.Bytes()).Dur("took", time.Since(begin)).Msg("restored a global table")
	}
	return nil
}

// add begins to read a partition.
func (g *globals) add(ctx context.Context, p client.Partition) error {
	ends, err := g.app.client.ListOffsets(ctx, []client.Partition{p}, client.LatestOffset, true)
	if err != nil {
		return err
	}
	begin, err := g.app.client.ListOffset(ctx, p, client.EarliestOffset)
	if err != nil {
		return err
	}
	g.feeds[p] = &globalFeed{next: begin, end: ends[p]}
	g.fetcher.Add(p, begin, client.ResetEarliest, g.inbox)
	return nil
}

func (g *globals) restored() bool {
	for _, f := range g.feeds {
		if f.next < f.end {
			return false
		}
	}
	return true
}

// await waits for something to take.
func (g *globals) await(ctx context.Context) error {
	select {
	case <-g.inbox.Ready():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// take applies what was fetched.
func (g *globals) take() error {
	g.fetched = g.inbox.Take(g.fetched[:0])
	for i, f := range g.fetched {
		g.fetched[i] = nil
		feed := g.feeds[f.Partition]
		feed.backlog = append(feed.backlog, f)
	}
	for p, f := range g.feeds {
		for {
			moved, err := f.fill()
			if err != nil {
				return fmt.Errorf("global table of %q: partition %d: %w", p.Topic, p.Partition, err)
			}
			if !moved {
				break
			}
			if err := g.tables[p.Topic].Apply(f.chunk.Records); err != nil {
				return fmt.Errorf("global table of %q: %w", p.Topic, err)
			}
			f.next = max(f.next, f.chunk.Next)
		}
	}
	return nil
}

// readers are what tasks look up.
func (g *globals) readers() map[string]state.Reader {
	if g == nil {
		return nil
	}
	out := make(map[string]state.Reader, len(g.tables))
	for name, table := range g.tables {
		out[name] = table.Reader()
	}
	return out
}

// close ends the following and drops the tables; the tasks have ended.
func (g *globals) close() error {
	g.stop()
	<-g.done
	g.fetcher.Close()
	var failed []error
	for _, f := range g.feeds {
		f.close()
	}
	for _, table := range g.tables {
		failed = append(failed, table.Close())
	}
	return errors.Join(failed...)
}
