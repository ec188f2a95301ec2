package stream_test

import (
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/leatlog/leat/stream"
	"github.com/leatlog/leat/topology"
	"github.com/leatlog/leat/topology/plan"
	"github.com/leatlog/leat/topology/serde"
)

// queried is a topology with a table of every kind that can be queried.
type queried struct {
	plan     *plan.Plan
	counts   *topology.Table[string, int64]
	text     *topology.Table[string, string]
	windows  *topology.Table[topology.WindowedKey[string], int64]
	sessions *topology.Table[topology.WindowedKey[string], int64]
}

func newQueried(t *testing.T, in string) *queried {
	t.Helper()
	top := topology.New()
	lines := topology.From(top, topology.NewTopic(in, serde.String, serde.String))
	words := topology.FlatMapValues(lines, strings.Fields).WithValueSerde(serde.String)
	byWord := topology.GroupBy("by-word", words, serde.String, strings.ToLower)
	q := &queried{
		counts:   topology.Count("counts", byWord),
		windows:  topology.Count("per-minute", byWord.Window(topology.Tumbling(time.Minute).Grace(time.Hour))),
		sessions: topology.Count("sessions", byWord.Window(topology.Session(time.Second).Grace(time.Hour))),
	}
	q.text = topology.MapTable(q.counts.Filter(func(_ string, n int64) bool { return n > 1 }), func(k string, n int64) string { return fmt.Sprint(k, "=", n) })
	var err error
	if q.plan, err = top.Build(); err != nil {
		t.Fatal(err)
	}
	return q
}

