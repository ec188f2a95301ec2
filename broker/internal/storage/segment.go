package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/leatlog/leat/broker/internal/record"
	"github.com/leatlog/leat/broker/internal/vfs"
)

// Suffixes of the files of a segment; the name before them is the base offset,
// or, for a producer snapshot, the offset that it was taken at.
const (
	logSuffix      = ".log"
	indexSuffix    = ".index"
	timesSuffix    = ".timeindex"
	abortedSuffix  = ".txnindex"
	snapshotSuffix = ".snapshot"
	cleanedSuffix  = ".cleaned" // after another: being written by compaction
	swapSuffix     = ".swap"    // after another: about to take the place of those it compacts
)

// Preallocation starts small, because most partitions are, and doubles up to
// steps of this size.
const (
	preallocateFirst = 16 << 10
	preallocateStep  = 16 << 20
	blockSize        = 4 << 10
)

// segment is a part of a log: batches from a base offset on, in one file, with
// its indexes beside it.
type segment struct {
	base   int64
	file   handle
	index  index
	times  index
	health sync.Mutex // held while the indexes are checked or rebuilt

	// Readers load size first: end is stored before it, so that end is never
	// behind the batches within size.
	end  atomic.Int64 // next offset after the last batch
	size atomic.Int64 // bytes of whole batches

	checked   atomic.Bool // the indexes fit the segment as far as can be seen cheaply
	hasTimes  atomic.Bool // maxTime and maxTimeOffset are known
	maxTime   atomic.Int64
	maxOffset atomic.Int64 // last offset of the batch with the largest timestamp

	// Of the active segment; guarded by the log's mu.
	allocated  int64 // length of the file, with preallocated tail
	syncedSize int64 // bytes that are durable
	created    int64 // ms, when the segment was made or opened
	sinceIndex int   // bytes since the last index entry
	firstTime  int64 // largest timestamp of the first batch, -1 unknown
	pinned     bool  // the file is kept open because it has bytes that are not durable
	marked     bool  // the last markSize bytes of allocated are reserved for the mark
	markBytes  [markSize]byte
	aborted    []abortedTxn
	// abortedKnown says that aborted is what the segment holds; abortedDirty that
	// the file differs.
	abortedKnown, abortedDirty bool
}

func segmentName(base int64, suffix string) string { return fmt.Sprintf("%020d%s", base, suffix) }

// parseSegmentName reads the offset from a file name with that suffix.
func parseSegmentName(name, suffix string) (int64, bool) {
	digits, found := strings.CutSuffix(name, suffix)
	if !found || len(digits) != 20 {
		return 0, false
	}
	base, err := strconv.ParseInt(digits, 10, 64)
	return base, err == nil && base >= 0
}

func (l *Log) newSegment(base int64) *segment {
	handleOf := func(suffix string) handle {
		return handle{cache: l.env.Files, fs: l.env.FS, dir: l.dir, base: base, suffix: suffix, writable: true}
	}
	s := &segment{base: base, firstTime: -1}
	s.file = handleOf(logSuffix)
	s.index.file, s.index.entry = handleOf(indexSuffix), indexEntrySize
	s.times.file, s.times.entry = handleOf(timesSuffix), timeEntrySize
	s.end.Store(base)
	s.maxTime.Store(-1)
	s.maxOffset.Store(-1)
	return s
}

// createSegment makes the file of a new, empty segment, and its name durable if
// asked to.
func (l *Log) createSegment(base int64, durably bool) (*segment, error) {
	s := l.newSegment(base)
	// Left over from an attempt that failed, or from a log that was reset.
	for _, suffix := range []string{logSuffix, indexSuffix, timesSuffix, abortedSuffix} {
		if err := l.env.FS.Remove(l.path(segmentName(base, suffix))); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("storage: create segment: %w", err)
		}
	}
	f, err := l.env.FS.Create(s.file.name())
	if err != nil {
		return nil, fmt.Errorf("storage: create segment: %w", err)
	}
	s.file.adopt(f)
	defer s.file.release()
	if durably {
		if err := l.env.FS.SyncDir(l.dir); err != nil {
			s.file.drop()
			_ = l.env.FS.Remove(s.file.name())
			return nil, fmt.Errorf("storage: create segment: %w", err)
		}
	}
	s.index.reset()
	s.times.reset()
	s.checked.Store(true)
	s.hasTimes.Store(true)
	s.abortedKnown = true
	return s, nil
}

// drop closes the segment's files.
func (s *segment) drop() {
	s.unpin()
	s.file.drop()
	s.index.file.drop()
	s.times.file.drop()
}

