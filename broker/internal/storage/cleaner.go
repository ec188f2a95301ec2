package storage

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// cleanBufferBytes is how much a cleaner reads and writes at a time.
const cleanBufferBytes = 512 << 10

// CleanerConfig is how a Cleaner works; zero fields have Kafka's defaults.
type CleanerConfig struct {
	// DedupeBytes bounds the memory for the keys of a pass, 24 bytes each:
	// log.cleaner.dedupe.buffer.size. Default 128 MiB.
	DedupeBytes int64
	// LoadFactor is the share of it that is filled: log.cleaner.io.buffer.load.factor.
	// Default 0.9.
	LoadFactor float64
	// BytesPerSecond bounds reads and writes together:
	// log.cleaner.io.max.bytes.per.second. Default 0: no limit.
	BytesPerSecond float64
}

// ErrStopped says that a Cleaner was stopped.
var ErrStopped = errors.New("storage: the cleaner was stopped")

// Cleaner compacts logs, one at a time. Clean must not be called concurrently;
// Stop and Stats may be.
type Cleaner struct {
	cfg     CleanerConfig
	stop    chan struct{}
	stopped sync.Once
	debt    time.Duration // of the I/O budget

	read, out []byte

	runs, failures, bytesRead, bytesWritten, recordsRemoved atomic.Int64
	dirtiest                                                atomic.Int64 // ratio in millionths
	working                                                 atomic.Bool
}

// CleanerStats counts what a Cleaner has done since it was made.
type CleanerStats struct {
	Runs           int64 // logs compacted, counted as often as they were
	Failures       int64
	BytesRead      int64
	BytesWritten   int64
	RecordsRemoved int64
	// MaxDirtyRatio is the largest share of bytes not yet compacted, 0 to 1, of any log
	// that was looked at in the last round.
	MaxDirtyRatio float64
	Working       bool // a log is being compacted now
}

// NewCleaner returns a cleaner.
func NewCleaner(cfg CleanerConfig) *Cleaner {
	if cfg.DedupeBytes <= 0 {
		cfg.DedupeBytes = 128 << 20
	}
	if cfg.LoadFactor <= 0 || cfg.LoadFactor > 1 {
		cfg.LoadFactor = 0.9
	}
	return &Cleaner{cfg: cfg, stop: make(chan struct{})}
}

// Stop ends what the cleaner is doing soon, and all that it is asked to do later.
func (c *Cleaner) Stop() { c.stopped.Do(func() { close(c.stop) }) }

// Stats returns what was done so far.
func (c *Cleaner) Stats() CleanerStats {
	return CleanerStats{Runs: c.runs.Load(), Failures: c.failures.Load(), BytesRead: c.bytesRead.Load(), BytesWritten: c.bytesWritten.Load(),
		RecordsRemoved: c.recordsRemoved.Load(), MaxDirtyRatio: float64(c.dirtiest.Load()) / 1e6, Working: c.working.Load()}
}

// pace counts bytes read from a log or written to it, waits if the budget asks for it,
// and says when to give up.
func (c *Cleaner) pace(l *Log, bytes int) error {
	select {
	case <-c.stop:
		return ErrStopped
	default:
	}
	if err := l.writable(); err != nil {
		return err
	}
	c.bytesRead.Add(int64(bytes))
	return c.wait(bytes)
}

func (c *Cleaner) wait(bytes int) error {
	if c.cfg.BytesPerSecond <= 0 {
		return nil
	}
	c.debt += time.Duration(float64(bytes) / c.cfg.BytesPerSecond * float64(time.Second))
	if c.debt < 5*time.Millisecond {
		return nil
	}
	timer := time.NewTimer(c.debt)
	defer timer.Stop()
	c.debt = 0
	select {
	case <-timer.C:
		return nil
	case <-c.stop:
		return ErrStopped
	}
}

// CleanCandidate is a log that may be compacted, and up to where: its last stable
// offset.
type CleanCandidate struct {
	Log        *Log
	LastStable int64
}

