package state

import (
	"encoding/binary"
	"math"
)

// Layout of the keys of versioned stores, and of their changelogs. The time is that from
// which on the version counts, in milliseconds since the Unix epoch, never negative; a
// version counts until the next one of its key.
//
//	| key, with 00 FF for each 00 (n) | 00 | time (8) |
//
// So the versions of a key lie side by side, the keys in the order of their bytes and the
// versions of each in the order of their times. Changelogs have the same keys, so that each
// version outlives compaction until it is removed. A row whose key is none of this form is a
// note of the operator that keeps the store, see VersionNote.

const (
	versionEnd     = 0x00
	versionEscape  = 0xff // behind a zero of the key; no time begins with it
	versionTimeLen = 8
)

// VersionKey appends the store key of the version of key that counts from time on to dst.
func VersionKey(dst []byte, key []byte, time int64) []byte {
	for _, b := range key {
		dst = append(dst, b)
		if b == 0 {
			dst = append(dst, versionEscape)
		}
	}
	dst = append(dst, versionEnd)
	return binary.BigEndian.AppendUint64(dst, uint64(time))
}

// SplitVersionKey appends the key within a store key to dst and returns the time of its
// version. ok is false, and dst unchanged, when versionKey is none.
func SplitVersionKey(dst []byte, versionKey []byte) (key []byte, time int64, ok bool) {
	split := len(versionKey) - versionTimeLen - 1
	if split < 0 || versionKey[split] != versionEnd {
		return dst, 0, false
	}
	key = dst
	for i := 0; i < split; i++ {
		b := versionKey[i]
		key = append(key, b)
		if b != 0 {
			continue
		}
		if i++; i == split || versionKey[i] != versionEscape {
			return dst, 0, false
		}
	}
	if time = int64(binary.BigEndian.Uint64(versionKey[split+1:])); time < 0 {
		return dst, 0, false
	}
	return key, time, true
}

// VersionPrefix is what the store keys of all versions of a key begin with, and those of no
// other: versionKey without its time. ok is false when versionKey is too short.
func VersionPrefix(versionKey []byte) (prefix []byte, ok bool) {
	split := len(versionKey) - versionTimeLen
	if split < 1 {
		return nil, false
	}
	return versionKey[:split:split], true
}

// VersionNote is the key of the row in which the operator that keeps a versioned store notes
// its time. It is no version's, and lies before them all.
func VersionNote() []byte { return []byte{versionEnd} }

// VersionAsOf finds the version of key that counts at time, the last one from then or before,
// and calls fn with its time and its row's value, which is valid during the call only. found
// is false, and fn is not called, when there is none.
func VersionAsOf(r Reader, key []byte, time int64, fn func(from int64, value []byte)) (found bool, err error) {
	if time < 0 {
		return false, nil
	}
	from, to := VersionKey(nil, key, 0), append(VersionKey(nil, key, time), 0)
	err = r.Scan(from, to, true, func(row, value []byte) bool {
		found = true
		fn(int64(binary.BigEndian.Uint64(row[len(row)-versionTimeLen:])), value)
		return false
	})
	return found, err
}

// VersionAfter returns the time of the first version of key behind time, until which the one
// that counts at time does. found is false when there is none.
func VersionAfter(r Reader, key []byte, time int64) (next int64, found bool, err error) {
	from, to := append(VersionKey(nil, key, max(0, time)), 0), append(VersionKey(nil, key, math.MaxInt64), 0)
	if time < 0 {
		from = from[:len(from)-1]
	}
	err = r.Scan(from, to, false, func(row, _ []byte) bool {
		next, found = int64(binary.BigEndian.Uint64(row[len(row)-versionTimeLen:])), true
		return false
	})
	return next, found, err
}
