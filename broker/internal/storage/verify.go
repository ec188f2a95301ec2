package storage

import (
	"errors"
	"fmt"
	"io"
	"sort"

	"github.com/leatlog/leat/broker/internal/record"
)

// Verifier reads the batches of a log, from its first segment to its end, and checks that
// they are what was written: their checksums, that offsets follow each other, and that
// leader epochs are those of the log's history. It finds what readers do not, for they are sent batches
// unread, before the other copies are gone as well. What the kernel has cached is checked
// as it is there. One goroutine at a time uses it; the log may be read, written,
// truncated and compacted meanwhile.
type Verifier struct {
	log       *Log
	base      int64 // of the segment that is being read, or the least of the next one
	following int64 // base of the one after it, -1 without one
	position  int64 // in its file
	next      int64 // the offset that follows
	epochs    epochs
}

// Verifier returns a verifier that begins at the log's start.
func (l *Log) Verifier() *Verifier { return &Verifier{log: l} }

// errEnough ends a scan that has read as much as it was to.
var errEnough = errors.New("storage: enough")

// Step checks about maxBytes more, and at least a batch. It returns how much it read, and
// done at the end of the log. Damage is returned as a DamageError, and neither logged nor
// fenced: see Log.Fence. The next step goes on behind the segment that has it. Another
// error is a read that failed.
func (v *Verifier) Step(maxBytes int64) (read int64, done bool, err error) {
	l := v.log
	l.readMu.RLock()
	s, ok := v.segment()
	if !ok {
		l.readMu.RUnlock()
		return 0, true, nil
	}
	from := v.position
	f, err := s.file.acquire()
	size := s.size.Load() // before the epochs, which may be ahead of it
	l.readMu.RUnlock()
	if err != nil {
		return 0, false, err
	}
	l.mu.Lock()
	v.learnEpochs()
	l.mu.Unlock()
	bad, err := v.scan(f, size, maxBytes)
	s.file.release()
	if err == nil && bad != nil {
		// The log may have been truncated and written again meanwhile, or compacted. It is
		// not while its locks are held; so the segment is read again, from its start.
		err = v.scanAgain()
	}
	if err != nil {
		return 0, false, err
	}
	read = max(v.position-from, 0)
	switch {
	case v.position < s.size.Load():
		return read, false, nil
	case v.following < 0:
		return read, true, nil
	}
	v.begin(v.following)
	return read, false, nil
}

func (v *Verifier) begin(base int64) { v.base, v.position, v.next = base, 0, base }

// segment returns the first one that has not been checked to its end. The caller holds
// readMu.
func (v *Verifier) segment() (s *segment, ok bool) {
	list := v.log.segments
	i := sort.Search(len(list), func(i int) bool { return list[i].base >= v.base })
	if i == len(list) {
		return nil, false
	}
	s, v.following = list[i], -1
	if s.base != v.base || v.position == 0 {
		v.begin(s.base)
	}
	if i+1 < len(list) {
		v.following = list[i+1].base
	}
	return s, true
}

// learnEpochs takes over the log's history of epochs. The caller holds mu.
func (v *Verifier) learnEpochs() {
	v.epochs.entries = append(v.epochs.entries[:0], v.log.epochs.entries...)
}

// scan checks a segment from the verifier's position on.
func (v *Verifier) scan(f io.ReaderAt, size, maxBytes int64) (bad, err error) {
	gaps := v.log.mayHaveGaps()
	from := v.position
	v.position, bad, err = scan(f, from, size, func(b record.Batch, position int64) error {
		switch base := b.BaseOffset(); {
		case position > from && position-from >= maxBytes:
			return errEnough
		case base < v.next || base > v.next && !gaps:
			return fmt.Errorf("%w: base offset %d, expected %d", errOutOfPlace, base, v.next)
		}
		if epoch := v.epochs.at(b.BaseOffset()); epoch >= 0 && epoch != b.LeaderEpoch() {
			return fmt.Errorf("%w: leader epoch %d, expected %d", errOutOfPlace, b.LeaderEpoch(), epoch)
		}
		v.next = b.NextOffset()
		return nil
	})
	switch {
	case errors.Is(err, errEnough):
		return nil, nil
	case errors.Is(err, errOutOfPlace), errors.Is(err, io.ErrUnexpectedEOF):
		return err, nil
	case err != nil:
		return nil, fmt.Errorf("storage: verify: %w", err)
	case bad != nil:
		return bad, nil
	case v.following >= 0 && (v.next > v.following || v.next < v.following && !gaps):
		return fmt.Errorf("%w: the segment ends at offset %d, the next one begins at %d", errOutOfPlace, v.next, v.following), nil
	}
	return nil, nil
}

// scanAgain checks the segment from its start, while nothing changes it, and returns the
// DamageError that is there, if any.
func (v *Verifier) scanAgain() error {
	v.log.mu.Lock()
	defer v.log.mu.Unlock()
	v.log.readMu.RLock()
	defer v.log.readMu.RUnlock()
	v.position = 0
	s, ok := v.segment()
	if !ok {
		return nil
	}
	f, err := s.file.acquire()
	if err != nil {
		return err
	}
	defer s.file.release()
	v.learnEpochs()
	size := s.size.Load()
	bad, err := v.scan(f, size, size)
	if err != nil || bad == nil {
		return err
	}
	damage := &DamageError{File: s.file.name(), Position: v.position, Offset: v.next, Err: bad}
	v.begin(s.base + 1)
	return damage
}

// Fence ends all writes to the log because of damage that a Verifier found, and returns
// what they answer from now on. ResetTo empties it for a new copy.
func (l *Log) Fence(damage *DamageError) error { return l.fence(damage) }
