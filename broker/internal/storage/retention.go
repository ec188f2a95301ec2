package storage

import "time"

// ApplyRetention forgets idle producers and removes the oldest segments that
// retention allows to go: those whose largest timestamp is older than
// RetentionAge, those by which the log exceeds RetentionBytes, and those below
// StartOffset. Only segments wholly below the high watermark go. As in Kafka an
// active segment that is due is rolled first. Without Delete only StartOffset
// counts. It returns how many segments were removed.
func (l *Log) ApplyRetention(now time.Time, highWatermark int64) (removedSegments int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.canAppend(); err != nil {
		return 0, err
	}
	cfg := l.config()
	l.producers.expire(now, cfg.ProducerExpiration)
	if !cfg.Delete {
		return 0, nil
	}
	due := 0
	size := int64(0)
	for _, s := range l.segments {
		size += s.size.Load()
	}
	for i, s := range l.segments {
		if s.end.Load() > highWatermark || s.size.Load() == 0 && i == len(l.segments)-1 {
			break
		}
		if s.size.Load() == 0 {
			due++ // compacted to nothing
			continue
		}
		bySize := cfg.RetentionBytes >= 0 && size-s.size.Load() >= cfg.RetentionBytes
		byAge := false
		if !bySize && cfg.RetentionAge >= 0 {
			newest, err := l.largestTimestamp(s)
			if err != nil {
				return 0, err
			}
			byAge = newest >= 0 && now.UnixMilli()-newest > cfg.RetentionAge.Milliseconds()
		}
		if !bySize && !byAge {
			break
		}
		size -= s.size.Load()
		due++
	}
	if due == 0 {
		return 0, nil
	}
	if due == len(l.segments) {
		if err := l.roll(l.end.Load()); err != nil {
			return 0, err
		}
	}
	start := max(l.segments[due].base, l.start.Load())
	// The new start is durable before anything goes, so that a crash in between
	// leaves no gap.
	if err := l.writeOffset(logStartName, start, true); err != nil {
		return 0, l.failed("advance start of", err)
	}
	return due, l.startAt(start)
}

// largestTimestamp returns the largest timestamp of a segment, -1 without one.
// The caller holds mu or readMu.
func (l *Log) largestTimestamp(s *segment) (int64, error) {
	if !s.hasTimes.Load() {
		if err := l.ensureIndexes(s); err != nil {
			return -1, err
		}
		if err := l.loadTimes(s); err != nil {
			return -1, err
		}
	}
	return s.maxTime.Load(), nil
}
