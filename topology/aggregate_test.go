package topology_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/leatlog/leat/topology"
	"github.com/leatlog/leat/topology/plan"
	"github.com/leatlog/leat/topology/serde"
)

var counts = topology.NewTopic("counts", serde.String, serde.Int64)

func countTopology(opts ...topology.AggregateOption) *topology.Topology {
	top := topology.New()
	topology.To(topology.Count("n", topology.From(top, in).GroupByKey(), opts...).Stream(), counts)
	return top
}

// One update per key and commit, in the order in which keys changed first, with
// the greatest timestamp of the inputs.
func TestCount(t *testing.T) {
	d := newDriver(t, countTopology())
	d.send("in", rec("b", "x", 5), rec("a", "x", 6), rec("b", "x", 4))
	d.expect()
	d.commit()
	d.expect("counts: b=#2 @5", "counts: a=#1 @6")
	d.commit()
	d.expect()
	d.send("in", rec("b", "x", 9))
	d.commit()
	d.expect("counts: b=#3 @9")
	if s := d.tasks[0].stores["n"]; s.gets != 0 || s.puts != 3 {
		t.Errorf("%d gets and %d puts of a store that was empty, want 0 and 3", s.gets, s.puts)
	}

	d.restart()
	d.send("in", rec("b", "x", 1), rec("c", "x", 2))
	d.commit()
	d.expect("counts: b=#4 @9", "counts: c=#1 @2")
}

func TestGroupingDropsNull(t *testing.T) {
	d := newDriver(t, countTopology())
	d.send("in", plan.Record{Value: []byte("x"), Timestamp: 1}, plan.Record{Key: []byte("a"), Timestamp: 1})
	d.commit()
	d.expect("dropped by in.group-by-key: null-key", "dropped by in.group-by-key: null-value")

	top := topology.New()
	s := topology.From(top, topology.NewTopic("in", serde.String, serde.Bytes))
	g := topology.GroupBy("by-value", s, serde.Bytes, func(v []byte) []byte {
		if string(v) == "nobody" {
			return nil
		}
		return v
	})
	topology.To(topology.Count("n", g).Stream(), topology.NewTopic("counts", serde.Bytes, serde.Int64))
	d = newDriver(t, top)
	d.send("in", rec("a", "nobody", 1), plan.Record{Key: []byte("a"), Timestamp: 1}, rec("a", "x", 2))
	d.commit()
	d.expect("counts: x=#1 @2", "dropped by by-value: null-key", "dropped by by-value: null-value")
}

// With no room in the cache every record is an update, as in Kafka Streams
// without caching.
func TestCountWithoutCache(t *testing.T) {
	d := newDriver(t, countTopology())
	d.cacheBytes = 0
	d.restart()
	d.send("in", rec("a", "x", 1), rec("a", "x", 2), rec("b", "x", 3), rec("a", "x", 4))
	d.expect("counts: a=#1 @1", "counts: a=#2 @2", "counts: b=#1 @3", "counts: a=#3 @4")
	d.commit()
	d.expect()
}

// A cache that is too small flushes early and forgets; results stay right.
func TestCountWithSmallCache(t *testing.T) {
	d := newDriver(t, countTopology())
	d.cacheBytes = 4000
	d.restart()
	for round := range 5 {
		for i := range 100 {
			d.send("in", rec(fmt.Sprintf("key-%d", i), "x", int64(round)))
		}
	}
	d.commit()
	last := map[string]string{}
	for _, line := range d.output {
		var key, value string
		var at int
		if _, err := fmt.Sscanf(line, "counts: %6s=%s @%d", &key, &value, &at); err == nil {
			last[key] = value
		}
	}
	store := d.tasks[0].stores["n"]
	if len(store.rows()) != 100 || store.gets == 0 {
		t.Fatalf("%d rows, %d gets", len(store.rows()), store.gets)
	}
	for key, value := range store.values {
		if got := text(value[8:]); got != "#5" {
			t.Errorf("%s: %s", key, got)
		}
	}
}

func TestReduce(t *testing.T) {
	top := topology.New()
	g := topology.GroupBy("by-first", topology.From(top, in), serde.String, func(v string) string { return v[:1] })
	topology.To(topology.Reduce("longest", g, func(a, b string) string {
		if len(b) > len(a) {
			return b
		}
		return a
	}).Stream(), out)
	d := newDriver(t, top)
	d.send("in", rec("1", "ab", 1), rec("2", "abc", 2), rec("3", "a", 3), rec("4", "b", 4))
	d.commit()
	d.expect("out: a=abc @3", "out: b=b @4")
}

// sum is an aggregate with state that changes in place; a nil *sum is removed.
type sum struct{ Values []string }

func (s *sum) add(v string) *sum {
	if v == "reset" {
		return nil
	}
	s.Values = append(s.Values, v)
	return s
}

