package stream_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/leatlog/leat/stream"
)

func TestPauseAndResume(t *testing.T) {
	c := newCluster(t)
	in := c.topic("lines", 2)
	q := newQueried(t, in)
	ctx := t.Context()
	app := c.start(q.plan, nil)
	app.reach(stream.Running)
	counts := must(stream.Query(app.App, q.counts))(t)
	c.produce(in, lines("word", 100)...)
	lists(t, counts.All(ctx), plain, "word:100")

	app.Pause()
	c.produce(in, lines("word", 100)...)
	eventually(t, func() error { // it has seen that there is more
		h := app.Health()
		if !h.Paused || !slices.ContainsFunc(h.Tasks, func(h stream.TaskHealth) bool { return h.Lag > 0 }) {
			return fmt.Errorf("health %+v", h)
		}
		return nil
	})
	lists(t, counts.All(ctx), plain, "word:100")
	if app.State() != stream.Running {
		t.Errorf("state %s", app.State())
	}
	app.Resume()
	lists(t, counts.All(ctx), plain, "word:200")

	app.Pause()
	c.produce(in, lines("word", 100)...)
	app.stopped() // also while it is paused
	again := c.start(q.plan, nil)
	lists(t, must(stream.Query(again.App, q.counts))(t).All(ctx), plain, "word:300")
}

// sums adds up a family of metrics over its labels.
func sums(t *testing.T, g prometheus.Gatherer) map[string]float64 {
	t.Helper()
	out := make(map[string]float64)
	for _, family := range must(g.Gather())(t) {
		for _, m := range family.Metric {
			out[family.GetName()] += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return out
}

func TestMetricsOfTasksAndStores(t *testing.T) {
	c := newCluster(t)
	in := c.topic("lines", 2)
	q := newQueried(t, in)
	registry := prometheus.NewRegistry()
	app := c.start(q.plan, func(cfg *stream.Config) { cfg.Metrics = registry })
	app.reach(stream.Running)
	c.produce(in, lines("wN", 1000)...)
	eventually(t, func() error {
		got := sums(t, registry)
		// Ten words, three stores: each row is new once, and found in the cache from then on.
		if n := got["leat_stream_cache_hits_total"] + got["leat_stream_cache_misses_total"]; n < 2000 {
			return fmt.Errorf("%v looks at caches", n)
		}
		for _, name := range []string{"store_writes_total", "busy_seconds_total", "cache_bytes", "behind_seconds", "store_bytes", "records_total"} {
			if got["leat_stream_"+name] <= 0 {
				return fmt.Errorf("%s is %v", name, got["leat_stream_"+name])
			}
		}
		return nil
	})
}

func TestRestoreIsReported(t *testing.T) {
	c := newCluster(t)
	in := c.topic("lines", 1)
	q := newQueried(t, in)
	first := c.start(q.plan, nil)
	c.produce(in, lines("wN", 100)...)
	eventually(t, func() error {
		rows, err := list(must(stream.Query(first.App, q.counts))(t).All(t.Context()), plain)
		if err == nil && len(rows) != 10 {
			err = fmt.Errorf("rows %q", rows)
		}
		return err
	})
	first.stopped()
	var mu sync.Mutex
	told := make(map[string][]stream.RestoreProgress)
	second := c.start(q.plan, func(cfg *stream.Config) {
		cfg.OnRestore = func(p stream.RestoreProgress) {
			mu.Lock()
			defer mu.Unlock()
			told[p.Store] = append(told[p.Store], p)
		}
	})
	second.reach(stream.Running)
	mu.Lock()
	defer mu.Unlock()
	for _, store := range []string{"counts", "per-minute", "sessions"} {
		all := told[store]
		if len(all) < 2 || all[0].Restored != 0 || all[len(all)-1].Restored != all[0].Total || all[0].Total == 0 {
			t.Errorf("store %s: %+v", store, all)
		}
	}
}
