package stream_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"github.com/leatlog/leat/stream"
	"github.com/leatlog/leat/stream/client"
	"github.com/leatlog/leat/topology"
	"github.com/leatlog/leat/topology/plan"
	"github.com/leatlog/leat/topology/serde"
)

// wordCount counts words through a repartition topic.
func wordCount(t *testing.T, in, out string, options ...topology.AggregateOption) *plan.Plan {
	t.Helper()
	top := topology.New()
	text := topology.From(top, topology.NewTopic(in, serde.String, serde.String))
	words := topology.FlatMapValues(text, strings.Fields).WithValueSerde(serde.String)
	byWord := topology.GroupBy("by-word", words, serde.String, strings.ToLower)
	topology.To(topology.Count("word-counts", byWord, options...).Stream(), topology.NewTopic(out, serde.String, serde.Int64))
	p, err := top.Build()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// counts follows the output of wordCount.
type counts struct {
	latest  map[string]int64
	records int
}

func newCounts() *counts { return &counts{latest: make(map[string]int64)} }

func (c *counts) see(r plan.Record) {
	c.records++
	c.latest[string(r.Key)] = int64(binary.BigEndian.Uint64(r.Value))
}

// reach reads until every one of the words is counted to n.
func (c *counts) reach(r *reader, n int64, words ...string) {
	r.t.Helper()
	reached := func() bool {
		return !slices.ContainsFunc(words, func(w string) bool { return c.latest[w] != n })
	}
	if !reached() {
		r.until(fmt.Sprintf("a count of %d for %v", n, words), func(rec plan.Record) bool {
			c.see(rec)
			return reached()
		})
	}
}

var tenWords = []string{"w0", "w1", "w2", "w3", "w4", "w5", "w6", "w7", "w8", "w9"}

func TestWordCountOverFourPartitions(t *testing.T) {
	c := newCluster(t)
	in, out := c.topic("lines", 4), c.topic("counts", 4)
	registry := prometheus.NewRegistry()
	app := c.start(wordCount(t, in, out), func(cfg *stream.Config) { cfg.Metrics = registry })
	app.reach(stream.Running)
	c.produce(in, lines("wN and", 1000)...)
	r, got := c.reader(out), newCounts()
	got.reach(r, 1000, "and")
	got.reach(r, 100, tenWords...)
	// The cache combines updates: far fewer results than words.
	if got.records > 1000 {
		t.Errorf("%d results for 2000 words", got.records)
	}
	app.stopped()
	if app.State() != stream.Stopped {
		t.Errorf("state = %s", app.State())
	}
	if n := testutil.CollectAndCount(registry); n != 0 {
		t.Errorf("%d metrics are left after the stop", n)
	}
	if err := app.Run(t.Context()); !errors.Is(err, stream.ErrRunAgain) {
		t.Errorf("second Run: %v", err)
	}
}

func TestStopLeavesNothingBehind(t *testing.T) {
	c := newCluster(t)
	in, out := c.topic("lines", 2), c.topic("counts", 2)
	before := goleak.IgnoreCurrent()
	app := c.start(wordCount(t, in, out), func(cfg *stream.Config) { cfg.StateDir = t.TempDir() })
	app.reach(stream.Running)
	app.stopped()
	goleak.VerifyNone(t, before)
	early := c.start(wordCount(t, in, out), nil)
	early.stopped() // while it starts
	goleak.VerifyNone(t, before)
}

func TestTwoProcessesShareTasksAndOneLeaves(t *testing.T) {
	c := newCluster(t)
	in, out := c.topic("lines", 4), c.topic("counts", 4)
	p := wordCount(t, in, out)
	first := c.start(p, nil)
	first.reach(stream.Running)
	r, got := c.reader(out), newCounts()
	c.produce(in, lines("wN", 100)...)
	got.reach(r, 10, tenWords...)

	second := c.start(p, nil)
	second.reach(stream.Running)
	c.produce(in, lines("wN", 100)...)
	got.reach(r, 20, tenWords...)
	d, err := c.client.DescribeGroup(t.Context(), c.prefix+"app")
	if err != nil || len(d.Members) != 2 {
		t.Fatalf("group %+v, %v", d, err)
	}
	for _, m := range d.Members {
		if len(m.Partitions) != 4 { // two tasks of each sub-topology
			t.Errorf("member %s has %v", m.ID, m.Partitions)
		}
	}

	first.stopped()
	c.produce(in, lines("wN", 100)...)
	got.reach(r, 30, tenWords...)
}

func TestRestartGoesOnFromDisk(t *testing.T) {
	c := newCluster(t)
	in, out := c.topic("lines", 2), c.topic("counts", 2)
	p := wordCount(t, in, out)
	dir := t.TempDir()
	r, got := c.reader(out), newCounts()
	for round := range int64(3) {
		var restored int64
		app := c.start(p, func(cfg *stream.Config) {
			cfg.StateDir = dir
			cfg.OnRestore = func(p stream.RestoreProgress) {
				if p.Restored == p.Total { // its end
					restored += p.Total
				}
			}
		})
		c.produce(in, lines("wN", 100)...)
		got.reach(r, 10*(round+1), tenWords...)
		app.stopped()
		// The marker that ends the last transaction lies behind what is checkpointed, one
		// for each partition; no record does.
		if markers := int64(2); restored > markers || c.guarantee == stream.AtLeastOnce && restored != 0 {
			t.Errorf("round %d: %d offsets were restored after a clean stop", round, restored)
		}
	}
}

func TestLostDiskIsRestoredFromTheChangelog(t *testing.T) {
	c := newCluster(t)
	in, out := c.topic("lines", 2), c.topic("counts", 2)
	p := wordCount(t, in, out)
	r, got := c.reader(out), newCounts()
	for round := range int64(2) {
		app := c.start(p, func(cfg *stream.Config) { cfg.StateDir = t.TempDir() })
		c.produce(in, lines("wN", 100)...)
		got.reach(r, 10*(round+1), tenWords...)
		app.stopped()
	}
}

// Windows close once, although the process restarts in between; a window that
// was open goes on.
func TestWindowsCloseOnceOverRestarts(t *testing.T) {
	c := newCluster(t)
	in, out := c.topic("in", 1), c.topic("out", 1)
	top := topology.New()
	byKey := topology.From(top, topology.NewTopic(in, serde.String, serde.String)).GroupByKey()
	minutes := topology.Count("minutes", byKey.Window(topology.Tumbling(time.Minute)), topology.OnWindowClose())
	results := topology.NewTopic(out, serde.Windowed(serde.String, time.Minute), serde.Int64)
	topology.To(minutes.Stream(), results)
	p, err := top.Build()
	if err != nil {
		t.Fatal(err)
	}
	minute := func(n int64) plan.Record {
		return plan.Record{Timestamp: n * 60_000, Key: []byte("k"), Value: []byte("v")}
	}
	dir := t.TempDir()
	r := c.reader(out)
	var got []string
	for round := range int64(4) {
		if round == 3 {
			dir = t.TempDir() // the disk is lost: what was closed is known from the changelog
		}
		app := c.start(p, func(cfg *stream.Config) { cfg.StateDir = dir })
		app.reach(stream.Running)
		var records []plan.Record
		if round > 0 {
			records = append(records, minute(round-1)) // late
		}
		c.produce(in, append(records, minute(round), minute(round), minute(round+1))...) // the last opens a window
		r.until("a closed window", func(rec plan.Record) bool {
			key, err := results.Key.Decode(rec.Key)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, fmt.Sprint(key.Window.Start/60_000, "=", binary.BigEndian.Uint64(rec.Value)))
			return true
		})
		app.stopped()
	}
	// Each window after the first holds the record that opened it and two more.
	if want := []string{"0=2", "1=3", "2=3", "3=3"}; !slices.Equal(got, want) {
		t.Errorf("closed windows %q, want %q", got, want)
	}
}