// pin keeps the data file open while it has bytes that are not durable.
func (s *segment) pin() error {
	if s.pinned {
		return nil
	}
	if _, err := s.file.acquire(); err != nil {
		return err
	}
	s.pinned = true
	return nil
}

func (s *segment) unpin() {
	if s.pinned {
		s.pinned = false
		s.file.release()
	}
}

// offsets returns how many offsets the segment spans.
func (s *segment) offsets() int64 { return s.end.Load() - s.base }

// fits says that the file has room for need bytes after the last batch, and for the mark.
func (s *segment) fits(need int64) bool {
	return s.size.Load()+need+markSize <= s.allocated && s.marked
}

// reserve makes room in the file for need bytes after the last batch, and for
// the mark, and grows it by no more than room beyond that. It is best effort:
// without it the write itself extends the file.
func (s *segment) reserve(f vfs.File, need, limit, room int64) {
	if s.fits(need) {
		return
	}
	size := s.size.Load()
	step := min(max(s.allocated, preallocateFirst), preallocateStep, room)
	target := max(s.allocated+step, size+need+markSize)
	target = min(target, max(limit, size+need)+markSize)
	target = (target + blockSize - 1) / blockSize * blockSize
	s.marked = false
	failed := f.Preallocate(target)
	// Not all file systems can; then the length is what it was. It may also have
	// grown in part.
	if length, err := f.Size(); err == nil {
		s.allocated = length
		s.marked = failed == nil && length >= size+need+markSize
	}
}

// writeMark notes how far the segment is durable.
func (s *segment) writeMark(f vfs.File, position, offset int64) error {
	if !s.marked {
		return nil
	}
	syncMark{base: s.base, position: position, offset: offset}.encode(&s.markBytes)
	_, err := f.WriteAt(s.markBytes[:], s.allocated-markSize)
	return err
}

// readMark returns the sync mark at the end of the file; false when there is none. A disk
// that fails to read is an error: without the mark what is damaged passes for a torn tail.
func (s *segment) readMark(f vfs.File, fileSize int64) (syncMark, bool, error) {
	if fileSize < markSize {
		return syncMark{}, false, nil
	}
	var b [markSize]byte
	if err := readFull(f, b[:], fileSize-markSize); err != nil {
		return syncMark{}, false, fmt.Errorf("storage: read the sync mark of %s: %w", s.file.name(), err)
	}
	mark, ok := decodeMark(b[:], s.base, fileSize)
	return mark, ok, nil
}

// trim cuts the preallocated tail and the mark off.
func (s *segment) trim(f vfs.File, sync bool) error {
	size := s.size.Load()
	if s.allocated == size {
		return nil
	}
	s.marked = false
	if err := f.Truncate(size); err != nil {
		return fmt.Errorf("storage: trim %s: %w", s.file.name(), err)
	}
	s.allocated = size
	if sync {
		if err := f.Sync(); err != nil {
			return fmt.Errorf("storage: sync %s: %w", s.file.name(), err)
		}
	}
	return nil
}

// note indexes a batch that has been written at position. It is Kafka's rule: an
// entry for the first batch that begins IndexInterval bytes after the last entry.
func (s *segment) note(b record.Batch, position int64, interval int) {
	if s.firstTime < 0 {
		s.firstTime = b.MaxTimestamp()
	}
	if t := b.MaxTimestamp(); t > s.maxTime.Load() {
		s.maxTime.Store(t)
		s.maxOffset.Store(b.LastOffset())
	}
	if s.sinceIndex > interval {
		var entry [indexEntrySize]byte
		s.index.append(appendIndexEntry(entry[:0], int32(b.LastOffset()-s.base), int32(position)))
		s.noteTime()
		s.sinceIndex = 0
	}
	s.sinceIndex += b.Size()
}

// noteTime adds the largest timestamp so far to the time index, if it is larger
// than the last one there.
func (s *segment) noteTime() {
	if s.maxOffset.Load() < 0 {
		return
	}
	var scratch [timeEntrySize]byte
	if last := s.times.lastEntry(scratch[:0]); len(last) > 0 {
		if timestamp, offset := timeEntry(last); timestamp >= s.maxTime.Load() || int64(offset) >= s.maxOffset.Load()-s.base {
			return
		}
	}
	s.times.append(appendTimeEntry(scratch[:0], s.maxTime.Load(), int32(s.maxOffset.Load()-s.base)))
}

// accepts reports whether offsets up to last fit the segment's int32 offsets.
func (s *segment) accepts(last int64) bool { return last-s.base <= math.MaxInt32 }