// eventually waits until check returns no error.
func eventually(t *testing.T, check func() error) {
	t.Helper()
	deadline := time.Now().Add(40 * time.Second)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// list formats what a range yields.
func list[K, V any](rows iter.Seq2[stream.Entry[K, V], error], format func(stream.Entry[K, V]) string) ([]string, error) {
	var out []string
	for e, err := range rows {
		if err != nil {
			return out, err
		}
		out = append(out, format(e))
	}
	return out, nil
}

// lists waits until a range yields want.
func lists[K, V any](t *testing.T, rows iter.Seq2[stream.Entry[K, V], error], format func(stream.Entry[K, V]) string, want ...string) {
	t.Helper()
	eventually(t, func() error {
		got, err := list(rows, format)
		if err == nil && !slices.Equal(got, want) {
			err = fmt.Errorf("got %q, want %q", got, want)
		}
		return err
	})
}

func plain[V any](e stream.Entry[string, V]) string { return fmt.Sprintf("%s:%v", e.Key, e.Value) }

func inWindow(e stream.Entry[topology.WindowedKey[string], int64]) string {
	return fmt.Sprintf("%s@%d-%d:%d", e.Key.Key, e.Key.Start/1000, e.Key.End/1000, e.Value)
}

func says(second int64, words string) plan.Record {
	return plan.Record{Timestamp: second * 1000, Key: []byte(words), Value: []byte(words)}
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func TestQueriesOfOneProcess(t *testing.T) {
	c := newCluster(t)
	in := c.topic("lines", 3)
	q := newQueried(t, in)
	app := c.start(q.plan, nil)
	ctx := t.Context()
	counts := must(stream.Query(app.App, q.counts))(t)
	app.reach(stream.Running)
	c.produce(in, says(1, "b a c"), says(2, "b d b"), says(61, "e b"), says(300, "b"))

	lists(t, counts.All(ctx), plain, "a:1", "b:5", "c:1", "d:1", "e:1")
	lists(t, counts.All(ctx, stream.Reverse()), plain, "e:1", "d:1", "c:1", "b:5", "a:1")
	lists(t, counts.Range(ctx, "b", "d"), plain, "b:5", "c:1")
	lists(t, must(stream.Query(app.App, q.text))(t).All(ctx), plain, "b:b=5")
	eventually(t, func() error {
		n, found, err := counts.Get(ctx, "b", stream.MaxStaleness(time.Hour))
		if err == nil && (!found || n != 5) {
			t.Fatalf("get: %d, %v", n, found)
		}
		return err
	})
	if _, found, err := counts.Get(ctx, "nobody"); err != nil || found {
		t.Errorf("get of nothing: %v, %v", found, err)
	}
	var apart []string
	for p := range int32(3) {
		rows, err := list(counts.All(ctx, stream.InPartition(p)), plain)
		if err != nil {
			t.Fatal(err)
		}
		apart = append(apart, rows...)
	}
	if slices.Sort(apart); !slices.Equal(apart, []string{"a:1", "b:5", "c:1", "d:1", "e:1"}) {
		t.Errorf("partitions one by one: %q", apart)
	}
	for e, err := range counts.Range(ctx, "b", "c") {
		if err != nil || !e.Timestamp.Equal(time.Unix(300, 0)) {
			t.Errorf("timestamp %v, %v", e.Timestamp, err)
		}
	}

	windows := must(stream.QueryWindows(app.App, q.windows))(t)
	lists(t, windows.Fetch(ctx, "b", time.Unix(0, 0), time.Unix(60, 0)), inWindow, "b@0-60:3", "b@60-120:1")
	lists(t, windows.Fetch(ctx, "b", time.Unix(1, 0), time.Unix(1000, 0), stream.Reverse()), inWindow, "b@300-360:1", "b@60-120:1")
	lists(t, windows.FetchAll(ctx, time.Unix(60, 0), time.Unix(60, 0)), inWindow, "b@60-120:1", "e@60-120:1")
	key := topology.WindowedKey[string]{Key: "b", Window: topology.Window{Start: 60_000, End: 120_000}}
	if n, found, err := windows.Get(ctx, key); err != nil || !found || n != 1 {
		t.Errorf("window: %d, %v, %v", n, found, err)
	}
	sessions := must(stream.QueryWindows(app.App, q.sessions))(t)
	lists(t, sessions.Fetch(ctx, "b", time.Unix(2, 0), time.Unix(299, 0)), inWindow, "b@1-2:3", "b@61-61:1")
	key.Window = topology.Window{Start: 1000, End: 2000}
	if n, found, err := sessions.Get(ctx, key); err != nil || !found || n != 3 {
		t.Errorf("session: %d, %v, %v", n, found, err)
	}
}

func TestQueryErrors(t *testing.T) {
	c := newCluster(t)
	in := c.topic("lines", 1)
	q := newQueried(t, in)
	ctx := t.Context()
	idle := must(stream.New(q.plan, stream.Config{AppID: "idle", Bootstrap: []string{c.addr}}))(t)
	if _, _, err := must(stream.Query(idle, q.counts))(t).Get(ctx, "b"); !errors.Is(err, stream.ErrNotRunning) {
		t.Errorf("before Run: %v", err)
	}
	if _, err := stream.Query(idle, q.windows); err == nil || !strings.Contains(err.Error(), "QueryWindows") {
		t.Errorf("windows as keys: %v", err)
	}
	if _, err := stream.Query(idle, topology.NewKeyValueStore("other", serde.String, serde.String)); !errors.Is(err, stream.ErrNoStore) {
		t.Errorf("no store: %v", err)
	}

	app := c.start(q.plan, nil)
	app.reach(stream.Running)
	counts := must(stream.Query(app.App, q.counts))(t)
	if _, _, err := counts.Get(ctx, "b", stream.MaxStaleness(time.Nanosecond)); !errors.Is(err, stream.ErrStale) {
		t.Errorf("stale: %v", err)
	}
	if _, _, err := counts.Get(ctx, "b", stream.InPartition(7)); !errors.Is(err, stream.ErrNoStore) {
		t.Errorf("no partition: %v", err)
	}
	// An idle task learns that it lacks nothing.
	eventually(t, func() error {
		_, _, err := counts.Get(ctx, "b", stream.MaxStaleness(10*time.Second))
		return err
	})
	app.stopped()
	if _, _, err := counts.Get(ctx, "b"); !errors.Is(err, stream.ErrNotRunning) {
		t.Errorf("after Run: %v", err)
	}
}

// Queries go on beside processing, commits and a task that moves away. What is counted
// never goes back.
func TestQueriesBesideProcessing(t *testing.T) {
	c := newCluster(t)
	in := c.topic("lines", 2)
	q := newQueried(t, in)
	app := c.start(q.plan, func(cfg *stream.Config) { cfg.StateDir = t.TempDir() })
	counts := must(stream.Query(app.App, q.counts))(t)
	app.reach(stream.Running)
	ctx := t.Context()
	var wait sync.WaitGroup
	done := make(chan struct{})
	for range 2 {
		wait.Go(func() {
			last := map[string]int64{}
			for {
				for e, err := range counts.All(ctx) {
					switch {
					case errors.Is(err, stream.ErrNotOwner), errors.Is(err, stream.ErrRestoring):
					case err != nil:
						t.Error(err)
						return
					case e.Value < last[e.Key]:
						t.Errorf("%s went from %d to %d", e.Key, last[e.Key], e.Value)
						return
					default:
						last[e.Key] = e.Value
					}
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	for range 5 {
		c.produce(in, lines("wN", 500)...)
	}
	second := c.start(q.plan, nil)
	second.reach(stream.Running)
	c.produce(in, lines("wN", 500)...)
	other := must(stream.Query(second.App, q.counts))(t)
	eventually(t, func() error { // each word is 300 at whoever has it
		for _, w := range tenWords {
			n, _, err := counts.Get(ctx, w)
			if errors.Is(err, stream.ErrNotOwner) {
				n, _, err = other.Get(ctx, w)
			}
			if err != nil || n != 300 {
				return fmt.Errorf("%s is %d, %v", w, n, err)
			}
		}
		return nil
	})
	close(done)
	wait.Wait()
}