// A killed process loses nothing; with exactly-once nothing is counted twice
// either.
func TestKillKeepsTheGuarantee(t *testing.T) {
	c := newCluster(t)
	in, out := c.topic("lines", 4), c.topic("counts", 4)
	p := wordCount(t, in, out)
	dir := t.TempDir()
	r, got := c.reader(out), newCounts()
	onDisk := func(cfg *stream.Config) { cfg.StateDir = dir; cfg.InstanceID = "static" }
	app := c.start(p, onDisk)
	app.reach(stream.Running)
	sent := int64(0)
	for range 3 {
		c.produce(in, lines("wN", 500)...)
		sent += 50
		r.until("a first result", func(rec plan.Record) bool { got.see(rec); return true })
		app.kill()
		if err := app.wait(); err == nil || !strings.Contains(err.Error(), "killed") {
			t.Fatalf("killed app ended with %v", err)
		}
		app = c.start(p, onDisk) // the static member comes back
		app.reach(stream.Running)
	}
	c.produce(in, lines("end", 1)...)
	r.until("the end", func(rec plan.Record) bool {
		got.see(rec)
		for _, w := range tenWords {
			if got.latest[w] < sent {
				return false
			}
			if got.latest[w] > sent && c.guarantee == stream.ExactlyOnce {
				t.Fatalf("%q is counted %d times, not %d", w, got.latest[w], sent)
			}
		}
		return got.latest["end"] >= 1
	})
}

