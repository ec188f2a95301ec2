package storage

import (
	"errors"
	"fmt"

	"github.com/leatlog/leat/broker/internal/vfs"
)

// Close syncs the log, trims its files and records that all is durable, so that
// the next Open has nothing to read again. A fenced log is only let go of. The
// log cannot be used afterwards; a second Close does nothing.
func (l *Log) Close() error {
	if l.Damaged() == nil {
		// What fails here fences the log, which is then let go of like any other.
		_ = l.Sync()
	}
	l.syncMu.Lock()
	defer l.syncMu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	var err error
	if l.Damaged() == nil && l.end.Load() == l.synced.Load() && l.needsCheckpoint() {
		if err = l.checkpoint(true); err == nil {
			err = l.trimActive()
		}
		if errors.Is(err, vfs.ErrNoSpace) {
			l.logger.Warn().Err(err).Msg("the disk is full: the next start reads the last segment again")
			err = nil
		}
	}
	l.readMu.Lock()
	defer l.readMu.Unlock()
	for _, s := range l.segments {
		s.drop()
	}
	if err != nil {
		return fmt.Errorf("storage: close %s: %w", l.dir, err)
	}
	return l.Damaged()
}

func (l *Log) needsCheckpoint() bool {
	s := l.active()
	return l.recoveryPoint != l.end.Load() && (l.end.Load() > s.base || l.recoveryPoint >= 0) || s.allocated != s.size.Load() || l.epochs.dirty
}

func (l *Log) trimActive() error {
	s := l.active()
	f, err := s.file.acquire()
	if err != nil {
		return err
	}
	defer s.file.release()
	return s.trim(f, true)
}
