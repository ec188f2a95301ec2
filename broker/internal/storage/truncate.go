package storage

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"

	"github.com/leatlog/leat/broker/internal/record"
	"github.com/leatlog/leat/broker/internal/vfs"
)

// TruncateTo removes everything at and above offset, durably. A batch that holds
// offset is removed as a whole, so that EndOffset may come to lie below offset. An
// offset at the end takes the epochs that have no record, one above it nothing; one below StartOffset is
// ErrOffsetOutOfRange.
func (l *Log) TruncateTo(offset int64) error {
	l.syncMu.Lock()
	defer l.syncMu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.canAppend(); err != nil {
		return err
	}
	if offset >= l.end.Load() {
		// Epochs that began at the end and got no record go, as they do below it.
		l.epochs.truncateEnd(offset)
		return nil
	}
	l.unstable.Store(true) // a transaction whose end is cut is open again
	if offset < l.start.Load() {
		return fmt.Errorf("%w: truncate to %d, the log starts at %d", ErrOffsetOutOfRange, offset, l.start.Load())
	}
	l.readMu.Lock()
	defer l.readMu.Unlock()
	target := l.segments[l.segmentOf(offset)]
	position, end, err := l.boundary(target, offset)
	if err != nil {
		return err
	}
	if end < l.start.Load() {
		// The batch that holds the start goes, and with it all there is.
		return l.reset("truncate", l.start.Load())
	}
	if err := l.settleNames(); err != nil {
		return l.failed("truncate", err)
	}
	if err := l.lowerCleaned(end); err != nil {
		return l.failed("truncate", err)
	}
	// What is about to go must not be missed by a later recovery. What is derived
	// from the rest is not durable either, so that recovery has to read the segment.
	if l.recoveryPoint > target.base {
		if err := l.setRecoveryPoint(target.base, true); err != nil {
			return l.failed("truncate", err)
		}
	}
	l.hints.clear()
	// Newest first and each removal durable, so that a crash leaves no gap.
	for l.active() != target {
		if err := l.removeActive(); err != nil {
			return l.fence(fmt.Errorf("storage: truncate %s: %w", l.dir, err))
		}
	}
	if err := l.truncateActive(position, end); err != nil {
		return l.fence(fmt.Errorf("storage: truncate %s: %w", l.dir, err))
	}
	return nil
}

// removeActive removes the newest segment, durably.
func (l *Log) removeActive() error {
	s := l.active()
	s.drop()
	if err := l.removeSegmentFiles(s.base); err != nil {
		return err
	}
	if err := l.env.FS.SyncDir(l.dir); err != nil {
		return err
	}
	l.segments = l.segments[:len(l.segments)-1]
	if len(l.segments) > 0 {
		l.end.Store(s.base)
		l.synced.Store(min(l.synced.Load(), s.base))
		return l.reopen(l.active())
	}
	return nil
}

// reopen makes a full segment the active one again.
func (l *Log) reopen(s *segment) error {
	if err := l.ensureIndexes(s); err != nil {
		return err
	}
	if err := l.loadTimes(s); err != nil {
		return err
	}
	s.created = l.env.Now().UnixMilli()
	f, err := s.file.acquire()
	if err != nil {
		return err
	}
	defer s.file.release()
	if s.size.Load() > 0 {
		w := windows.Get().(*window)
		defer windows.Put(w)
		w.reset(f)
		first, err := w.header(0, s.size.Load())
		if err != nil {
			return l.unreadable(s, 0, s.base, err)
		}
		s.firstTime = first.MaxTimestamp()
	}
	return l.loadAborted(s)
}

// boundary returns where the batch begins that holds offset, and the offset up to
// which batches lie before it.
func (l *Log) boundary(s *segment, offset int64) (position, end int64, err error) {
	size := s.size.Load()
	f, err := s.file.acquire()
	if err != nil {
		return 0, 0, err
	}
	defer s.file.release()
	w := windows.Get().(*window)
	defer windows.Put(w)
	w.reset(f)
	if position, err = l.lookup(s, w, offset-1, size); err != nil {
		return 0, 0, err
	}
	end = s.base
	for position < size {
		h, err := w.header(position, size)
		if err != nil {
			return 0, 0, l.unreadable(s, position, offset, err)
		}
		if h.NextOffset() > offset {
			break
		}
		end = h.NextOffset()
		position += int64(h.Size())
	}
	return position, end, nil
}

