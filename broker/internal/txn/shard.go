package txn

import (
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/leatlog/leat/broker/internal/coordinator"
)

// Config are the settings of the transaction coordinator.
type Config struct {
	// MaxTimeout is transaction.max.timeout.ms, the longest that a client may keep a
	// transaction open.
	MaxTimeout time.Duration
	// Expiration is transactional.id.expiration.ms: after so long without use a
	// transactional id is forgotten.
	Expiration time.Duration
	// ExpirationCheck is transaction.remove.expired.transaction.cleanup.interval.ms.
	ExpirationCheck time.Duration
	// Prepared is told of each transaction whose end is durable. It is called under the
	// shard's lock and must not block.
	Prepared func(partition int32, p Prepared)
}

// DefaultConfig returns Kafka's defaults. Prepared must be set.
func DefaultConfig() Config {
	return Config{MaxTimeout: 15 * time.Minute, Expiration: 7 * 24 * time.Hour, ExpirationCheck: time.Hour}
}

// Shard holds the transactional ids of one partition of `__transaction_state`. It
// implements coordinator.Shard and is used under the runtime's lock. Answers come
// through the callbacks given with the requests, exactly once each.
type Shard struct {
	cfg       Config
	partition int32
	ids       map[string]*transaction
	deadlines deadlines
	expireAt  time.Time // when idle ids are next looked for
}

var _ coordinator.Shard = (*Shard)(nil)

// NewShard returns an empty shard.
func NewShard(partition int32, cfg Config) *Shard {
	return &Shard{cfg: cfg, partition: partition, ids: map[string]*transaction{}}
}

// Loaded implements coordinator.Shard: ends that were decided are carried out.
func (s *Shard) Loaded(now time.Time) coordinator.Result {
	s.expireAt = now.Add(s.cfg.ExpirationCheck)
	for _, id := range slices.Sorted(maps.Keys(s.ids)) {
		if t := s.ids[id]; t.state.preparing() {
			s.cfg.Prepared(s.partition, t.prepared())
		}
	}
	return coordinator.Result{}
}

// Unload implements coordinator.Shard. Nothing is parked here.
func (s *Shard) Unload() {}

// NextDeadline implements coordinator.Shard.
func (s *Shard) NextDeadline() (time.Time, bool) {
	next := s.expireAt
	if len(s.deadlines) > 0 {
		if at := time.UnixMilli(s.deadlines[0].deadline); next.IsZero() || at.Before(next) {
			next = at
		}
	}
	return next, !next.IsZero()
}

// Expire implements coordinator.Shard: a transaction that is open for too long is
// aborted, one per call, and its producer fenced; ids that nobody uses are forgotten.
func (s *Shard) Expire(now time.Time) coordinator.Result {
	if len(s.deadlines) > 0 && s.deadlines[0].deadline <= now.UnixMilli() {
		return s.fence(s.deadlines[0], now, func(*kerr.Error) {})
	}
	if s.expireAt.After(now) {
		return coordinator.Result{}
	}
	s.expireAt = now.Add(s.cfg.ExpirationCheck)
	var idle []coordinator.Record
	limit := now.Add(-s.cfg.Expiration).UnixMilli()
	for _, id := range slices.Sorted(maps.Keys(s.ids)) {
		if t := s.ids[id]; t.state != Ongoing && !t.state.preparing() && t.updated <= limit {
			idle = append(idle, coordinator.Record{Key: recordKey(id)})
		}
	}
	return coordinator.Result{Records: idle, Several: true}
}

// say gives an answer when all that it may rest on is committed.
func say(answer func(*kerr.Error), err *kerr.Error) coordinator.Result {
	return coordinator.Result{Done: func(failed error) coordinator.Result {
		if failed != nil {
			err = errorOf(failed)
		}
		answer(err)
		return coordinator.Result{}
	}}
}

// record has a transactional id changed, and says so when that is committed.
func record(t transaction, answer func(*kerr.Error)) coordinator.Result {
	result := say(answer, nil)
	result.Records = []coordinator.Record{t.record()}
	return result
}

// prepare decides the end of a transaction.
func (s *Shard) prepare(t transaction, answer func(*kerr.Error)) coordinator.Result {
	p := t.prepared()
	return record(t, func(err *kerr.Error) {
		if err == nil {
			s.cfg.Prepared(s.partition, p)
		}
		answer(err)
	})
}

// fence aborts an open transaction and raises the epoch, so that its producer can add
// nothing to it any more.
func (s *Shard) fence(t *transaction, now time.Time, answer func(*kerr.Error)) coordinator.Result {
	next := t.with(PrepareAbort, now)
	next.epoch, next.raised = next.epoch+1, true // there is always one left: see lastUsableEpoch
	t.lastEpoch = -1
	return s.prepare(next, answer)
}

// errorOf maps why an append failed to what Kafka's coordinator answers.
func errorOf(err error) *kerr.Error {
	var code *kerr.Error
	switch {
	case errors.Is(err, coordinator.ErrTooLarge):
		return kerr.UnknownServerError
	case !errors.As(err, &code):
		return kerr.NotCoordinator
	}
	switch code {
	case kerr.NotEnoughReplicas, kerr.NotEnoughReplicasAfterAppend, kerr.UnknownTopicOrPartition, kerr.RequestTimedOut:
		return kerr.CoordinatorNotAvailable
	}
	return kerr.NotCoordinator
}
