package topology

import (
	"bytes"
	"encoding/binary"

	"github.com/leatlog/leat/state"
)

const (
	// sweptPerWrite is how many rows a sweep looks at for each that was written, and
	// sweptAtLeast how many besides: it comes around before a third as many have been
	// written as there are, and a store with few writes is swept as well.
	sweptPerWrite = 4
	sweptAtLeast  = 16
	// sweepChunk bounds what a sweep remembers at once.
	sweepChunk = 1024
)

// versionSweeper removes the versions that nobody can ask for any more from a store: a few at
// each commit, around and around, since those that are to go lie anywhere.
type versionSweeper struct {
	store state.Store
	// written are the rows that were written since the last sweep.
	written int
	// cursor is where the next sweep begins; nil is the beginning.
	cursor []byte
	dead   [][]byte
}

// sweptRow is a version that was looked at, and is judged by the one behind it.
type sweptRow struct {
	key, prefix []byte
	removal     bool
	// whole says that all versions of its key that lie before it were looked at, too.
	whole bool
}

// time is that from which on it counts.
func (r sweptRow) time() int64 { return int64(binary.BigEndian.Uint64(r.key[len(r.prefix):])) }

// sweep looks at some rows. Only what counts at horizon and behind it can be asked for, and
// the latest version of each key. now is the time of the deletions in the changelog.
func (s *versionSweeper) sweep(horizon, now int64) error {
	if s.written == 0 {
		return nil // and time has not gone on
	}
	left := sweptPerWrite*s.written + sweptAtLeast
	s.written = 0
	for left > 1 { // one alone is never judged
		looked, err := s.chunk(min(left, sweepChunk), horizon)
		if err != nil {
			return err
		}
		for _, key := range s.dead {
			if err := s.store.Delete(key, now); err != nil {
				return err
			}
		}
		if s.cursor == nil {
			return nil
		}
		left -= looked
	}
	return nil
}

// chunk judges up to limit rows, at least two, and moves the cursor.
func (s *versionSweeper) chunk(limit int, horizon int64) (looked int, err error) {
	var first, last sweptRow
	clear(s.dead)
	s.dead = s.dead[:0]
	full := false
	from := s.cursor
	if len(from) <= len(state.VersionNote()) { // the mark lies before all versions
		from = append(state.VersionNote(), 0)
	}
	err = s.store.Scan(from, nil, false, func(key, value []byte) bool {
		looked++
		prefix, ok := state.VersionPrefix(key)
		if !ok {
			return true // none of ours
		}
		row := sweptRow{key: bytes.Clone(key), removal: len(value) == 1 && value[0] == removedVersion}
		row.prefix = row.key[:len(prefix)]
		if same := last.key != nil && bytes.Equal(last.prefix, row.prefix); same {
			row.whole = last.whole
			s.judge(last, &row, horizon)
		} else {
			row.whole = bytes.Compare(row.prefix, s.cursor) >= 0
			s.judge(last, nil, horizon)
		}
		if last = row; first.key == nil {
			first = row
		}
		full = looked == limit
		return !full
	})
	switch {
	case err != nil:
	case !full:
		s.judge(last, nil, horizon)
		s.cursor = nil
	case bytes.Equal(first.prefix, last.prefix):
		s.cursor = last.key // of a key with many versions: goes on within it
	default:
		s.cursor = last.prefix
	}
	return looked, err
}

// judge notes a row that is to go, next being the version behind it. A removal that is the
// latest version goes last of all: an older value must not come to light.
func (s *versionSweeper) judge(row sweptRow, next *sweptRow, horizon int64) {
	switch {
	case row.key == nil:
		return
	case next != nil && next.time() > horizon:
		return
	case next == nil && !(row.removal && row.whole && row.time() <= horizon):
		return
	}
	s.dead = append(s.dead, row.key)
}
