package main

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/leatlog/leat/examples/hostmetrics/internal/sketch"
	"github.com/leatlog/leat/topology"
	"github.com/leatlog/leat/topology/serde"
)

// The topics; the key of all records is the metric's name.
var (
	// samplesTopic has a record for each metric and second.
	samplesTopic = topology.NewTopic("host-metrics", serde.String, serde.JSON[Sample]())
	// rollupsTopic has a record for each metric and closed window.
	rollupsTopic = topology.NewTopic("host-metrics-rollup", serde.String, serde.JSON[Rollup]())
	// liveTopic has the windows that are still open, as they change.
	liveTopic = topology.NewTopic("host-metrics-live", serde.String, serde.JSON[Rollup]())
)

// windowSizes are what samples are rolled up into.
var windowSizes = []time.Duration{10 * time.Second, time.Minute}

// grace is how long after its end a window takes late samples.
const grace = 2 * time.Second

// Rollup says what a metric did in a window. P50, P95 and P99 are within one
// percent of the exact quantiles, all else is exact.
type Rollup struct {
	Metric string    `json:"metric"`
	Unit   string    `json:"unit"`
	Window string    `json:"window"` // "10s" or "1m"
	Start  time.Time `json:"start"`
	End    time.Time `json:"end"`
	Count  uint64    `json:"count"`
	Min    float64   `json:"min"`
	Max    float64   `json:"max"`
	Mean   float64   `json:"mean"`
	P50    float64   `json:"p50"`
	P95    float64   `json:"p95"`
	P99    float64   `json:"p99"`
	// Final is true when the window is closed: nothing will change any more.
	Final bool `json:"final"`
}

// Stats is what is known of a metric in a window: the state of the aggregations.
type Stats struct {
	Unit   string
	Values sketch.Sketch
}

// Add adds a sample; it is the aggregations' function.
func (s *Stats) Add(sample Sample) *Stats {
	s.Unit = sample.Unit
	s.Values.Add(sample.Value)
	return s
}

// Rollup returns the numbers to publish.
func (s *Stats) Rollup(key topology.WindowedKey[string], final bool) Rollup {
	v := &s.Values
	return Rollup{
		Metric: key.Key, Unit: s.Unit, Window: windowName(key.EndTime().Sub(key.StartTime())),
		Start: key.StartTime(), End: key.EndTime(),
		Count: v.Count(), Min: v.Min(), Max: v.Max(), Mean: v.Mean(),
		P50: v.Quantile(0.50), P95: v.Quantile(0.95), P99: v.Quantile(0.99), Final: final,
	}
}

// statsSerde writes Stats to the stores:
//
//	| unit length (uvarint) | unit | sketch |
type statsSerde struct{}

// Append implements serde.Serde.
func (statsSerde) Append(dst []byte, s *Stats) ([]byte, error) {
	dst = binary.AppendUvarint(dst, uint64(len(s.Unit)))
	return s.Values.AppendBinary(append(dst, s.Unit...))
}

// Decode implements serde.Serde.
func (statsSerde) Decode(src []byte) (*Stats, error) {
	n, width := binary.Uvarint(src)
	if width <= 0 || n > uint64(len(src)-width) {
		return nil, fmt.Errorf("%w: stats of %d bytes", serde.ErrFormat, len(src))
	}
	rest := src[width:]
	s := &Stats{Unit: string(rest[:n])}
	if err := s.Values.UnmarshalBinary(rest[n:]); err != nil {
		return nil, fmt.Errorf("%w: %w", serde.ErrFormat, err)
	}
	return s, nil
}

// Name implements serde.Serde.
func (statsSerde) Name() string { return "hostmetrics.Stats" }

// rollupTopology declares what turns samples into rollups:
//
//	host-metrics ── group by key ──┬─ 10 s ─┬─ on close ──> host-metrics-rollup
//	                               │        └─ on update ─> host-metrics-live
//	                               └─ 1 m ──┬─ on close ──> host-metrics-rollup
//	                                        └─ on update ─> host-metrics-live
//
// Closed windows and open ones go to topics of their own, so that readers of
// host-metrics-rollup get each window once and complete. The aggregations of
// the open windows are for show: they stay in memory.
func rollupTopology() *topology.Topology {
	t := topology.New()
	samples := topology.From(t, samplesTopic,
		topology.EventTime(func(s Sample) time.Time { return s.Time }), topology.Named("samples"), topology.OnError(topology.Skip()))
	byMetric := samples.GroupByKey()
	var closed, open []*topology.Stream[string, Rollup]
	for _, size := range windowSizes {
		windows := byMetric.Window(topology.Tumbling(size).Grace(grace))
		closed = append(closed, rollup("rollup-"+windowName(size), windows, true, topology.OnWindowClose()))
		open = append(open, rollup("live-"+windowName(size), windows, false, topology.OnUpdate(), topology.InMemory()))
	}
	topology.To(closed[0].Merge(closed[1:]...), rollupsTopic, topology.Named("rollups"))
	topology.To(open[0].Merge(open[1:]...), liveTopic, topology.Named("live"))
	return t
}

func rollup(name string, windows *topology.WindowedGroup[string, Sample], final bool, options ...topology.AggregateOption) *topology.Stream[string, Rollup] {
	options = append(options, topology.Initial(func() *Stats { return &Stats{} }))
	table := topology.Aggregate(name, windows, statsSerde{}, (*Stats).Add, options...)
	return topology.Map(table.Stream(), func(key topology.WindowedKey[string], s *Stats) (string, Rollup) {
		return key.Key, s.Rollup(key, final)
	}, topology.Named(name+"-result"))
}

// windowName is "10s" or "1m".
func windowName(size time.Duration) string {
	if size%time.Minute == 0 {
		return fmt.Sprintf("%dm", size/time.Minute)
	}
	return fmt.Sprintf("%ds", size/time.Second)
}
