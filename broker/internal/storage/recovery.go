package storage

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/leatlog/leat/broker/internal/record"
	"github.com/leatlog/leat/broker/internal/vfs"
)

// scanBytes is the buffer of a scan. A batch that does not fit it is checked in
// pieces, so that a damaged length costs no memory.
const scanBytes = 256 << 10

var scanBuffers = sync.Pool{New: func() any {
	b := make([]byte, scanBytes)
	return &b
}}

// scan reads batches from position up to size and verifies them, checksums
// included. visit gets each one, whole if it fits scanBytes and else its header
// alone. It returns the position after the last good batch and what is wrong with
// the next, nil at the end of the file; failed is a failure of the disk or of visit.
func scan(f io.ReaderAt, position, size int64, visit func(b record.Batch, position int64) error) (end int64, bad, failed error) {
	scratch := scanBuffers.Get().(*[]byte)
	defer scanBuffers.Put(scratch)
	buffer := *scratch
	start, valid := position, 0 // buffer[:valid] are the file's bytes from start on
	for position < size {
		left := size - position
		if left < record.HeaderSize {
			return position, fmt.Errorf("%w: %d bytes left", record.ErrTruncated, left), nil
		}
		at := int(position - start)
		if valid-at < record.HeaderSize {
			start, at, valid = position, 0, int(min(left, scanBytes))
			if err := readFull(f, buffer[:valid], start); err != nil {
				return position, nil, err
			}
		}
		b := record.Batch(buffer[at : at+record.HeaderSize])
		if err := b.ValidateFields(); err != nil {
			return position, err, nil
		}
		batchSize := int64(b.Size())
		if batchSize > left {
			return position, fmt.Errorf("%w: batch of %d bytes, %d left", record.ErrTruncated, batchSize, left), nil
		}
		if batchSize > int64(valid-at) {
			start, at, valid = position, 0, int(min(left, scanBytes))
			if err := readFull(f, buffer[:valid], start); err != nil {
				return position, nil, err
			}
		}
		if batchSize <= int64(valid-at) {
			b = record.Batch(buffer[at : at+int(batchSize)])
			if err := b.Validate(); err != nil {
				return position, err, nil
			}
			if err := visit(b, position); err != nil {
				return position, nil, err
			}
			position += batchSize
			continue
		}
		// Larger than the buffer. The header is copied, as the buffer is used up.
		b = append(make(record.Batch, 0, record.HeaderSize), buffer[at:at+record.HeaderSize]...)
		sum := record.UpdateChecksum(0, buffer[at+record.ChecksumFrom:valid])
		for done := int64(valid - at); done < batchSize; {
			n := min(batchSize-done, scanBytes)
			if err := readFull(f, buffer[:n], position+done); err != nil {
				return position, nil, err
			}
			sum = record.UpdateChecksum(sum, buffer[:n])
			done += n
		}
		if sum != b.CRC() {
			return position, fmt.Errorf("%w: stored %#08x, computed %#08x", record.ErrCRC, b.CRC(), sum), nil
		}
		if err := visit(b, position); err != nil {
			return position, nil, err
		}
		position += batchSize
		start, valid = position, 0
	}
	return position, nil, nil
}

// errOutOfPlace says that a good batch cannot be where it is found.
var errOutOfPlace = errors.New("storage: batch does not follow the one before")

// recovery is what is learnt of the last segment when a log is opened.
type recovery struct {
	fileSize int64
	marked   bool // the file ends in a sync mark
	// Data below durable, an offset, and durableSize, a position, was synced.
	durable     int64
	durableSize int64
	// The scan goes from position, where offset begins, to the end.
	position int64
	offset   int64
	bad      error // what ended the scan
}

// recoverLast finds the end of the last segment: the end of its good batches. It
// must not lie before what is known to be durable, else the log is damaged.
func (l *Log) recoverLast(s *segment) error {
	f, err := s.file.acquire()
	if err != nil {
		return err
	}
	defer s.file.release()
	r := recovery{durable: s.base, offset: s.base}
	if r.fileSize, err = f.Size(); err != nil {
		return err
	}
	s.allocated = r.fileSize
	if mark, ok, err := s.readMark(f, r.fileSize); err != nil {
		return err
	} else if ok {
		r.durable, r.durableSize = max(mark.offset, r.durable), mark.position
		r.marked = true
	}
	if err := l.skipToRecoveryPoint(s, f, &r); err != nil {
		return err
	}
	if err := l.restoreProducers(s, r.offset); err != nil {
		return err
	}
	l.epochs.truncateEnd(r.offset)
	if err := l.scanLast(s, f, &r); err != nil {
		return err
	}
	size, end := s.size.Load(), s.end.Load()
	if size < r.durableSize || end < r.durable {
		if r.bad == nil {
			r.bad = errors.New("the file ends before what was synced")
		}
		l.end.Store(end)
		l.synced.Store(end)
		l.damaged(s, size, end, r.bad)
		return nil
	}
	// Without a sync, an earlier process had not got as far as the names either.
	l.unnamed = len(l.segments) == 1 && r.durable == s.base
	if end > s.base {
		if err := l.settleNames(); err != nil {
			return err
		}
	}
	l.end.Store(end)
	l.synced.Store(end)
	return l.settle(s, f, &r)
}

