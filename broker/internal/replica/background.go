package replica

import (
	"time"

	"github.com/leatlog/leat/broker/internal/storage"
)

// every runs step again and again, interval after the last one ended. A negative interval
// means never.
func (m *Manager) every(d *Deadline, interval time.Duration, step func()) {
	m.after(d, interval, func() time.Duration {
		step()
		return interval
	})
}

// after runs step once delay is over, and then again after what it returned, on its own
// goroutine each time: it does I/O, which the deadlines must not wait for. A negative
// delay means never.
func (m *Manager) after(d *Deadline, delay time.Duration, step func() time.Duration) {
	if delay < 0 {
		return
	}
	m.deadlines.Set(d, m.clock.Now().Add(delay), func() {
		if !m.begin() {
			return
		}
		m.cfg.Go(func() {
			defer m.running.Done()
			m.after(d, step(), step)
		})
	})
}

// begin counts a background step, unless the manager is closed.
func (m *Manager) begin() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stopping {
		return false
	}
	m.running.Add(1)
	return true
}

// Retain removes the segments that the topics' retention gives up. It runs by
// itself every Config.RetentionInterval.
func (m *Manager) Retain() {
	now := m.clock.Now()
	m.Each(func(r *Replica) {
		if r.log == nil || r.Failure() != nil {
			return
		}
		r.log.FirstUnstableOffset(r.HighWatermark()) // forgets ended transactions that nobody asked for
		removed, err := r.log.ApplyRetention(now, r.HighWatermark())
		if err != nil {
			m.logger.Error().Err(err).Str("topic", r.name).Int32("partition", r.partition).Msg("retention failed")
		} else if removed > 0 {
			m.logger.Debug().Str("topic", r.name).Int32("partition", r.partition).Int("segments", removed).
				Int64("log_start", r.log.StartOffset()).Msg("retention removed segments")
		}
	})
}

// Compact compacts the logs of topics with cleanup.policy=compact that are due, up to
// their last stable offsets. It runs by itself every Config.CleanerInterval, and must not
// be called concurrently.
func (m *Manager) Compact() {
	var candidates []storage.CleanCandidate
	m.Each(func(r *Replica) {
		if r.log == nil || r.Failure() != nil {
			return
		}
		stable := r.HighWatermark()
		if first, ok := r.log.FirstUnstableOffset(stable); ok {
			stable = min(stable, first)
		}
		candidates = append(candidates, storage.CleanCandidate{Log: r.log, LastStable: stable})
	})
	m.cleaner.CleanAll(m.clock.Now(), candidates)
}

// Compaction says what was compacted so far.
func (m *Manager) Compaction() storage.CleanerStats { return m.cleaner.Stats() }

// flush asks for a sync of every log that has something to sync.
func (m *Manager) flush() {
	m.Each(func(r *Replica) {
		if r.log != nil && r.Failure() == nil && r.log.SyncedOffset() < r.log.EndOffset() {
			m.committer.Request(r.log, r.onSynced)
		}
	})
}

// diskFull tells of a full disk, at most every ten seconds.
func (m *Manager) diskFull(err error) {
	now := m.clock.Now()
	m.mu.Lock()
	say := now.Sub(m.fullSaid) > 10*time.Second
	if say {
		m.fullSaid = now
	}
	m.mu.Unlock()
	if say {
		m.logger.Error().Err(err).Msg("the disk is full: appends are refused until there is space")
	}
}

// checkLag has the partitions led here look at their followers.
func (m *Manager) checkLag() {
	now := m.clock.Now()
	m.Each(func(r *Replica) {
		r.step(func(p *Partition, fx *Effects) { p.Tick(now, fx) })
	})
}
