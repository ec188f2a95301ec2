package storage

import (
	"fmt"
	"io"
	"slices"

	"github.com/leatlog/leat/broker/internal/record"
)

// readBatches calls visit with each whole batch of a segment that begins below
// end, verified. visit returns false to stop. The bytes are valid during the call.
func (c *Cleaner) readBatches(l *Log, s *segment, end int64, visit func(record.Batch) (bool, error)) error {
	f, err := s.file.acquire()
	if err != nil {
		return err
	}
	defer s.file.release()
	size := s.size.Load()
	buffer := c.read[:cap(c.read)]
	if len(buffer) == 0 {
		buffer = make([]byte, cleanBufferBytes)
	}
	defer func() { c.read = buffer }()
	for position := int64(0); position < size; {
		n := int(min(size-position, int64(len(buffer))))
		if err := c.pace(l, n); err != nil {
			return err
		}
		if err := readFull(f, buffer[:n], position); err != nil {
			return l.unreadable(s, position, s.base, err)
		}
		rest := buffer[:n]
		for len(rest) >= record.HeaderSize {
			if need := record.SizeOf(rest); need > int64(len(rest)) {
				if need > size-position {
					return l.damaged(s, position, s.base, fmt.Errorf("%w: batch of %d bytes, %d left", record.ErrTruncated, need, size-position))
				}
				if need > int64(len(buffer)) {
					buffer = make([]byte, need)
				}
				break
			}
			var b record.Batch
			if b, rest, err = record.Parse(rest); err == nil {
				err = b.Validate()
			}
			if err != nil {
				return l.damaged(s, position, s.base, err)
			}
			if b.BaseOffset() >= end {
				return nil
			}
			if more, err := visit(b); err != nil || !more {
				return err
			}
			position += int64(len(b))
		}
		if len(rest) > 0 && int64(len(rest)) == size-position && len(rest) < record.HeaderSize {
			return l.damaged(s, position, s.base, io.ErrUnexpectedEOF)
		}
	}
	return nil
}

// isAborted reports whether a batch belongs to an aborted transaction.
func (v *cleanedSegments) isAborted(b record.Batch) bool {
	if !b.IsTransactional() || b.IsControl() {
		return false
	}
	offset := b.BaseOffset()
	return slices.ContainsFunc(v.aborted[b.ProducerID()], func(t abortedTxn) bool {
		return t.firstOffset <= offset && offset < t.lastOffset
	})
}

// buildMap notes the last offset of each key within [from, bound), as far as the map
// has room, and returns up to where it got.
func (c *Cleaner) buildMap(l *Log, v *cleanedSegments, from, bound int64) (m *offsetMap, end int64, err error) {
	m = newOffsetMap(bound-from, c.cfg.DedupeBytes, c.cfg.LoadFactor)
	end = from
	full := false
	for i, s := range v.segments {
		if full || s.base >= bound {
			break
		}
		if i+1 < len(v.segments) && v.segments[i+1].base <= from {
			continue
		}
		err := c.readBatches(l, s, bound, func(b record.Batch) (bool, error) {
			if b.NextOffset() <= from {
				return true, nil
			}
			if b.NextOffset() > bound {
				full = true
				return false, nil
			}
			if !b.IsControl() && !v.isAborted(b) {
				if n := int(b.Count()); !m.fits(n) {
					if m.count > 0 {
						full = true
						return false, nil
					}
					m.grow(n)
				}
				err := b.Iterate(func(r *record.Record) error {
					if r.Key != nil && r.Offset >= from {
						m.put(r.Key, r.Offset)
					}
					return nil
				})
				if err != nil {
					return false, fmt.Errorf("storage: compact %s: %w", l.dir, err)
				}
			}
			end = b.NextOffset()
			return true, nil
		})
		if err != nil {
			return nil, 0, err
		}
	}
	if !full {
		end = bound // nothing but gaps follows
	}
	return m, end, nil
}
