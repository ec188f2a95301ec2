package main

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/leatlog/leat/stream/streamtest"
	"github.com/leatlog/leat/topology"
	"github.com/leatlog/leat/topology/serde"
)

// comparison is a topology of Leat and, by its words, one of Streams.java.
type comparison struct {
	words string
	build func(*topology.Topology)
	// Times go on by step with each record on the average, are multiples of grain, and a
	// record is at most disorder late.
	step, grain, disorder int64
	// other says that there is a second input, nulls that values may be null.
	other, nulls bool
	// late says that results are compared at the end, all together: they may leave later;
	// more, that Kafka Streams may have some besides.
	late, more bool
}

// sent is a record that both programs get.
type sent struct {
	topic, key, value string
	null              bool
	at                int64
}

// came is a result.
type came struct {
	key, value string
	null       bool
	at         int64
}

var (
	in    = topology.NewTopic("in", serde.String, serde.String)
	other = topology.NewTopic("other", serde.String, serde.String)
	out   = topology.NewTopic("out", serde.String, serde.String)
)

// windowText writes a windowed key as Streams.java does.
type windowText struct{}

func (windowText) Name() string { return "text" }
func (windowText) Append(dst []byte, k topology.WindowedKey[string]) ([]byte, error) {
	return fmt.Appendf(dst, "%s[%d,%d]", k.Key, k.Start, k.End), nil
}
func (windowText) Decode([]byte) (k topology.WindowedKey[string], err error) {
	return k, errors.New("this key is only written")
}

func concatenate(a, b string) string { return a + b }

func join(a, b string) string { return a + "+" + b }

func leftJoin(a, b string, found bool) string {
	if !found {
		b = "null"
	}
	return a + "+" + b
}

// windows concatenates the values of each window, in one of the three modes.
func windows(w topology.Windows, mode string) func(*topology.Topology) {
	return func(top *topology.Topology) {
		var opts []topology.AggregateOption
		if mode == "close" {
			opts = append(opts, topology.OnWindowClose())
		}
		if strings.HasPrefix(w.String(), "session") {
			opts = append(opts, topology.Merger(concatenate))
		}
		table := topology.Aggregate("windows", topology.From(top, in).GroupByKey().Window(w), serde.String, concatenate, opts...)
		if mode == "suppress" {
			table = table.Suppress("final", topology.UntilWindowCloses())
		}
		topology.To(table.Stream(), topology.NewTopic("out", windowText{}, serde.String))
	}
}

// tables makes one table of the two inputs.
func tables(f func(a, b *topology.Table[string, string]) *topology.Table[string, string]) func(*topology.Topology) {
	return func(top *topology.Topology) {
		a := topology.ToTable("a", topology.From(top, in))
		b := topology.ToTable("b", topology.From(top, other))
		topology.To(f(a, b).Stream(), out)
	}
}

