package storage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
)

// abortedTxn is an entry of a segment's .txnindex, which lists the aborted
// transactions whose markers lie in the segment, in Kafka's format, big-endian:
//
//	version int16 = 0 | producer id int64 | first offset int64 |
//	last offset int64, of the marker | last stable offset int64
type abortedTxn struct {
	producerID       int64
	firstOffset      int64
	lastOffset       int64
	lastStableOffset int64
}

const abortedEntrySize = 34

var errAborted = errors.New("storage: transaction index is damaged")

func (t abortedTxn) appendTo(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint16(dst, 0)
	dst = binary.BigEndian.AppendUint64(dst, uint64(t.producerID))
	dst = binary.BigEndian.AppendUint64(dst, uint64(t.firstOffset))
	dst = binary.BigEndian.AppendUint64(dst, uint64(t.lastOffset))
	return binary.BigEndian.AppendUint64(dst, uint64(t.lastStableOffset))
}

func encodeAborted(list []abortedTxn) []byte {
	b := make([]byte, 0, len(list)*abortedEntrySize)
	for _, t := range list {
		b = t.appendTo(b)
	}
	return b
}

func decodeAborted(b []byte) ([]abortedTxn, error) {
	if len(b)%abortedEntrySize != 0 {
		return nil, fmt.Errorf("%w: %d bytes, entries have %d", errAborted, len(b), abortedEntrySize)
	}
	var list []abortedTxn
	previous := int64(-1)
	for ; len(b) > 0; b = b[abortedEntrySize:] {
		if v := binary.BigEndian.Uint16(b); v != 0 {
			return nil, fmt.Errorf("%w: version %d", errAborted, v)
		}
		t := abortedTxn{int64(binary.BigEndian.Uint64(b[2:])), int64(binary.BigEndian.Uint64(b[10:])),
			int64(binary.BigEndian.Uint64(b[18:])), int64(binary.BigEndian.Uint64(b[26:]))}
		if t.producerID < 0 || t.firstOffset < 0 || t.lastOffset < t.firstOffset || t.lastOffset <= previous {
			return nil, fmt.Errorf("%w: entry %+v after offset %d", errAborted, t, previous)
		}
		previous = t.lastOffset
		list = append(list, t)
	}
	return list, nil
}

// noteAborted adds an aborted transaction to the active segment. The file is
// written when the segment is full; after a crash recovery finds it again.
func (s *segment) noteAborted(t completedTxn, lastStable int64) {
	s.aborted = append(s.aborted, abortedTxn{t.producerID, t.firstOffset, t.lastOffset, lastStable})
	s.abortedDirty = true
}

// loadAborted reads the transaction index of a segment. A missing one is empty.
// The caller holds mu.
func (l *Log) loadAborted(s *segment) error {
	if s.abortedKnown {
		return nil
	}
	data, err := readFile(l.env.FS, l.path(segmentName(s.base, abortedSuffix)), snapshotLimit)
	if err == nil {
		s.aborted, err = decodeAborted(data)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	s.abortedKnown = true
	return nil
}

// AbortedTxn is an aborted transaction as a Fetch response names it.
type AbortedTxn struct {
	ProducerID  int64
	FirstOffset int64
}

// AbortedTransactions appends to dst the aborted transactions that may have
// records within [from, to).
func (l *Log) AbortedTransactions(dst []AbortedTxn, from, to int64) ([]AbortedTxn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, s := range l.segments {
		// A transaction is listed where it ended, at or after its records.
		if i+1 < len(l.segments) && l.segments[i+1].base <= from {
			continue
		}
		if err := l.loadAborted(s); err != nil {
			return dst, err
		}
		for _, t := range s.aborted {
			if t.lastOffset >= from && t.firstOffset < to {
				dst = append(dst, AbortedTxn{t.producerID, t.firstOffset})
			}
			if t.lastStableOffset >= to {
				return dst, nil
			}
		}
	}
	return dst, nil
}
