package storage

import (
	"fmt"

	"github.com/leatlog/leat/broker/internal/record"
)

// loadTimes takes the largest timestamp of a full segment from the last entry of
// its time index, which must agree with the batch it names: retention deletes by it.
func (l *Log) loadTimes(s *segment) error {
	for range 2 {
		if s.hasTimes.Load() {
			return nil
		}
		last := s.times.lastEntry(nil)
		if len(last) == 0 {
			s.hasTimes.Store(true)
			return nil
		}
		timestamp, relative := timeEntry(last)
		h, err := l.headerOf(s, s.base+int64(relative))
		if err != nil {
			return err
		}
		if h.MaxTimestamp() == timestamp && h.LastOffset() == s.base+int64(relative) {
			s.maxTime.Store(timestamp)
			s.maxOffset.Store(h.LastOffset())
			s.hasTimes.Store(true)
			return nil
		}
		if err := l.rebuildIndexes(s, "the last time is not that of its batch"); err != nil {
			return err
		}
	}
	return nil
}

// headerOf returns a copy of the header of the batch that holds offset, or of the
// first one after it.
func (l *Log) headerOf(s *segment, offset int64) (record.Batch, error) {
	f, err := s.file.acquire()
	if err != nil {
		return nil, err
	}
	defer s.file.release()
	w := windows.Get().(*window)
	defer windows.Put(w)
	w.reset(f)
	size := s.size.Load()
	position, err := l.lookup(s, w, offset, size)
	if err != nil {
		return nil, err
	}
	for {
		h, err := w.header(position, size)
		if err != nil {
			return nil, l.unreadable(s, position, offset, err)
		}
		if h.LastOffset() >= offset {
			return append(record.Batch(nil), h...), nil
		}
		position += int64(h.Size())
	}
}

// OffsetForTimestamp returns the first record whose timestamp, in ms, is at or
// after the given one: its offset, timestamp and leader epoch. All are -1 when
// there is none.
func (l *Log) OffsetForTimestamp(at int64) (offset, timestamp int64, epoch int32, err error) {
	l.readMu.RLock()
	defer l.readMu.RUnlock()
	from := l.start.Load()
	for _, s := range l.segments[l.segmentOf(from):] {
		newest, err := l.largestTimestamp(s)
		if err != nil {
			return -1, -1, -1, err
		}
		if newest < at {
			continue
		}
		offset, timestamp, epoch, err = l.findTime(s, max(from, s.base), at)
		if err != nil || offset >= 0 {
			return offset, timestamp, epoch, err
		}
	}
	return -1, -1, -1, nil
}

// findTime is OffsetForTimestamp within a segment, from an offset on.
func (l *Log) findTime(s *segment, from, at int64) (offset, timestamp int64, epoch int32, err error) {
	none := func(err error) (int64, int64, int32, error) { return -1, -1, -1, err }
	if err := l.ensureIndexes(s); err != nil {
		return none(err)
	}
	start, err := l.startOfTime(s, from, at)
	if err != nil {
		return none(err)
	}
	f, err := s.file.acquire()
	if err != nil {
		return none(err)
	}
	defer s.file.release()
	w := windows.Get().(*window)
	defer windows.Put(w)
	w.reset(f)
	size := s.size.Load()
	position, err := l.lookup(s, w, start, size)
	if err != nil {
		return none(err)
	}
	for position < size {
		h, err := w.header(position, size)
		if err != nil {
			return none(l.unreadable(s, position, start, err))
		}
		batchSize := int64(h.Size())
		if h.LastOffset() >= start && h.MaxTimestamp() >= at && !h.IsControl() {
			batch := make(record.Batch, batchSize)
			if err := readFull(f, batch, position); err != nil {
				return none(l.unreadable(s, position, start, err))
			}
			offset, timestamp, err = firstAt(batch, from, at)
			if err != nil {
				return none(fmt.Errorf("storage: %s at byte %d: %w", s.file.name(), position, err))
			}
			if offset >= 0 {
				return offset, timestamp, batch.LeaderEpoch(), nil
			}
		}
		position += batchSize
	}
	return none(nil)
}

// startOfTime returns an offset, at or after from, before which all timestamps of
// the segment are smaller than at. The time index tells, if its entry agrees with
// the batch it names.
func (l *Log) startOfTime(s *segment, from, at int64) (int64, error) {
	for range 2 {
		scratch := scratches.Get().(*[]byte)
		entry, ok, err := s.times.search(*scratch, func(e []byte) bool {
			t, _ := timeEntry(e)
			return t >= at
		})
		timestamp, relative := int64(0), int32(0)
		if ok {
			timestamp, relative = timeEntry(entry)
		}
		scratches.Put(scratch)
		if err != nil || !ok {
			return from, err
		}
		h, err := l.headerOf(s, s.base+int64(relative))
		if err != nil {
			return from, err
		}
		if h.MaxTimestamp() == timestamp && h.LastOffset() == s.base+int64(relative) {
			return max(from, h.NextOffset()), nil
		}
		if s == l.active() {
			return from, nil // the appender owns its index
		}
		if err := l.rebuildIndexes(s, "a time is not that of its batch"); err != nil {
			return from, err
		}
	}
	return from, nil
}

// firstAt returns the first record of a batch, from an offset on, whose timestamp
// is at least at; -1 without one.
func firstAt(batch record.Batch, from, at int64) (offset, timestamp int64, err error) {
	it := record.NewIterator(batch, record.DefaultLimit)
	defer it.Close()
	for it.Next() {
		if r := it.Record(); r.Offset >= from && r.Timestamp >= at {
			return r.Offset, r.Timestamp, nil
		}
	}
	return -1, -1, it.Err()
}

// MaxTimestamp returns the record with the largest timestamp, in ms, the first
// of several: its offset, timestamp and leader epoch (KIP-734). All are -1 when
// there is none or it cannot be read.
func (l *Log) MaxTimestamp() (offset, timestamp int64, epoch int32) {
	l.readMu.RLock()
	defer l.readMu.RUnlock()
	newest := int64(-1)
	from := l.start.Load()
	for _, s := range l.segments[l.segmentOf(from):] {
		if t, err := l.largestTimestamp(s); err == nil {
			newest = max(newest, t)
		}
	}
	if newest < 0 {
		return -1, -1, -1
	}
	for _, s := range l.segments[l.segmentOf(from):] {
		if s.maxTime.Load() < newest {
			continue
		}
		if offset, timestamp, epoch, err := l.findTime(s, max(from, s.base), newest); err == nil && offset >= 0 {
			return offset, timestamp, epoch
		}
	}
	return -1, -1, -1
}
