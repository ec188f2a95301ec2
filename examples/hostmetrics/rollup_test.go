package main

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/leatlog/leat/stream/streamtest"
	"github.com/leatlog/leat/topology/plan"
	"github.com/leatlog/leat/topology/serde"
)

var noon = time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)

func at(metric string, value float64, second float64) Sample {
	return Sample{Host: "h", Metric: metric, Value: value, Unit: unitPercent, Time: noon.Add(time.Duration(second * float64(time.Second)))}
}

// batch computes the rollups of samples all at once, exactly.
func batch(samples []Sample) map[string]Rollup {
	values := map[string][]float64{}
	rollups := map[string]Rollup{}
	for _, s := range samples {
		for _, size := range windowSizes {
			start := s.Time.Truncate(size)
			id := fmt.Sprintf("%s %s %s", s.Metric, windowName(size), start.Format(time.TimeOnly))
			values[id] = append(values[id], s.Value)
			rollups[id] = Rollup{Metric: s.Metric, Unit: s.Unit, Window: windowName(size), Start: start, End: start.Add(size), Final: true}
		}
	}
	for id, list := range values {
		slices.Sort(list)
		r := rollups[id]
		rank := func(q float64) float64 { return list[int(math.Round(q*float64(len(list)-1)))] }
		r.Count, r.Min, r.Max, r.P50, r.P95, r.P99 = uint64(len(list)), list[0], list[len(list)-1], rank(.5), rank(.95), rank(.99)
		for _, v := range list {
			r.Mean += v / float64(len(list))
		}
		rollups[id] = r
	}
	return rollups
}

func id(r Rollup) string {
	return fmt.Sprintf("%s %s %s", r.Metric, r.Window, r.Start.UTC().Format(time.TimeOnly))
}

func near(a, b, tolerance float64) bool { return math.Abs(a-b) <= tolerance*math.Abs(b)*1.0001+1e-9 }

func sameRollup(got, want Rollup) bool {
	return got.Count == want.Count && got.Min == want.Min && got.Max == want.Max && near(got.Mean, want.Mean, 1e-9) &&
		near(got.P50, want.P50, .01) && near(got.P95, want.P95, .01) && near(got.P99, want.P99, .01) &&
		got.Unit == want.Unit && got.Start.Equal(want.Start) && got.End.Equal(want.End) && got.Final == want.Final
}

// Samples of five minutes, out of order within the grace, with a restart in
// between, give the rollups that a batch over all of them gives, each once.
func TestRollupsEqualABatchComputation(t *testing.T) {
	d := streamtest.New(t, rollupTopology(), streamtest.Partitions(partitions))
	in, out := streamtest.NewInput(d, samplesTopic), streamtest.NewOutput(d, rollupsTopic)
	random := rand.New(rand.NewPCG(1, 2))
	var sent []Sample
	send := func(s Sample) {
		in.Send(s.Metric, s, s.Time)
		sent = append(sent, s)
	}
	metrics := []string{"cpu/core0", "cpu/core1", "load/1m", "memory/used", "disk/sda/read"}
	for second := range 300 {
		for i, m := range metrics {
			send(at(m, random.Float64()*math.Pow(10, float64(i)), float64(second)-random.Float64()))
		}
		if second == 137 {
			d.Restart()
		}
	}
	want := batch(sent)
	// Samples of a later time close what is open in both partitions.
	for _, m := range metrics {
		in.Send(m, at(m, 0, 1000), noon.Add(1000*time.Second))
	}
	seen := map[string]bool{}
	for _, r := range out.Read() {
		if r.Key != r.Value.Metric {
			t.Errorf("key %q of a rollup of %q", r.Key, r.Value.Metric)
		}
		if seen[id(r.Value)] {
			t.Errorf("%s came twice", id(r.Value))
		}
		seen[id(r.Value)] = true
		if !sameRollup(r.Value, want[id(r.Value)]) {
			t.Errorf("got  %+v\nwant %+v", r.Value, want[id(r.Value)])
		}
	}
	if len(seen) != len(want) {
		t.Errorf("%d rollups, want %d", len(seen), len(want))
	}
}

func TestLateSamplesAreCounted(t *testing.T) {
	d := streamtest.New(t, rollupTopology())
	in, out := streamtest.NewInput(d, samplesTopic), streamtest.NewOutput(d, rollupsTopic)
	for _, second := range []float64{1, 11.9, 9, 12, 8, 7, 61, 62.5} { // 12: 10 s and the grace are over
		s := at("m", second, second)
		in.Send("m", s, s.Time)
	}
	for operator, want := range map[string]int{"rollup-10s": 2, "live-10s": 2, "rollup-1m": 0} {
		if got := d.Dropped(operator, plan.DropLate); got != want {
			t.Errorf("%s: %d late, want %d", operator, got, want)
		}
	}
	counts := map[string]uint64{}
	for _, r := range out.Read() {
		counts[id(r.Value)] = r.Value.Count
	}
	if counts["m 10s 12:00:00"] != 2 || counts["m 1m 12:00:00"] != 6 {
		t.Errorf("counts %v", counts)
	}
}

func TestOpenWindowsAreShown(t *testing.T) {
	d := streamtest.New(t, rollupTopology())
	in, out := streamtest.NewInput(d, samplesTopic), streamtest.NewOutput(d, liveTopic)
	in.Send("m", at("m", 5, 1), noon)
	in.Send("m", at("m", 7, 2), noon)
	var last Rollup
	for _, r := range out.Read() {
		if r.Value.Final {
			t.Errorf("%+v is final", r.Value)
		}
		if r.Value.Window == "10s" {
			last = r.Value
		}
	}
	if last.Count != 2 || last.Min != 5 || last.Max != 7 || last.Mean != 6 {
		t.Errorf("last %+v", last)
	}
}

func TestRecordsThatAreNoSamplesAreSkipped(t *testing.T) {
	d := streamtest.New(t, rollupTopology())
	in, out := streamtest.NewInput(d, samplesTopic), streamtest.NewOutput(d, liveTopic)
	if err := in.SendRaw([]byte("m"), []byte("{no json"), noon); err != nil {
		t.Fatal(err)
	}
	in.Send("m", at("m", 5, 1), noon)
	if n := d.Dropped("samples", plan.DropError); n != 1 {
		t.Errorf("%d records were skipped, want 1", n)
	}
	if n := len(out.Read()); n != len(windowSizes) {
		t.Errorf("%d updates", n)
	}
}

func TestStatsSerde(t *testing.T) {
	s := &Stats{}
	s.Add(at("m", 3, 1)).Add(at("m", 4, 1))
	b, err := statsSerde{}.Append([]byte("x"), s)
	if err != nil {
		t.Fatal(err)
	}
	got, err := statsSerde{}.Decode(b[1:])
	if err != nil || got.Unit != s.Unit || got.Values.Count() != 2 || got.Values.Sum() != 7 {
		t.Errorf("got %+v, %v", got, err)
	}
	var _ serde.Serde[*Stats] = statsSerde{}
	for n := range len(b) - 1 {
		if _, err := (statsSerde{}).Decode(b[1 : 1+n]); err == nil && n != 3 { // three bytes are a unit and an empty sketch
			t.Errorf("%d of %d bytes were taken", n, len(b)-1)
		}
	}
}