// skipToRecoveryPoint moves the scan to where the recovery point lies, if there is
// one in the segment and the index leads there.
func (l *Log) skipToRecoveryPoint(s *segment, f io.ReaderAt, r *recovery) error {
	if l.recoveryPoint <= s.base {
		return l.discardIndexes(s)
	}
	r.durable = max(r.durable, l.recoveryPoint)
	position, err := l.positionOf(s, f, l.recoveryPoint, r.fileSize)
	if err != nil {
		l.logger().Warn().Err(err).Int64("offset", l.recoveryPoint).Msg("the index does not lead to the recovery point; the segment is read from its start")
		return l.discardIndexes(s)
	}
	r.position, r.offset = position, l.recoveryPoint
	r.durableSize = max(r.durableSize, position)
	return nil
}

// positionOf returns where the batch begins whose base offset is offset, by the
// index, which it cuts there.
func (l *Log) positionOf(s *segment, f io.ReaderAt, offset, size int64) (int64, error) {
	entries, err := s.index.all()
	if err != nil {
		return 0, err
	}
	times, err := s.times.all()
	if err != nil {
		return 0, err
	}
	keep, position := 0, int64(0)
	for ; keep < len(entries)/indexEntrySize; keep++ {
		relative, at := indexEntry(entries[keep*indexEntrySize:])
		if s.base+int64(relative) >= offset {
			break
		}
		position = int64(at)
	}
	if err := validIndex(entries[:keep*indexEntrySize], size, offset-s.base); err != nil {
		return 0, err
	}
	keepTimes := 0
	for ; keepTimes < len(times)/timeEntrySize; keepTimes++ {
		if _, relative := timeEntry(times[keepTimes*timeEntrySize:]); s.base+int64(relative) >= offset {
			break
		}
	}
	if err := validTimes(times[:keepTimes*timeEntrySize], offset-s.base); err != nil {
		return 0, err
	}
	if keepTimes > 0 {
		timestamp, relative := timeEntry(times[(keepTimes-1)*timeEntrySize:])
		s.maxTime.Store(timestamp)
		s.maxOffset.Store(s.base + int64(relative))
	}
	w := windows.Get().(*window)
	defer windows.Put(w)
	w.reset(f)
	first, err := w.header(0, size)
	if err != nil {
		return 0, err
	}
	s.firstTime = first.MaxTimestamp()
	indexed := position
	for next := int64(-1); next != offset; {
		h, err := w.header(position, size)
		if err != nil {
			return 0, err
		}
		next = h.NextOffset()
		position += int64(h.Size())
		if next > offset {
			return 0, fmt.Errorf("%w: offset %d is no boundary of batches", errIndex, offset)
		}
	}
	s.sinceIndex = int(position - indexed)
	if err := s.index.truncate(keep); err != nil {
		return 0, err
	}
	return position, s.times.truncate(keepTimes)
}

func (l *Log) discardIndexes(s *segment) error {
	s.maxTime.Store(-1)
	s.maxOffset.Store(-1)
	s.firstTime = -1
	if err := s.index.discard(); err != nil {
		return err
	}
	return s.times.discard()
}

// scanLast reads the last segment from the recovery point on and derives from its
// batches what appending them would have.
func (l *Log) scanLast(s *segment, f io.ReaderAt, r *recovery) error {
	if err := l.loadAborted(s); err != nil {
		s.aborted, s.abortedKnown = nil, true
	}
	for n := len(s.aborted); n > 0 && s.aborted[n-1].lastOffset >= r.offset; n-- {
		s.aborted, s.abortedDirty = s.aborted[:n-1], true
	}
	next := r.offset
	end, bad, err := scan(f, r.position, r.fileSize, func(b record.Batch, position int64) error {
		if base := b.BaseOffset(); base < next || base > next && !l.mayHaveGaps() {
			return fmt.Errorf("%w: base offset %d, expected %d", errOutOfPlace, base, next)
		}
		if epoch, latest := b.LeaderEpoch(), l.epochs.latest(); epoch < latest {
			return fmt.Errorf("%w: leader epoch %d after %d", errOutOfPlace, epoch, latest)
		}
		done, ended, err := l.producers.replay(b)
		if err != nil {
			return fmt.Errorf("%w: %w", errOutOfPlace, err)
		}
		if ended && done.aborted {
			s.noteAborted(done, l.producers.stableAfter(done))
		}
		l.epochs.assign(b.LeaderEpoch(), b.BaseOffset())
		s.note(b, position, l.config().IndexInterval)
		next = b.NextOffset()
		return nil
	})
	if errors.Is(err, errOutOfPlace) {
		bad, err = err, nil
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", s.file.name(), err)
	}
	r.bad = bad
	s.end.Store(next)
	s.size.Store(end)
	s.hasTimes.Store(true)
	s.checked.Store(true)
	return nil
}

