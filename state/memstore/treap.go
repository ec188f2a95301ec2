package memstore

import "bytes"

// node is a node of the treap: left < key < right, and no child has a higher
// priority. Key and value never change. A node may be changed only by the
// writer whose generation it carries.
type node struct {
	left, right *node
	key, value  []byte
	priority    uint64
	generation  *byte
}

// writer is one Apply: it changes the nodes that it made and copies the others.
type writer struct {
	generation *byte
	bytes      int64
}

// own returns n if this writer made it, else a copy.
func (w *writer) own(n *node) *node {
	if n.generation == w.generation {
		return n
	}
	c := *n
	c.generation = w.generation
	return &c
}

// put sets key to value in the tree n and returns the new root.
func (w *writer) put(n *node, key, value []byte) *node {
	added := &node{priority: priority(key), generation: w.generation}
	memory := make([]byte, len(key)+len(value))
	copy(memory, key)
	copy(memory[len(key):], value)
	added.key, added.value = memory[:len(key):len(key)], memory[len(key):]
	w.bytes += int64(len(memory))
	return w.insert(n, added)
}

func (w *writer) insert(n, added *node) *node {
	if n == nil {
		return added
	}
	order := bytes.Compare(added.key, n.key)
	switch {
	case order == 0:
		w.bytes -= int64(len(n.key) + len(n.value))
		added.left, added.right = n.left, n.right
		return added
	case added.priority > n.priority:
		// The key is not below n: its priority would put it above n.
		added.left, added.right = w.split(n, added.key)
		return added
	case order < 0:
		n = w.own(n)
		n.left = w.insert(n.left, added)
	default:
		n = w.own(n)
		n.right = w.insert(n.right, added)
	}
	return n
}

// split cuts the tree n into the keys below key and the others.
func (w *writer) split(n *node, key []byte) (below, others *node) {
	if n == nil {
		return nil, nil
	}
	n = w.own(n)
	if bytes.Compare(n.key, key) < 0 {
		n.right, others = w.split(n.right, key)
		return n, others
	}
	below, n.left = w.split(n.left, key)
	return below, n
}

// join is the inverse of split: every key of a is below every key of b.
func (w *writer) join(a, b *node) *node {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	case a.priority > b.priority:
		a = w.own(a)
		a.right = w.join(a.right, b)
		return a
	default:
		b = w.own(b)
		b.left = w.join(a, b.left)
		return b
	}
}

// remove deletes key from the tree n.
func (w *writer) remove(n *node, key []byte) *node {
	if n.find(key) == nil {
		return n // copies nothing
	}
	return w.cut(n, key)
}

func (w *writer) cut(n *node, key []byte) *node {
	order := bytes.Compare(key, n.key)
	if order == 0 {
		w.bytes -= int64(len(n.key) + len(n.value))
		return w.join(n.left, n.right)
	}
	n = w.own(n)
	if order < 0 {
		n.left = w.cut(n.left, key)
	} else {
		n.right = w.cut(n.right, key)
	}
	return n
}

// removeBefore deletes every key below bound.
func (w *writer) removeBefore(n *node, bound []byte) *node {
	below, others := w.split(n, bound)
	below.ascend(nil, nil, func(key, value []byte) bool {
		w.bytes -= int64(len(key) + len(value))
		return true
	})
	return others
}

func (n *node) find(key []byte) *node {
	for n != nil {
		switch order := bytes.Compare(key, n.key); {
		case order == 0:
			return n
		case order < 0:
			n = n.left
		default:
			n = n.right
		}
	}
	return nil
}

// ascend calls fn for the keys in [from, to) in order until it returns false,
// which ascend then returns. A nil bound is open.
func (n *node) ascend(from, to []byte, fn func(key, value []byte) bool) bool {
	if n == nil {
		return true
	}
	tooLow := from != nil && bytes.Compare(n.key, from) < 0
	tooHigh := to != nil && bytes.Compare(n.key, to) >= 0
	if !tooLow && !n.left.ascend(from, to, fn) {
		return false
	}
	if !tooLow && !tooHigh && !fn(n.key, n.value) {
		return false
	}
	return tooHigh || n.right.ascend(from, to, fn)
}

// descend is ascend in reverse order.
func (n *node) descend(from, to []byte, fn func(key, value []byte) bool) bool {
	if n == nil {
		return true
	}
	tooLow := from != nil && bytes.Compare(n.key, from) < 0
	tooHigh := to != nil && bytes.Compare(n.key, to) >= 0
	if !tooHigh && !n.right.descend(from, to, fn) {
		return false
	}
	if !tooLow && !tooHigh && !fn(n.key, n.value) {
		return false
	}
	return tooLow || n.left.descend(from, to, fn)
}

// priority is a hash of the key (FNV-1a with the finalizer of MurmurHash3, for
// spread in the high bits): the same keys make the same tree in every run.
func priority(key []byte) uint64 {
	h := uint64(14695981039346656037)
	for _, b := range key {
		h = (h ^ uint64(b)) * 1099511628211
	}
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}
