package stream

import (
	"fmt"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the App's Prometheus metrics. Counting goes on without a
// registerer; nobody sees it then.
type metrics struct {
	registerer  prometheus.Registerer
	collectors  []prometheus.Collector
	records     *prometheus.CounterVec
	emitted     *prometheus.CounterVec
	dropped     *prometheus.CounterVec
	lag         *prometheus.GaugeVec
	streamTime  *prometheus.GaugeVec
	restoreLeft *prometheus.GaugeVec
	commits     prometheus.Histogram
	tasks       prometheus.Gauge
}

// counted is what the counters were told of a task.
type counted struct{ records, emitted uint64 }

func newMetrics(r prometheus.Registerer, app string) (*metrics, error) {
	labels := prometheus.Labels{"app": app}
	vec := func(name, help string) prometheus.CounterOpts {
		return prometheus.CounterOpts{Namespace: "leat", Subsystem: "stream", Name: name, Help: help, ConstLabels: labels}
	}
	gauge := func(name, help string) prometheus.GaugeOpts { return prometheus.GaugeOpts(vec(name, help)) }
	m := &metrics{
		registerer:  r,
		records:     prometheus.NewCounterVec(vec("records_total", "Records processed."), []string{"task"}),
		emitted:     prometheus.NewCounterVec(vec("emitted_records_total", "Records written to topics."), []string{"task"}),
		dropped:     prometheus.NewCounterVec(vec("dropped_records_total", "Records that operators left out."), []string{"operator", "reason"}),
		lag:         prometheus.NewGaugeVec(gauge("lag_records", "Offsets between what is processed and the end of a source partition."), []string{"topic", "partition"}),
		streamTime:  prometheus.NewGaugeVec(gauge("stream_time_seconds", "Event time of a task, in seconds since the epoch."), []string{"task"}),
		restoreLeft: prometheus.NewGaugeVec(gauge("restore_left_records", "Changelog offsets that a store still has to restore."), []string{"task", "store"}),
		commits: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "leat", Subsystem: "stream", Name: "commit_seconds", Help: "Time of a worker's commit.", ConstLabels: labels,
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
		}),
		tasks: prometheus.NewGauge(gauge("tasks", "Tasks of this process.")),
	}
	m.collectors = []prometheus.Collector{m.records, m.emitted, m.dropped, m.lag, m.streamTime, m.restoreLeft, m.commits, m.tasks}
	if r == nil {
		return m, nil
	}
	for i, c := range m.collectors {
		if err := r.Register(c); err != nil {
			for _, registered := range m.collectors[:i] {
				r.Unregister(registered)
			}
			return nil, fmt.Errorf("stream: metrics of app %q: %w: give each App of a process its own AppID or registerer", app, err)
		}
	}
	return m, nil
}

// unregister lets another App of the same name register.
func (m *metrics) unregister() {
	if m.registerer == nil {
		return
	}
	for _, c := range m.collectors {
		m.registerer.Unregister(c)
	}
}

// updateMetrics tells what the worker's tasks have done since the last time.
func (w *worker) updateMetrics() {
	m := w.app.metrics
	for _, r := range w.tasks {
		if r.phase != phaseRunning {
			continue
		}
		name := r.id.String()
		m.records.WithLabelValues(name).Add(float64(r.task.Records() - r.counted.records))
		m.emitted.WithLabelValues(name).Add(float64(r.task.Emitted() - r.counted.emitted))
		r.counted = counted{r.task.Records(), r.task.Emitted()}
		if t := r.task.StreamTime(); t >= 0 {
			m.streamTime.WithLabelValues(name).Set(float64(t) / 1000)
		}
		for i := range r.sources {
			if s := &r.sources[i]; r.task.Reads(i) {
				lag := max(0, s.end-r.task.Position(i))
				m.lag.WithLabelValues(s.partition.Topic, strconv.Itoa(int(s.partition.Partition))).Set(float64(lag))
			}
		}
	}
}

// forget takes out what is told of a task that has gone.
func (m *metrics) forget(r *running) {
	name := r.id.String()
	m.streamTime.DeleteLabelValues(name)
	for i := range r.sources {
		p := r.sources[i].partition
		m.lag.DeleteLabelValues(p.Topic, strconv.Itoa(int(p.Partition)))
	}
	for i := range r.restores {
		m.restoreLeft.DeleteLabelValues(name, r.restores[i].name)
	}
}
