package broker

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/leatlog/leat/broker/internal/group"
	"github.com/leatlog/leat/broker/internal/metadata"
	"github.com/leatlog/leat/broker/internal/replica"
)

// topicMetrics are what is known by topic and by group. They are gathered at each
// scrape, so that a topic or group that is gone leaves no series behind, and a
// partition costs nothing between scrapes but its counters.
type topicMetrics struct {
	broker *Broker

	records, received, sent, size                  *prometheus.Desc
	led, underMinISR, underReplicated, failed, lag *prometheus.Desc
	compaction                                     compactionMetrics
	verification                                   verificationMetrics
}

func newTopicMetrics(b *Broker) *topicMetrics {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(prometheus.BuildFQName("leat", "", name), help, labels, nil)
	}
	return &topicMetrics{broker: b, compaction: newCompactionMetrics(desc), verification: newVerificationMetrics(desc),
		records:         desc("topic_received_records_total", "Records that clients have appended on this node.", "topic"),
		received:        desc("topic_received_bytes_total", "Bytes of record batches that clients have appended on this node.", "topic"),
		sent:            desc("topic_sent_bytes_total", "Bytes of record batches given to consumers by this node.", "topic"),
		size:            desc("topic_log_bytes", "Bytes of the topic's segments on this node.", "topic"),
		led:             desc("partitions_led", "Partitions that this node leads."),
		underMinISR:     desc("partitions_under_min_isr", "Partitions led here with fewer replicas in sync than min.insync.replicas: they refuse acks=all."),
		underReplicated: desc("partitions_under_replicated", "Partitions led here of which not all replicas are in sync."),
		failed:          desc("partitions_failed", "Partitions of this node that are fenced because of damage or a disk that failed."),
		lag: desc("group_lag_records", "Records between a group's committed offsets and the ends of the partitions, of groups "+
			"coordinated here, over the partitions that have a replica here.", "group", "topic"),
	}
}

// Describe implements prometheus.Collector.
func (m *topicMetrics) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.records, m.received, m.sent, m.size, m.led, m.underMinISR, m.underReplicated, m.failed, m.lag} {
		out <- d
	}
	m.compaction.describe(out)
	m.verification.describe(out)
}

// topicTotals is one topic's share of a scrape.
type topicTotals struct {
	replica.Traffic
	bytes int64
}

// Collect implements prometheus.Collector.
func (m *topicMetrics) Collect(out chan<- prometheus.Metric) {
	b := m.broker
	m.compaction.collect(b.replicas.Compaction(), out)
	m.verification.collect(b.replicas.Verification(), out)
	image := b.log.Published()
	topics := make(map[string]*topicTotals)
	var led, underMinISR, underReplicated, failed int
	b.replicas.Each(func(r *replica.Replica) {
		t := topics[r.Topic()]
		if t == nil {
			t = new(topicTotals)
			topics[r.Topic()] = t
		}
		t.Add(r.Traffic())
		if r.Failure() != nil {
			failed++
		}
		if r.Log() != nil {
			t.bytes += r.Log().Size()
		}
		if r.Role() != replica.Leader {
			return
		}
		led++
		topic, ok := image.Topic(r.Topic())
		if !ok || int(r.Index()) >= len(topic.Partitions) {
			return
		}
		p := &topic.Partitions[r.Index()]
		if len(p.ISR) < len(p.Replicas) {
			underReplicated++
		}
		if r.UnderMinISR() {
			underMinISR++
		}
	})
	gauge := func(d *prometheus.Desc, v int) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v))
	}
	gauge(m.led, led)
	gauge(m.underMinISR, underMinISR)
	gauge(m.underReplicated, underReplicated)
	gauge(m.failed, failed)
	for name, t := range topics {
		counter := func(d *prometheus.Desc, v int64) {
			out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), name)
		}
		counter(m.records, t.Records)
		counter(m.received, t.Received)
		counter(m.sent, t.Sent)
		out <- prometheus.MustNewConstMetric(m.size, prometheus.GaugeValue, float64(t.bytes), name)
	}
	m.collectLag(image, out)
}

// collectLag gathers how far groups are behind.
func (m *topicMetrics) collectLag(image *metadata.Image, out chan<- prometheus.Metric) {
	type key struct{ group, topic string }
	lag := make(map[key]int64)
	var commits []group.Committed
	m.broker.groups.EachCommitted(func(c group.Committed) { commits = append(commits, c) })
	for _, c := range commits {
		topic, ok := image.Topic(c.Topic)
		if !ok {
			continue
		}
		r, err := m.broker.replicas.Replica(topic.ID, c.Partition)
		if err != nil {
			continue
		}
		lag[key{c.GroupID, c.Topic}] += max(0, r.HighWatermark()-c.Offset)
	}
	for k, v := range lag {
		out <- prometheus.MustNewConstMetric(m.lag, prometheus.GaugeValue, float64(v), k.group, k.topic)
	}
}
