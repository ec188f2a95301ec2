package topology_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/leatlog/leat/state"
	"github.com/leatlog/leat/topology"
	"github.com/leatlog/leat/topology/plan"
	"github.com/leatlog/leat/topology/serde"
)

// benchContext is a task that throws its output away.
type benchContext struct {
	store      state.Store
	streamTime int64
	emitted    int
	late       int
}

func (c *benchContext) Task() plan.TaskID              { return plan.TaskID{} }
func (c *benchContext) TopicName(int) string           { return "in" }
func (*benchContext) Global(topic string) state.Reader { panic("no global table of " + topic) }

func (c *benchContext) Store(string) state.Store               { return c.store }
func (c *benchContext) Emit(int, *plan.Record) error           { c.emitted++; return nil }
func (c *benchContext) Advance(_ int, timestamp int64)         { c.streamTime = max(c.streamTime, timestamp) }
func (c *benchContext) StreamTime() int64                      { return c.streamTime }
func (c *benchContext) WallTime() int64                        { return 0 }
func (c *benchContext) Changed()                               {}
func (c *benchContext) CacheBytes() int                        { return 64 << 20 }
func (c *benchContext) Dropped(string, plan.DropReason, error) { c.late++ }

// benchmark runs records through the first sub-topology in runs of 1000, with a
// flush every 100 runs, and reports the cost per record.
func benchmark(b *testing.B, top *topology.Topology, record func(i int) plan.Record) {
	benchmarkOverTime(b, top, 0, record)
}

// benchmarkOverTime is benchmark with records that are shifted in time each time they come
// again.
func benchmarkOverTime(b *testing.B, top *topology.Topology, shift int64, record func(i int) plan.Record) {
	p, err := top.Build()
	if err != nil {
		b.Fatal(err)
	}
	ctx := &benchContext{store: newFakeStore(), streamTime: -1}
	processor, err := p.SubTopologies[0].New(ctx)
	if err != nil {
		b.Fatal(err)
	}
	const run, keep = 1000, 100
	runs := make([][]plan.Record, keep)
	for i := range runs {
		for j := range run {
			runs[i] = append(runs[i], record(i*run+j))
		}
	}
	b.ReportAllocs()
	records := 0
	for i := 0; b.Loop(); i++ {
		if shift > 0 && i%keep == 0 {
			b.StopTimer()
			for _, r := range runs {
				for j := range r {
					r[j].Timestamp += shift
				}
			}
			b.StartTimer()
		}
		if err := processor.Process(0, runs[i%keep]); err != nil {
			b.Fatal(err)
		}
		if err := processor.Punctuate(); err != nil {
			b.Fatal(err)
		}
		if i%keep == keep-1 {
			if err := processor.Flush(); err != nil {
				b.Fatal(err)
			}
		}
		records += run
	}
	if ctx.late > 0 {
		b.Fatalf("%d records dropped", ctx.late)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(records), "ns/record")
}

func BenchmarkStateless(b *testing.B) {
	text := func(i int) plan.Record { return rec(fmt.Sprintf("user-%04d", i%1000), "GET /index.html", int64(i)) }
	b.Run("strings", func(b *testing.B) {
		top := topology.New()
		s := topology.From(top, in).Filter(func(v string) bool { return v[0] == 'G' })
		topology.To(topology.MapValues(s, func(v string) string { return v[4:] }), out)
		benchmark(b, top, text)
	})
	b.Run("int64", func(b *testing.B) {
		top := topology.New()
		numbers := topology.NewTopic("numbers", serde.Int64, serde.Int64)
		s := topology.From(top, numbers).Filter(func(v int64) bool { return v >= 0 })
		topology.To(topology.MapValues(s, func(v int64) int64 { return v + 1 }), numbers)
		benchmark(b, top, func(i int) plan.Record {
			return rec("\x00\x00\x00\x00\x00\x00\x00\x05", "\x00\x00\x00\x00\x00\x00\x00\x05", int64(i))
		})
	})
}

func BenchmarkCount(b *testing.B) {
	for _, keys := range []int{1000, 50_000} {
		b.Run(fmt.Sprintf("keys=%d", keys), func(b *testing.B) {
			benchmark(b, countTopology(), func(i int) plan.Record {
				return rec(fmt.Sprintf("user-%06d", i*7919%keys), "GET /index.html", int64(i))
			})
		})
	}
	b.Run("int64-keys=1000", func(b *testing.B) {
		top := topology.New()
		numbers := topology.NewTopic("numbers", serde.Int64, serde.Int64)
		topology.To(topology.Count("n", topology.From(top, numbers).GroupByKey()).Stream(), numbers)
		benchmark(b, top, func(i int) plan.Record {
			key, _ := serde.Int64.Append(nil, int64(i*7919%1000))
			return plan.Record{Key: key, Value: key, Timestamp: int64(i)}
		})
	})
}

