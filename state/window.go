package state

import "encoding/binary"

// Layouts of the keys of window and session stores; those of versioned stores are in
// version.go, and key-value stores have the keys as they are. Times are milliseconds since
// the Unix epoch as eight big-endian bytes. An end of a session is the time of its
// last record.
//
//	window store      | start (8) | key (n) |             WindowKey
//	its changelog     | key (n) | start (8) |             ChangelogKey
//	session store     | end (8) | start (8) | key (n) |   SessionKey
//	its changelog     | key (n) | end (8) | start (8) |   ChangelogKey
//
// Stores lead with the time, so that what is expired is one range and goes in
// one DeleteBefore. Changelogs lead with the key, which is what Kafka Streams'
// serdes of windowed and session keys write and what its tools expect. Times are
// never negative (windows before the epoch are cut to 0), so byte order is time
// order.

// WindowStartSize is the length of a window's start in a key.
const WindowStartSize = 8

// SessionSpanSize is the length of a session's end and start in a key.
const SessionSpanSize = 16

// WindowKey appends the store key of the window that begins at start to dst.
func WindowKey(dst []byte, start int64, key []byte) []byte {
	dst = binary.BigEndian.AppendUint64(dst, uint64(start))
	return append(dst, key...)
}

// SplitWindowKey splits a store key into the window's start and the key, which
// aliases windowKey. ok is false when windowKey is too short to hold a start.
func SplitWindowKey(windowKey []byte) (start int64, key []byte, ok bool) {
	if len(windowKey) < WindowStartSize {
		return 0, nil, false
	}
	return int64(binary.BigEndian.Uint64(windowKey)), windowKey[WindowStartSize:], true
}

// SessionKey appends the store key of the session from start to end to dst.
func SessionKey(dst []byte, start, end int64, key []byte) []byte {
	dst = binary.BigEndian.AppendUint64(dst, uint64(end))
	dst = binary.BigEndian.AppendUint64(dst, uint64(start))
	return append(dst, key...)
}

// SplitSessionKey splits a store key into the session's span and the key, which
// aliases sessionKey. ok is false when sessionKey is too short to hold a span.
func SplitSessionKey(sessionKey []byte) (start, end int64, key []byte, ok bool) {
	if len(sessionKey) < SessionSpanSize {
		return 0, 0, nil, false
	}
	end, start = int64(binary.BigEndian.Uint64(sessionKey)), int64(binary.BigEndian.Uint64(sessionKey[8:]))
	return start, end, sessionKey[SessionSpanSize:], true
}

// ChangelogKey appends the changelog's form of a store key to dst: for window and
// session stores the key first and then its time, for others the key as it is. ok
// is false, and dst unchanged, when the key is none of this kind of store.
func ChangelogKey(dst []byte, kind Kind, storeKey []byte) (changelogKey []byte, ok bool) {
	size := kind.timeSize()
	if len(storeKey) < size {
		return dst, false
	}
	dst = append(dst, storeKey[size:]...)
	return append(dst, storeKey[:size]...), true
}

// StoreKey is the inverse of ChangelogKey.
func StoreKey(dst []byte, kind Kind, changelogKey []byte) (storeKey []byte, ok bool) {
	split := len(changelogKey) - kind.timeSize()
	if split < 0 {
		return dst, false
	}
	dst = append(dst, changelogKey[split:]...)
	return append(dst, changelogKey[:split]...), true
}
