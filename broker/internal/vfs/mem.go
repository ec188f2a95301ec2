package vfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"
)

// BlockSize is the unit in which Mem loses un-synced bytes, in bytes.
const BlockSize = 4096

// Mem is a file system in memory that remembers what is durable: Crash makes
// the file system that a machine would find after a power loss. All methods are
// safe for concurrent use. Relative and absolute paths name the same files.
type Mem struct {
	mu      sync.Mutex
	root    *memDir
	pending []entryChange // directory entries not yet durable, in order
	locks   map[string]bool
}

var _ FS = (*Mem)(nil)

// memNode is a *memDir or a *memFile.
type memNode any

type memDir struct {
	entries map[string]memNode // as processes see them
	durable map[string]memNode // as the disk has them
}

// memFile is the content of a file. Handles of it stay valid when its names go.
type memFile struct {
	data    []byte // as processes see it
	durable []byte // as the disk has it
	dirty   map[int64]struct{}
}

// entryChange is one change of names, durable as a whole or not at all: name in
// dir becomes node (nil removes it) and, in a rename, from in fromDir goes.
type entryChange struct {
	dir, fromDir *memDir
	name, from   string
	node         memNode
}

func (c *entryChange) touches(dir *memDir) bool { return c.dir == dir || c.fromDir == dir }

func (c *entryChange) apply(entries func(*memDir) map[string]memNode) {
	if c.fromDir != nil {
		delete(entries(c.fromDir), c.from)
	}
	if c.node == nil {
		delete(entries(c.dir), c.name)
	} else {
		entries(c.dir)[c.name] = c.node
	}
}

func visible(d *memDir) map[string]memNode { return d.entries }
func durable(d *memDir) map[string]memNode { return d.durable }

func newMemDir() *memDir {
	return &memDir{entries: map[string]memNode{}, durable: map[string]memNode{}}
}

// NewMem returns an empty file system.
func NewMem() *Mem { return &Mem{root: newMemDir(), locks: map[string]bool{}} }

func split(name string) []string {
	clean := strings.Trim(path.Clean("/"+name), "/")
	if clean == "" {
		return nil
	}
	return strings.Split(clean, "/")
}

func pathError(op, name string, err error) error {
	return &fs.PathError{Op: op, Path: name, Err: err}
}

// dir finds the directory at the path, which the caller has split.
func (m *Mem) dir(parts []string) (*memDir, error) {
	d := m.root
	for _, p := range parts {
		next, ok := d.entries[p].(*memDir)
		if !ok {
			return nil, fs.ErrNotExist
		}
		d = next
	}
	return d, nil
}

// parent finds the directory that holds name, and name's last part.
func (m *Mem) parent(name string) (*memDir, string, error) {
	parts := split(name)
	if len(parts) == 0 {
		return nil, "", fs.ErrInvalid
	}
	d, err := m.dir(parts[:len(parts)-1])
	return d, parts[len(parts)-1], err
}

// change makes a change of names visible; it becomes durable with SyncDir.
func (m *Mem) change(c entryChange) {
	c.apply(visible)
	m.pending = append(m.pending, c)
}

// Create implements FS.
func (m *Mem) Create(name string) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, base, err := m.parent(name)
	if err != nil {
		return nil, pathError("create", name, err)
	}
	if _, ok := d.entries[base]; ok {
		return nil, pathError("create", name, fs.ErrExist)
	}
	f := &memFile{dirty: map[int64]struct{}{}}
	m.change(entryChange{dir: d, name: base, node: f})
	return &memHandle{fs: m, file: f, name: name, write: true}, nil
}

func (m *Mem) open(name string, write bool) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, base, err := m.parent(name)
	if err != nil {
		return nil, pathError("open", name, err)
	}
	switch f := d.entries[base].(type) {
	case *memFile:
		return &memHandle{fs: m, file: f, name: name, write: write}, nil
	case *memDir:
		return nil, pathError("open", name, errors.New("is a directory"))
	}
	return nil, pathError("open", name, fs.ErrNotExist)
}

// Open implements FS.
func (m *Mem) Open(name string) (File, error) { return m.open(name, false) }

// OpenReadWrite implements FS.
func (m *Mem) OpenReadWrite(name string) (File, error) { return m.open(name, true) }

// Remove implements FS.
func (m *Mem) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, base, err := m.parent(name)
	if err != nil {
		return pathError("remove", name, err)
	}
	node, ok := d.entries[base]
	if !ok {
		return pathError("remove", name, fs.ErrNotExist)
	}
	if sub, ok := node.(*memDir); ok && len(sub.entries) > 0 {
		return pathError("remove", name, errors.New("directory not empty"))
	}
	m.change(entryChange{dir: d, name: base})
	return nil
}

// RemoveAll implements FS. Each removed name is a change of its own, inner ones
// first, so a crash may leave any part of the tree.
func (m *Mem) RemoveAll(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, base, err := m.parent(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return pathError("removeall", name, err)
	}
	m.removeTree(d, base)
	return nil
}

func (m *Mem) removeTree(d *memDir, base string) {
	node, ok := d.entries[base]
	if !ok {
		return
	}
	if sub, ok := node.(*memDir); ok {
		for _, name := range sortedNames(sub.entries) {
			m.removeTree(sub, name)
		}
	}
	m.change(entryChange{dir: d, name: base})
}

