package topology_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/leatlog/leat/topology"
	"github.com/leatlog/leat/topology/plan"
	"github.com/leatlog/leat/topology/serde"
)

// streamsTopology joins two streams in each way.
func streamsTopology(within topology.JoinWindows) *topology.Topology {
	top := topology.New()
	a, b := topology.From(top, left), topology.From(top, right)
	write := func(name string, s *topology.Stream[string, string]) {
		topology.To(s.WithValueSerde(serde.String), topology.NewTopic(name, serde.String, serde.String))
	}
	write("inner", topology.JoinStreams("i", a, b, within, func(a, b string) string { return a + b }))
	write("left-join", topology.LeftJoinStreams("l", a, b, within, func(a, b string, found bool) string {
		if !found {
			b = "-"
		}
		return a + b
	}))
	write("outer", topology.OuterJoinStreams("o", a, b, within, func(a string, hasA bool, b string, hasB bool) string {
		if !hasA {
			a = "-"
		}
		if !hasB {
			b = "-"
		}
		return a + b
	}))
	return top
}

func TestStreamStreamJoins(t *testing.T) {
	d := newDriver(t, streamsTopology(topology.Within(10*ms).Grace(5*ms)))
	d.send("left", rec("k", "a", 100))
	d.expect()
	d.send("right", rec("k", "B", 110), rec("k", "C", 111), rec("other", "D", 100))
	d.expect("inner: k=aB @110", "left-join: k=aB @110", "outer: k=aB @110")
	d.commit()
	d.restart()
	// Out of order, but not late: partners that came before it are found, in their order.
	d.send("left", rec("k", "b", 101))
	d.expect("inner: k=bB @110", "inner: k=bC @111", "left-join: k=bB @110", "left-join: k=bC @111", "outer: k=bB @110", "outer: k=bC @111")
	d.send("left", rec("k", "c", 116)) // its own window holds B and C
	d.expect("inner: k=cB @116", "inner: k=cC @116", "left-join: k=cB @116", "left-join: k=cC @116", "outer: k=cB @116", "outer: k=cC @116",
		"outer: other=-D @100") // which waited for a partner until 115 had passed
	d.send("left", rec("x", "z", 116))
	d.commit()
	// z waits until 131 has passed.
	d.send("right", rec("y", "Y", 131))
	d.expect()
	d.send("right", rec("y", "Y", 132))
	d.expect("left-join: x=z- @116", "outer: x=z- @116")
	// Z is not late, but z has its result. The inner join has none to spoil.
	d.send("right", rec("x", "Z", 117))
	d.expect("inner: x=zZ @117")
	// Later than that, nobody waits for it.
	d.send("right", rec("x", "Z", 116))
	d.send("left", rec("k", "late", 116))
	d.expect("dropped by i: late", "dropped by l: late", "dropped by o: late", "dropped by i: late", "dropped by l: late", "dropped by o: late")
	d.send("right", rec("w", "w", 200))
	d.expect("outer: x=-Z @117", "outer: y=-Y @131", "outer: y=-Y @132")
}

func TestStreamStreamJoinOfNulls(t *testing.T) {
	d := newDriver(t, streamsTopology(topology.Within(10*ms)))
	d.send("left", plan.Record{Value: []byte("a"), Timestamp: 5})
	d.expect("left-join: null=a- @5", "outer: null=a- @5", "dropped by i: null-key")
	d.send("right", plan.Record{Value: []byte("b"), Timestamp: 5})
	d.expect("outer: null=-b @5", "dropped by i: null-key", "dropped by l: null-key")
	d.send("left", gone("k", 5))
	d.expect("dropped by i: null-value", "dropped by l: null-value", "dropped by o: null-value")
}

// The window may lie on one side only, and not even hold the record's own time.
func TestStreamStreamJoinWindows(t *testing.T) {
	d := newDriver(t, streamsTopology(topology.Within(0).Before(-2*ms).After(5*ms)))
	d.send("left", rec("k", "a", 10))
	d.send("right", rec("k", "B", 11), rec("k", "C", 12), rec("k", "D", 15), rec("k", "E", 16))
	d.commit()
	got := strings.Join(d.output, "\n")
	for _, want := range []string{"inner: k=aC @12", "inner: k=aD @15", "outer: k=-B @11"} {
		if !strings.Contains(got, want) {
			t.Errorf("there is no %q in\n%s", want, got)
		}
	}
	if n := strings.Count(got, "inner: "); n != 2 {
		t.Errorf("%d inner results in\n%s", n, got)
	}
}

// A stream may be joined with itself: each record is a partner of its own.
func TestStreamStreamSelfJoin(t *testing.T) {
	top := topology.New()
	a := topology.From(top, left)
	topology.To(topology.JoinStreams("self", a, a, topology.Within(10*ms), func(a, b string) string { return a + b }).WithValueSerde(serde.String), right)
	d := newDriver(t, top)
	d.send("left", rec("k", "a", 1), rec("k", "b", 2))
	d.expect("right: k=aa @1", "right: k=ba @2", "right: k=ab @2", "right: k=bb @2")
}

// joinModel is what the joins above are to give.
type joinModel struct {
	before, after, grace, now int64
	kept                      []*modelRecord
	results                   []string
}

