package topology_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/leatlog/leat/topology"
	"github.com/leatlog/leat/topology/plan"
	"github.com/leatlog/leat/topology/serde"
)

// peopleTopology has a table of people, whose values are "city age", and what there is per
// city.
func peopleTopology() *topology.Topology {
	top := topology.New()
	people := topology.ToTable("people", topology.From(top, in))
	byCity := topology.GroupTable("by-city", people, serde.String, serde.Int64, func(_, v string) (string, int64) {
		city, age, _ := strings.Cut(v, " ")
		n, _ := strconv.ParseInt(age, 10, 64)
		return city, n
	})
	write := func(name string, table *topology.Table[string, int64]) {
		text := topology.MapValues(table.Stream(), func(n int64) string { return fmt.Sprint(n) }).WithValueSerde(serde.String)
		topology.To(text, topology.NewTopic(name, serde.String, serde.String))
	}
	add, subtract := func(a, b int64) int64 { return a + b }, func(a, b int64) int64 { return a - b }
	write("count", topology.CountTable("people-per-city", byCity))
	write("sum", topology.ReduceTable("ages-per-city", byCity, add, subtract))
	write("weight", topology.AggregateTable("weight-per-city", byCity, serde.Int64, add, subtract, topology.Initial(func() int64 { return 1000 })))
	return top
}

func TestTableAggregation(t *testing.T) {
	d := newDriver(t, peopleTopology())
	d.send("in", rec("ann", "rome 30", 1), rec("bob", "rome 40", 2), rec("cem", "oslo 50", 3))
	d.commit()
	d.expect("count: rome=2 @2", "count: oslo=1 @3", "sum: rome=70 @2", "sum: oslo=50 @3", "weight: rome=1070 @2", "weight: oslo=1050 @3")
	// Older, in the same city.
	d.send("in", rec("ann", "rome 31", 4))
	d.commit()
	d.expect("count: rome=2 @4", "sum: rome=71 @4", "weight: rome=1071 @4")
	d.restart()
	// To another city, and gone; a key that never was changes nothing.
	d.send("in", rec("bob", "oslo 41", 5), gone("cem", 6), gone("nobody", 7))
	d.commit()
	d.expect("count: rome=1 @5", "count: oslo=1 @6", "sum: rome=31 @5", "sum: oslo=41 @6", "weight: rome=1031 @5", "weight: oslo=1041 @6")
	d.send("in", gone("bob", 8), gone("bob", 9))
	d.commit()
	d.expect("count: oslo=0 @9", "sum: oslo=0 @9", "weight: oslo=1000 @9")
}

// Rows that are in no group: a null key or a null value.
func TestTableRowsInNoGroup(t *testing.T) {
	top := topology.New()
	grouped := topology.GroupTable("grouped", topology.ToTable("rows", topology.From(top, in)), serde.Bytes, serde.String, func(_, v string) ([]byte, string) {
		if v == "none" {
			return nil, v
		}
		return []byte(v[:1]), v
	})
	topology.To(topology.ReduceTable("joined", grouped, func(a, b string) string { return a + b },
		func(a, b string) string { return strings.Replace(a, b, "", 1) }).Stream(), topology.NewTopic("out", serde.Bytes, serde.String))
	d := newDriver(t, top)
	d.send("in", rec("1", "none", 1), rec("2", "ab", 2))
	d.commit()
	d.expect("out: a=ab @2")
	d.send("in", rec("1", "ac", 3))
	d.commit()
	d.expect("out: a=abac @3")
	d.send("in", rec("2", "none", 4))
	d.commit()
	d.expect("out: a=ac @4")
}

// Whatever rows change in whatever order, with caches of any size and over restarts, the
// groups are those of the rows as they are.
func TestTableAggregationAgainstModel(t *testing.T) {
	for seed := range uint64(30) {
		random := rand.New(rand.NewPCG(seed, 0))
		d := newDriver(t, peopleTopology())
		d.cacheBytes = 1 << (4 + random.IntN(14))
		d.restart()
		rows, last := map[string]plan.Record{}, map[string]string{}
		see := func() {
			for _, line := range d.output {
				line, _, _ = strings.Cut(line, " @")
				name, value, _ := strings.Cut(line, "=")
				last[name] = value
			}
			d.output = nil
		}
		for n := range 300 {
			key := fmt.Sprint("p", random.IntN(8))
			r := rec(key, fmt.Sprintf("c%d %d", random.IntN(4), random.IntN(90)), int64(n))
			if random.IntN(4) == 0 {
				r = gone(key, int64(n))
			}
			d.send("in", r)
			if r.Value == nil {
				delete(rows, key)
			} else {
				rows[key] = r
			}
			switch random.IntN(15) {
			case 0:
				d.commit()
			case 1:
				d.commit()
				d.restart()
			}
		}
		d.commit()
		see()
		count, sum := map[string]int{}, map[string]int{}
		for name := range last {
			if _, city, ok := strings.Cut(name, "count: "); ok {
				count[city], sum[city] = 0, 0
			}
		}
		for _, r := range rows {
			city, age, _ := strings.Cut(string(r.Value), " ")
			n, _ := strconv.Atoi(age)
			count[city]++
			sum[city] += n
		}
		for _, city := range slices.Sorted(maps.Keys(count)) {
			for name, want := range map[string]int{"count: ": count[city], "sum: ": sum[city], "weight: ": 1000 + sum[city]} {
				if got := last[name+city]; got != fmt.Sprint(want) {
					t.Fatalf("seed %d: %s%s is %s, want %d", seed, name, city, got, want)
				}
			}
		}
	}
}

func TestMistakesOfTableGroups(t *testing.T) {
	top := topology.New()
	s := topology.From(top, in)
	table := topology.ToTable("table", s)
	topology.GroupTable[string, string, string, string]("nothing", table, serde.String, serde.String, nil)
	topology.GroupTable("keyless", table, nil, serde.String, func(k, v string) (string, string) { return v, k })
	topology.GroupTable("worthless", table, serde.String, nil, func(k, v string) (string, string) { return v, k })
	g := topology.GroupTable("good", table, serde.String, serde.String, func(k, v string) (string, string) { return v, k })
	topology.ReduceTable("half", g, func(a, b string) string { return a }, nil)
	topology.CountTable("closing", g, topology.OnWindowClose())
	topology.CountTable("first", g, topology.Initial(func() int64 { return 1 }))
	topology.AggregateTable("wrong", g, serde.Int64, func(n int64, _ string) int64 { return n }, func(n int64, _ string) int64 { return n },
		topology.Initial(func() string { return "" }))
	_, err := top.Build()
	golden(t, "mistakes-table-groups.txt", err.Error()+"\n")
}
