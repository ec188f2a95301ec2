package state

import "encoding/binary"

// Layouts of a window store's keys. Both hold the window's start in
// milliseconds since the Unix epoch as eight big-endian bytes.
//
//	in the store        | start (8) | key (n) |   WindowKey
//	in the changelog    | key (n) | start (8) |   ChangelogKey, as Kafka Streams
//
// The store leads with the start, so that expired windows are one range and go
// in one DeleteBefore. The changelog leads with the key, which is what Kafka
// Streams' windowed serdes write and what its tools expect. Starts are never
// negative (windows before the epoch are cut to 0), so byte order is time order.

// WindowStartSize is the length of a window's start in a key.
const WindowStartSize = 8

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

// ChangelogKey appends the changelog's form of a store key to dst: for a Window
// store the key first and then the start, for others the key as it is. ok is
// false, and dst unchanged, when the key is none of this kind of store.
func ChangelogKey(dst []byte, kind Kind, storeKey []byte) (changelogKey []byte, ok bool) {
	if kind != Window {
		return append(dst, storeKey...), true
	}
	if len(storeKey) < WindowStartSize {
		return dst, false
	}
	dst = append(dst, storeKey[WindowStartSize:]...)
	return append(dst, storeKey[:WindowStartSize]...), true
}

// StoreKey is the inverse of ChangelogKey.
func StoreKey(dst []byte, kind Kind, changelogKey []byte) (storeKey []byte, ok bool) {
	if kind != Window {
		return append(dst, changelogKey...), true
	}
	split := len(changelogKey) - WindowStartSize
	if split < 0 {
		return dst, false
	}
	dst = append(dst, changelogKey[split:]...)
	return append(dst, changelogKey[:split]...), true
}
