package storage

import (
	"errors"
	"fmt"
	"math"

	"github.com/leatlog/leat/broker/internal/mutant"
	"github.com/leatlog/leat/broker/internal/record"
	"github.com/leatlog/leat/broker/internal/vfs"
)

// AppendInfo tells where an append went.
type AppendInfo struct {
	BaseOffset     int64
	LastOffset     int64
	LogAppendTime  int64 // ms, -1 when records keep their own timestamps
	LogStartOffset int64
	// Duplicate says that the batch was appended before, at these offsets, and not
	// again. It may not be durable yet.
	Duplicate bool
}

// Append appends batches as the leader in epoch. It verifies each batch once,
// CRC included, checks it against the producer's state and the configuration,
// and sets its base offset, leader epoch and, if configured, append time in place.
// All batches are appended or none; the bytes are not kept.
//
// Errors: record.ErrCRC, ErrCorrupt, ErrMagic, ErrCodec, ErrTruncated;
// ErrInvalidBatch, ErrRecordTooLarge, ErrInvalidTimestamp, ErrOutOfOrderSequence,
// ErrInvalidProducerEpoch, ErrInvalidTxnState, ErrCoordinatorFenced;
// vfs.ErrNoSpace, after which the log is as before and later appends may succeed;
// ErrFenced and ErrClosed.
func (l *Log) Append(batches []byte, epoch int32) (AppendInfo, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	info := AppendInfo{BaseOffset: l.end.Load(), LogAppendTime: -1, LogStartOffset: l.start.Load()}
	if err := l.canAppend(); err != nil {
		return info, err
	}
	if err := l.checkEpoch(epoch); err != nil {
		return info, err
	}
	l.updates = l.updates[:0]
	next := info.BaseOffset
	for rest := batches; ; {
		batch, after, err := record.Parse(rest)
		if err != nil {
			return info, err
		}
		if old, duplicate, err := l.checkBatch(batch, len(after) == 0 && len(l.updates) == 0); err != nil {
			return info, err
		} else if duplicate {
			info.BaseOffset, info.LastOffset, info.Duplicate = old.lastOffset-int64(old.offsetDelta), old.lastOffset, true
			if l.config().LogAppendTime {
				info.LogAppendTime = old.timestamp
			}
			return info, nil
		}
		batch.SetBaseOffset(next)
		batch.SetLeaderEpoch(epoch)
		if l.config().LogAppendTime {
			if info.LogAppendTime < 0 {
				info.LogAppendTime = l.env.Now().UnixMilli()
			}
			batch.SetLogAppendTime(info.LogAppendTime)
		}
		if err := l.checkProducer(batch); err != nil {
			return info, err
		}
		next = batch.NextOffset()
		if rest = after; len(rest) == 0 {
			break
		}
	}
	info.LastOffset = next - 1
	if err := l.write(batches, info.BaseOffset, next); err != nil {
		return info, err
	}
	return info, nil
}

// AppendFollower appends batches as a leader has them: offsets and epochs as
// given, offsets at or after the end of the log. It verifies each batch, and none
// of the leader's decisions. Errors as with Append.
func (l *Log) AppendFollower(batches []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.canAppend(); err != nil {
		return err
	}
	first, next := int64(-1), l.end.Load()
	for rest := batches; len(rest) > 0; {
		batch, after, err := record.Parse(rest)
		if err != nil {
			return err
		}
		if err := batch.Validate(); err != nil {
			return err
		}
		if base := batch.BaseOffset(); base < next {
			return fmt.Errorf("%w: base offset %d, the log ends at %d", ErrInvalidBatch, base, next)
		} else if base > next && !l.mayHaveGaps() {
			// The leader's log was compacted under an earlier configuration.
			if err := l.allowGaps(); err != nil {
				return l.failed("allow gaps in", err)
			}
		}
		if err := l.checkEpoch(batch.LeaderEpoch()); err != nil {
			return err
		}
		if batch.IsControl() && batch.ProducerID() >= 0 {
			if _, _, err := parseMarker(batch); err != nil {
				return err
			}
		}
		if first < 0 {
			first = batch.BaseOffset()
		}
		next = batch.NextOffset()
		rest = after
	}
	if first < 0 {
		return nil
	}
	err := l.write(batches, first, next)
	if mutant.Is(mutant.FollowerForgetsProducers) {
		clear(l.producers.byID)
	}
	return err
}

