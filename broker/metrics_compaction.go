package broker

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/leatlog/leat/broker/internal/storage"
)

// compactionMetrics tell what compaction has done on this node since it started.
type compactionMetrics struct {
	runs, failures, read, written, removed, dirty, working *prometheus.Desc
}

func newCompactionMetrics(desc func(name, help string, labels ...string) *prometheus.Desc) compactionMetrics {
	return compactionMetrics{
		runs:     desc("compaction_runs_total", "Logs compacted, counted as often as they were."),
		failures: desc("compaction_failures_total", "Logs that could not be compacted; each is told of in the log."),
		read:     desc("compaction_read_bytes_total", "Bytes that compaction has read."),
		written:  desc("compaction_written_bytes_total", "Bytes that compaction has written."),
		removed:  desc("compaction_removed_records_total", "Records that compaction has removed."),
		dirty:    desc("compaction_max_dirty_ratio", "The largest share of bytes not yet compacted of any log, 0 to 1, when last looked at."),
		working:  desc("compaction_working", "1 while a log is being compacted."),
	}
}

func (m *compactionMetrics) describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.runs, m.failures, m.read, m.written, m.removed, m.dirty, m.working} {
		out <- d
	}
}

func (m *compactionMetrics) collect(s storage.CleanerStats, out chan<- prometheus.Metric) {
	working := 0.0
	if s.Working {
		working = 1
	}
	for _, x := range []struct {
		desc  *prometheus.Desc
		kind  prometheus.ValueType
		value float64
	}{
		{m.runs, prometheus.CounterValue, float64(s.Runs)},
		{m.failures, prometheus.CounterValue, float64(s.Failures)},
		{m.read, prometheus.CounterValue, float64(s.BytesRead)},
		{m.written, prometheus.CounterValue, float64(s.BytesWritten)},
		{m.removed, prometheus.CounterValue, float64(s.RecordsRemoved)},
		{m.dirty, prometheus.GaugeValue, s.MaxDirtyRatio},
		{m.working, prometheus.GaugeValue, working},
	} {
		out <- prometheus.MustNewConstMetric(x.desc, x.kind, x.value)
	}
}