// truncateActive cuts the active segment at the end of a batch.
func (l *Log) truncateActive(position, end int64) error {
	s := l.active()
	f, err := s.file.acquire()
	if err != nil {
		return err
	}
	defer s.file.release()
	if s.marked && s.syncedSize > position {
		s.syncedSize = position
		err := s.writeMark(f, position, end)
		if err == nil {
			err = f.Sync()
		}
		// A file system that copies what is overwritten may have no room for the mark. The
		// cut takes it away anyway.
		if err != nil && !errors.Is(err, vfs.ErrNoSpace) {
			return err
		}
	}
	if err := f.Truncate(position); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	s.end.Store(end)
	s.size.Store(position)
	s.allocated, s.syncedSize, s.marked = position, position, false
	s.unpin()
	l.end.Store(end)
	l.synced.Store(end)
	return l.truncateDerived(s, f, end)
}

// truncateDerived cuts what is derived from the batches to the new end.
func (l *Log) truncateDerived(s *segment, f io.ReaderAt, end int64) error {
	s.maxTime.Store(-1)
	s.maxOffset.Store(-1)
	s.sinceIndex, s.firstTime = 0, -1
	if end == s.base {
		if err := l.discardIndexes(s); err != nil {
			return err
		}
	} else if _, err := l.positionOf(s, f, end, s.size.Load()); err == nil {
		if err := l.noteLastTimes(s, f); err != nil {
			return err
		}
	} else {
		// The index does not fit its segment; it is made anew.
		if err := l.discardIndexes(s); err != nil {
			return err
		}
		position, bad, err := scan(f, 0, s.size.Load(), func(b record.Batch, at int64) error {
			s.note(b, at, l.config().IndexInterval)
			return nil
		})
		if err != nil {
			return err
		}
		if bad != nil {
			return l.damaged(s, position, end, bad)
		}
	}
	for n := len(s.aborted); n > 0 && s.aborted[n-1].lastOffset >= end; n-- {
		s.aborted, s.abortedDirty = s.aborted[:n-1], true
	}
	l.epochs.truncateEnd(end)
	if err := l.removeSnapshots(end, math.MaxInt64); err != nil {
		return err
	}
	return l.restoreProducers(s, end)
}

// noteLastTimes takes the largest timestamp from the batches after the last index
// entry, which the time index does not tell.
func (l *Log) noteLastTimes(s *segment, f io.ReaderAt) error {
	position := int64(0)
	if last := s.index.lastEntry(nil); len(last) > 0 {
		_, at := indexEntry(last)
		position = int64(at)
	}
	w := windows.Get().(*window)
	defer windows.Put(w)
	w.reset(f)
	for size := s.size.Load(); position < size; {
		h, err := w.header(position, size)
		if err != nil {
			return l.unreadable(s, position, s.end.Load(), err)
		}
		if t := h.MaxTimestamp(); t > s.maxTime.Load() {
			s.maxTime.Store(t)
			s.maxOffset.Store(h.LastOffset())
		}
		position += int64(h.Size())
	}
	return nil
}

// removeSnapshots removes the producer snapshots with from < offset < to.
func (l *Log) removeSnapshots(from, to int64) error {
	names, err := l.env.FS.List(l.dir)
	if err != nil {
		return err
	}
	l.snapshotAt = -1
	for _, name := range names {
		at, ok := parseSegmentName(name, snapshotSuffix)
		if !ok {
			continue
		}
		if at <= from || at >= to {
			l.snapshotAt = max(l.snapshotAt, at)
		} else if err := l.env.FS.Remove(l.path(name)); err != nil {
			return err
		}
	}
	return nil
}

// ResetTo removes everything and begins the log anew at offset, durably. It is
// the way out of damage: a log fenced for that takes writes again.
func (l *Log) ResetTo(offset int64) error {
	if offset < 0 {
		return fmt.Errorf("%w: reset to %d", ErrOffsetOutOfRange, offset)
	}
	l.syncMu.Lock()
	defer l.syncMu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return fmt.Errorf("%w: %s", ErrClosed, l.dir)
	}
	if l.damage.Load() == nil {
		if err := l.writable(); err != nil {
			return err
		}
	}
	l.readMu.Lock()
	defer l.readMu.Unlock()
	if err := l.reset("reset", offset); err != nil {
		return err
	}
	if l.damage.Swap(nil) != nil {
		l.fenced.Store(nil)
	}
	return nil
}