func (l *Log) canAppend() error {
	if l.closed {
		return fmt.Errorf("%w: %s", ErrClosed, l.dir)
	}
	return l.writable()
}

// checkEpoch holds an epoch against the last one in the log: epochs never fall.
func (l *Log) checkEpoch(epoch int32) error {
	if latest := l.epochs.latest(); epoch < latest {
		return fmt.Errorf("%w: leader epoch %d, the log has %d", ErrInvalidBatch, epoch, latest)
	}
	return nil
}

// checkBatch verifies a batch for the leader. lone says that it is the only batch
// of its append, which alone can be a duplicate.
func (l *Log) checkBatch(b record.Batch, lone bool) (old producerBatch, duplicate bool, err error) {
	if len(b) > l.config().MaxBatchBytes {
		return old, false, fmt.Errorf("%w: %d bytes, at most %d", ErrRecordTooLarge, len(b), l.config().MaxBatchBytes)
	}
	if err := b.Validate(); err != nil {
		return old, false, err
	}
	if count := b.Count(); count < 1 || b.LastOffsetDelta() != count-1 {
		return old, false, fmt.Errorf("%w: %d records with last offset delta %d", ErrInvalidBatch, count, b.LastOffsetDelta())
	}
	if lone && b.ProducerID() >= 0 {
		if p, known := l.producers.byID[b.ProducerID()]; known {
			if old, duplicate = p.duplicate(b); duplicate {
				return old, true, nil
			}
		}
	}
	return old, false, l.checkTime(b)
}

// checkTime holds the timestamps that the header tells against the limits: the
// largest and the first record's.
func (l *Log) checkTime(b record.Batch) error {
	if l.config().LogAppendTime || l.config().TimestampBeforeMax < 0 && l.config().TimestampAfterMax < 0 {
		return nil
	}
	now := l.env.Now().UnixMilli()
	for _, t := range [2]int64{b.BaseTimestamp(), b.MaxTimestamp()} {
		if t == record.NoTimestamp {
			continue
		}
		if limit := l.config().TimestampBeforeMax; limit >= 0 && t < now-limit.Milliseconds() {
			return fmt.Errorf("%w: %d is more than %v before now, %d", ErrInvalidTimestamp, t, limit, now)
		}
		if limit := l.config().TimestampAfterMax; limit >= 0 && t > now+limit.Milliseconds() {
			return fmt.Errorf("%w: %d is more than %v after now, %d", ErrInvalidTimestamp, t, limit, now)
		}
	}
	return nil
}

// checkProducer holds a batch, its offset set, against its producer's state. With
// several batches in one append each is checked against the state after those
// before it, which is kept in l.updates until all are written.
func (l *Log) checkProducer(b record.Batch) error {
	id := b.ProducerID()
	if id < 0 {
		return nil
	}
	var state *producer
	for i := range l.updates {
		if l.updates[i].id == id {
			state = &l.updates[i]
		}
	}
	if state == nil {
		if known, ok := l.producers.byID[id]; ok {
			l.updates = append(l.updates, *known)
		} else {
			l.updates = append(l.updates, newProducer(id))
		}
		state = &l.updates[len(l.updates)-1]
	}
	if b.IsControl() {
		marker, ok, err := parseMarker(b)
		if err != nil || !ok {
			return err
		}
		if err := state.checkMarker(b, marker); err != nil {
			return err
		}
		state.appendMarker(b, marker)
		return nil
	}
	if err := state.check(b); err != nil {
		return err
	}
	state.append(b)
	return nil
}

