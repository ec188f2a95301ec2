package storage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"sort"
	"sync"

	"github.com/leatlog/leat/broker/internal/vfs"
)

// The entries of the two indexes, big-endian, as Kafka writes them. Both rise
// from entry to entry. Offsets are relative to the segment's base offset.
//
//	.index      last offset of a batch int32 | position of that batch int32
//	.timeindex  largest timestamp so far int64 | last offset of the batch that has it int32
const (
	indexEntrySize = 8
	timeEntrySize  = 12
)

// indexFlushBytes is how much of an index collects in memory before it is written.
const indexFlushBytes = 4096

var errIndex = errors.New("storage: index does not fit its segment")

// index is one index file: fixed-size entries, appended by the log's appender
// and searched by readers. Entries not yet written are in memory. Whatever an
// index says is checked against the segment, so that a damaged one costs time and
// not data.
type index struct {
	file  handle
	entry int // bytes of an entry

	mu       sync.Mutex
	inMemory bool // has no file yet, keep everything in pending
	loaded   bool
	flushed  int    // entries in the file
	pending  []byte // entries after those
	synced   bool   // all flushed entries are durable
	last     []byte // copy of the last entry, empty without one
}

// loadLocked reads the number of entries. A missing file is an empty index.
func (x *index) loadLocked() error {
	if x.loaded {
		return nil
	}
	f, err := x.file.acquire()
	if errors.Is(err, fs.ErrNotExist) {
		x.reset()
		return nil
	}
	if err != nil {
		return err
	}
	defer x.file.release()
	size, err := f.Size()
	if err != nil {
		return err
	}
	if size%int64(x.entry) != 0 {
		return fmt.Errorf("%w: %s has %d bytes, entries have %d", errIndex, x.file.name(), size, x.entry)
	}
	x.reset()
	x.flushed = int(size) / x.entry
	if x.flushed > 0 {
		x.last = make([]byte, x.entry)
		return readFull(f, x.last, size-int64(x.entry))
	}
	return nil
}

// reset makes the index an empty one.
func (x *index) reset() {
	x.loaded, x.synced, x.flushed, x.pending, x.last = true, true, 0, x.pending[:0], x.last[:0]
}

// count returns the number of entries. The index must be loaded.
func (x *index) count() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.flushed + len(x.pending)/x.entry
}

// entries is count for an index that may not be loaded; 0 when it cannot be.
func (x *index) entries() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.loadLocked() != nil {
		return 0
	}
	return x.flushed + len(x.pending)/x.entry
}

// settle gives an index that was made in memory its file.
func (x *index) settle() error {
	x.mu.Lock()
	x.inMemory = false
	err := x.flushLocked()
	x.mu.Unlock()
	if err != nil {
		return err
	}
	return x.ensureFile()
}

// lastEntry copies the last entry into dst, which is returned empty without one.
func (x *index) lastEntry(dst []byte) []byte {
	x.mu.Lock()
	defer x.mu.Unlock()
	return append(dst, x.last...)
}

// append adds an entry. It writes the file once in a while; a failure leaves the
// entries in memory, to be written with later ones.
func (x *index) append(entry []byte) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.pending = append(x.pending, entry...)
	x.last = append(x.last[:0], entry...)
	if len(x.pending) >= indexFlushBytes && !x.inMemory {
		// An index is a cache: the flush at the segment's end reports what is wrong.
		_ = x.flushLocked()
	}
}

func (x *index) flush(sync bool) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if err := x.flushLocked(); err != nil || !sync || x.synced {
		return err
	}
	f, err := x.file.acquire()
	if err != nil {
		return err
	}
	defer x.file.release()
	if err := f.Sync(); err != nil {
		return fmt.Errorf("storage: sync %s: %w", x.file.name(), err)
	}
	x.synced = true
	return nil
}

// flushLocked writes the pending entries, making the file if there is none.
func (x *index) flushLocked() error {
	if !x.loaded || len(x.pending) == 0 {
		return nil
	}
	f, err := x.file.acquire()
	if errors.Is(err, fs.ErrNotExist) {
		if f, err = x.file.fs.Create(x.file.name()); err == nil {
			x.file.adopt(f)
		}
	}
	if err != nil {
		return err
	}
	defer x.file.release()
	if _, err := f.WriteAt(x.pending, int64(x.flushed)*int64(x.entry)); err != nil {
		return fmt.Errorf("storage: write %s: %w", x.file.name(), err)
	}
	x.flushed += len(x.pending) / x.entry
	x.pending = x.pending[:0]
	x.synced = false
	return nil
}

// ensureFile makes an empty file for an index without entries, since Kafka's
// tools expect one beside each full segment.
func (x *index) ensureFile() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if _, err := x.file.fs.Stat(x.file.name()); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := x.file.fs.Create(x.file.name())
	if err != nil {
		return err
	}
	return f.Close()
}

// search returns the last entry for which after is false, and its place; ok is
// false when there is none. after must be false for a prefix of the entries and
// true for the rest. entry is valid until scratch is used again.
func (x *index) search(scratch []byte, after func(entry []byte) bool) (entry []byte, ok bool, err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if err := x.loadLocked(); err != nil {
		return nil, false, err
	}
	if n := len(x.pending) / x.entry; n > 0 && !after(x.pending[:x.entry]) {
		i := sort.Search(n, func(i int) bool { return after(x.pending[i*x.entry : (i+1)*x.entry]) })
		return append(scratch[:0], x.pending[(i-1)*x.entry:i*x.entry]...), true, nil
	}
	if x.flushed == 0 {
		return nil, false, nil
	}
	f, err := x.file.acquire()
	if err != nil {
		return nil, false, err
	}
	defer x.file.release()
	return x.searchFile(f, scratch, after)
}

