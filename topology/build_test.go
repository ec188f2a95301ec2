package topology_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/leatlog/leat/topology"
	"github.com/leatlog/leat/topology/plan"
	"github.com/leatlog/leat/topology/serde"
)

var update = flag.Bool("update", false, "rewrite the golden files in testdata")

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
	}
}

type request struct {
	At    time.Time
	Route string
}

func (r request) time() time.Time { return r.At }
func (r request) route() string   { return r.Route }

type routeStats struct{ Requests int }

func (s routeStats) add(request) routeStats { return routeStats{s.Requests + 1} }

// webTopology is the one of the README, with a little around it.
func webTopology() *topology.Topology {
	t := topology.New()
	httpRequests := topology.NewTopic("http-requests", serde.String, serde.JSON[request]())
	rollups := topology.NewTopic("rollups", serde.Windowed(serde.String, time.Minute), serde.JSON[routeStats]())
	requests := topology.From(t, httpRequests, topology.EventTime(request.time), topology.OnError(topology.DeadLetter("bad-requests")))
	byRoute := topology.GroupBy("by-route", requests, serde.String, request.route)
	stats := topology.Aggregate("route-stats", byRoute.Window(topology.Tumbling(time.Minute).Grace(10*time.Second)),
		serde.JSON[routeStats](), routeStats.add, topology.OnWindowClose())
	topology.To(stats.Stream(), rollups)
	slow := requests.Filter(func(r request) bool { return r.Route == "/slow" }, topology.Named("slow"))
	topology.To(topology.Count("slow-requests", slow.GroupByKey()).Stream(), counts)
	return t
}

// What the web topology leaves behind, byte for byte: a change here refuses the start of
// programs in the field.
func TestManifest(t *testing.T) {
	p, err := webTopology().Build()
	if err != nil {
		t.Fatal(err)
	}
	m, err := p.Manifest("web", map[string]int32{"http-requests": 4, "web-by-route-repartition": 4, "counts": 1}).Encode()
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if err := json.Indent(&text, m, "", "  "); err != nil {
		t.Fatal(err)
	}
	golden(t, "manifest.json", text.String()+"\n")
}

// Each operator that leaves something durable can be renamed, and its state is read as before.
func TestFormerly(t *testing.T) {
	build := func(name func(string) string, former func(string) topology.FormerlyOption) *plan.Manifest {
		top := topology.New()
		a, b := topology.From(top, in), topology.From(top, topology.NewTopic("in-2", serde.String, serde.String))
		n := func(s string) (string, topology.FormerlyOption) { return name(s), former(s) }
		by, was := n("by")
		placed, placedWas := n("placed")
		keyed, keyedWas := n("keyed")
		grouped := topology.GroupBy(by, a, serde.String, func(v string) string { return v }, was)
		count, countWas := n("count")
		topology.Count(count, grouped.Window(topology.Tumbling(time.Minute)), countWas, topology.OnWindowClose())
		again := topology.SelectKey(a, func(v string) string { return v }).WithKeySerde(serde.String)
		reduce, reduceWas := n("reduce")
		topology.Reduce(reduce, again.GroupByKey(topology.Named(keyed), keyedWas), func(a, _ string) string { return a }, reduceWas)
		b = b.Repartition(placed, placedWas)
		left, leftWas := n("left")
		right, rightWas := n("right")
		l, r := topology.ToTable(left, a, leftWas), topology.ToTable(right, b, rightWas)
		foreign, foreignWas := n("foreign")
		topology.JoinForeign(foreign, l, r, func(k, v string) string { return v }, func(a, b string) string { return a + b }, foreignWas)
		groups, groupsWas := n("groups")
		counted, countedWas := n("counted")
		topology.CountTable(counted, topology.GroupTable(groups, l, serde.String, serde.String,
			func(k, v string) (string, string) { return v, k }, groupsWas), countedWas)
		joined, joinedWas := n("joined")
		topology.JoinStreams(joined, a, b, topology.Within(time.Minute), func(a, b string) string { return a + b }, joinedWas)
		versions, versionsWas := n("versions")
		topology.ToVersionedTable(versions, a, time.Minute, versionsWas)
		memory, memoryWas := n("memory")
		topology.Process(a, topology.Processor[string, string]{
			Stores:  []topology.ProcessorStore{topology.NewVersionedStore(memory, serde.String, serde.String, time.Minute, memoryWas)},
			Process: func(*topology.ProcessorContext, *topology.Record[string, string]) error { return nil },
		}, topology.Named("remembering"))
		held, heldWas := n("held")
		l.Suppress(held, topology.UntilTimeLimit(time.Minute), heldWas)
		p, err := top.Build()
		if err != nil {
			t.Fatal(err)
		}
		return p.Manifest("app", nil)
	}
	plain := func(s string) string { return s }
	old := build(plain, func(s string) topology.FormerlyOption { return topology.Formerly("before-" + s) })
	now := build(func(s string) string { return "after-" + s }, func(s string) topology.FormerlyOption { return topology.Formerly("before-" + s) })
	if differences := plan.Compare(old, now); plan.ClassOf(differences) != plan.New || len(differences) == 0 {
		t.Errorf("%d differences", len(differences))
		for _, d := range differences {
			t.Log(d)
		}
	} else {
		for _, d := range differences { // operators without a name of their own are named after the others
			if d.Class == plan.New && !strings.Contains(d.What, "leaves nothing durable") {
				t.Error(d)
			}
		}
	}
	if topics := old.OwnTopics(); !slices.Equal(topics, now.OwnTopics()) || !slices.Contains(topics, "app-before-foreign-subscriptions-changelog") ||
		!slices.Contains(topics, "app-before-by-repartition") {
		t.Errorf("topics %q, and then %q", topics, now.OwnTopics())
	}
}

