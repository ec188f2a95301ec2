package replica

import (
	"errors"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/leatlog/leat/broker/internal/metadata"
	"github.com/leatlog/leat/broker/internal/storage"
)

// A log that could not be opened is tried again after reopenFirst, and then twice as long
// each time up to reopenMost: its disk may have been full, or out of reach.
const (
	reopenFirst = time.Second
	reopenMost  = 30 * time.Second
)

// openLog opens or creates the log of a partition.
func (m *Manager) openLog(t *metadata.Topic, partition int32, cfg storage.Config) (*storage.Log, error) {
	id := storage.LogID{Topic: t.Name, Partition: partition, TopicID: t.ID}
	log, err := m.cfg.Directory.Log(id, cfg)
	if errors.Is(err, storage.ErrStaleLog) {
		m.logger.Warn().Err(err).Msg("removing the log of a deleted topic of the same name")
		if err = m.cfg.Directory.Delete(t.Name, partition); err == nil {
			log, err = m.cfg.Directory.Log(id, cfg)
		}
	}
	return log, err
}

// openLater has a log opened that could not be.
func (m *Manager) openLater(k key) {
	m.unopened = append(m.unopened, k)
	if m.reopenDelay == 0 {
		m.reopenDelay = reopenFirst
		m.after(&m.reopening, reopenFirst, m.reopen)
	}
}

// reopen tries the logs that could not be opened and returns when to do so again, if at
// all. A replica whose log opens is like that of a broker which has just started: with what
// the log has, if it was there before, and else with nothing, which nobody has been told of.
func (m *Manager) reopen() time.Duration {
	m.applyMu.Lock()
	defer m.applyMu.Unlock()
	for _, k := range slices.Clone(m.unopened) {
		t, known := m.image.TopicByID(k.topic)
		if !known || m.closed {
			continue
		}
		cfg, _ := m.config(t)
		if _, err := m.openLog(t, k.partition, cfg); err == nil {
			m.replace(t, k)
		}
	}
	if len(m.unopened) == 0 || m.closed {
		m.reopenDelay = 0
		return -1
	}
	m.reopenDelay = min(2*m.reopenDelay, reopenMost)
	return m.reopenDelay
}

// replace puts a replica with a log in the place of one without. The log is open.
func (m *Manager) replace(t *metadata.Topic, k key) {
	m.mu.RLock()
	old := m.replicas[k]
	m.mu.RUnlock()
	m.unopened = slices.DeleteFunc(m.unopened, func(other key) bool { return other == k })
	if old == nil {
		return
	}
	m.logger.Info().Str("topic", t.Name).Int32("partition", k.partition).AnErr("failure", old.Failure()).Msg("the log could be opened after all")
	m.unfollow(old, -1)
	old.end(kerr.NotLeaderForPartition)
	m.mu.Lock()
	delete(m.replicas, k)
	m.mu.Unlock()
	m.become(t, old.metadata())
}

func (r *Replica) metadata() *metadata.Partition {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.meta
}