// write puts verified batches at the end of the log and updates all that is
// derived from them. The caller holds mu.
func (l *Log) write(batches []byte, first, next int64) error {
	if err := l.rollIfDue(batches, first, next); err != nil {
		return err
	}
	s := l.active()
	room, err := l.room(s, int64(len(batches)))
	if err != nil {
		return err
	}
	if err := s.pin(); err != nil {
		return l.fence(err)
	}
	f := s.file.file // pinned
	position := s.size.Load()
	wasMarked, before := s.marked, s.allocated
	s.reserve(f, int64(len(batches)), l.config().SegmentBytes, room)
	if s.marked && (!wasMarked || s.allocated != before) {
		// The file grew and the mark moves to its new end.
		if err := l.mark(s, f); err != nil {
			return l.fence(err)
		}
	}
	if _, err := f.WriteAt(batches, position); err != nil {
		return l.undoWrite(s, f, err)
	}
	s.allocated = max(s.allocated, position+int64(len(batches)))
	for rest := batches; len(rest) > 0; {
		batch, after, err := record.Parse(rest)
		if err != nil {
			return l.fence(err) // it parsed before
		}
		s.note(batch, position, l.config().IndexInterval)
		l.epochs.assign(batch.LeaderEpoch(), batch.BaseOffset())
		done, ended, err := l.producers.replay(batch)
		if err != nil {
			return l.fence(err) // it was read before
		}
		if batch.IsTransactional() {
			l.unstable.Store(true)
		}
		if batch.ProducerID() >= 0 {
			l.producers.see(batch.ProducerID(), l.env.Now().UnixMilli())
		}
		if ended && done.aborted {
			s.noteAborted(done, l.producers.stableAfter(done))
		}
		position += int64(len(batch))
		rest = after
	}
	s.end.Store(next)
	s.size.Store(position)
	l.end.Store(next)
	return nil
}

// room returns by how many bytes the file of a segment may grow to take need more. It
// asks the disk only when the file has to grow.
func (l *Log) room(s *segment, need int64) (int64, error) {
	if l.env.KeepFree <= 0 || s.fits(need) {
		return math.MaxInt64, nil
	}
	free, _, err := l.env.FS.Space(l.dir)
	if err != nil {
		return math.MaxInt64, nil // the write will tell
	}
	if room := int64(min(free, math.MaxInt64)) - l.env.KeepFree; room >= need {
		return room, nil
	}
	return 0, fmt.Errorf("storage: append to %s: %w: %d bytes are free, and %d are kept for the cluster's own records",
		s.file.name(), vfs.ErrNoSpace, free, l.env.KeepFree)
}

// mark writes the sync mark of the active segment. What precedes the segment is
// durable, so the mark is never below its base.
func (l *Log) mark(s *segment, f vfs.File) error {
	offset := max(l.synced.Load(), s.base)
	return s.writeMark(f, s.syncedSize, offset)
}

// undoWrite restores the segment after a failed write, so that no part of it is
// found by a later recovery.
func (l *Log) undoWrite(s *segment, f vfs.File, cause error) error {
	cause = fmt.Errorf("storage: append to %s: %w", s.file.name(), cause)
	if !errors.Is(cause, vfs.ErrNoSpace) {
		return l.fence(cause)
	}
	s.marked = false
	s.allocated = s.size.Load()
	if err := f.Truncate(s.allocated); err != nil {
		return l.fence(fmt.Errorf("%w; then truncate: %w", cause, err))
	}
	return cause
}

