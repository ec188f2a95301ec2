package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"time"
)

// Compaction keeps the last record of each key of a log whose cleanup.policy has
// compact. A pass reads what was not compacted yet into an offsetMap, then writes all
// full segments anew, up to the end of what the map covers, without the records
// that a later one replaces; several passes follow each other when the map is too
// small. Offsets never change. What stays, as in Kafka:
//
//   - everything from the bound on: the high watermark, the first offset of an open
//     transaction, records younger than min.compaction.lag.ms, and the last segment
//     that has records, so that the log's end can always be read;
//   - a tombstone, until delete.retention.ms after a pass first met it: the pass
//     writes that time, the delete horizon, into its batch (KIP-534);
//   - a transaction's marker, likewise, from when its records are gone;
//   - the batches whose sequence numbers a producer may send again, without records.
//
// Records of aborted transactions go at once. Records without a key stay, where Kafka
// drops them: it refuses to append them, which takes opening every batch.

// cleanable is what compaction finds to do in a log.
type cleanable struct {
	from, bound int64 // what is not compacted yet, and may be
	dirty       int64 // its bytes in full segments
	clean       int64 // bytes before it
	overdue     bool  // max.compaction.lag.ms is over
}

// ratio is the share of bytes that are not compacted.
func (c cleanable) ratio() float64 {
	if c.dirty == 0 {
		return 0
	}
	return float64(c.dirty) / float64(c.dirty+c.clean)
}

// cleanable looks for what can be compacted below the last stable offset.
func (l *Log) cleanable(now time.Time, lastStable int64) (cleanable, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	cfg := l.config()
	c := cleanable{from: max(l.cleanedTo, l.start.Load()), bound: lastStable}
	if !cfg.Compact || l.canAppend() != nil {
		return cleanable{}, nil
	}
	// The last segment with records stays as it is.
	last := len(l.segments) - 1
	for last > 0 && l.segments[last].size.Load() == 0 {
		last--
	}
	c.bound = min(c.bound, l.segments[last].base)
	for i, s := range l.segments[:last] {
		size := s.size.Load()
		switch end := l.segments[i+1].base; {
		case s.base >= c.bound:
			return c, nil
		case end <= c.from:
			c.clean += size
			continue
		}
		newest, err := l.largestTimestamp(s)
		if err != nil {
			return cleanable{}, err
		}
		if cfg.MinCompactionLag > 0 && newest > now.Add(-cfg.MinCompactionLag).UnixMilli() {
			c.bound = s.base
			return c, nil
		}
		c.dirty += size
		if newest >= 0 && size > 0 && newest < now.Add(-cfg.MaxCompactionLag).UnixMilli() {
			c.overdue = true
		}
	}
	return c, nil
}

// due reports whether the log is dirty enough to be compacted.
func (c cleanable) due(cfg *Config) bool {
	return c.from < c.bound && c.dirty > 0 && (c.overdue || c.ratio() > cfg.MinCleanableRatio)
}

// mayHaveGaps reports whether offsets may be missing: the log is compacted, or was.
func (l *Log) mayHaveGaps() bool { return l.config().Compact || l.gaps.Load() }

// allowGaps notes, durably, that offsets may be missing from now on, whatever
// the configuration says later. The caller holds mu.
func (l *Log) allowGaps() error {
	if l.gaps.Load() {
		return nil
	}
	return l.setCleaned(max(l.cleanedTo, 0))
}

// setCleaned stores, durably, up to where the log is compacted. The file's being
// there tells that offsets may be missing. The caller holds mu or is alone.
func (l *Log) setCleaned(offset int64) error {
	if err := l.writeOffset(cleanerCheckpointName, offset, true); err != nil {
		return err
	}
	l.cleanedTo = offset
	l.gaps.Store(true)
	return nil
}

// lowerCleaned makes what follows an offset count as not compacted, before it is
// cut off.
func (l *Log) lowerCleaned(offset int64) error {
	if l.cleanedTo <= offset {
		return nil
	}
	return l.setCleaned(offset)
}

// loadCleaned reads up to where the log is compacted.
func (l *Log) loadCleaned() error {
	l.cleanedTo = -1
	offset, ok, err := l.readOffset(cleanerCheckpointName)
	if err != nil {
		return err
	}
	if ok {
		l.cleanedTo = offset
		l.gaps.Store(true)
	} else if _, err := l.env.FS.Stat(l.path(cleanerCheckpointName)); !errors.Is(err, fs.ErrNotExist) {
		l.gaps.Store(true) // damaged: all of it is compacted once more
	}
	return nil
}

// cleanedSegments is a pass's view of the log: full segments that the appender
// no longer changes. A truncation, retention or reset in the meantime makes it
// stale, which replaceSegments notices.
type cleanedSegments struct {
	segments  []*segment // with the first that is not cleaned, for its base
	aborted   map[int64][]abortedTxn
	producers map[int64]producer
}

// cleanView returns the full segments below end, with what else a pass needs.
func (l *Log) cleanView(end int64) (cleanedSegments, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	v := cleanedSegments{aborted: map[int64][]abortedTxn{}, producers: map[int64]producer{}}
	if err := l.canAppend(); err != nil {
		return v, err
	}
	for i, s := range l.segments {
		v.segments = append(v.segments, s)
		if s.base >= end || i == len(l.segments)-1 {
			break
		}
	}
	for _, s := range l.segments {
		if err := l.loadAborted(s); err != nil {
			return v, fmt.Errorf("storage: %s: %w", l.path(segmentName(s.base, abortedSuffix)), err)
		}
		for _, t := range s.aborted {
			// An undecided one begins at or after the last stable offset, so not below
			// end, where batches are held against it.
			v.aborted[t.producerID] = append(v.aborted[t.producerID], t)
		}
	}
	for id, p := range l.producers.byID {
		v.producers[id] = *p
	}
	return v, nil
}