// CleanAll compacts those of the logs that are due, the dirtiest first. A log that
// fails is told of in the log and in Stats, and does not keep the others.
func (c *Cleaner) CleanAll(now time.Time, candidates []CleanCandidate) {
	type found struct {
		CleanCandidate
		ratio float64
	}
	var list []found
	dirtiest := 0.0
	for _, candidate := range candidates {
		l := candidate.Log
		work, err := l.cleanable(now, candidate.LastStable)
		if err != nil {
			c.failed(l, err)
			continue
		}
		dirtiest = max(dirtiest, work.ratio())
		if work.due(l.config()) {
			list = append(list, found{candidate, work.ratio()})
		}
	}
	c.dirtiest.Store(int64(dirtiest * 1e6))
	slices.SortStableFunc(list, func(a, b found) int { return cmp.Compare(b.ratio, a.ratio) })
	for _, f := range list {
		if err := c.Clean(f.Log, now, f.LastStable); errors.Is(err, ErrStopped) {
			return
		} else if err != nil {
			c.failed(f.Log, err)
		}
	}
}

func (c *Cleaner) failed(l *Log, err error) {
	if errors.Is(err, ErrClosed) {
		return // deleted, or the broker ends
	}
	c.failures.Add(1)
	l.logger().Error().Err(err).Msg("compaction failed; it is tried again later, until then the log keeps all its records. Check the disk if it goes on")
}

// Clean compacts a log below its last stable offset, whether it is due or not.
// Errors: ErrStopped, ErrClosed; vfs.ErrNoSpace, after which the log is as before;
// ErrFenced.
func (c *Cleaner) Clean(l *Log, now time.Time, lastStable int64) error {
	c.working.Store(true)
	defer c.working.Store(false)
	started, before := l.env.Now(), l.Size()
	passes := 0
	removed := c.recordsRemoved.Load()
	for {
		work, err := l.cleanable(now, lastStable)
		if err != nil {
			return err
		}
		if work.from >= work.bound {
			break
		}
		if err := c.pass(l, now, work); err != nil {
			return fmt.Errorf("storage: compact %s: %w", l.dir, err)
		}
		passes++
	}
	if passes == 0 {
		return nil
	}
	c.runs.Add(1)
	l.logger().Info().Int64("bytes_before", before).Int64("bytes_after", l.Size()).Int("passes", passes).
		Int64("records_removed", c.recordsRemoved.Load()-removed).Dur("took", l.env.Now().Sub(started)).Msg("compacted")
	return nil
}

// pass compacts as much as one map covers.
func (c *Cleaner) pass(l *Log, now time.Time, work cleanable) error {
	view, err := l.cleanView(work.bound)
	if err != nil {
		return err
	}
	m, end, err := c.buildMap(l, &view, work.from, work.bound)
	if err != nil {
		return err
	}
	p := &cleanPass{cleaner: c, log: l, view: &view, keys: m, end: end, now: now.UnixMilli(),
		horizon: now.Add(l.config().DeleteRetention).UnixMilli(), open: map[int64]bool{}}
	for _, group := range l.groupSegments(view.segments, end) {
		if err := p.clean(group); err != nil {
			return err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.canAppend(); err != nil {
		return err
	}
	if l.end.Load() < end || l.cleanedTo > end {
		return nil // truncated meanwhile
	}
	if err := l.setCleaned(end); err != nil {
		return l.failed("note the compaction of", err)
	}
	return nil
}

// groupSegments puts full segments that begin below end into groups that fit one
// segment each, all but the last of the given ones, which only bounds them.
func (l *Log) groupSegments(segments []*segment, end int64) [][]*segment {
	var groups [][]*segment
	size, entries := int64(0), 0
	cfg := l.config()
	for i := 0; i+1 < len(segments) && segments[i].base < end; i++ {
		s, next := segments[i], segments[i+1].base
		n := len(groups)
		bytes, count := s.size.Load(), s.index.entries()
		if n > 0 && size+bytes <= cfg.SegmentBytes && (entries+count)*indexEntrySize <= cfg.SegmentIndexBytes && groups[n-1][0].accepts(next) {
			groups[n-1] = append(groups[n-1], s)
			size, entries = size+bytes, entries+count
			continue
		}
		groups = append(groups, []*segment{s})
		size, entries = bytes, count
	}
	return groups
}

// cleanPass is one pass over a log with one map.
type cleanPass struct {
	cleaner *Cleaner
	log     *Log
	view    *cleanedSegments
	keys    *offsetMap
	end     int64 // records from here on stay
	now     int64 // ms
	horizon int64 // ms, the delete horizon given in this pass
	// open holds the producers of which records of a transaction were met that may
	// not have ended.
	open   map[int64]bool
	keep   []bool // scratch, of a batch's records
	writer cleanWriter
}
