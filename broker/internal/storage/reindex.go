package storage

import (
	"fmt"

	"github.com/leatlog/leat/broker/internal/record"
)

// ensureIndexes checks the indexes of a segment once, before they are first used,
// and makes them anew when they are missing or do not fit. The active segment's
// have been checked when the log was opened.
func (l *Log) ensureIndexes(s *segment) error {
	if s.checked.Load() {
		return nil
	}
	s.health.Lock()
	if s.checked.Load() {
		s.health.Unlock()
		return nil
	}
	err := s.checkIndexes(l.config().IndexInterval)
	if err == nil {
		s.checked.Store(true)
	}
	s.health.Unlock()
	if err != nil {
		return l.rebuildIndexes(s, err.Error())
	}
	return nil
}

func (s *segment) checkIndexes(interval int) error {
	entries, err := s.index.all()
	if err != nil {
		return err
	}
	times, err := s.times.all()
	if err != nil {
		return err
	}
	if len(entries) == 0 && s.size.Load() > 2*int64(interval)+blockSize || len(times) == 0 && s.size.Load() > 0 {
		return fmt.Errorf("%w: it is empty", errIndex)
	}
	if err := validIndex(entries, s.size.Load(), s.offsets()); err != nil {
		return err
	}
	return validTimes(times, s.offsets())
}

// rebuildIndexes makes the indexes of a full segment anew from its batches.
func (l *Log) rebuildIndexes(s *segment, reason string) error {
	s.health.Lock()
	defer s.health.Unlock()
	l.logger().Warn().Str("file", s.file.name()).Str("reason", reason).Msg("indexes are made anew from the segment")
	f, err := s.file.acquire()
	if err != nil {
		return err
	}
	defer s.file.release()
	fresh := segment{base: s.base, firstTime: -1}
	fresh.maxTime.Store(-1)
	fresh.maxOffset.Store(-1)
	fresh.index.entry, fresh.times.entry = indexEntrySize, timeEntrySize
	fresh.index.inMemory, fresh.times.inMemory = true, true
	next := s.base
	position, bad, err := scan(f, 0, s.size.Load(), func(b record.Batch, at int64) error {
		fresh.note(b, at, l.config().IndexInterval)
		next = b.NextOffset()
		return nil
	})
	if err != nil {
		return err
	}
	if bad != nil {
		return l.damaged(s, position, next, bad)
	}
	fresh.noteTime()
	s.maxTime.Store(fresh.maxTime.Load())
	s.maxOffset.Store(fresh.maxOffset.Load())
	s.hasTimes.Store(true)
	for _, x := range []struct{ old, new *index }{{&s.index, &fresh.index}, {&s.times, &fresh.times}} {
		if err := x.old.replace(x.new.pending); err != nil {
			return err
		}
	}
	s.checked.Store(true)
	return nil
}

// flushIndexes writes the indexes of a full segment durably.
func (l *Log) flushIndexes(s *segment) error {
	s.noteTime()
	s.hasTimes.Store(true)
	if err := s.index.flush(true); err != nil {
		return err
	}
	return s.times.flush(true)
}
