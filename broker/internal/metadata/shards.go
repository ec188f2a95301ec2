package metadata

import "maps"

// shards is a persistent hash map: setting a key copies one of 256 small maps
// and shares the rest, so that an image of ten thousand topics changes at the
// cost of forty.
type shards[K comparable, V any] struct {
	part  [256]map[K]V
	count int
}

func (s *shards[K, V]) get(hash uint8, key K) (V, bool) {
	v, ok := s.part[hash][key]
	return v, ok
}

// edit is a shards being changed: it owns the parts it has copied.
type edit[K comparable, V any] struct {
	next  *shards[K, V]
	owned [256]bool
}

func (s *shards[K, V]) edit() *edit[K, V] {
	next := *s
	return &edit[K, V]{next: &next}
}

func (e *edit[K, V]) own(hash uint8) map[K]V {
	if !e.owned[hash] {
		e.owned[hash] = true
		if e.next.part[hash] == nil {
			e.next.part[hash] = make(map[K]V)
		} else {
			e.next.part[hash] = maps.Clone(e.next.part[hash])
		}
	}
	return e.next.part[hash]
}

func (e *edit[K, V]) set(hash uint8, key K, value V) {
	part := e.own(hash)
	if _, ok := part[key]; !ok {
		e.next.count++
	}
	part[key] = value
}

func (e *edit[K, V]) remove(hash uint8, key K) {
	part := e.own(hash)
	if _, ok := part[key]; ok {
		delete(part, key)
		e.next.count--
	}
}

// hashName is FNV-1a folded to a byte.
func hashName(name string) uint8 {
	h := uint32(2166136261)
	for i := 0; i < len(name); i++ {
		h = (h ^ uint32(name[i])) * 16777619
	}
	return uint8(h>>24) ^ uint8(h>>16) ^ uint8(h>>8) ^ uint8(h)
}

// hashID takes a byte of the id: ids are random.
func hashID(id UUID) uint8 { return id[0] ^ id[15] }
