package broker

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/leatlog/leat/broker/internal/replica"
)

// verificationMetrics tell what was verified on this node since it started.
type verificationMetrics struct {
	passes, read, damage *prometheus.Desc
}

func newVerificationMetrics(desc func(name, help string, labels ...string) *prometheus.Desc) verificationMetrics {
	return verificationMetrics{
		passes: desc("verification_passes_total", "Passes over all logs of this node that have ended."),
		read:   desc("verification_read_bytes_total", "Bytes that were read to find damage."),
		damage: desc("verification_damage_total", "Damage that was found; what is not repaired is found again by the next pass."),
	}
}

func (m *verificationMetrics) describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.passes, m.read, m.damage} {
		out <- d
	}
}

func (m *verificationMetrics) collect(v replica.Verification, out chan<- prometheus.Metric) {
	counter := func(d *prometheus.Desc, n int64) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n))
	}
	counter(m.passes, v.Passes)
	counter(m.read, v.Bytes)
	counter(m.damage, v.Damage)
}