func TestAggregateInPlace(t *testing.T) {
	top := topology.New()
	made := 0
	table := topology.Aggregate("sums", topology.From(top, in).GroupByKey(), serde.JSON[*sum](), (*sum).add,
		topology.Initial(func() *sum { made++; return &sum{} }))
	topology.To(table.Stream(), topology.NewTopic("out", serde.String, serde.JSON[*sum]()))
	d := newDriver(t, top)
	d.send("in", rec("a", "x", 1), rec("a", "y", 2), rec("b", "reset", 3))
	d.commit()
	d.expect(`out: a={"Values":["x","y"]} @2`)
	d.send("in", rec("a", "reset", 3))
	d.commit()
	d.expect("out: a=null @3")
	if rows := d.tasks[0].stores["sums"].rows(); len(rows) != 0 {
		t.Errorf("rows %v", rows)
	}
	d.send("in", rec("a", "z", 4))
	d.commit()
	d.expect(`out: a={"Values":["z"]} @4`)
	d.restart()
	d.send("in", rec("a", "more", 5))
	d.commit()
	d.expect(`out: a={"Values":["z","more"]} @5`)
	if made != 3 {
		t.Errorf("Initial was called %d times, want 3", made)
	}
}

func TestAggregateRecordErrors(t *testing.T) {
	top := topology.New()
	table := topology.AggregateRecord("last", topology.From(top, in).GroupByKey(), serde.String,
		func(a string, r *topology.Record[string, string]) (string, error) {
			if r.Value == "bad" {
				return "", errors.New("bad value")
			}
			return a + r.Value + fmt.Sprint(r.Timestamp), nil
		}, topology.OnError(topology.Skip()), topology.InMemory())
	topology.To(table.Stream(), out)
	d := newDriver(t, top)
	d.send("in", rec("a", "x", 1), rec("a", "bad", 2), rec("a", "y", 3))
	d.commit()
	d.expect("out: a=x1y3 @3", "dropped by last: error: bad value")
	if spec := d.plan.SubTopologies[0].Stores[0]; !spec.InMemory || spec.KeyFormat != "string" || spec.ValueFormat != "string" {
		t.Errorf("spec %+v", spec)
	}
}

// Behind a store the dead letter is the operator's input, and the error tells no
// source record.
func TestErrorsBehindStores(t *testing.T) {
	build := func(policy topology.ErrorPolicy) *driver {
		top := topology.New()
		counted := topology.Count("n", topology.From(top, in).GroupByKey()).Stream()
		topology.To(counted.FilterRecord(func(*topology.Record[string, int64]) (bool, error) {
			return false, errors.New("no")
		}, topology.OnError(policy), topology.Named("strict")), counts)
		d := newDriver(t, top)
		d.send("in", rec("a", "x", 1))
		return d
	}
	d := build(topology.DeadLetter("dead"))
	d.commit()
	d.expect("dead: a=#1 @1 leat.operator=strict leat.error=no leat.source.partition=0", "dropped by strict: dead-letter: no")

	err := build(topology.Fail()).tasks[0].processor.Flush()
	if want := `topology: operator "strict", partition 0: no`; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

// Two aggregations share one repartition topic, and one may feed another.
func TestChainedAggregations(t *testing.T) {
	top := topology.New()
	words := topology.FlatMapValues(topology.From(top, in), func(v string) []string { return []string{v, v + v} }).WithValueSerde(serde.String)
	byWord := topology.GroupBy("by-word", words, serde.String, func(v string) string { return v })
	n := topology.Count("n", byWord).Stream()
	topology.To(n, counts)
	topology.To(topology.Count("updates", n.GroupByKey()).Stream(), topology.NewTopic("updates", serde.String, serde.Int64))
	histogram := topology.GroupBy("by-count", n, serde.Int64, func(n int64) int64 { return n })
	topology.To(topology.Count("histogram", histogram).Stream(), topology.NewTopic("histogram", serde.Int64, serde.Int64))
	d := newDriver(t, top)
	d.send("in", rec("1", "a", 1), rec("2", "aa", 2))
	d.commit()
	d.expect("counts: a=#1 @1", "counts: aa=#2 @2", "counts: aaaa=#1 @2",
		"updates: a=#1 @1", "updates: aa=#1 @2", "updates: aaaa=#1 @2",
		"histogram: #1=#2 @2", "histogram: #2=#1 @2")
}

// A store whose bytes the serde does not know stops the task: no policy covers it.
func TestDamagedStore(t *testing.T) {
	d := newDriver(t, countTopology(topology.OnError(topology.Skip())))
	if err := d.tasks[0].stores["n"].Put([]byte("a"), []byte("short"), 0); err != nil {
		t.Fatal(err)
	}
	d.restart()
	err := d.try("in", rec("a", "x", 1))
	if err == nil || err.Error() != `topology: operator "n", partition 0: a stored aggregate has fewer than 8 bytes` {
		t.Errorf("error %v", err)
	}
}

// The output does not depend on how records are cut into runs and commits, but
// for the number of updates: the last one per key is the same.
func TestRunsDoNotMatter(t *testing.T) {
	var records []plan.Record
	for i := range 200 {
		records = append(records, rec(fmt.Sprintf("k%d", i*i%17), "x", int64(i)))
	}
	final := func(run, commitEvery int) []string {
		d := newDriver(t, countTopology())
		for i, chunk := range slices.Collect(slices.Chunk(records, run)) {
			d.send("in", chunk...)
			if i%commitEvery == 0 {
				d.commit()
			}
		}
		d.commit()
		s := d.tasks[0].stores["n"]
		rows := s.rows()
		for i := range rows {
			rows[i] += text(s.values[rows[i]])
		}
		return rows
	}
	want := final(1, 1)
	for _, run := range []int{3, 50, 200} {
		if got := final(run, 3); !slices.Equal(got, want) {
			t.Errorf("runs of %d: %v, want %v", run, got, want)
		}
	}
}
