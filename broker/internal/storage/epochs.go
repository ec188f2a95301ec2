package storage

import (
	"fmt"
	"sort"
)

// epochEntry says at which offset a leader epoch begins.
type epochEntry struct {
	epoch int32
	start int64
}

// epochs is the history of a partition's leaders (KIP-101), epochs and starts
// both rising. It is kept in memory and in leader-epoch-checkpoint:
//
//	0
//	<number of entries>
//	<epoch> <start offset>
//
// The file is written when a segment is full and at a clean close. After a crash
// the entries of the last segment come from its batches.
type epochs struct {
	entries []epochEntry
	dirty   bool // differs from the file
}

// latest returns the last epoch, or -1.
func (e *epochs) latest() int32 {
	if len(e.entries) == 0 {
		return -1
	}
	return e.entries[len(e.entries)-1].epoch
}

// assign notes that epoch is the one of what is appended from offset on. An epoch
// that is not newer than the last is ignored, as its start is known.
func (e *epochs) assign(epoch int32, offset int64) {
	if epoch < 0 || epoch <= e.latest() {
		return
	}
	// Epochs that began here and got no record are superseded.
	e.truncateEnd(offset)
	e.entries = append(e.entries, epochEntry{epoch, offset})
	e.dirty = true
}

// end returns the largest known epoch that is not larger than the asked one, and
// where it ends: where the next one begins, or at logEnd for the last. An epoch
// before the first known one is answered with itself and the start of the first,
// an unknown later one with -1, -1, as Kafka does.
func (e *epochs) end(asked int32, logEnd int64) (epoch int32, end int64) {
	if asked < 0 || len(e.entries) == 0 {
		return -1, -1
	}
	if asked == e.latest() {
		return asked, logEnd
	}
	next := sort.Search(len(e.entries), func(i int) bool { return e.entries[i].epoch > asked })
	if next == len(e.entries) {
		return -1, -1
	}
	if next == 0 {
		return asked, e.entries[0].start
	}
	return e.entries[next-1].epoch, e.entries[next].start
}

// at returns the epoch of an offset, or -1.
func (e *epochs) at(offset int64) int32 {
	next := sort.Search(len(e.entries), func(i int) bool { return e.entries[i].start > offset })
	if next == 0 {
		return -1
	}
	return e.entries[next-1].epoch
}

// truncateEnd forgets the epochs that begin at or after end.
func (e *epochs) truncateEnd(end int64) {
	keep := sort.Search(len(e.entries), func(i int) bool { return e.entries[i].start >= end })
	if keep < len(e.entries) {
		e.entries = e.entries[:keep]
		e.dirty = true
	}
}

// truncateStart forgets the epochs that end before start; the one that holds
// start begins there from now on.
func (e *epochs) truncateStart(start int64) {
	next := sort.Search(len(e.entries), func(i int) bool { return e.entries[i].start > start })
	if next == 0 || e.entries[next-1].start == start && next == 1 {
		return
	}
	e.entries = append([]epochEntry{{e.entries[next-1].epoch, start}}, e.entries[next:]...)
	e.dirty = true
}

func (e *epochs) encode() []byte {
	b := appendCheckpointHeader(nil, len(e.entries))
	for _, entry := range e.entries {
		b = fmt.Appendf(b, "%d %d\n", entry.epoch, entry.start)
	}
	return b
}

func decodeEpochs(data []byte) ([]epochEntry, error) {
	var entries []epochEntry
	err := parseCheckpoint(data, func(fields [][]byte) error {
		if len(fields) != 2 {
			return fmt.Errorf("%w: an epoch and an offset expected", errCheckpoint)
		}
		epoch, err := parseField(fields, 0)
		if err != nil {
			return err
		}
		start, err := parseField(fields, 1)
		if err != nil {
			return err
		}
		entry := epochEntry{int32(epoch), start}
		if epoch < 0 || epoch != int64(entry.epoch) || start < 0 {
			return fmt.Errorf("%w: epoch %d at offset %d", errCheckpoint, epoch, start)
		}
		if n := len(entries); n > 0 && (entries[n-1].epoch >= entry.epoch || entries[n-1].start >= start) {
			return fmt.Errorf("%w: epoch %d at offset %d follows epoch %d at offset %d", errCheckpoint, epoch, start, entries[n-1].epoch, entries[n-1].start)
		}
		entries = append(entries, entry)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return entries, nil
}
