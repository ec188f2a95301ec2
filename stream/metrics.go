package stream

import (
	"fmt"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/leatlog/leat/topology/plan"
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
	behind      *prometheus.GaugeVec
	busy        *prometheus.CounterVec
	hits        *prometheus.CounterVec
	misses      *prometheus.CounterVec
	writes      *prometheus.CounterVec
	cacheBytes  *prometheus.GaugeVec
	storeBytes  *prometheus.GaugeVec
	commits     prometheus.Histogram
	tasks       prometheus.Gauge
	standbys    prometheus.Gauge
	standbyLag  *prometheus.GaugeVec
}

// counted is what the counters were told of a task.
type counted struct {
	records, emitted uint64
	caches           map[string]plan.CacheFigures
	sizes            time.Time // when the sizes of stores were last looked at
}

// sizesInterval is how often the sizes of stores are told: looking at them costs.
const sizesInterval = 5 * time.Second

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
		behind:      prometheus.NewGaugeVec(gauge("behind_seconds", "Age of the oldest input that a task may not have committed: latency of the task, and staleness of queries."), []string{"task"}),
		busy:        prometheus.NewCounterVec(vec("busy_seconds_total", "Time that a worker spent on a task, commits left aside."), []string{"task"}),
		hits:        prometheus.NewCounterVec(vec("cache_hits_total", "Rows that an operator found in its cache."), []string{"task", "store"}),
		misses:      prometheus.NewCounterVec(vec("cache_misses_total", "Rows that an operator read from its store."), []string{"task", "store"}),
		writes:      prometheus.NewCounterVec(vec("store_writes_total", "Rows written to a store and its changelog."), []string{"task", "store"}),
		cacheBytes:  prometheus.NewGaugeVec(gauge("cache_bytes", "Memory of the cache of a store."), []string{"task", "store"}),
		storeBytes:  prometheus.NewGaugeVec(gauge("store_bytes", "Estimated size of a store."), []string{"task", "store"}),
		commits: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "leat", Subsystem: "stream", Name: "commit_seconds", Help: "Time of a worker's commit.", ConstLabels: labels,
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
		}),
		tasks:      prometheus.NewGauge(gauge("tasks", "Tasks of this process.")),
		standbys:   prometheus.NewGauge(gauge("standbys", "Tasks whose state this process has a copy of.")),
		standbyLag: prometheus.NewGaugeVec(gauge("standby_lag_records", "Changelog offsets that the copy of a store is behind."), []string{"task", "store"}),
	}
	m.collectors = []prometheus.Collector{m.records, m.emitted, m.dropped, m.lag, m.streamTime, m.restoreLeft,
		m.behind, m.busy, m.hits, m.misses, m.writes, m.cacheBytes, m.storeBytes, m.commits, m.tasks, m.standbys, m.standbyLag}
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
		r.counted.records, r.counted.emitted = r.task.Records(), r.task.Emitted()
		m.busy.WithLabelValues(name).Add(r.busy.Seconds())
		r.busy = 0
		r.updateStoreMetrics(name)
		if asOf := r.fresh.asOf(); !asOf.IsZero() {
			m.behind.WithLabelValues(name).Set(time.Since(asOf).Seconds())
		}
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

// updateStoreMetrics tells what the task's stores have done since the last time.
func (r *running) updateStoreMetrics(name string) {
	m := r.worker.app.metrics
	if r.counted.caches == nil {
		r.counted.caches = make(map[string]plan.CacheFigures)
	}
	r.task.Caches(func(now plan.CacheFigures) {
		before := r.counted.caches[now.Store]
		m.hits.WithLabelValues(name, now.Store).Add(float64(now.Hits - before.Hits))
		m.misses.WithLabelValues(name, now.Store).Add(float64(now.Misses - before.Misses))
		m.writes.WithLabelValues(name, now.Store).Add(float64(now.Writes - before.Writes))
		m.cacheBytes.WithLabelValues(name, now.Store).Set(float64(now.Bytes))
		r.counted.caches[now.Store] = now
	})
	if now := time.Now(); now.Sub(r.counted.sizes) >= sizesInterval {
		r.counted.sizes = now
		for i, s := range r.stores {
			m.storeBytes.WithLabelValues(name, r.sub().Stores[i].Name).Set(float64(s.Engine().Size()))
		}
	}
}

// forget takes out what is told of a task that has gone.
func (m *metrics) forget(r *running) {
	name := r.id.String()
	m.streamTime.DeleteLabelValues(name)
	m.behind.DeleteLabelValues(name)
	for _, spec := range r.sub().Stores {
		m.cacheBytes.DeleteLabelValues(name, spec.Name)
		m.storeBytes.DeleteLabelValues(name, spec.Name)
	}
	for i := range r.sources {
		p := r.sources[i].partition
		m.lag.DeleteLabelValues(p.Topic, strconv.Itoa(int(p.Partition)))
	}
	for i := range r.restores {
		m.restoreLeft.DeleteLabelValues(name, r.restores[i].name)
	}
}

// forgetStandby takes out what is told of a standby that has ended.
func (m *metrics) forgetStandby(id plan.TaskID, p *plan.Plan) {
	for _, spec := range p.SubTopologies[id.SubTopology].Stores {
		m.standbyLag.DeleteLabelValues(id.String(), spec.Name)
	}
}