func comparisons() []comparison {
	const ms = time.Millisecond
	list := []comparison{
		{words: "limit 25 4", step: 3, grain: 1, disorder: 10, nulls: true, build: func(top *topology.Topology) {
			table := topology.ToTable("table", topology.From(top, in))
			topology.To(table.Suppress("limited", topology.UntilTimeLimit(25*ms).MaxRecords(4).EmitEarly()).Stream(), out)
		}},
		{words: "left-join-streams 10 20 15", step: 2, grain: 1, disorder: 12, other: true, late: true, build: func(top *topology.Topology) {
			within := topology.Within(0).Before(10 * ms).After(20 * ms).Grace(15 * ms)
			joined := topology.LeftJoinStreams("join", topology.From(top, in), topology.From(top, other), within, leftJoin)
			topology.To(joined.WithValueSerde(serde.String), out)
		}},
		{words: "join-tables", step: 2, grain: 1, disorder: 0, other: true, nulls: true, build: tables(func(a, b *topology.Table[string, string]) *topology.Table[string, string] {
			return topology.JoinTables(a, b, join)
		})},
		{words: "left-join-tables", step: 2, grain: 1, disorder: 0, other: true, nulls: true, build: tables(func(a, b *topology.Table[string, string]) *topology.Table[string, string] {
			return topology.LeftJoinTables(a, b, leftJoin)
		})},
		{words: "outer-join-tables", step: 2, grain: 1, disorder: 0, other: true, nulls: true, build: tables(func(a, b *topology.Table[string, string]) *topology.Table[string, string] {
			return topology.OuterJoinTables(a, b, func(a string, hasA bool, b string, hasB bool) string {
				if !hasA {
					a = "null"
				}
				return leftJoin(a, b, hasB)
			})
		})},
		{words: "foreign-key-join", step: 2, grain: 1, disorder: 0, other: true, nulls: true, build: tables(func(a, b *topology.Table[string, string]) *topology.Table[string, string] {
			return topology.JoinForeign("foreign", a, b, func(_, v string) string { return v[:1] }, join)
		})},
		{words: "group-table", step: 2, grain: 1, disorder: 0, nulls: true, build: func(top *topology.Topology) {
			table := topology.ToTable("table", topology.From(top, in))
			groups := topology.GroupTable("groups", table, serde.String, serde.String, func(_, v string) (string, string) { return v[:1], v })
			count := func(sign int) func(string, string) string {
				return func(sum, v string) string {
					n, _ := strconv.Atoi(sum)
					return strconv.Itoa(n + sign*len(v))
				}
			}
			topology.To(topology.AggregateTable("lengths", groups, serde.String, count(1), count(-1)).Stream(), out)
		}},
	}
	for _, mode := range []string{"update", "close", "suppress"} {
		list = append(list,
			comparison{words: "time 20 20 10 " + mode, step: 3, grain: 1, disorder: 40, build: windows(topology.Tumbling(20*ms).Grace(10*ms), mode)},
			comparison{words: "time 20 6 10 " + mode, step: 3, grain: 1, disorder: 40, build: windows(topology.Hopping(20*ms, 6*ms).Grace(10*ms), mode)},
			// Kafka Streams' suppress lets go of a sliding window 1 ms before it closes, and once
			// more if a record comes in that time.
			comparison{words: "sliding 20 15 " + mode, step: 3, grain: 1, disorder: 40, late: mode == "suppress", more: true, build: windows(topology.Sliding(20*ms).Grace(15*ms), mode)},
			// Even times, and an odd gap plus grace: in the last millisecond of a session Kafka
			// Streams is not of one mind whether it is open.
			comparison{words: "session 12 11 " + mode, step: 3, grain: 2, disorder: 60, build: windows(topology.Session(12*ms).Grace(11*ms), mode)},
		)
	}
	return list
}

// records makes the input of a comparison.
func (c comparison) records(seed uint64, n int) []sent {
	random := rand.New(rand.NewPCG(seed, 11))
	var list []sent
	now, there := int64(0), map[string]bool{}
	for range n {
		now += random.Int64N(2*c.step + 1)
		r := sent{topic: "in", key: string(rune('a' + random.IntN(4))), value: string(rune('p' + random.IntN(3))), at: now}
		if c.disorder > 0 {
			r.at = max(0, now-random.Int64N(c.disorder+1)*random.Int64N(2))
		}
		r.at -= r.at % c.grain
		r.value += strings.Repeat("x", random.IntN(3))
		if c.other && random.IntN(2) == 0 {
			r.topic = "other"
			if strings.HasPrefix(c.words, "foreign") {
				r.key = string(rune('p' + random.IntN(3)))
			}
		}
		// A table of Leat says nothing when what is not there is removed, one of Kafka Streams
		// does, so that an operator behind it may have other times.
		r.null = c.nulls && there[r.topic+r.key] && random.IntN(5) == 0
		there[r.topic+r.key] = !r.null
		list = append(list, r)
	}
	return append(list, sent{topic: "in", key: "z", value: "end", at: now + 10_000})
}

// leat returns what Leat makes of each record.
func (c comparison) leat(t *testing.T, records []sent) [][]came {
	top := topology.New()
	c.build(top)
	d := streamtest.New(t, top)
	inputs := map[string]*streamtest.Input[string, string]{"in": streamtest.NewInput(d, in)}
	if c.other {
		inputs["other"] = streamtest.NewInput(d, other)
	}
	output := streamtest.NewOutput(d, out)
	var results [][]came
	for _, r := range records {
		if r.null {
			inputs[r.topic].SendNull(r.key, time.UnixMilli(r.at))
		} else {
			inputs[r.topic].Send(r.key, r.value, time.UnixMilli(r.at))
		}
		var list []came
		for _, o := range output.Read() {
			list = append(list, came{o.Key, o.Value, o.Null, o.Time.UnixMilli()})
		}
		results = append(results, list)
	}
	return results
}

// script is what Streams.java is told.
func (c comparison) script(b *bytes.Buffer, records []sent) {
	fmt.Fprintf(b, "begin\t%s\n", strings.ReplaceAll(c.words, " ", "\t"))
	for _, r := range records {
		if r.null {
			r.value = `\N`
		}
		fmt.Fprintf(b, "record\t%s\t%s\t%s\t%d\n", r.topic, r.key, r.value, r.at)
	}
	b.WriteString("end\n")
}

