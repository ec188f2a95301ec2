package storage

import (
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"sort"
	"sync"

	"github.com/leatlog/leat/broker/internal/record"
	"github.com/leatlog/leat/broker/internal/vfs"
)

// Slice is a range of whole batches in a file, for sendfile. Until Release, which
// must be called exactly once, the file stays open, even if it is deleted.
type Slice struct {
	File     vfs.File // nil when there is nothing to read
	Position int64
	Size     int
	End      int64 // exclusive: no batch in it goes beyond this offset
	handle   *handle
	log      *Log
	segment  *segment
}

// Release gives the file back.
func (s Slice) Release() {
	if s.handle != nil {
		s.handle.release()
	}
}

// Failed is to be called, before Release, when the slice could not be read: if it still
// cannot, and the log was not truncated meanwhile, the log is damaged.
func (s Slice) Failed() {
	if s.log != nil {
		s.log.checkSlice(s)
	}
}

func (l *Log) checkSlice(s Slice) {
	l.readMu.RLock()
	defer l.readMu.RUnlock()
	end := s.Position + int64(s.Size)
	if !slices.Contains(l.segments, s.segment) || s.segment.size.Load() < end {
		return
	}
	buffer := make([]byte, min(s.Size, checkBytes))
	for at := s.Position; at < end; at += int64(len(buffer)) {
		n := min(end-at, int64(len(buffer)))
		if err := readFull(s.File, buffer[:n], at); err != nil {
			_ = l.unreadable(s.segment, at, s.segment.base, err)
			return
		}
	}
}

// checkBytes is how much is read at a time to see whether it can be.
const checkBytes = 64 << 10

// AppendTo appends the slice's bytes to dst.
func (s Slice) AppendTo(dst []byte) ([]byte, error) {
	start := len(dst)
	dst = slices.Grow(dst, s.Size)[:start+s.Size]
	if s.Size == 0 {
		return dst, nil
	}
	if err := readFull(s.File, dst[start:], s.Position); err != nil {
		return dst[:start], fmt.Errorf("storage: read: %w", err)
	}
	return dst, nil
}

// Read appends to dst whole batches, from the one that holds offset on: those
// that end at or below limit, as many as fit maxBytes, and with atLeastOne the
// first one even if it does not fit. Batches of one segment are read at a time. It
// appends nothing when there is nothing below limit. Errors: ErrOffsetOutOfRange
// below StartOffset and above EndOffset; ErrFenced wrapping a DamageError.
func (l *Log) Read(dst []byte, offset, limit int64, maxBytes int, atLeastOne bool) ([]byte, error) {
	l.readMu.RLock()
	defer l.readMu.RUnlock()
	slice, err := l.find(offset, limit, maxBytes, atLeastOne)
	if err != nil {
		return dst, err
	}
	defer slice.Release()
	return slice.AppendTo(dst)
}

// Slice is Read for sendfile: it returns where the batches lie. What it names
// stays as it is unless the log is truncated below limit.
func (l *Log) Slice(offset, limit int64, maxBytes int, atLeastOne bool) (Slice, error) {
	l.readMu.RLock()
	defer l.readMu.RUnlock()
	return l.find(offset, limit, maxBytes, atLeastOne)
}

// find returns the batches that Read describes. The caller holds readMu.
func (l *Log) find(offset, limit int64, maxBytes int, atLeastOne bool) (Slice, error) {
	start, end := l.start.Load(), l.end.Load()
	if offset < start || offset > end {
		return Slice{}, fmt.Errorf("%w: %d, the log holds %d to %d", ErrOffsetOutOfRange, offset, start, end)
	}
	limit = min(limit, end)
	if offset >= limit {
		return Slice{}, nil
	}
	for i := l.segmentOf(offset); i < len(l.segments); i++ {
		s := l.segments[i]
		slice, found, err := l.findIn(s, offset, limit, maxBytes, atLeastOne)
		if err != nil || found {
			return slice, err
		}
		if i+1 < len(l.segments) && !l.mayHaveGaps() && offset < l.segments[i+1].base {
			return Slice{}, l.damaged(s, s.size.Load(), offset, errors.New("records are missing at the end of the segment"))
		}
	}
	return Slice{}, nil
}

