package storage

import (
	"errors"
	"fmt"

	"github.com/leatlog/leat/broker/internal/vfs"
)

// syncTarget is what one sync makes durable.
type syncTarget struct {
	segment *segment
	file    vfs.File // of segment, acquired
	size    int64    // bytes of segment
	end     int64    // of the log
	all     bool     // the whole file system is synced, names included
}

// Sync makes everything appended before the call durable; SyncedOffset moves. It
// does not hold up appends. A failed sync fences the log and its directory for
// good and is never tried again, since the kernel may have dropped the bytes.
func (l *Log) Sync() error {
	l.syncMu.Lock()
	defer l.syncMu.Unlock()
	if err := l.nameFirst(); err != nil {
		return err
	}
	target, err := l.beginSync(false)
	if err != nil || target.file == nil {
		return err
	}
	return l.endSync(target, target.file.Sync())
}

// nameFirst settles the names of a new log before its first sync, without holding
// up appends. The caller holds syncMu.
func (l *Log) nameFirst() error {
	l.mu.Lock()
	due := l.unnamed && !l.closed && l.end.Load() > l.synced.Load() && l.writable() == nil
	l.mu.Unlock()
	if !due {
		return nil
	}
	if err := l.syncNames(); err != nil {
		return l.fence(fmt.Errorf("storage: sync the names of %s: %w", l.dir, err))
	}
	l.mu.Lock()
	l.unnamed = false
	l.mu.Unlock()
	return nil
}

// beginSync returns what there is to sync; its file is nil when there is nothing.
// all says that the caller syncs the whole file system. It holds syncMu until
// endSync.
func (l *Log) beginSync(all bool) (syncTarget, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return syncTarget{}, fmt.Errorf("%w: %s", ErrClosed, l.dir)
	}
	if l.end.Load() == l.synced.Load() {
		return syncTarget{}, l.Damaged()
	}
	if err := l.writable(); err != nil {
		return syncTarget{}, err
	}
	s := l.active()
	f, err := s.file.acquire()
	if err != nil {
		return syncTarget{}, l.fence(err)
	}
	return syncTarget{segment: s, file: f, size: s.size.Load(), end: l.end.Load(), all: all}, nil
}

// endSync takes over the outcome of a sync.
func (l *Log) endSync(t syncTarget, failed error) error {
	defer t.segment.file.release()
	if failed != nil {
		return l.fence(fmt.Errorf("storage: sync %s: %w", t.segment.file.name(), failed))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if t.all {
		l.unnamed = false
	}
	if t.end > l.synced.Load() {
		l.synced.Store(t.end)
	}
	s := l.active()
	if s != t.segment || t.size <= s.syncedSize {
		return nil // it was rolled meanwhile, which synced it
	}
	s.syncedSize = t.size
	if s.size.Load() == t.size {
		s.unpin()
	}
	if err := l.mark(s, t.file); err != nil && !errors.Is(err, vfs.ErrNoSpace) {
		return l.fence(fmt.Errorf("storage: write to %s: %w", s.file.name(), err))
	}
	return nil
}