// settle makes durable what was found after the last known sync, and cuts off
// what is no good batch.
//
// The tail is written again before it is synced: if an earlier process failed to
// sync it, the kernel may hold its pages as clean although the disk has not got
// them, and a sync alone would do nothing.
func (l *Log) settle(s *segment, f vfs.File, r *recovery) error {
	size, end := s.size.Load(), s.end.Load()
	s.syncedSize = size
	if size > r.durableSize {
		// Where writing in place takes new blocks, a full disk must not stop the start.
		if err := rewrite(f, r.durableSize, size); err != nil && !errors.Is(err, vfs.ErrNoSpace) {
			return fmt.Errorf("write %s again: %w", s.file.name(), err)
		}
		if err := f.Sync(); err != nil {
			return fmt.Errorf("sync %s: %w", s.file.name(), err)
		}
	}
	if r.fileSize == size {
		return nil
	}
	if r.keepTail(f, size) {
		// The preallocated tail can be used as it is.
		s.marked = true
		if err := l.mark(s, f); err != nil && !errors.Is(err, vfs.ErrNoSpace) {
			return err
		}
		return nil // the mark that is there says less, and no wrong
	}
	if r.bad != nil && !r.tailIsBlank(f, size) {
		l.logger().Warn().Err(r.bad).Int64("offset", end).Int64("position", size).
			Msg("the log ends in a batch that was not written out before a crash; it is cut off, nothing acknowledged is lost")
	}
	// Cutting takes the mark away, so that the recovery point has to tell first what
	// is durable.
	if err := l.checkpoint(true); err != nil && !errors.Is(err, vfs.ErrNoSpace) {
		return err
	}
	return s.trim(f, true)
}

// keepTail reports whether the file ends in zeros and a mark, and is worth a look.
// Anything else has to go, lest a later recovery takes it for batches.
func (r *recovery) keepTail(f io.ReaderAt, size int64) bool {
	blank := r.fileSize - markSize - size
	if !r.marked || blank < 0 || blank > 4*scanBytes {
		return false
	}
	scratch := scanBuffers.Get().(*[]byte)
	defer scanBuffers.Put(scratch)
	for blank > 0 {
		b := (*scratch)[:min(blank, scanBytes)]
		if readFull(f, b, size) != nil {
			return false
		}
		for _, c := range b {
			if c != 0 {
				return false
			}
		}
		size += int64(len(b))
		blank -= int64(len(b))
	}
	return true
}

// tailIsBlank reports whether a few bytes after the last batch are zero, as in a
// preallocated tail that was never written.
func (r *recovery) tailIsBlank(f io.ReaderAt, size int64) bool {
	b := make([]byte, min(r.fileSize-size, record.HeaderSize))
	return readFull(f, b, size) == nil && len(bytes.Trim(b, "\x00")) == 0
}

// rewrite writes a range of a file onto itself.
func rewrite(f vfs.File, from, to int64) error {
	scratch := scanBuffers.Get().(*[]byte)
	defer scanBuffers.Put(scratch)
	for from < to {
		b := (*scratch)[:min(to-from, scanBytes)]
		if err := readFull(f, b, from); err != nil {
			return err
		}
		if _, err := f.WriteAt(b, from); err != nil {
			return err
		}
		from += int64(len(b))
	}
	return nil
}

// checkpoint makes all that is derived from the batches durable and then moves the
// recovery point to the end of the log, all of which is durable. The caller holds
// mu or is alone.
func (l *Log) checkpoint(durably bool) error {
	if err := l.persistDerived(l.active(), durably); err != nil {
		return err
	}
	if durably {
		// A log with a recovery point passes for one that was synced.
		if err := l.settleNames(); err != nil {
			return err
		}
		if err := l.env.FS.SyncDir(l.dir); err != nil {
			return err
		}
		return l.setRecoveryPoint(l.end.Load(), true)
	}
	return nil
}

func (l *Log) setRecoveryPoint(offset int64, durably bool) error {
	if l.recoveryPoint == offset {
		return nil
	}
	if err := l.writeOffset(recoveryPointName, offset, durably); err != nil {
		return err
	}
	l.recoveryPoint = offset
	return nil
}
