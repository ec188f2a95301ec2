package streamtest_test

import (
	"slices"
	"testing"
	"time"

	"github.com/leatlog/leat/stream/streamtest"
	"github.com/leatlog/leat/topology"
	"github.com/leatlog/leat/topology/plan"
	"github.com/leatlog/leat/topology/serde"
)

// sessions counts lines by key and session, in the way that the options say.
func sessions(opts ...topology.AggregateOption) (*topology.Topology, topology.Topic[topology.WindowedKey[string], int64]) {
	results := topology.NewTopic("sessions-out", serde.Session(serde.String), serde.Int64)
	t := topology.New()
	byKey := topology.From(t, lines).GroupByKey()
	table := topology.Count("sessions", byKey.Window(topology.Session(30*time.Second).Grace(10*time.Second)), opts...)
	topology.To(table.Stream(), results)
	return t, results
}

func seconds(k topology.WindowedKey[string]) [2]int {
	return [2]int{int(k.StartTime().Sub(at(0)).Seconds()), int(k.EndTime().Sub(at(0)).Seconds())}
}

func TestSessionsOverRestartsAndCrashes(t *testing.T) {
	top, results := sessions()
	d := streamtest.New(t, top, streamtest.Partitions(3), streamtest.ManualCommit())
	in, out := streamtest.NewInput(d, lines), streamtest.NewOutput(d, results)
	in.Send("a", "1", at(5))
	in.Send("b", "1", at(6))
	in.Send("a", "2", at(40))
	d.Restart() // which commits
	if got := out.Read(); len(got) != 3 {
		t.Fatalf("results %v", got)
	}
	in.Send("a", "3", at(30))
	d.Crash() // and joins the two once more
	d.Commit()
	var got []any
	for _, r := range out.Read() {
		got = append(got, seconds(r.Key), r.Null, r.Value)
	}
	if want := []any{[2]int{5, 5}, true, int64(0), [2]int{40, 40}, true, int64(0), [2]int{5, 40}, false, int64(3)}; !slices.Equal(got, want) {
		t.Errorf("results %v, want %v", got, want)
	}
	store := streamtest.NewSessionStore(d, "sessions", serde.String, serde.Int64)
	if n, ok := store.Get("a", at(5), at(40)); !ok || n != 3 {
		t.Errorf("the session holds %d, %v", n, ok)
	}
	if all := store.All(); len(all) != 2 {
		t.Errorf("the store holds %v", all)
	}
}

// Without transactions a commit that wrote all but the offsets is done again, after a
// restore that must still find what it closed.
func TestWindowsThatClosedInABrokenCommit(t *testing.T) {
	top, results := sessions(topology.OnWindowClose())
	d := streamtest.New(t, top, streamtest.ManualCommit())
	in, out := streamtest.NewInput(d, lines), streamtest.NewOutput(d, results)
	in.Send("a", "1", at(5))
	in.Send("a", "2", at(6))
	d.Commit()
	in.Send("b", "1", at(47))
	d.CrashInCommit()
	if got := out.Read(); len(got) != 1 || got[0].Value != 2 || seconds(got[0].Key) != [2]int{5, 6} {
		t.Errorf("results %v", got)
	}
	d.Restart()
	if got := out.Read(); len(got) != 1 || got[0].Value != 2 {
		t.Errorf("results %v", got)
	}
	in.Send("a", "late", at(6))
	d.Restart()
	if got := out.Read(); len(got) != 0 || d.Dropped("sessions", plan.DropLate) != 1 {
		t.Errorf("results %v", got)
	}

	topTumbling, perMinute := perMinute()
	d = streamtest.New(t, topTumbling, streamtest.ManualCommit())
	inTumbling, outTumbling := streamtest.NewInput(d, lines), streamtest.NewOutput(d, perMinute)
	inTumbling.Send("a", "1", at(5))
	d.Commit()
	inTumbling.Send("b", "1", at(80))
	d.CrashInCommit()
	d.Restart()
	if got := outTumbling.Read(); len(got) != 2 || got[0].Key != got[1].Key || got[0].Value != got[1].Value {
		t.Errorf("results %v", got)
	}
}

// Whatever crashes, each window has its result: once as long as commits are whole, and
// twice if one broke off after it had written.
func TestSuppressLosesNothing(t *testing.T) {
	results := topology.NewTopic("results", serde.Windowed(serde.String, time.Minute), serde.Int64)
	top := topology.New()
	table := topology.Count("minutes", topology.From(top, lines).GroupByKey().Window(topology.Tumbling(time.Minute)))
	topology.To(table.Suppress("final", topology.UntilWindowCloses()).Stream(), results)
	for n, crash := range []func(*streamtest.Driver){(*streamtest.Driver).Crash, (*streamtest.Driver).Restart, (*streamtest.Driver).CrashInCommit} {
		d := streamtest.New(t, top, streamtest.ManualCommit(), streamtest.CacheBytes(200))
		in, out := streamtest.NewInput(d, lines), streamtest.NewOutput(d, results)
		in.Send("a", "1", at(5))
		in.Send("b", "1", at(6))
		crash(d)
		in.Send("a", "2", at(7))
		d.Commit()
		crash(d)
		if got := out.Read(); len(got) != 0 {
			t.Errorf("before its end the window gave %v", got)
		}
		in.Send("a", "3", at(61)) // closes the minute, at a commit
		crash(d)
		d.Commit()
		d.Restart()
		counts := map[string]int{}
		for _, r := range out.Read() {
			counts[r.Key.Key]++
			if r.Value < 1 || r.Key.Start != at(0).UnixMilli() {
				t.Errorf("result %v", r)
			}
		}
		whole := n < 2
		if counts["a"] < 1 || counts["b"] < 1 || whole && len(counts) != 2 || whole && counts["a"]+counts["b"] != 2 {
			t.Errorf("way %d: results by key: %v", n, counts)
		}
		in.Send("x", "1", at(200))
		d.Restart()
		if got := out.Read(); len(got) != 1 || got[0].Key.Key != "a" {
			t.Errorf("results %v, want that of the second minute", got)
		}
	}
}
