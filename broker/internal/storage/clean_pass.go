package storage

import (
	"fmt"
	"math"
	"slices"

	"github.com/leatlog/leat/broker/internal/record"
	"github.com/leatlog/leat/broker/internal/vfs"
)

// cleanWriter writes the segment that replaces a group.
type cleanWriter struct {
	segment *segment
	file    vfs.File
	buffer  []byte
	written int64 // to the file
}

func (w *cleanWriter) position() int64 { return w.written + int64(len(w.buffer)) }

func (w *cleanWriter) flush() error {
	if len(w.buffer) == 0 {
		return nil
	}
	if _, err := w.file.WriteAt(w.buffer, w.written); err != nil {
		return fmt.Errorf("storage: write %s: %w", w.segment.file.name(), err)
	}
	w.written += int64(len(w.buffer))
	w.buffer = w.buffer[:0]
	return nil
}

// clean writes a group of segments anew and puts the result in their place.
func (p *cleanPass) clean(group []*segment) (err error) {
	l, w := p.log, &p.writer
	if err := p.create(group[0].base); err != nil {
		return err
	}
	defer w.segment.file.release()
	swapping := false
	defer func() {
		p.cleaner.out = w.buffer[:0]
		if err != nil && !swapping {
			l.discardCleaned(w.segment)
		}
	}()
	unchanged := len(group) == 1
	for _, s := range group {
		err := p.cleaner.readBatches(l, s, math.MaxInt64, func(b record.Batch) (bool, error) {
			before := w.position()
			same, err := p.copy(b)
			if err != nil {
				return false, err
			}
			unchanged = unchanged && same
			if n := w.position() - before; n > 0 {
				w.segment.note(record.Batch(w.buffer[int64(len(w.buffer))-n:]), before, l.config().IndexInterval)
			}
			if len(w.buffer) < cleanBufferBytes {
				return true, nil
			}
			p.cleaner.bytesWritten.Add(int64(len(w.buffer)))
			n := len(w.buffer)
			if err := w.flush(); err != nil {
				return false, err
			}
			return true, p.cleaner.wait(n)
		})
		if err != nil {
			return err
		}
	}
	if unchanged {
		l.discardCleaned(w.segment)
		return nil
	}
	p.cleaner.bytesWritten.Add(int64(len(w.buffer)))
	if err := w.flush(); err != nil {
		return err
	}
	if w.written > math.MaxInt32 {
		return fmt.Errorf("storage: %s grew to %d bytes", w.segment.file.name(), w.written)
	}
	s, last := w.segment, group[len(group)-1]
	s.noteTime()
	s.hasTimes.Store(true)
	s.checked.Store(true)
	s.size.Store(w.written)
	s.end.Store(last.end.Load())
	s.allocated, s.syncedSize = w.written, w.written
	swapping = true
	return l.replaceSegments(group, s, w.file)
}

// create begins the file of a cleaned segment.
func (p *cleanPass) create(base int64) error {
	l := p.log
	s := l.newSegment(base)
	s.file.suffix = logSuffix + cleanedSuffix
	s.index.inMemory, s.times.inMemory = true, true
	s.index.reset()
	s.times.reset()
	s.abortedKnown = true
	l.discardCleaned(s)
	f, err := l.env.FS.Create(s.file.name())
	if err != nil {
		return fmt.Errorf("storage: create %s: %w", s.file.name(), err)
	}
	s.file.adopt(f)
	p.writer = cleanWriter{segment: s, file: f, buffer: p.cleaner.out[:0]}
	return nil
}

// copy writes what stays of a batch, and reports whether that is all of it.
func (p *cleanPass) copy(b record.Batch) (same bool, err error) {
	w := &p.writer
	if b.NextOffset() > p.end {
		if b.IsControl() {
			p.keepAborted(b)
		}
		w.buffer = append(w.buffer, b...)
		return true, nil
	}
	retained, horizon := 0, int64(-1)
	if b.IsControl() {
		retained, horizon, err = p.decideMarker(b)
	} else {
		retained, horizon, err = p.decideRecords(b)
	}
	if err != nil {
		return false, fmt.Errorf("batch at offset %d: %w", b.BaseOffset(), err)
	}
	p.cleaner.recordsRemoved.Add(int64(b.Count()) - int64(retained))
	if retained == 0 && !p.isNeeded(b) {
		return false, nil
	}
	if retained == int(b.Count()) && horizon < 0 {
		w.buffer = append(w.buffer, b...)
		return true, nil
	}
	w.buffer, err = b.Filter(w.buffer, record.DefaultLimit, horizon, func(i int) bool { return p.keep[i] })
	return false, err
}

// decideRecords sets keep for the records of a data batch, and returns how many
// stay and the delete horizon that the batch is to get, -1 for none.
func (p *cleanPass) decideRecords(b record.Batch) (retained int, horizon int64, err error) {
	if b.IsTransactional() {
		p.open[b.ProducerID()] = true
	}
	p.keep = p.keep[:0]
	aborted := p.view.isAborted(b)
	old, hasHorizon := b.DeleteHorizon()
	tombstones := false
	err = b.Iterate(func(r *record.Record) error {
		keep := !aborted && (r.Key == nil || r.Offset >= p.keys.get(r.Key) && (r.Value != nil || !hasHorizon || p.now < old))
		p.keep = append(p.keep, keep)
		if keep {
			retained++
			tombstones = tombstones || r.Key != nil && r.Value == nil
		}
		return nil
	})
	if tombstones && !hasHorizon {
		return retained, p.horizon, err
	}
	return retained, -1, err
}

// decideMarker is decideRecords for a control batch. A transaction's marker may go
// when no pass has met a batch of the transaction for delete.retention.ms.
func (p *cleanPass) decideMarker(b record.Batch) (retained int, horizon int64, err error) {
	count := int(b.Count())
	p.keep = slices.Grow(p.keep[:0], count)[:count]
	for i := range p.keep {
		p.keep[i] = true
	}
	_, marker, err := parseMarker(b)
	if err != nil || !marker && count > 0 {
		return count, -1, err
	}
	met := p.open[b.ProducerID()]
	delete(p.open, b.ProducerID())
	old, hasHorizon := b.DeleteHorizon()
	if !met && hasHorizon && old <= p.now {
		clear(p.keep)
		return 0, -1, nil
	}
	// The transaction stays in the index as long as its marker, since a reader may
	// ask for it that has read its records before they went.
	if p.keepAborted(b); !met && !hasHorizon && count > 0 {
		return count, p.horizon, nil
	}
	return count, -1, nil
}

// keepAborted notes the transaction that a marker ends, if it is an aborted one,
// in the index of the new segment.
func (p *cleanPass) keepAborted(marker record.Batch) {
	for _, t := range p.view.aborted[marker.ProducerID()] {
		if t.lastOffset == marker.LastOffset() {
			p.writer.segment.aborted = append(p.writer.segment.aborted, t)
		}
	}
}

// isNeeded reports whether a batch, even without records, tells what a producer
// did last: a batch that it may send again, or a marker when there is none.
func (p *cleanPass) isNeeded(b record.Batch) bool {
	if b.ProducerID() < 0 {
		return false
	}
	producer, known := p.view.producers[b.ProducerID()]
	if !known {
		return false
	}
	if b.IsControl() {
		return producer.count == 0 && producer.epoch == b.ProducerEpoch()
	}
	return slices.ContainsFunc(producer.batches[:producer.count], func(r producerBatch) bool { return r.lastOffset == b.LastOffset() })
}
