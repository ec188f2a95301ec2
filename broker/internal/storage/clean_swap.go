package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/leatlog/leat/broker/internal/vfs"
)

// How a compacted segment takes the place of a group of segments, so that a crash
// at any moment leaves the group or the new segment, whole:
//
//  1. <base>.log.cleaned and <base>.txnindex.cleaned are written and synced. A crash
//     until here leaves files that the next start removes.
//  2. <base>.log.cleaned is renamed to <base>.log.swap, durably. From now on the new
//     segment counts, and a start does what is left to do (finishSwaps).
//  3. Readers are given the new segment. The other segments of the group go, the
//     indexes of its first too, and the new .txnindex gets its name, durably.
//  4. <base>.log.swap is renamed to <base>.log, durably.
//
// If a crash comes before the last segments of the group are gone, and none of
// the new segment's batches is theirs, a start leaves them. That is a log of
// which less is compacted: each of their records has a later one, or was to go.

// replaceSegments puts a compacted segment, whose file is complete, in the place of a
// group. When the group is not there any more it does nothing.
func (l *Log) replaceSegments(group []*segment, s *segment, f vfs.File) error {
	if err := f.Sync(); err != nil {
		return l.fence(fmt.Errorf("storage: sync %s: %w", s.file.name(), err))
	}
	aborted := l.path(segmentName(s.base, abortedSuffix))
	if err := writeFile(l.env.FS, aborted+cleanedSuffix, encodeAborted(s.aborted), true); err != nil {
		l.discardCleaned(s)
		return l.failed("compact", err)
	}
	if err := l.env.FS.SyncDir(l.dir); err != nil {
		return l.fence(fmt.Errorf("storage: sync %s: %w", l.dir, err))
	}
	// No truncation and no retention may come in between: a start would undo it.
	l.mu.Lock()
	defer l.mu.Unlock()
	at := slices.Index(l.segments, group[0])
	if err := l.canAppend(); err != nil || at < 0 || at+len(group) >= len(l.segments) || !slices.Equal(l.segments[at:at+len(group)], group) {
		l.discardCleaned(s)
		return err
	}
	if err := l.allowGaps(); err != nil {
		l.discardCleaned(s)
		return l.failed("compact", err)
	}
	if err := l.swap(at, group, s); err != nil {
		return l.fence(fmt.Errorf("storage: compact %s: %w", l.dir, err))
	}
	for _, x := range []*index{&s.index, &s.times} {
		// On a full disk they stay in memory.
		if err := x.settle(); err != nil && !errors.Is(err, vfs.ErrNoSpace) {
			return l.failed("compact", err)
		}
	}
	return nil
}

// swap does steps 2 to 4. The caller holds mu.
func (l *Log) swap(at int, group []*segment, s *segment) error {
	if err := l.rename(s, logSuffix+swapSuffix); err != nil {
		return err
	}
	if err := l.env.FS.SyncDir(l.dir); err != nil {
		return err
	}
	l.readMu.Lock()
	l.segments = slices.Replace(slices.Clone(l.segments), at, at+len(group), s)
	l.hints.clear()
	l.readMu.Unlock()
	for _, old := range group {
		old.drop()
		if old.base == s.base {
			continue
		}
		if err := l.removeSegmentFiles(old.base); err != nil {
			return err
		}
	}
	if err := l.settleDerived(s.base, true); err != nil {
		return err
	}
	if err := l.rename(s, logSuffix); err != nil {
		return err
	}
	return l.env.FS.SyncDir(l.dir)
}

// rename gives the segment's file another suffix. Readers open it by the name, so
// that they are kept out.
func (l *Log) rename(s *segment, suffix string) error {
	l.readMu.Lock()
	defer l.readMu.Unlock()
	if err := l.env.FS.Rename(s.file.name(), l.path(segmentName(s.base, suffix))); err != nil {
		return err
	}
	s.file.suffix = suffix
	return nil
}

// settleDerived removes the indexes of the first segment of a group and puts the
// new transaction index in the place of its old one, if that has not been done.
func (l *Log) settleDerived(base int64, rename bool) error {
	for _, suffix := range []string{indexSuffix, timesSuffix} {
		if err := l.env.FS.Remove(l.path(segmentName(base, suffix))); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if rename {
		aborted := l.path(segmentName(base, abortedSuffix))
		if err := l.env.FS.Rename(aborted+cleanedSuffix, aborted); err != nil {
			return err
		}
	}
	return l.env.FS.SyncDir(l.dir)
}

// discardCleaned removes the files of a segment that is not to be. What cannot be
// removed now is removed by the next attempt or start.
func (l *Log) discardCleaned(s *segment) {
	s.file.drop()
	_ = l.env.FS.Remove(l.path(segmentName(s.base, logSuffix) + cleanedSuffix))
	_ = l.env.FS.Remove(l.path(segmentName(s.base, abortedSuffix) + cleanedSuffix))
}

// finishSwaps completes what a crash interrupted, and returns the names that are
// there then.
func (l *Log) finishSwaps(names []string) ([]string, error) {
	changed := false
	for _, name := range names {
		base, ok := parseSegmentName(name, logSuffix+swapSuffix)
		if !ok {
			continue
		}
		changed = true
		if err := l.finishSwap(base, names); err != nil {
			return nil, fmt.Errorf("put %s in its place: %w", name, err)
		}
	}
	for _, name := range names {
		if !strings.HasSuffix(name, cleanedSuffix) {
			continue
		}
		changed = true
		if err := l.env.FS.Remove(l.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	if !changed {
		return names, nil
	}
	return l.env.FS.List(l.dir)
}

func (l *Log) finishSwap(base int64, names []string) error {
	final := l.path(segmentName(base, logSuffix))
	end, err := l.endOfFile(final+swapSuffix, base)
	if err != nil {
		return err
	}
	for _, name := range names {
		if other, ok := parseSegmentName(name, logSuffix); ok && other > base && other < end {
			if err := l.removeSegmentFiles(other); err != nil {
				return err
			}
		}
	}
	if err := l.settleDerived(base, slices.Contains(names, segmentName(base, abortedSuffix)+cleanedSuffix)); err != nil {
		return err
	}
	if err := l.env.FS.Rename(final+swapSuffix, final); err != nil {
		return err
	}
	return l.env.FS.SyncDir(l.dir)
}

// endOfFile returns the offset after the last batch of a segment's file. Headers
// alone are read: the file was synced, and damage is told when it is read.
func (l *Log) endOfFile(name string, base int64) (int64, error) {
	f, err := l.env.FS.Open(name)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return 0, err
	}
	w := windows.Get().(*window)
	defer windows.Put(w)
	w.reset(f)
	end := base
	for position := int64(0); position < size; {
		h, err := w.header(position, size)
		if errors.Is(err, errBadHeader) {
			return end, nil
		} else if err != nil {
			return 0, err
		}
		end = h.NextOffset()
		position += int64(h.Size())
	}
	return end, nil
}