// parse reads what Streams.java printed for n records, and returns the lines behind it.
func parse(t *testing.T, lines []string, n int) (results [][]came, rest []string) {
	results = make([][]came, n)
	for i := 0; i < n; {
		if len(lines) == 0 {
			t.Fatalf("Kafka Streams stopped after %d records", i)
		}
		line := lines[0]
		lines = lines[1:]
		if line == "." {
			i++
			continue
		}
		words := strings.Split(line, "\t")
		if len(words) != 3 {
			t.Fatalf("Kafka Streams printed %q", line)
		}
		at, err := strconv.ParseInt(words[2], 10, 64)
		if err != nil {
			t.Fatalf("result %q: %v", line, err)
		}
		r := came{key: words[0], value: words[1], at: at}
		if r.value == `\N` {
			r.value, r.null = "", true
		}
		results[i] = append(results[i], r)
	}
	return results, lines
}

// folded returns the last result of each key, as text, by key, of those that change the
// state, which it brings up to date: a removal of what is not there says nothing, and one
// whose time differs says the same.
func folded(list []came, state map[string]came) []string {
	last := map[string]came{}
	for _, r := range list {
		last[r.key] = r
	}
	var texts []string
	for _, key := range slices.Sorted(maps.Keys(last)) {
		r := last[key]
		before, was := state[key]
		switch {
		case r.null && !was, r == before && was:
			continue
		case r.null:
			texts = append(texts, key+" is gone")
			delete(state, key)
		default:
			texts = append(texts, fmt.Sprintf("%s=%s @%d", key, r.value, r.at))
			state[key] = r
		}
	}
	return texts
}

// TestEqualsKafkaStreams gives random records to topologies of Leat and of Kafka Streams
// and compares what comes out, record by record. LEAT_TEST_STREAMS_LIB names the folder of
// jars; see compatibility/streams.sh.
func TestEqualsKafkaStreams(t *testing.T) {
	jars := os.Getenv("LEAT_TEST_STREAMS_LIB")
	if jars == "" {
		t.Skip("LEAT_TEST_STREAMS_LIB is not set")
	}
	const seeds, n = 3, 200
	var script bytes.Buffer
	for _, c := range comparisons() {
		for seed := range uint64(seeds) {
			c.script(&script, c.records(seed, n))
		}
	}
	command := exec.Command("compatibility/streams.sh", jars)
	command.Stdin = &script
	printed, err := command.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Logf("%s", exit.Stderr)
		}
		t.Fatalf("Kafka Streams: %v", err)
	}
	lines := strings.Split(strings.TrimSpace(string(printed)), "\n")
	var wants [][][]came
	for _, c := range comparisons() {
		for seed := range uint64(seeds) {
			var want [][]came
			want, lines = parse(t, lines, len(c.records(seed, n)))
			wants = append(wants, want)
		}
	}
	for i, c := range comparisons() {
		t.Run(c.words, func(t *testing.T) {
			for seed := range uint64(seeds) {
				records := c.records(seed, n)
				c.compare(t, seed, records, c.leat(t, records), wants[i*seeds+int(seed)])
			}
		})
	}
}

func (c comparison) compare(t *testing.T, seed uint64, records []sent, got, want [][]came) {
	ours, theirs := map[string]came{}, map[string]came{}
	total := 0
	for i := range records {
		if c.late {
			continue
		}
		a, b := folded(got[i], ours), folded(want[i], theirs)
		total += len(a)
		if !slices.Equal(a, b) {
			t.Fatalf("seed %d, record %d, %+v: got\n\t%s\nwant\n\t%s", seed, i, records[i], strings.Join(a, "\n\t"), strings.Join(b, "\n\t"))
		}
	}
	if c.late {
		a, b := texts(got), texts(want)
		total = len(a)
		if len(without(a, b)) > 0 || !c.more && len(a) != len(b) {
			t.Fatalf("seed %d: only Leat has\n\t%s\nonly Kafka Streams has\n\t%s", seed, strings.Join(without(a, b), "\n\t"), strings.Join(without(b, a), "\n\t"))
		}
	}
	if total < 50 {
		t.Errorf("seed %d: only %d results", seed, total)
	}
}

// without returns the texts of a that are not in b, each as often as there are more.
func without(a, b []string) []string {
	count := map[string]int{}
	for _, text := range b {
		count[text]++
	}
	return slices.DeleteFunc(slices.Clone(a), func(text string) bool {
		count[text]--
		return count[text] >= 0
	})
}

// texts are all results, sorted.
func texts(results [][]came) []string {
	var list []string
	for _, r := range slices.Concat(results...) {
		list = append(list, fmt.Sprintf("%s=%s %v @%d", r.key, r.value, r.null, r.at))
	}
	slices.Sort(list)
	return list
}