// rollIfDue makes a new active segment when Kafka would.
func (l *Log) rollIfDue(batches []byte, first, next int64) error {
	s := l.active()
	size := s.size.Load()
	if size == 0 && s.accepts(next) {
		return nil
	}
	newest := record.Batch(batches).MaxTimestamp()
	now := l.env.Now().UnixMilli()
	age := now - s.created
	// Age is in the records' time, unless they have none: control batches of the
	// quorum carry 0.
	if s.firstTime > 0 && newest > 0 {
		age = newest - s.firstTime
	}
	limit := l.config().SegmentAge
	if l.config().Compact {
		// What is in the active segment cannot be compacted.
		limit = min(limit, l.config().MaxCompactionLag)
	}
	if size+int64(len(batches)) <= l.config().SegmentBytes && (size == 0 || age <= limit.Milliseconds()) &&
		s.accepts(next) && (s.index.count()+1)*indexEntrySize <= l.config().SegmentIndexBytes && size <= math.MaxInt32-int64(len(batches)) {
		return nil
	}
	return l.roll(first)
}

// roll makes a new active segment that begins at base. In this order, so that a
// segment that is followed by another is known to be durable as a whole, with all
// that is derived from it:
//
//  1. indexes, producer snapshot, epochs and data are synced, and their names;
//  2. the new segment's file is created and its name synced;
//  3. the old file is trimmed.
//
// The caller holds mu.
func (l *Log) roll(base int64) error {
	s := l.active()
	if err := l.settleNames(); err != nil {
		return l.failed("roll", err)
	}
	if err := l.persistDerived(s, true); err != nil {
		return l.failed("roll", err)
	}
	if err := s.pin(); err != nil {
		return l.fence(err)
	}
	f := s.file.file
	if err := f.Sync(); err != nil {
		return l.fence(fmt.Errorf("storage: sync %s: %w", s.file.name(), err))
	}
	s.syncedSize = s.size.Load()
	l.synced.Store(l.end.Load())
	if err := l.mark(s, f); err != nil {
		return l.failed("roll", err)
	}
	if err := l.env.FS.SyncDir(l.dir); err != nil {
		return l.fence(fmt.Errorf("storage: sync %s: %w", l.dir, err))
	}
	added, err := l.createSegment(base, true)
	if err != nil {
		return l.failed("roll", err)
	}
	added.created = l.env.Now().UnixMilli()
	l.readMu.Lock()
	l.segments = append(l.segments, added)
	l.readMu.Unlock()
	if err := s.trim(f, true); err != nil {
		return l.fence(err)
	}
	s.unpin()
	return nil
}

// failed fences the log for any failure but a full disk, after which the step can
// be tried again.
func (l *Log) failed(what string, err error) error {
	err = fmt.Errorf("storage: %s %s: %w", what, l.dir, err)
	if errors.Is(err, vfs.ErrNoSpace) {
		return err
	}
	return l.fence(err)
}

// persistDerived writes what is derived from the batches: indexes of the active
// segment, producer snapshot and epochs; with sync, durably but for their names.
func (l *Log) persistDerived(s *segment, sync bool) error {
	s.noteTime()
	for _, x := range []*index{&s.index, &s.times} {
		if err := x.flush(sync); err != nil {
			return err
		}
		if s.size.Load() == 0 {
			continue
		}
		if err := x.ensureFile(); err != nil {
			return err
		}
	}
	if s.abortedDirty {
		if err := writeFile(l.env.FS, l.path(segmentName(s.base, abortedSuffix)), encodeAborted(s.aborted), sync); err != nil {
			return err
		}
		s.abortedDirty = false
	}
	end := l.end.Load()
	if end > l.snapshotAt && end > s.base {
		name := l.path(segmentName(end, snapshotSuffix))
		if err := writeFile(l.env.FS, name, encodeSnapshot(l.producers.sorted()), sync); err != nil {
			return err
		}
		l.snapshotAt = end
	}
	if l.epochs.dirty {
		if err := writeFile(l.env.FS, l.path(epochCheckpointName), l.epochs.encode(), sync); err != nil {
			return err
		}
		l.epochs.dirty = false
	}
	return nil
}
