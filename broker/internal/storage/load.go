package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/leatlog/leat/broker/internal/record"
)

// load finds the segments of the directory, or makes the first one, and recovers.
func (l *Log) load() error {
	names, err := l.env.FS.List(l.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := l.loadCleaned(); err != nil {
		return err
	}
	if names, err = l.finishSwaps(names); err != nil {
		return err
	}
	bases, snapshots, err := l.sortFiles(names)
	if err != nil {
		return err
	}
	start, _, err := l.readOffset(logStartName)
	if err != nil {
		return err
	}
	if l.recoveryPoint, _, err = l.readOffset(recoveryPointName); err != nil {
		return err
	}
	if err := l.loadEpochs(); err != nil {
		return err
	}
	// Segments that end at or below the start were about to be removed.
	for len(bases) > 1 && bases[1] <= start {
		if err := l.removeSegmentFiles(bases[0]); err != nil {
			return err
		}
		bases = bases[1:]
	}
	l.snapshotAt = newestSnapshot(snapshots)
	if len(bases) == 0 {
		return l.loadEmpty(start, snapshots)
	}
	for i, base := range bases {
		s := l.newSegment(base)
		if i+1 < len(bases) {
			if err := l.loadSealed(s, bases[i+1]); err != nil {
				return err
			}
		}
		l.segments = append(l.segments, s)
	}
	l.start.Store(max(start, bases[0]))
	if n := len(l.segments); n > 1 && l.recoveryPoint < l.segments[n-1].base {
		if err := l.verifySealed(l.segments[n-2]); err != nil {
			return err
		}
	}
	if err := l.recoverLast(l.active()); err != nil {
		return err
	}
	l.active().created = l.env.Now().UnixMilli()
	return l.finishLoad(snapshots)
}

// finishLoad holds what was loaded against the range of the log.
func (l *Log) finishLoad(snapshots []int64) error {
	if l.start.Load() > l.end.Load() && l.Damaged() == nil {
		// Everything below the start was to be deleted, and only such is left.
		l.logger().Warn().Int64("start", l.start.Load()).Int64("end", l.end.Load()).Msg("the log ends before its start; it begins anew there")
		if err := l.prepareReset(); err != nil {
			return err
		}
		return l.restartAt(l.start.Load())
	}
	l.epochs.truncateStart(l.start.Load())
	if l.Damaged() != nil {
		return nil
	}
	return l.pruneSnapshots(snapshots)
}

// loadEmpty begins a log without segments.
func (l *Log) loadEmpty(start int64, snapshots []int64) error {
	if err := l.env.FS.MkdirAll(l.dir); err != nil {
		return err
	}
	l.unnamed = true
	for _, at := range snapshots {
		if err := l.env.FS.Remove(l.path(segmentName(at, snapshotSuffix))); err != nil {
			return err
		}
	}
	l.snapshotAt = -1
	l.epochs.truncateEnd(0)
	// A stale point from before the segments were removed must not outlive them.
	if l.recoveryPoint > start {
		if err := l.setRecoveryPoint(start, true); err != nil {
			return err
		}
	}
	s, err := l.createSegment(start, false)
	if err != nil {
		return err
	}
	s.created = l.env.Now().UnixMilli()
	l.segments = []*segment{s}
	l.start.Store(start)
	l.end.Store(start)
	l.synced.Store(start)
	return nil
}

// settleNames makes the names of a new log durable. The caller holds mu or is alone.
func (l *Log) settleNames() error {
	if !l.unnamed {
		return nil
	}
	if err := l.syncNames(); err != nil {
		return err
	}
	l.unnamed = false
	return nil
}

// syncNames makes the names on the way to the log's files durable, and the id of
// its topic.
func (l *Log) syncNames() error {
	f, err := l.env.FS.OpenReadWrite(l.path(partitionMetadata))
	if err == nil {
		err = errors.Join(f.Sync(), f.Close())
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := l.env.FS.SyncDir(l.dir); err != nil {
		return err
	}
	if d := l.env.directory; d != nil {
		return d.env.FS.SyncDir(d.root)
	}
	return syncParents(l.env.FS, l.dir)
}

// sortFiles returns the base offsets of the segments and the offsets of the
// producer snapshots, rising, and removes what was left half done.
func (l *Log) sortFiles(names []string) (bases, snapshots []int64, err error) {
	var derived []string
	for _, name := range names {
		if base, ok := parseSegmentName(name, logSuffix); ok {
			bases = append(bases, base)
		} else if at, ok := parseSegmentName(name, snapshotSuffix); ok {
			snapshots = append(snapshots, at)
		} else if strings.HasSuffix(name, tempSuffix) {
			if err := l.env.FS.Remove(l.path(name)); err != nil {
				return nil, nil, err
			}
		} else {
			derived = append(derived, name)
		}
	}
	slices.Sort(bases)
	slices.Sort(snapshots)
	for _, name := range derived {
		for _, suffix := range []string{indexSuffix, timesSuffix, abortedSuffix} {
			base, ok := parseSegmentName(name, suffix)
			if _, found := slices.BinarySearch(bases, base); !ok || found {
				continue
			}
			if err := l.env.FS.Remove(l.path(name)); err != nil {
				return nil, nil, err
			}
		}
	}
	return bases, snapshots, nil
}

func newestSnapshot(snapshots []int64) int64 {
	if len(snapshots) == 0 {
		return -1
	}
	return snapshots[len(snapshots)-1]
}

func (l *Log) loadEpochs() error {
	data, err := readFile(l.env.FS, l.path(epochCheckpointName), checkpointLimit)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil && !errors.Is(err, errFileTooLarge):
		return err
	}
	if err == nil {
		l.epochs.entries, err = decodeEpochs(data)
	}
	if err != nil {
		l.logger().Warn().Err(err).Msg("the history of leader epochs is damaged; it is taken from the batches of the last segment")
	}
	return nil
}

// loadSealed takes over a segment that is followed by another: it was durable as
// a whole before that one was made.
func (l *Log) loadSealed(s *segment, nextBase int64) error {
	info, err := l.env.FS.Stat(s.file.name())
	if err != nil {
		return err
	}
	s.size.Store(info.Size())
	s.end.Store(nextBase)
	s.allocated, s.syncedSize = info.Size(), info.Size()
	return nil
}

// verifySealed makes sure that the segment before the last is trimmed. A crash
// between creating the last one and trimming may have left a tail of zeros.
func (l *Log) verifySealed(s *segment) error {
	f, err := s.file.acquire()
	if err != nil {
		return err
	}
	defer s.file.release()
	size, end := s.size.Load(), s.end.Load()
	position, err := l.positionOf(s, f, end, size)
	if err != nil {
		// Without its index, or with gaps at the end, it is read as a whole.
		if err := l.discardIndexes(s); err != nil {
			return err
		}
		next := s.base
		var bad error
		position, bad, err = scan(f, 0, size, func(b record.Batch, at int64) error {
			if b.NextOffset() > end {
				return fmt.Errorf("%w: offset %d in a segment that ends at %d", errOutOfPlace, b.LastOffset(), end)
			}
			s.note(b, at, l.config().IndexInterval)
			next = b.NextOffset()
			return nil
		})
		if errors.Is(err, errOutOfPlace) {
			bad, err = err, nil
		}
		if err != nil {
			return err
		}
		if next != end && !(l.mayHaveGaps() && bad == nil) {
			if bad == nil {
				bad = errors.New("records are missing at the end of the segment")
			}
			l.damaged(s, position, next, bad)
			return nil
		}
		if err := l.flushIndexes(s); err != nil {
			return err
		}
	}
	s.checked.Store(true)
	s.size.Store(position)
	s.syncedSize = position
	if err := s.trim(f, false); err != nil {
		return err
	}
	// Even if there was nothing to trim: an earlier process may have failed to sync it.
	return f.Sync()
}

// restoreProducers makes the producers' state before offset, from the newest
// good snapshot and the batches since.
func (l *Log) restoreProducers(s *segment, offset int64) error {
	l.producers.clear()
	from := l.start.Load()
	for _, at := range l.snapshotsUpTo(offset) {
		data, err := readFile(l.env.FS, l.path(segmentName(at, snapshotSuffix)), snapshotLimit)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil && !errors.Is(err, errFileTooLarge):
			return err
		}
		var list []producer
		if err == nil {
			list, err = decodeSnapshot(data)
		}
		if err != nil {
			l.logger().Warn().Err(err).Int64("offset", at).Msg("a producer snapshot is damaged; the producers are taken from the batches since the one before")
			continue
		}
		for _, p := range list {
			l.producers.set(p)
		}
		if err := l.refillProducers(at); err != nil {
			return err
		}
		from = at
		break
	}
	for i := l.segmentOf(from); i < len(l.segments) && l.segments[i].base < offset; i++ {
		if err := l.replayProducers(l.segments[i], from, offset); err != nil {
			return err
		}
	}
	now := l.env.Now().UnixMilli()
	for _, p := range l.producers.byID {
		p.seen = now
	}
	return nil
}