func TestOperatorErrorStopsTheApp(t *testing.T) {
	c := newCluster(t)
	in, out := c.topic("in", 1), c.topic("out", 1)
	top := topology.New()
	parsed := topology.MapValuesRecord(topology.From(top, topology.NewTopic(in, serde.String, serde.String)),
		func(r *topology.Record[string, string]) (string, error) {
			if r.Value == "w3" {
				return "", errors.New("cannot parse")
			}
			return r.Value, nil
		}, topology.Named("parse"))
	topology.To(parsed, topology.NewTopic(out, serde.String, serde.String))
	p, err := top.Build()
	if err != nil {
		t.Fatal(err)
	}
	var reported error
	app := c.start(p, func(cfg *stream.Config) { cfg.OnError = func(err error) { reported = err } })
	c.produce(in, lines("wN", 5)...)
	err = app.wait()
	var operator *plan.OperatorError
	if !errors.As(err, &operator) || operator.Operator != "parse" || operator.Topic != in || operator.Partition != 0 || operator.Offset != 3 {
		t.Fatalf("err = %v", err)
	}
	if app.State() != stream.Failed || !errors.Is(reported, err) {
		t.Errorf("state %s, reported %v", app.State(), reported)
	}
}

func TestStartErrors(t *testing.T) {
	c := newCluster(t)
	in := c.topic("in", 2)
	missing := c.start(wordCount(t, in, c.prefix+"missing"), nil)
	if err := missing.wait(); err == nil || !strings.Contains(err.Error(), "does not exist: create it first") {
		t.Errorf("missing topic: %v", err)
	}
	out := c.topic("out", 1)
	c.topic("app-word-counts-changelog", 7)
	wrong := c.start(wordCount(t, in, out), nil)
	if err := wrong.wait(); err == nil || !strings.Contains(err.Error(), "has 7 partitions, the topology needs 2") {
		t.Errorf("wrong partitions: %v", err)
	}
}

func TestConfigIsChecked(t *testing.T) {
	p := &plan.Plan{SubTopologies: []plan.SubTopology{{}}}
	_, err := stream.New(p, stream.Config{AppID: "a b", Guarantee: 7, CommitInterval: -time.Second, Workers: 2000})
	for _, want := range []string{"AppID is \"a b\"", "Bootstrap is empty", "Guarantee is 7", "CommitInterval is -1s", "Workers is 2000"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
	if _, err := stream.New(&plan.Plan{}, stream.Config{AppID: "a", Bootstrap: []string{"x:1"}}); err == nil {
		t.Error("an empty plan is taken")
	}
}

// A cluster without transactions is refused with what to do.
func TestExactlyOnceNeedsTransactions(t *testing.T) {
	c := newCluster(t)
	if c.guarantee == stream.ExactlyOnce {
		t.Skip("the cluster has transactions")
	}
	in, out := c.topic("in", 1), c.topic("out", 1)
	app := c.start(wordCount(t, in, out), func(cfg *stream.Config) { cfg.Guarantee = stream.ExactlyOnce })
	err := app.wait()
	if !errors.Is(err, client.ErrNoTransactions) || !strings.Contains(err.Error(), "set Guarantee to AtLeastOnce") {
		t.Errorf("err = %v", err)
	}
}