// A thousand keys in one open window.
func BenchmarkWindowedCount(b *testing.B) {
	record := func(i int) plan.Record {
		return rec(fmt.Sprintf("user-%06d", i*7919%1000), "GET /index.html", 60_000+int64(i%1000))
	}
	windows := topology.Tumbling(10 * time.Second).Grace(time.Second)
	b.Run("update", func(b *testing.B) {
		benchmark(b, windowTopology(windows, 10*time.Second), record)
	})
	b.Run("close", func(b *testing.B) {
		benchmark(b, windowTopology(windows, 10*time.Second, topology.OnWindowClose()), record)
	})
}

// A thousand keys. In "grow" each has one session that grows with each of its records; in
// "merge" each third record joins two sessions; in "close" a session has four records and
// is emitted when it closes.
func BenchmarkSessionAggregate(b *testing.B) {
	sessions := func(w topology.Windows, opts ...topology.AggregateOption) *topology.Topology {
		top := topology.New()
		opts = append(opts, topology.Merger(func(a, b int64) int64 { return a + b }))
		table := topology.Aggregate("s", topology.From(top, in).GroupByKey().Window(w), serde.Int64,
			func(n int64, v string) int64 { return n + int64(len(v)) }, opts...)
		topology.To(table.Stream(), topology.NewTopic("out", serde.Session(serde.String), serde.Int64))
		return top
	}
	key := func(i int) string { return fmt.Sprintf("user-%06d", i%1000) }
	run := func(name string, top *topology.Topology, at func(round int) int) {
		b.Run(name, func(b *testing.B) {
			benchmarkOverTime(b, top, 10_000, func(i int) plan.Record {
				return rec(key(i), "GET /index.html", int64(at(i/1000)))
			})
		})
	}
	run("grow", sessions(topology.Session(time.Second)), func(round int) int { return 100 * round })
	run("merge", sessions(topology.Session(10*ms).Grace(10*time.Second)), func(round int) int {
		return 100*(round/3) + []int{0, 20, 10}[round%3]
	})
	run("close", sessions(topology.Session(10*ms), topology.OnWindowClose()), func(round int) int {
		return 100*(round/4) + round%4
	})
}

// A thousand keys, each with a record every 100 ms, in windows of half a second: each
// record is in a dozen windows and opens two.
func BenchmarkSlidingCount(b *testing.B) {
	top := topology.New()
	table := topology.Count("s", topology.From(top, in).GroupByKey().Window(topology.Sliding(500*ms)))
	topology.To(table.Stream(), topology.NewTopic("out", serde.Windowed(serde.String, 500*ms), serde.Int64))
	benchmarkOverTime(b, top, 10_000, func(i int) plan.Record {
		return rec(fmt.Sprintf("user-%06d", i%1000), "GET /index.html", int64(500+i/1000*100))
	})
}

// A hundred records a millisecond of a thousand keys, one in two of which finds a partner.
func BenchmarkStreamStreamJoin(b *testing.B) {
	top := topology.New()
	s := topology.From(top, in)
	odd := s.Filter(func(v string) bool { return v[0] == '1' })
	joined := topology.JoinStreams("pairs", s, odd, topology.Within(5*ms), func(a, _ string) string { return a })
	topology.To(joined.WithValueSerde(serde.String), out)
	at := int64(0)
	benchmarkOverTime(b, top, 1000, func(i int) plan.Record {
		if i%100 == 0 {
			at++
		}
		return rec(fmt.Sprintf("user-%06d", i*7919%1000), fmt.Sprint(i%2, " GET /index.html"), at)
	})
}

// A thousand keys; one record in a hundred updates the table, all others look it up, in the
// order of their times, so that what they find is the latest and in the cache.
func BenchmarkVersionedJoin(b *testing.B) {
	for _, versioned := range []bool{false, true} {
		b.Run(fmt.Sprintf("versioned=%v", versioned), func(b *testing.B) {
			top := topology.New()
			s := topology.From(top, in)
			updates := s.Filter(func(v string) bool { return v[0] == 'u' })
			var table *topology.Table[string, string]
			if versioned {
				table = topology.ToVersionedTable("t", updates, time.Second)
			} else {
				table = topology.ToTable("t", updates)
			}
			clicks := s.Filter(func(v string) bool { return v[0] != 'u' })
			joined := topology.LeftJoinTable(clicks, table, func(v, _ string, _ bool) string { return v })
			topology.To(joined.WithValueSerde(serde.String), out)
			benchmarkOverTime(b, top, 100_000, func(i int) plan.Record {
				value := "GET /index.html"
				if i%100 == 0 {
					value = "user of that name"
				}
				return rec(fmt.Sprintf("user-%06d", i*7919/100%1000), value, int64(i))
			})
		})
	}
}
