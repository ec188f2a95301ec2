package broker

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/leatlog/leat/broker/internal/server"
	"github.com/leatlog/leat/broker/internal/wire"
)

// apiKeys bounds the API keys that have metrics of their own.
const apiKeys = 96

// metrics are those of one broker: those of the process and of Go's run time, and
// what the server tells. Each broker has its own registry.
type metrics struct {
	registry    *prometheus.Registry
	connections prometheus.Gauge
	refused     prometheus.Counter
	received    prometheus.Counter
	sent        prometheus.Counter
	syncs       prometheus.Histogram
	// took observes seconds by API key; its count is that of requests. A series is made
	// when its API is first used.
	took [apiKeys]func() prometheus.Observer
}

var _ server.Metrics = (*metrics)(nil)

func newMetrics(b *Broker) *metrics {
	m := &metrics{registry: prometheus.NewRegistry(),
		connections: prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "leat", Name: "connections", Help: "Open connections of clients."}),
		refused:     prometheus.NewCounter(prometheus.CounterOpts{Namespace: "leat", Name: "connections_refused_total", Help: "Connections closed for what the client sent, or because there were too many."}),
		received:    prometheus.NewCounter(prometheus.CounterOpts{Namespace: "leat", Name: "request_bytes_total", Help: "Bytes of requests."}),
		sent:        prometheus.NewCounter(prometheus.CounterOpts{Namespace: "leat", Name: "response_bytes_total", Help: "Bytes of responses."}),
	}
	m.syncs = prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: "leat", Name: "sync_seconds",
		Help: "Time of a round of group commit: the fsyncs that acknowledged records wait for.", Buckets: prometheus.ExponentialBuckets(0.0001, 3, 10)})
	took := prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: "leat", Name: "request_seconds",
		Help: "Time from a request's arrival until its answer was sent, by API.", Buckets: prometheus.ExponentialBuckets(0.00025, 4, 9)}, []string{"api"})
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		m.connections, m.refused, m.received, m.sent, m.syncs, took, newTopicMetrics(b))
	for key := range m.took {
		m.took[key] = sync.OnceValue(func() prometheus.Observer { return took.WithLabelValues(wire.Name(int16(key))) })
	}
	m.gauges(b)
	return m
}

// gauges registers what is asked of the broker at each scrape.
func (m *metrics) gauges(b *Broker) {
	gauge := func(name, help string, value func() float64) {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "leat", Name: name, Help: help}, value))
	}
	truth := func(v bool) float64 {
		if v {
			return 1
		}
		return 0
	}
	gauge("ready", "1 while clients are served.", func() float64 { return truth(b.Ready()) })
	gauge("controller_active", "1 on the active controller.", func() float64 { return truth(b.shell.isActive.Load()) })
	gauge("metadata_offset", "Offset of the last metadata entry applied.", func() float64 { return float64(b.log.Image().Offset()) })
	gauge("topics", "Topics in the cluster.", func() float64 { return float64(b.log.Image().TopicCount()) })
	gauge("partitions", "Partitions in the cluster.", func() float64 { return float64(b.log.Image().PartitionCount()) })
	gauge("directory_damaged", "1 when the data directory takes no writes because its disk failed.",
		func() float64 { return truth(b.directory.Damaged() != nil) })
	gauge("flush_sync", "1 when acknowledged records are fsynced first, the default.", func() float64 { return truth(b.cfg.Flush == FlushSync) })
	gauge("disk_free_bytes", "Bytes that can still be written to the data directory.", func() float64 {
		free, _, err := b.directory.Space()
		if err != nil {
			return -1
		}
		return float64(free)
	})
}

// synced observes a round of group commit.
func (m *metrics) synced(took time.Duration, _ int) { m.syncs.Observe(took.Seconds()) }

func (m *metrics) ConnectionOpened() { m.connections.Inc() }
func (m *metrics) ConnectionClosed() { m.connections.Dec() }
func (m *metrics) RequestRefused()   { m.refused.Inc() }

func (m *metrics) RequestServed(key int16, requestBytes, responseBytes int, took time.Duration) {
	m.received.Add(float64(requestBytes))
	m.sent.Add(float64(responseBytes))
	if key >= 0 && key < apiKeys {
		m.took[key]().Observe(took.Seconds())
	}
}
