package replica

import (
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"github.com/leatlog/leat/broker/internal/storage"
)

// VerifyConfig is how logs are searched for damage.
type VerifyConfig struct {
	// Interval is the time between two passes over all logs; the first one begins a minute
	// after the start, or after Interval if that is shorter. Default 7 days; negative for
	// never.
	Interval time.Duration
	// BytesPerSecond bounds what is read. Default 16 MiB.
	BytesPerSecond int64
}

// The defaults of VerifyConfig.
const (
	DefaultVerifyInterval       = 7 * 24 * time.Hour
	DefaultVerifyBytesPerSecond = 16 << 20
)

func (c *VerifyConfig) fill() {
	if c.Interval == 0 {
		c.Interval = DefaultVerifyInterval
	}
	if c.BytesPerSecond <= 0 {
		c.BytesPerSecond = DefaultVerifyBytesPerSecond
	}
}

// firstVerification leaves a node that starts its disk.
const firstVerification = time.Minute

// A step of a pass is bounded by bytes, and by logs, most of which may be empty.
const (
	verifyStepBytes = 1 << 20
	verifyStepLogs  = 100
	verifyPause     = 10 * time.Millisecond
)

// Verification says what was verified since the node started.
type Verification struct {
	Passes, Bytes int64
	// Damage counts the batches that were found damaged, those that are found again in a
	// later pass too.
	Damage int64
}

// verifier is a pass over all logs. Only the counters are for more than one goroutine.
type verifier struct {
	pending []*Replica // the first one is being read
	log     *storage.Verifier
	pass    bool // is under way

	passes, bytes, damage atomic.Int64
}

// Verification returns what was verified so far.
func (m *Manager) Verification() Verification {
	v := &m.verifier
	return Verification{Passes: v.passes.Load(), Bytes: v.bytes.Load(), Damage: v.damage.Load()}
}

// verify checks a little of the logs, and returns when to go on.
func (m *Manager) verify() time.Duration {
	v := &m.verifier
	if !v.pass {
		m.beginPass()
	}
	read := int64(0)
	for range verifyStepLogs {
		if read >= verifyStepBytes {
			break
		}
		if v.log == nil && !v.next() {
			v.pass = false
			v.passes.Add(1)
			m.logger.Debug().Int64("bytes", v.bytes.Load()).Int64("damaged", v.damage.Load()).Msg("all logs have been verified")
			return m.cfg.Verify.Interval
		}
		n, done, err := v.log.Step(verifyStepBytes - read)
		read += n
		v.bytes.Add(n)
		if err != nil {
			done = m.verifyFailed(v.pending[0], err)
		}
		if done {
			v.log, v.pending = nil, v.pending[1:]
		}
	}
	return max(time.Duration(float64(read)/float64(m.cfg.Verify.BytesPerSecond)*float64(time.Second)), verifyPause)
}

// beginPass begins with any of the logs: nodes that are started often get to all of them,
// and the replicas of a partition are not read at the same time.
func (m *Manager) beginPass() {
	v := &m.verifier
	v.pass, v.pending = true, nil
	m.Each(func(r *Replica) { v.pending = append(v.pending, r) })
	if n := int64(len(v.pending)); n > 0 {
		at := (m.clock.Now().UnixNano()%n + n) % n
		v.pending = append(slices.Clone(v.pending[at:]), v.pending[:at]...)
	}
}

// next begins with the first of the pending logs that can be read.
func (v *verifier) next() bool {
	for ; len(v.pending) > 0; v.pending = v.pending[1:] {
		if r := v.pending[0]; r.log != nil && r.Failure() == nil {
			v.log = r.log.Verifier()
			return true
		}
	}
	return false
}

// verifyFailed reports that a log could not be verified, and whether to leave it. A damaged
// replica that others can stand in for is fenced, which has it copied again from them. Of
// one that is alone everything else is still good, and nothing but a backup can repair it:
// it stays in service.
func (m *Manager) verifyFailed(r *Replica, err error) (leave bool) {
	if now, _ := m.Replica(r.topic, r.partition); now != r || r.Failure() != nil {
		return true // deleted, or fenced, meanwhile
	}
	line := m.logger.Error().Err(err).Str("topic", r.name).Int32("partition", r.partition)
	var damage *storage.DamageError
	if !errors.As(err, &damage) {
		line.Msg("the log cannot be read to verify it. Check the disk")
		return true
	}
	m.verifier.damage.Add(1)
	if !r.replaceable() {
		line.Msg("what is on disk is not what was written, and no other replica is in sync to copy it from: the partition stays in service. Restore the file from a backup, or produce its records again")
		return false
	}
	line.Msg("what is on disk is not what was written: this replica is fenced and copied again from another one. Watch the disk")
	r.damaged(r.log.Fence(damage))
	return true
}

// replaceable says that there is a leader and another replica in sync, if need be to lead.
func (r *Replica) replaceable() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.meta != nil && r.meta.Leader >= 0 &&
		slices.ContainsFunc(r.meta.ISR, func(id int32) bool { return id != r.manager.cfg.NodeID })
}