type modelRecord struct {
	right       bool
	key, value  string
	at          int64
	joinedLeft  bool // by the left join
	joinedOuter bool
}

func (m *joinModel) deadline(r *modelRecord) int64 {
	if r.right {
		return r.at + m.before + m.grace
	}
	return r.at + m.after + m.grace
}

func (m *joinModel) emit(kind, key, a, b string, at int64) {
	m.results = append(m.results, fmt.Sprintf("%s: %s=%s%s @%d", kind, key, a, b, at))
}

func (m *joinModel) take(r *modelRecord) {
	m.now = max(m.now, r.at)
	if m.deadline(r) < m.now {
		return
	}
	for _, p := range m.kept {
		a, b := p, r
		if p.right {
			a, b = r, p
		}
		if p.right == r.right || p.key != r.key || b.at < a.at-m.before || b.at > a.at+m.after {
			continue
		}
		at, over := max(a.at, b.at), m.deadline(p) < m.now
		m.emit("inner", r.key, a.value, b.value, at)
		if p.right || p.joinedLeft || !over {
			m.emit("left-join", r.key, a.value, b.value, at)
			a.joinedLeft = true
		}
		if p.joinedOuter || !over {
			m.emit("outer", r.key, a.value, b.value, at)
			a.joinedOuter, b.joinedOuter = true, true
		}
	}
	m.kept = append(m.kept, r)
}

func (m *joinModel) end() []string {
	for _, r := range m.kept {
		if m.deadline(r) >= m.now {
			continue
		}
		a, b := r.value, "-"
		if r.right {
			a, b = b, a
		}
		if !r.right && !r.joinedLeft {
			m.emit("left-join", r.key, a, b, r.at)
		}
		if !r.joinedOuter {
			m.emit("outer", r.key, a, b, r.at)
		}
	}
	slices.Sort(m.results)
	return m.results
}

// Whatever comes in whatever order, with caches of any size, over restarts and whenever
// commits are, the results are those of the records and their order alone.
func TestStreamStreamJoinsAgainstModel(t *testing.T) {
	for seed := range uint64(60) {
		random := rand.New(rand.NewPCG(seed, 0))
		m := &joinModel{before: random.Int64N(40), after: random.Int64N(40), grace: random.Int64N(30)}
		d := newDriver(t, streamsTopology(topology.Within(time.Duration(m.before)*ms).After(time.Duration(m.after)*ms).Grace(time.Duration(m.grace)*ms)))
		d.cacheBytes = 1 << (4 + random.IntN(14))
		d.restart()
		at, tail := int64(0), "."
		if seed%6 == 0 {
			tail = strings.Repeat(".", 20<<10) // no two in a row of the store
		}
		for n := range 400 {
			at += random.Int64N(5)
			r := &modelRecord{right: random.IntN(2) == 0, key: fmt.Sprint("k", random.IntN(5)), value: fmt.Sprint(n, tail), at: max(0, at-random.Int64N(80))}
			m.take(r)
			topic := "left"
			if r.right {
				topic = "right"
			}
			d.send(topic, rec(r.key, r.value, r.at))
			switch random.IntN(20) {
			case 0:
				d.commit()
			case 1:
				d.commit()
				d.restart()
			}
		}
		// Far past every window but the last record's.
		last := &modelRecord{key: "last", value: "x", at: at + 1000}
		m.take(last)
		d.send("left", rec(last.key, last.value, last.at))
		d.commit()
		want := m.end()
		slices.Sort(d.output)
		if !slices.Equal(d.output, want) {
			t.Fatalf("seed %d: got %d results, want %d\n%s", seed, len(d.output), len(want), firstDifference(d.output, want))
		}
		for _, task := range d.tasks {
			for name, store := range task.stores {
				if rows := store.rows(); len(rows) > 1 {
					t.Errorf("seed %d: store %s keeps %v", seed, name, rows)
				}
			}
		}
	}
}

func firstDifference(got, want []string) string {
	for i := range max(len(got), len(want)) {
		g, w := "nothing", "nothing"
		if i < len(got) {
			g = got[i]
		}
		if i < len(want) {
			w = want[i]
		}
		if g != w {
			return fmt.Sprintf("at %d: got %s, want %s", i, g, w)
		}
	}
	return ""
}

func TestMistakesOfStreamJoins(t *testing.T) {
	top := topology.New()
	a, b := topology.From(top, left), topology.From(top, right)
	join := func(a, b string) string { return a + b }
	topology.JoinStreams[string, string, string, string]("nothing", a, b, topology.Within(ms), nil)
	topology.JoinStreams("odd", a, b, topology.Within(time.Microsecond), join)
	topology.JoinStreams("backwards", a, b, topology.Within(ms).Before(-2*ms), join)
	topology.JoinStreams("graceless", a, b, topology.Within(ms).Grace(-ms), join)
	topology.JoinStreams("closing", a, b, topology.Within(ms), join, topology.OnWindowClose())
	topology.JoinStreams("afar", a, topology.From(topology.New(), right), topology.Within(ms), join)
	topology.JoinStreams("unwritten", a, topology.MapValues(b, func(v string) int { return len(v) }), topology.Within(ms), func(a string, n int) string { return a })
	_, err := top.Build()
	golden(t, "mistakes-stream-joins.txt", err.Error()+"\n")
}
