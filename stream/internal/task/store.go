package task

import (
	"context"
	"fmt"
	"time"

	"github.com/leatlog/leat/state"
	"github.com/leatlog/leat/state/changelog"
	"github.com/leatlog/leat/topology/plan"
)

// Changelog is one partition of a store's changelog topic, to write.
type Changelog interface {
	// Append takes a record; everything is copied. A nil value is a tombstone.
	Append(timestamp int64, key, value []byte) error
	// NextOffset is the offset after the last record that Append was given and that
	// is acknowledged; -1 when there is none yet.
	NextOffset() int64
}

// LoggedStore is a store with its engine and its changelog: restored before the
// task starts, then written by its operators and committed with the task.
type LoggedStore struct {
	*changelog.Logged
	name     string
	log      Changelog           // nil: the store has none
	restorer *changelog.Restorer // nil when it is restored
	followed bool                // it was a standby's
	kept     int64               // where restorer was when the engine last had all of it; -1 never
	position state.Position
	records  []changelog.Record // reused
}

// OpenStore opens a store of a task. bounds are the ends of its changelog
// partition at this moment; log is nil, and bounds of no use, for a store without
// a changelog. A checkpoint is due every interval.
func OpenStore(ctx context.Context, backend state.Backend, id plan.TaskID, spec state.Spec, log Changelog, bounds changelog.Bounds, interval time.Duration) (*LoggedStore, error) {
	engine, err := backend.Open(ctx, id.String(), spec)
	if err != nil {
		return nil, err
	}
	s := &LoggedStore{name: spec.Name, log: log, kept: -1, position: state.Position{LeaderEpoch: -1}}
	cfg := changelog.Config{Spec: spec, Engine: engine, CheckpointInterval: interval}
	if log != nil {
		cfg.Append = func(key, value []byte, timestamp int64) error { return log.Append(timestamp, key, value) }
		s.restorer, err = changelog.NewRestorer(spec, engine, bounds)
	}
	if err == nil {
		s.Logged, err = changelog.New(cfg)
	}
	if err != nil {
		_ = engine.Close() // nothing was written
		return nil, err
	}
	return s, nil
}

// RestoreFrom returns the changelog offsets to restore: none when they are
// equal.
func (s *LoggedStore) RestoreFrom() (next, end int64, reason changelog.Reason) {
	if s.restorer == nil {
		return 0, 0, changelog.FromCheckpoint
	}
	p := s.restorer.Progress()
	if s.followed {
		return p.Next, p.End, FromStandby
	}
	return p.Next, p.End, s.restorer.Reason()
}

// Restore applies changelog records. next is the offset after them.
func (s *LoggedStore) Restore(records []plan.Record, next int64, epoch int32) error {
	s.records = s.records[:0]
	for i := range records {
		r := &records[i]
		s.records = append(s.records, changelog.Record{Offset: r.Offset, Timestamp: r.Timestamp, Key: r.Key, Value: r.Value})
	}
	err := s.restorer.Add(s.records, next, epoch)
	clear(s.records)
	return err
}

// Restored ends the restore: the store can be read.
func (s *LoggedStore) Restored() error {
	if s.restorer == nil {
		return nil
	}
	if !s.restorer.Done() {
		return fmt.Errorf("store %q is not restored yet: at offset %d", s.name, s.restorer.Next())
	}
	// What the checkpoint covers needs no other.
	if s.restorer.Reason() != changelog.FromCheckpoint || s.restorer.Progress().Records > 0 {
		if err := s.Keep(); err != nil {
			return err
		}
	}
	s.position.Offset = s.restorer.Next()
	s.restorer, s.records = nil, nil
	return nil
}

// Commit implements Store.
func (s *LoggedStore) Commit() error {
	if err := s.Logged.Commit(); err != nil {
		return err
	}
	if s.log != nil {
		s.position.Offset = max(s.position.Offset, s.log.NextOffset())
	}
	return nil
}

// Checkpoint makes what is committed durable. Call it after Commit, before
// anything else is written.
func (s *LoggedStore) Checkpoint(now time.Time) error { return s.Logged.Checkpoint(s.position, now) }
