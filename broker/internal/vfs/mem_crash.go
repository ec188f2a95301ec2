package vfs

import (
	"math/rand/v2"
	"slices"
)

// Crash returns the file system that a power loss at this moment would leave:
// what was synced is there; of the rest each 4 KiB block, each file's length and
// each change of a directory entry survives or is lost, as random says. A nil
// random loses all of it. A lost block has its last synced bytes, or zeros.
// A rename survives or is lost as one. m is not changed, and its handles go on
// working on it. Everything in the result is durable.
func (m *Mem) Crash(random *rand.Rand) *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.crash(crasher{random: random})
}

// Kill returns the file system that the death of the process alone would leave:
// everything written is there, synced or not, and no lock is held. Everything in
// the result is durable; m is not changed.
func (m *Mem) Kill() *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.crash(crasher{keepAll: true})
}

func (m *Mem) crash(c crasher) *Mem {
	c.dirs, c.made = map[*memDir]map[string]memNode{}, map[memNode]memNode{}
	for i := range m.pending {
		if c.survives() {
			m.pending[i].apply(c.entries)
		}
	}
	return &Mem{root: c.dir(m.root), locks: map[string]bool{}}
}

// crasher builds the file system after a crash. Maps are walked in order of
// their keys, so that one seed gives one result.
type crasher struct {
	random  *rand.Rand
	keepAll bool
	dirs    map[*memDir]map[string]memNode // directories whose entries differ from the durable ones
	made    map[memNode]memNode
}

func (c *crasher) survives() bool {
	return c.keepAll || c.random != nil && c.random.IntN(2) == 0
}

// entries returns a copy of the durable entries of d that may be changed.
func (c *crasher) entries(d *memDir) map[string]memNode {
	if e, ok := c.dirs[d]; ok {
		return e
	}
	e := make(map[string]memNode, len(d.durable))
	for name, node := range d.durable {
		e[name] = node
	}
	c.dirs[d] = e
	return e
}

func (c *crasher) dir(d *memDir) *memDir {
	if made, ok := c.made[d]; ok {
		return made.(*memDir)
	}
	out := newMemDir()
	c.made[d] = out
	entries := c.entries(d)
	for _, name := range sortedNames(entries) {
		var node memNode
		switch n := entries[name].(type) {
		case *memDir:
			node = c.dir(n)
		case *memFile:
			node = c.file(n)
		}
		out.entries[name], out.durable[name] = node, node
	}
	return out
}

func (c *crasher) file(f *memFile) *memFile {
	if made, ok := c.made[f]; ok {
		return made.(*memFile)
	}
	size := len(f.durable)
	if len(f.data) != size && c.survives() {
		size = len(f.data)
	}
	content := make([]byte, size)
	copy(content, f.durable)
	blocks := make([]int64, 0, len(f.dirty))
	for block := range f.dirty {
		blocks = append(blocks, block)
	}
	slices.Sort(blocks)
	for _, block := range blocks {
		from := block * BlockSize
		if !c.survives() || from >= int64(size) {
			continue
		}
		part := content[from:min(from+BlockSize, int64(size))]
		clear(part)
		if from < int64(len(f.data)) {
			copy(part, f.data[from:])
		}
	}
	out := &memFile{data: content, durable: slices.Clone(content), dirty: map[int64]struct{}{}}
	c.made[f] = out
	return out
}
