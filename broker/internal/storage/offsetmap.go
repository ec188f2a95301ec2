package storage

import (
	"crypto/sha256"
	"encoding/binary"
)

// offsetMap is what compaction remembers of a stretch of log: the offset of the
// last record of each key. A key is kept as 16 bytes of its SHA-256, so that an
// entry takes 24 bytes however long the key is, and no two keys can be made to
// collide. Open addressing, linear probing.
type offsetMap struct {
	slots []offsetSlot
	count int
	limit int // entries from which on the map is full
}

// offsetSlot is free when offset is 0: offsets are kept plus one.
type offsetSlot struct {
	high, low uint64
	offset    int64
}

const offsetSlotBytes = 24

// newOffsetMap returns a map for up to the given number of keys, within bytes of
// memory, filled to a factor of it.
func newOffsetMap(keys, bytes int64, factor float64) *offsetMap {
	slots := max(min(bytes/offsetSlotBytes, int64(float64(keys)/factor)+2), 2)
	return &offsetMap{slots: make([]offsetSlot, slots), limit: max(int(float64(slots)*factor), 1)}
}

// fits reports whether n more keys fit.
func (m *offsetMap) fits(n int) bool { return m.count+n <= m.limit }

func (m *offsetMap) find(key []byte) *offsetSlot {
	sum := sha256.Sum256(key)
	high, low := binary.BigEndian.Uint64(sum[:]), binary.BigEndian.Uint64(sum[8:])
	for i := high % uint64(len(m.slots)); ; i = (i + 1) % uint64(len(m.slots)) {
		s := &m.slots[i]
		if s.offset == 0 {
			s.high, s.low = high, low
			return s
		}
		if s.high == high && s.low == low {
			return s
		}
	}
}

// put notes a record. The caller has asked fits.
func (m *offsetMap) put(key []byte, offset int64) {
	s := m.find(key)
	if s.offset == 0 {
		m.count++
	}
	s.offset = offset + 1
}

// get returns the offset of the last record of a key, -1 when there is none.
func (m *offsetMap) get(key []byte) int64 { return m.find(key).offset - 1 }

// grow makes room for n keys in an empty map, for a batch larger than all of it.
func (m *offsetMap) grow(n int) {
	*m = offsetMap{slots: make([]offsetSlot, n+n/4+2), limit: n}
}