func TestDescribe(t *testing.T) {
	got, err := webTopology().Describe()
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "describe.txt", got)
	if got, err = webTopology().DOT(); err != nil {
		t.Fatal(err)
	}
	golden(t, "describe.dot", got)
	if got, err = webTopology().Mermaid(); err != nil {
		t.Fatal(err)
	}
	golden(t, "describe.mmd", got)
	text, err := webTopology().JSON()
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "describe.json", string(text)+"\n")
	var trace strings.Builder
	if _, err := webTopology().Build(topology.Trace(&trace)); err != nil {
		t.Fatal(err)
	}
	golden(t, "trace.txt", trace.String())
}

// Adding a stateless operator renames nothing that lasts.
func TestNamesLast(t *testing.T) {
	build := func(more bool) string {
		top := topology.New()
		s := topology.From(top, in)
		if more {
			s = s.Filter(func(string) bool { return true })
			topology.To(s.Filter(func(string) bool { return true }), out)
		}
		g := topology.GroupBy("by-value", s, serde.String, func(v string) string { return v })
		topology.To(topology.Count("n", g).Stream(), counts)
		p, err := top.Build()
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, part := range p.SubTopologies {
			for _, source := range part.Sources {
				names = append(names, source.FullName("app"))
			}
			for _, store := range part.Stores {
				names = append(names, store.Name)
			}
		}
		return strings.Join(names, " ")
	}
	if plain, more := build(false), build(true); plain != more || plain != "in app-by-value-repartition n" {
		t.Errorf("%s\n%s", plain, more)
	}
}

// Every mistake is reported, at once.
func TestMistakes(t *testing.T) {
	top := topology.New()
	s := topology.From(top, in, topology.EventTime(request.time))
	topology.From(top, topology.Topic[string, string]{Name: "half", Key: serde.String})
	s.Filter(nil)
	topology.MapValues[string, string, int](s, nil, topology.Named("lengths"))
	lengths := topology.MapValues(s, func(v string) int { return len(v) })
	topology.Reduce("longest", lengths.GroupByKey(), func(a, b int) int { return max(a, b) })
	topology.GroupBy[string, string, string]("by-nothing", s, nil, nil, topology.Partitions(-1))
	g := s.GroupByKey()
	topology.Count("early", g, topology.OnWindowClose())
	topology.Count("tiny", g.Window(topology.Tumbling(time.Microsecond)))
	topology.Count("wide", g.Window(topology.Hopping(time.Second, time.Minute)))
	topology.Count("graceless", g.Window(topology.Tumbling(time.Second).Grace(-1)))
	topology.Count("short", g.Window(topology.Tumbling(time.Minute)), topology.Retention(time.Second))
	topology.Aggregate("wrong", g, serde.Int64, func(n int64, _ string) int64 { return n }, topology.Initial(func() string { return "" }))
	topology.Count("first", g, topology.Initial(func() int64 { return 1 }))
	s.Merge(topology.From(topology.New(), in))
	_, err := top.Build()
	golden(t, "mistakes.txt", err.Error()+"\n")

	// What only the passes can see.
	top = topology.New()
	s = topology.From(top, in)
	topology.From(top, in)
	topology.Count("n", s.GroupByKey())
	topology.Reduce("n", s.GroupByKey(), func(a, _ string) string { return a })
	topology.Count("per/user", s.GroupByKey())
	_, err = top.Build()
	golden(t, "mistakes-names.txt", err.Error()+"\n")

	top = topology.New()
	s = topology.From(top, in)
	topology.Count("old", s.GroupByKey())
	topology.Count("new", s.GroupByKey(), topology.Formerly("old"))
	topology.Count("one", s.GroupByKey(), topology.Formerly("both"))
	topology.Count("other", s.GroupByKey(), topology.Formerly("both"))
	topology.Count("same", s.GroupByKey(), topology.Formerly("same"))
	topology.Count("slash", s.GroupByKey(), topology.Formerly("a/b"))
	topology.Count("empty", s.GroupByKey(), topology.Formerly(""))
	topology.Count("unnamed", s.GroupByKey(topology.Formerly("by-user")))
	s.Repartition("placed", topology.Formerly("new"))
	_, err = top.Build()
	golden(t, "mistakes-former-names.txt", err.Error()+"\n")

	top = topology.New()
	s = topology.From(top, in)
	rekeyed := topology.SelectKey(s, func(v string) string { return v }).WithKeySerde(serde.String)
	topology.Count("n", rekeyed.GroupByKey())
	topology.Count("typed", topology.GroupBy("by-length", topology.MapValues(s, func(v string) int { return len(v) }), serde.Int64, func(n int) int64 { return int64(n) }))
	topology.Map(s, func(k, v string) (int, int) { return 1, 2 }).Repartition("ints")
	_, err = top.Build()
	golden(t, "mistakes-keys.txt", err.Error()+"\n")

	var mistakes *topology.Error
	if !errors.As(err, &mistakes) || len(mistakes.Mistakes) != 3 {
		t.Errorf("%T with %v", err, mistakes)
	}
	if _, err := topology.New().Describe(); err == nil || err.Error() != "topology: 1 mistake in the program:\n\tthe topology reads no topic: begin with From" {
		t.Errorf("error %v", err)
	}
	if _, err := topology.New().DOT(); err == nil {
		t.Error("drawn without a source")
	}
	if _, err := topology.New().Mermaid(); err == nil {
		t.Error("drawn for Mermaid without a source")
	}
	if _, err := topology.New().JSON(); err == nil {
		t.Error("written as JSON without a source")
	}
}