// segmentOf returns the index of the segment that would hold offset.
func (l *Log) segmentOf(offset int64) int {
	i := sort.Search(len(l.segments), func(i int) bool { return l.segments[i].base > offset })
	return max(i-1, 0)
}

// findIn is find within a segment; found is false when all its batches end at or
// below offset.
func (l *Log) findIn(s *segment, offset, limit int64, maxBytes int, atLeastOne bool) (slice Slice, found bool, err error) {
	size := s.size.Load()
	if size == 0 {
		return Slice{}, false, nil
	}
	f, err := s.file.acquire()
	if err != nil {
		return Slice{}, false, err
	}
	keep := false
	defer func() {
		if !keep {
			s.file.release()
		}
	}()
	w := windows.Get().(*window)
	defer windows.Put(w)
	w.reset(f)
	position, ok := l.hints.get(s.base, offset)
	if !ok {
		if position, err = l.lookup(s, w, offset, size); err != nil {
			return Slice{}, false, err
		}
	}
	var first record.Batch
	for ; position < size; position += int64(first.Size()) {
		if first, err = w.header(position, size); err != nil {
			return Slice{}, false, l.unreadable(s, position, offset, err)
		}
		if first.NextOffset() > offset {
			break
		}
	}
	if position >= size {
		return Slice{}, false, nil
	}
	end, upTo := position, limit
	switch nextOffset, firstEnd := first.NextOffset(), position+int64(first.Size()); {
	case nextOffset > limit:
		return Slice{}, true, nil
	case size-position <= int64(maxBytes) && s.end.Load() <= limit:
		// size was loaded before end, so that all batches within size end below it.
		end, upTo = size, s.end.Load()
		l.hints.put(s.base, s.end.Load(), end)
	default:
		var next int64
		if end, next, err = l.lastWithin(s, w, position, position+int64(maxBytes), size, limit); err != nil {
			return Slice{}, false, err
		}
		if end == position {
			if !atLeastOne {
				return Slice{}, true, nil
			}
			end, next = firstEnd, nextOffset
		}
		l.hints.put(s.base, next, end)
		upTo = min(next, limit)
	}
	keep = true
	return Slice{File: f, Position: position, Size: int(end - position), End: upTo, handle: &s.file, log: l, segment: s}, true, nil
}

// lastWithin returns the end of the last batch, from position on, that ends at or
// before bound and limit, and the offset after it.
func (l *Log) lastWithin(s *segment, w *window, position, bound, size, limit int64) (end, next int64, err error) {
	bound = min(bound, size)
	scratch := scratches.Get().(*[]byte)
	defer scratches.Put(scratch)
	entry, ok, err := s.index.search(*scratch, func(e []byte) bool {
		relative, at := indexEntry(e)
		return int64(at) > bound || s.base+int64(relative) >= limit
	})
	end = position
	if err == nil && ok {
		relative, at := indexEntry(entry)
		if int64(at) > position && int64(at) < size {
			// What does not fit is not used: the index is only a short cut.
			if h, err := w.header(int64(at), size); err == nil && h.LastOffset() == s.base+int64(relative) {
				end = int64(at)
			}
		}
	}
	for end < bound {
		h, err := w.header(end, size)
		if err != nil {
			return 0, 0, l.unreadable(s, end, limit, err)
		}
		if h.NextOffset() > limit || end+int64(h.Size()) > bound {
			break
		}
		end += int64(h.Size())
		next = h.NextOffset()
	}
	if next == 0 {
		next = math.MaxInt64 // nothing was added, the caller knows
	}
	return end, next, nil
}

