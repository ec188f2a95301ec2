package storage

import (
	"errors"
	"io/fs"

	"github.com/leatlog/leat/broker/internal/record"
)

// What refillProducers reads at most: headers, over all its attempts, and bytes of
// log that they span. Five batches in flight of 1 MiB each, of many producers, fit.
const (
	refillFirstBytes = 64 << 10
	refillBytes      = 1 << 30
	refillHeaders    = 32 << 10
)

// refillProducers completes producers that were read from the snapshot at an
// offset, which keeps the last batch of each only: it looks for the batches
// before that one in the headers of the log before the offset. Without them a
// producer that sends its requests in flight again after a restart would learn
// that they are out of order, not that they are written, and might write them
// twice. It begins near the offset and goes back further while a producer lacks
// batches, within bounds.
func (l *Log) refillProducers(at int64) error {
	wanted := make(map[int64]*recentBatches)
	for id, p := range l.producers.byID {
		// Nothing precedes the first batch of an epoch.
		if p.count == 1 && p.batches[0].firstSequence() != 0 {
			wanted[id] = &recentBatches{producer: p}
		}
	}
	headers := 0
	for span := int64(refillFirstBytes); len(wanted) > 0; span *= 4 {
		n, whole, err := l.readRecent(wanted, at, min(span, refillBytes))
		if err != nil {
			return err
		}
		headers += n
		missing := false
		for _, r := range wanted {
			missing = r.settle() || missing
		}
		if !missing || whole || span >= refillBytes || headers > refillHeaders {
			return nil
		}
	}
	return nil
}

// recentBatches collects a producer's batches in the order of the log, keeping
// the newest.
type recentBatches struct {
	producer *producer
	batches  [rememberedBatches]producerBatch
	count    int
}

func (r *recentBatches) note(h record.Batch) {
	if h.ProducerEpoch() != r.producer.epoch || h.BaseSequence() == record.NoSequence {
		return
	}
	if r.count == rememberedBatches {
		copy(r.batches[:], r.batches[1:])
		r.count--
	}
	r.batches[r.count] = producerBatch{lastSequence: h.LastSequence(), offsetDelta: h.LastOffsetDelta(), lastOffset: h.LastOffset(), timestamp: h.MaxTimestamp()}
	r.count++
}

// settle hands what was collected to the producer, as far as it leads without a
// gap to the batch in the snapshot, and reports whether more may lie further back.
func (r *recentBatches) settle() (missing bool) {
	p := r.producer
	newest := p.batches[p.count-1]
	from := r.count
	for next := newest; from > 0; from-- {
		b := r.batches[from-1]
		if from == r.count && (b.lastOffset != newest.lastOffset || b.lastSequence != newest.lastSequence) ||
			from < r.count && (record.AddSequence(b.lastSequence, 1) != next.firstSequence() || b.lastOffset >= next.lastOffset) {
			break
		}
		next = b
	}
	if from < r.count {
		p.count = int8(copy(p.batches[:], r.batches[from:r.count]))
	}
	gap := from > 0
	r.count = 0
	return !gap && p.count < rememberedBatches && p.batches[0].firstSequence() != 0
}

// readRecent notes the data batches in about the last span bytes before an
// offset. It returns how many headers it read, and whether those were all.
func (l *Log) readRecent(wanted map[int64]*recentBatches, at, span int64) (headers int, whole bool, err error) {
	first := l.segmentBefore(at)
	position := int64(0)
	for i := first; ; i-- {
		size, err := l.bytesBefore(l.segments[i], at)
		if err != nil {
			return 0, false, err
		}
		if first = i; size >= span {
			if position, err = l.entryBefore(l.segments[i], size-span); err != nil {
				return 0, false, err
			}
			break
		}
		if span -= size; i == 0 {
			break
		}
	}
	whole = first == 0 && position == 0
	for i := first; i < len(l.segments) && l.segments[i].base < at; i++ {
		n, err := l.noteHeaders(wanted, l.segments[i], position, at)
		if headers += n; err != nil {
			return headers, whole, err
		}
		position = 0
	}
	return headers, whole, nil
}

// segmentBefore returns the index of the segment that holds what precedes offset.
func (l *Log) segmentBefore(offset int64) int { return l.segmentOf(offset - 1) }

// bytesBefore returns about how many bytes of batches a segment has before an
// offset: exactly, unless the offset lies within it.
func (l *Log) bytesBefore(s *segment, offset int64) (int64, error) {
	if s != l.active() {
		return s.size.Load(), nil
	}
	// While the log is opened, the end of the last segment is not known yet; the
	// index was cut where it is durable.
	entry, ok, err := s.index.search(make([]byte, windowBytes), func(e []byte) bool {
		relative, _ := indexEntry(e)
		return s.base+int64(relative) >= offset
	})
	if err != nil || !ok {
		return 0, err
	}
	_, at := indexEntry(entry)
	return int64(at), nil
}

// entryBefore returns the position of the last index entry at or before a
// position, 0 without a good one.
func (l *Log) entryBefore(s *segment, position int64) (int64, error) {
	entry, ok, err := s.index.search(make([]byte, windowBytes), func(e []byte) bool {
		_, at := indexEntry(e)
		return int64(at) > position
	})
	if err != nil || !ok {
		return 0, nil // an index is a cache, and looked at again when it is needed
	}
	relative, at := indexEntry(entry)
	f, err := s.file.acquire()
	if err != nil {
		return 0, err
	}
	defer s.file.release()
	size, err := f.Size()
	if err != nil {
		return 0, err
	}
	w := windows.Get().(*window)
	defer windows.Put(w)
	w.reset(f)
	if h, err := w.header(int64(at), size); err != nil || h.LastOffset() != s.base+int64(relative) {
		return 0, nil
	}
	return int64(at), nil
}

// noteHeaders notes the batches of a segment from a position on, up to an offset.
// What is no header ends it: recovery, or the first read, tells what that means.
func (l *Log) noteHeaders(wanted map[int64]*recentBatches, s *segment, position, to int64) (headers int, err error) {
	f, err := s.file.acquire()
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	} else if err != nil {
		return 0, err
	}
	defer s.file.release()
	size, err := f.Size()
	if err != nil {
		return 0, err
	}
	if s != l.active() {
		size = min(size, s.size.Load())
	}
	w := windows.Get().(*window)
	defer windows.Put(w)
	w.reset(f)
	for position < size {
		h, err := w.header(position, size)
		if errors.Is(err, errBadHeader) {
			return headers, nil
		} else if err != nil {
			return headers, err
		}
		if h.BaseOffset() >= to {
			return headers, nil
		}
		headers++
		if r, ok := wanted[h.ProducerID()]; ok && !h.IsControl() {
			r.note(h)
		}
		position += int64(h.Size())
	}
	return headers, nil
}