// reset does the work of ResetTo. A crash leaves a beginning of the old log or nothing of
// it. When the disk is full before anything is removed, the log is as before; later the
// log counts as damaged, which another ResetTo mends, and the directory's others go on. The
// caller holds all locks.
func (l *Log) reset(what string, offset int64) error {
	l.hints.clear()
	if err := l.prepareReset(); err != nil {
		return l.failed(what, err)
	}
	err := l.restartAt(offset)
	if err == nil {
		return nil
	}
	if len(l.segments) == 0 {
		l.segments = append(l.segments, l.newSegment(offset)) // without a file, for readers
		l.start.Store(offset)
		l.end.Store(offset)
		l.synced.Store(offset)
	}
	if errors.Is(err, vfs.ErrNoSpace) {
		return l.fence(&DamageError{File: l.dir, Offset: offset, Err: err})
	}
	return l.fence(fmt.Errorf("storage: %s %s: %w", what, l.dir, err))
}

// prepareReset sees to it that a later recovery does not miss what is about to go.
func (l *Log) prepareReset() error {
	if err := l.settleNames(); err != nil {
		return err
	}
	if err := l.lowerCleaned(0); err != nil {
		return err
	}
	if l.recoveryPoint > 0 {
		return l.setRecoveryPoint(0, true)
	}
	return nil
}

// restartAt removes all there is and makes a log that begins, and ends, at offset.
func (l *Log) restartAt(offset int64) error {
	for len(l.segments) > 0 {
		s := l.active()
		s.drop()
		if err := l.removeSegmentFiles(s.base); err != nil {
			return err
		}
		if err := l.env.FS.SyncDir(l.dir); err != nil {
			return err
		}
		l.segments = l.segments[:len(l.segments)-1]
	}
	if err := l.removeSnapshots(-1, math.MaxInt64); err != nil {
		return err
	}
	l.epochs = epochs{dirty: true}
	l.producers.clear()
	if err := l.env.FS.Remove(l.path(epochCheckpointName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := l.writeOffset(logStartName, offset, true); err != nil {
		return err
	}
	s, err := l.createSegment(offset, true)
	if err != nil {
		return err
	}
	s.created = l.env.Now().UnixMilli()
	l.segments = append(l.segments, s)
	l.start.Store(offset)
	l.end.Store(offset)
	l.synced.Store(offset)
	return nil
}

// AdvanceStart makes offset the first that can be read, durably, and removes the
// segments that end at or below it. Offsets at or below StartOffset change
// nothing; one above EndOffset is ErrOffsetOutOfRange.
func (l *Log) AdvanceStart(offset int64) error {
	if offset <= l.start.Load() {
		return nil
	}
	if offset > l.synced.Load() {
		// The start must not come to lie beyond what a crash leaves.
		if err := l.Sync(); err != nil {
			return err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.canAppend(); err != nil {
		return err
	}
	if offset > l.synced.Load() {
		return fmt.Errorf("%w: advance the start to %d, the log ends at %d", ErrOffsetOutOfRange, offset, l.end.Load())
	}
	if offset <= l.start.Load() {
		return nil
	}
	if err := l.writeOffset(logStartName, offset, true); err != nil {
		return l.failed("advance start of", err)
	}
	return l.startAt(offset)
}

// startAt moves the start, which the checkpoint has already, and removes what
// ends below it. The caller holds mu.
func (l *Log) startAt(offset int64) error {
	l.start.Store(offset)
	l.epochs.truncateStart(offset)
	l.readMu.Lock()
	keep := 0
	for keep+1 < len(l.segments) && l.segments[keep+1].base <= offset {
		keep++
	}
	removed := l.segments[:keep]
	l.segments = append([]*segment(nil), l.segments[keep:]...)
	l.readMu.Unlock()
	for _, s := range removed {
		s.drop()
		if err := l.removeSegmentFiles(s.base); err != nil {
			return l.failed("remove a segment of", err)
		}
	}
	if len(removed) > 0 {
		if err := l.removeSnapshots(-1, l.segments[0].base); err != nil {
			return l.failed("remove a snapshot of", err)
		}
	}
	return nil
}

// removeSegmentFiles removes the files of a segment, its data last, so that what
// remains of it after a crash is found and removed.
func (l *Log) removeSegmentFiles(base int64) error {
	for _, suffix := range []string{indexSuffix, timesSuffix, abortedSuffix, logSuffix} {
		if err := l.env.FS.Remove(l.path(segmentName(base, suffix))); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