// lookup returns a position at or before the batch that holds offset, from the
// index. An index that does not fit its segment is made anew.
func (l *Log) lookup(s *segment, w *window, offset, size int64) (int64, error) {
	if err := l.ensureIndexes(s); err != nil {
		return 0, err
	}
	for range 2 {
		scratch := scratches.Get().(*[]byte)
		entry, ok, err := s.index.search(*scratch, func(e []byte) bool {
			relative, _ := indexEntry(e)
			return s.base+int64(relative) > offset
		})
		relative, position := int32(0), int32(0)
		if ok {
			relative, position = indexEntry(entry)
		}
		scratches.Put(scratch)
		if err == nil && !ok {
			return 0, nil
		}
		if err == nil && int64(position) < size {
			if h, err := w.header(int64(position), size); err == nil && h.LastOffset() == s.base+int64(relative) {
				return int64(position), nil
			}
		}
		if s == l.active() {
			return 0, nil // the appender owns its index; it is made anew at the next start
		}
		if err := l.rebuildIndexes(s, "an entry does not point at its batch"); err != nil {
			return 0, err
		}
	}
	return 0, nil
}

// unreadable tells damage from a failing read.
func (l *Log) unreadable(s *segment, position, offset int64, err error) error {
	if errors.Is(err, errBadHeader) || errors.Is(err, io.ErrUnexpectedEOF) {
		return l.damaged(s, position, offset, err)
	}
	return fmt.Errorf("storage: read %s at byte %d: %w", s.file.name(), position, err)
}

var errBadHeader = errors.New("storage: no batch header where one must be")

// windowBytes is how much is read to look at headers: with small batches many
// are in one window.
const windowBytes = 4 << 10

// window reads batch headers of a file, several with one read.
type window struct {
	file  io.ReaderAt
	at    int64
	valid int
	bytes [windowBytes]byte
}

var windows = sync.Pool{New: func() any { return new(window) }}

// scratches holds buffers for searching an index.
var scratches = sync.Pool{New: func() any {
	b := make([]byte, windowBytes)
	return &b
}}

func (w *window) reset(f io.ReaderAt) { w.file, w.at, w.valid = f, 0, 0 }

// header returns the header at position, of a segment of that size. It is valid
// until the next call.
func (w *window) header(position, size int64) (record.Batch, error) {
	if position+record.HeaderSize > size {
		return nil, fmt.Errorf("%w: %d bytes left", errBadHeader, size-position)
	}
	if position < w.at || position+record.HeaderSize > w.at+int64(w.valid) {
		n := int(min(size-position, windowBytes))
		w.valid = 0
		if err := readFull(w.file, w.bytes[:n], position); err != nil {
			return nil, err
		}
		w.at, w.valid = position, n
	}
	i := position - w.at
	h := record.Batch(w.bytes[i : i+record.HeaderSize])
	if err := h.ValidateFields(); err != nil {
		return nil, fmt.Errorf("%w: %w", errBadHeader, err)
	}
	if position+int64(h.Size()) > size {
		return nil, fmt.Errorf("%w: batch of %d bytes, %d left", errBadHeader, h.Size(), size-position)
	}
	return h, nil
}

// hints remembers where the last reads ended, which is where their readers go on.
// An entry says that the batches from offset on lie at or after position.
type hints struct {
	mu      sync.Mutex
	entries []hint // made by the first put, for a log that nobody reads needs none
	next    int
}

const maxHints = 8

type hint struct {
	base, offset, position int64
}

func (h *hints) get(base, offset int64) (position int64, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := range h.entries {
		if e := &h.entries[i]; e.offset == offset && e.base == base && e.position > 0 {
			return e.position, true
		}
	}
	return 0, false
}

func (h *hints) put(base, offset, position int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := range h.entries {
		if e := &h.entries[i]; e.offset == offset && e.base == base {
			e.position = position
			return
		}
	}
	if h.entries == nil {
		h.entries = make([]hint, maxHints)
	}
	h.entries[h.next] = hint{base, offset, position}
	h.next = (h.next + 1) % len(h.entries)
}

func (h *hints) clear() {
	h.mu.Lock()
	defer h.mu.Unlock()
	clear(h.entries)
}
