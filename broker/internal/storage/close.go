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
	err := l.closeDurably()
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

// closeDurably ends the appends and leaves nothing to recover. Without having been
// synced the log is left as a crash would.
func (l *Log) closeDurably() error {
	if l.closed {
		return nil
	}
	l.closed = true
	if l.Damaged() != nil || l.end.Load() != l.synced.Load() || !l.needsCheckpointLocked() {
		return nil
	}
	err := l.checkpoint(true)
	if err == nil {
		err = l.trimActive(true)
	}
	if errors.Is(err, vfs.ErrNoSpace) {
		l.logger().Warn().Err(err).Msg("the disk is full: the next start reads the last segment again")
		return nil
	}
	return err
}

// The steps of closing many logs at once. The caller syncs everything after each.

// closeDerived ends the appends and writes what is derived from them.
func (l *Log) closeDerived() error {
	l.syncMu.Lock()
	defer l.syncMu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	return l.persistDerived(l.active(), false)
}

// closePoint records that all is durable, as it is by now.
func (l *Log) closePoint() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unnamed = false
	l.synced.Store(l.end.Load())
	return l.setRecoveryPoint(l.end.Load(), false)
}

// closeTail trims the active segment.
func (l *Log) closeTail() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.trimActive(false)
}

// needsCheckpoint reports whether closing the log has anything to write.
func (l *Log) needsCheckpoint() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.needsCheckpointLocked()
}

func (l *Log) needsCheckpointLocked() bool {
	s := l.active()
	return l.recoveryPoint != l.end.Load() && (l.end.Load() > s.base || l.recoveryPoint >= 0) || s.allocated != s.size.Load() || l.epochs.dirty
}

func (l *Log) trimActive(sync bool) error {
	s := l.active()
	f, err := s.file.acquire()
	if err != nil {
		return err
	}
	defer s.file.release()
	return s.trim(f, sync)
}