// searchFile narrows the file down to a block that fits scratch, then reads that.
func (x *index) searchFile(f vfs.File, scratch []byte, after func(entry []byte) bool) ([]byte, bool, error) {
	scratch = scratch[:cap(scratch)]
	perBlock := len(scratch) / x.entry
	low, high := 0, x.flushed // the first entry after lies within [low, high]
	for high-low > perBlock {
		middle := low + (high-low)/2
		probe := scratch[:x.entry]
		if err := readFull(f, probe, int64(middle)*int64(x.entry)); err != nil {
			return nil, false, err
		}
		if after(probe) {
			high = middle
		} else {
			low = middle
		}
	}
	block := scratch[:(high-low)*x.entry]
	if err := readFull(f, block, int64(low)*int64(x.entry)); err != nil {
		return nil, false, err
	}
	i := sort.Search(high-low, func(i int) bool { return after(block[i*x.entry : (i+1)*x.entry]) })
	if i == 0 {
		// low itself was probed and is not after, unless it is the very first.
		return nil, false, nil
	}
	return block[(i-1)*x.entry : i*x.entry], true, nil
}

// truncate keeps the first n entries.
func (x *index) truncate(n int) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.loaded {
		return fmt.Errorf("storage: truncate %s before it is loaded", x.file.name())
	}
	if n >= x.flushed {
		x.pending = x.pending[:min(len(x.pending), (n-x.flushed)*x.entry)]
	} else {
		f, err := x.file.acquire()
		if err != nil {
			return err
		}
		defer x.file.release()
		if err := f.Truncate(int64(n) * int64(x.entry)); err != nil {
			return fmt.Errorf("storage: truncate %s: %w", x.file.name(), err)
		}
		x.flushed, x.pending, x.synced = n, x.pending[:0], false
	}
	return x.reloadLast()
}

func (x *index) reloadLast() error {
	x.last = x.last[:0]
	if n := len(x.pending); n > 0 {
		x.last = append(x.last, x.pending[n-x.entry:]...)
		return nil
	}
	if x.flushed == 0 {
		return nil
	}
	f, err := x.file.acquire()
	if err != nil {
		return err
	}
	defer x.file.release()
	x.last = append(x.last, make([]byte, x.entry)...)
	return readFull(f, x.last, int64(x.flushed-1)*int64(x.entry))
}

// discard empties the index and removes its file; the next entries make a new one.
func (x *index) discard() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.file.drop()
	if err := x.file.fs.Remove(x.file.name()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	x.reset()
	return nil
}

// replace puts entries in the place of what the index has, on disk too.
func (x *index) replace(entries []byte) error {
	if err := x.discard(); err != nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.pending = append(x.pending[:0], entries...)
	if len(entries) > 0 {
		x.last = append(x.last[:0], entries[len(entries)-x.entry:]...)
	}
	// On a full disk the entries stay in memory.
	if err := x.flushLocked(); err != nil && !errors.Is(err, vfs.ErrNoSpace) {
		return err
	}
	return nil
}

// all returns the entries of the file and of memory.
func (x *index) all() ([]byte, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if err := x.loadLocked(); err != nil {
		return nil, err
	}
	entries := make([]byte, x.flushed*x.entry, x.flushed*x.entry+len(x.pending))
	if x.flushed > 0 {
		f, err := x.file.acquire()
		if err != nil {
			return nil, err
		}
		defer x.file.release()
		if err := readFull(f, entries, 0); err != nil {
			return nil, err
		}
	}
	return append(entries, x.pending...), nil
}

func appendIndexEntry(dst []byte, relativeOffset, position int32) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(relativeOffset))
	return binary.BigEndian.AppendUint32(dst, uint32(position))
}

func indexEntry(b []byte) (relativeOffset, position int32) {
	return int32(binary.BigEndian.Uint32(b)), int32(binary.BigEndian.Uint32(b[4:]))
}

func appendTimeEntry(dst []byte, timestamp int64, relativeOffset int32) []byte {
	dst = binary.BigEndian.AppendUint64(dst, uint64(timestamp))
	return binary.BigEndian.AppendUint32(dst, uint32(relativeOffset))
}

func timeEntry(b []byte) (timestamp int64, relativeOffset int32) {
	return int64(binary.BigEndian.Uint64(b)), int32(binary.BigEndian.Uint32(b[8:]))
}

// validIndex reports whether the entries of an offset index rise and stay within
// a segment of that many bytes and offsets.
func validIndex(entries []byte, size, offsets int64) error {
	previousOffset, previousPosition := int32(-1), int32(-1)
	for i := 0; i+indexEntrySize <= len(entries); i += indexEntrySize {
		offset, position := indexEntry(entries[i:])
		if offset <= previousOffset || position <= previousPosition || int64(position) >= size || int64(offset) >= offsets {
			return fmt.Errorf("%w: offset entry %d is %d at %d after %d at %d, segment has %d bytes and %d offsets", errIndex, i/indexEntrySize, offset, position, previousOffset, previousPosition, size, offsets)
		}
		previousOffset, previousPosition = offset, position
	}
	return nil
}

// validTimes is validIndex for a time index.
func validTimes(entries []byte, offsets int64) error {
	previousTime, previousOffset := int64(-1), int32(-1)
	for i := 0; i+timeEntrySize <= len(entries); i += timeEntrySize {
		timestamp, offset := timeEntry(entries[i:])
		if timestamp <= previousTime || offset <= previousOffset || int64(offset) >= offsets {
			return fmt.Errorf("%w: time entry %d is %d at offset %d after %d at %d, segment has %d offsets", errIndex, i/timeEntrySize, timestamp, offset, previousTime, previousOffset, offsets)
		}
		previousTime, previousOffset = timestamp, offset
	}
	return nil
}