// snapshotsUpTo returns the offsets of the snapshots up to offset, newest first.
func (l *Log) snapshotsUpTo(offset int64) []int64 {
	names, err := l.env.FS.List(l.dir)
	if err != nil {
		return nil
	}
	var list []int64
	for _, name := range names {
		if at, ok := parseSegmentName(name, snapshotSuffix); ok && at <= offset && at >= l.start.Load() {
			list = append(list, at)
		}
	}
	slices.Sort(list)
	slices.Reverse(list)
	return list
}

var errDone = errors.New("storage: done")

// replayProducers takes over the batches of a segment within [from, to).
func (l *Log) replayProducers(s *segment, from, to int64) error {
	if from >= to {
		return nil
	}
	f, err := s.file.acquire()
	if err != nil {
		return err
	}
	defer s.file.release()
	size, err := f.Size()
	if err != nil {
		return err
	}
	position, bad, err := scan(f, 0, size, func(b record.Batch, _ int64) error {
		if b.BaseOffset() >= to {
			return errDone
		}
		if b.NextOffset() <= from {
			return nil
		}
		_, _, err := l.producers.replay(b)
		return err
	})
	if errors.Is(err, errDone) {
		return nil
	}
	if err == nil && bad != nil && s != l.active() {
		l.damaged(s, position, from, bad)
	}
	return err
}

// pruneSnapshots removes the producer snapshots that nothing needs: those beyond
// the end, and those that are neither at the base of a segment, where a truncation
// would use them, nor the newest.
func (l *Log) pruneSnapshots(snapshots []int64) error {
	end := l.end.Load()
	newest := int64(-1)
	for _, at := range snapshots {
		if at <= end {
			newest = at
		}
	}
	l.snapshotAt = max(newest, min(l.snapshotAt, end))
	for _, at := range snapshots {
		_, atBase := slices.BinarySearchFunc(l.segments, at, func(s *segment, at int64) int { return int(min(max(s.base-at, -1), 1)) })
		if at == newest || atBase && at <= end {
			continue
		}
		if err := l.env.FS.Remove(l.path(segmentName(at, snapshotSuffix))); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
