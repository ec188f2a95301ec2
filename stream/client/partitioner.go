package client

import "encoding/binary"

// PartitionOf returns the partition, of n, that Kafka's clients put a key on:
// murmur2 of the key, made positive, modulo n. Equal keys meet on equal
// partitions across all of them, which is what joins rely on.
func PartitionOf(key []byte, n int32) int32 {
	return int32(murmur2(key)&0x7fffffff) % n
}

// KeyHash returns the hash of a key by which Kafka's clients choose partitions: its
// murmur2. They drop the sign bit before they take the remainder.
func KeyHash(key []byte) uint32 { return murmur2(key) }

// murmur2 is the 32-bit MurmurHash2 with the seed that Kafka's clients use.
func murmur2(b []byte) uint32 {
	const (
		seed = 0x9747b28c
		m    = 0x5bd1e995
		r    = 24
	)
	h := uint32(seed) ^ uint32(len(b))
	for ; len(b) >= 4; b = b[4:] {
		k := binary.LittleEndian.Uint32(b)
		k *= m
		k ^= k >> r
		k *= m
		h *= m
		h ^= k
	}
	switch len(b) {
	case 3:
		h ^= uint32(b[2]) << 16
		fallthrough
	case 2:
		h ^= uint32(b[1]) << 8
		fallthrough
	case 1:
		h ^= uint32(b[0])
		h *= m
	}
	h ^= h >> 13
	h *= m
	h ^= h >> 15
	return h
}