// Rename implements FS.
func (m *Mem) Rename(from, to string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	fromDir, fromBase, err := m.parent(from)
	if err != nil {
		return pathError("rename", from, err)
	}
	toDir, toBase, err := m.parent(to)
	if err != nil {
		return pathError("rename", to, err)
	}
	node, ok := fromDir.entries[fromBase]
	if !ok {
		return pathError("rename", from, fs.ErrNotExist)
	}
	if fromDir == toDir && fromBase == toBase {
		return nil
	}
	if _, isDir := toDir.entries[toBase].(*memDir); isDir {
		return pathError("rename", to, fs.ErrExist)
	}
	m.change(entryChange{dir: toDir, name: toBase, node: node, fromDir: fromDir, from: fromBase})
	return nil
}

// MkdirAll implements FS.
func (m *Mem) MkdirAll(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	d := m.root
	for _, p := range split(name) {
		node, ok := d.entries[p]
		if !ok {
			node = newMemDir()
			m.change(entryChange{dir: d, name: p, node: node})
		}
		next, ok := node.(*memDir)
		if !ok {
			return pathError("mkdir", name, errors.New("not a directory"))
		}
		d = next
	}
	return nil
}

// List implements FS.
func (m *Mem) List(dir string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, err := m.dir(split(dir))
	if err != nil {
		return nil, pathError("list", dir, err)
	}
	return sortedNames(d.entries), nil
}

func sortedNames(entries map[string]memNode) []string {
	names := make([]string, 0, len(entries))
	for name := range entries {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// Stat implements FS. Times are zero: nothing may depend on them.
func (m *Mem) Stat(name string) (fs.FileInfo, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	parts := split(name)
	if len(parts) == 0 {
		return memInfo{name: "/", dir: true}, nil
	}
	d, err := m.dir(parts[:len(parts)-1])
	if err != nil {
		return nil, pathError("stat", name, err)
	}
	base := parts[len(parts)-1]
	switch node := d.entries[base].(type) {
	case *memDir:
		return memInfo{name: base, dir: true}, nil
	case *memFile:
		return memInfo{name: base, size: int64(len(node.data))}, nil
	}
	return nil, pathError("stat", name, fs.ErrNotExist)
}

// SyncDir implements FS. A rename between two directories becomes durable in
// both when one is synced, with what came before it.
func (m *Mem) SyncDir(dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, err := m.dir(split(dir))
	if err != nil {
		return pathError("syncdir", dir, err)
	}
	m.syncEntries(d)
	return nil
}

func (m *Mem) syncEntries(dir *memDir) {
	involved := []*memDir{dir}
	for grown := true; grown; {
		grown = false
		for _, c := range m.pending {
			if c.fromDir == nil || slices.Contains(involved, c.dir) == slices.Contains(involved, c.fromDir) {
				continue
			}
			involved, grown = append(involved, c.dir, c.fromDir), true
		}
	}
	kept := m.pending[:0]
	for _, c := range m.pending {
		if slices.ContainsFunc(involved, c.touches) {
			c.apply(durable)
		} else {
			kept = append(kept, c)
		}
	}
	clear(m.pending[len(kept):])
	m.pending = kept
}

// SyncAll implements FS.
func (m *Mem) SyncAll(dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := m.dir(split(dir)); err != nil {
		return pathError("syncall", dir, err)
	}
	for _, c := range m.pending {
		c.apply(durable)
	}
	m.pending = nil
	m.walk(m.root, func(f *memFile) { f.sync() })
	return nil
}

func (m *Mem) walk(d *memDir, visit func(*memFile)) {
	for _, node := range d.entries {
		switch node := node.(type) {
		case *memDir:
			m.walk(node, visit)
		case *memFile:
			visit(node)
		}
	}
}

// Lock implements FS.
func (m *Mem) Lock(name string) (io.Closer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, base, err := m.parent(name)
	if err != nil {
		return nil, pathError("lock", name, err)
	}
	key := strings.Join(split(name), "/")
	if m.locks[key] {
		return nil, pathError("lock", name, ErrLocked)
	}
	if _, ok := d.entries[base]; !ok {
		m.change(entryChange{dir: d, name: base, node: &memFile{dirty: map[int64]struct{}{}}})
	}
	m.locks[key] = true
	return &memLock{fs: m, key: key}, nil
}

// Space implements FS: a Mem is never full. Wrap it in a Faulty to fill it.
func (m *Mem) Space(string) (free, total uint64, err error) { return 1 << 40, 1 << 40, nil }

type memLock struct {
	fs   *Mem
	key  string
	once sync.Once
}

func (l *memLock) Close() error {
	l.once.Do(func() {
		l.fs.mu.Lock()
		defer l.fs.mu.Unlock()
		delete(l.fs.locks, l.key)
	})
	return nil
}

type memInfo struct {
	name string
	size int64
	dir  bool
}

func (i memInfo) Name() string       { return i.name }
func (i memInfo) Size() int64        { return i.size }
func (i memInfo) IsDir() bool        { return i.dir }
func (i memInfo) ModTime() time.Time { return time.Time{} }
func (i memInfo) Sys() any           { return nil }

func (i memInfo) Mode() fs.FileMode {
	if i.dir {
		return fs.ModeDir | 0o755
	}
	return 0o644
}

// String describes the file system for test failures: every visible file.
func (m *Mem) String() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var b strings.Builder
	describe(&b, "", m.root)
	return b.String()
}

func describe(b *strings.Builder, prefix string, d *memDir) {
	for _, name := range sortedNames(d.entries) {
		switch node := d.entries[name].(type) {
		case *memDir:
			describe(b, prefix+name+"/", node)
		case *memFile:
			fmt.Fprintf(b, "%s%s %d bytes, %d un-synced blocks\n", prefix, name, len(node.data), len(node.dirty))
		}
	}
}
