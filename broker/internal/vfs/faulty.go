package vfs

import (
	"io"
	"io/fs"
	"sync/atomic"
)

// Kind says what an Operation does.
type Kind uint8

// The kinds of operation.
const (
	KindCreate Kind = iota
	KindOpen
	KindRemove
	KindRename
	KindMkdir
	KindList
	KindStat
	KindSyncDir
	KindSyncAll
	KindLock
	KindSpace
	KindRead
	KindWrite
	KindSync
	KindTruncate
	KindPreallocate
)

var kindNames = [...]string{"create", "open", "remove", "rename", "mkdir", "list", "stat", "syncdir", "syncall", "lock", "space",
	"read", "write", "sync", "truncate", "preallocate"}

func (k Kind) String() string { return kindNames[k] }

// Operation is one call that is about to reach the file system.
type Operation struct {
	Kind Kind
	// Path is the file or directory; of a rename, the name it gets.
	Path string
	// Offset and Size are those of a read, write, truncate or preallocate.
	Offset, Size int64
}

// Mutates says that the operation changes files, names, or what of them is durable.
func (o Operation) Mutates() bool {
	switch o.Kind {
	case KindOpen, KindList, KindStat, KindSpace, KindRead:
		return false
	}
	return true
}

// PartialWrite is the error to inject for a write that stops half-way: its
// first N bytes are written, then Err is returned.
type PartialWrite struct {
	N   int
	Err error
}

func (e *PartialWrite) Error() string { return e.Err.Error() }

// Unwrap returns Err.
func (e *PartialWrite) Unwrap() error { return e.Err }

// Faulty wraps a file system. Before each operation it asks Before, which may
// sleep (a slow disk), take a crash clone, or return an error, which is then the
// operation's result in place of its effect. Before is called concurrently when
// the file system is used so.
type Faulty struct {
	inner  FS
	before func(Operation) error
}

var _ FS = (*Faulty)(nil)

// NewFaulty wraps inner.
func NewFaulty(inner FS, before func(Operation) error) *Faulty {
	return &Faulty{inner: inner, before: before}
}

// Quota is a Before function that fails writes, creations and preallocations
// with ErrNoSpace once bytes have been written; a write that does not fit is cut.
// Set gives space back.
type Quota struct{ left atomic.Int64 }

// Set sets the number of bytes that may still be written.
func (q *Quota) Set(bytes int64) { q.left.Store(bytes) }

// Before implements the function NewFaulty takes.
func (q *Quota) Before(o Operation) error {
	switch o.Kind {
	case KindCreate, KindMkdir:
		if q.left.Load() <= 0 {
			return pathError(o.Kind.String(), o.Path, ErrNoSpace)
		}
	case KindPreallocate:
		if q.left.Load() < o.Size {
			return pathError(o.Kind.String(), o.Path, ErrNoSpace)
		}
	case KindWrite:
		if left := q.left.Add(-o.Size); left < 0 {
			q.left.Store(0)
			return &PartialWrite{N: int(max(0, o.Size+left)), Err: pathError("write", o.Path, ErrNoSpace)}
		}
	}
	return nil
}

func (f *Faulty) open(kind Kind, name string, open func(string) (File, error)) (File, error) {
	if err := f.before(Operation{Kind: kind, Path: name}); err != nil {
		return nil, err
	}
	inner, err := open(name)
	if err != nil {
		return nil, err
	}
	return &faultyFile{File: inner, fs: f, name: name}, nil
}

// Create implements FS.
func (f *Faulty) Create(name string) (File, error) { return f.open(KindCreate, name, f.inner.Create) }

// Open implements FS.
func (f *Faulty) Open(name string) (File, error) { return f.open(KindOpen, name, f.inner.Open) }

// OpenReadWrite implements FS.
func (f *Faulty) OpenReadWrite(name string) (File, error) {
	return f.open(KindOpen, name, f.inner.OpenReadWrite)
}

// Remove implements FS.
func (f *Faulty) Remove(name string) error {
	if err := f.before(Operation{Kind: KindRemove, Path: name}); err != nil {
		return err
	}
	return f.inner.Remove(name)
}

// RemoveAll implements FS.
func (f *Faulty) RemoveAll(name string) error {
	if err := f.before(Operation{Kind: KindRemove, Path: name}); err != nil {
		return err
	}
	return f.inner.RemoveAll(name)
}

// Rename implements FS.
func (f *Faulty) Rename(from, to string) error {
	if err := f.before(Operation{Kind: KindRename, Path: to}); err != nil {
		return err
	}
	return f.inner.Rename(from, to)
}

// MkdirAll implements FS.
func (f *Faulty) MkdirAll(name string) error {
	if err := f.before(Operation{Kind: KindMkdir, Path: name}); err != nil {
		return err
	}
	return f.inner.MkdirAll(name)
}

// List implements FS.
func (f *Faulty) List(dir string) ([]string, error) {
	if err := f.before(Operation{Kind: KindList, Path: dir}); err != nil {
		return nil, err
	}
	return f.inner.List(dir)
}

// Stat implements FS.
func (f *Faulty) Stat(name string) (fs.FileInfo, error) {
	if err := f.before(Operation{Kind: KindStat, Path: name}); err != nil {
		return nil, err
	}
	return f.inner.Stat(name)
}

// SyncDir implements FS.
func (f *Faulty) SyncDir(dir string) error {
	if err := f.before(Operation{Kind: KindSyncDir, Path: dir}); err != nil {
		return err
	}
	return f.inner.SyncDir(dir)
}

// SyncAll implements FS.
func (f *Faulty) SyncAll(dir string) error {
	if err := f.before(Operation{Kind: KindSyncAll, Path: dir}); err != nil {
		return err
	}
	return f.inner.SyncAll(dir)
}

// Lock implements FS.
func (f *Faulty) Lock(name string) (io.Closer, error) {
	if err := f.before(Operation{Kind: KindLock, Path: name}); err != nil {
		return nil, err
	}
	return f.inner.Lock(name)
}

// Space implements FS.
func (f *Faulty) Space(dir string) (free, total uint64, err error) {
	if err := f.before(Operation{Kind: KindSpace, Path: dir}); err != nil {
		return 0, 0, err
	}
	return f.inner.Space(dir)
}

type faultyFile struct {
	File
	fs   *Faulty
	name string
}

// ReadAt implements File.
func (f *faultyFile) ReadAt(p []byte, off int64) (int, error) {
	if err := f.fs.before(Operation{Kind: KindRead, Path: f.name, Offset: off, Size: int64(len(p))}); err != nil {
		return 0, err
	}
	return f.File.ReadAt(p, off)
}

// WriteAt implements File.
func (f *faultyFile) WriteAt(p []byte, off int64) (int, error) {
	err := f.fs.before(Operation{Kind: KindWrite, Path: f.name, Offset: off, Size: int64(len(p))})
	if err == nil {
		return f.File.WriteAt(p, off)
	}
	partial, ok := err.(*PartialWrite)
	if !ok {
		return 0, err
	}
	n, writeErr := f.File.WriteAt(p[:min(partial.N, len(p))], off)
	if writeErr != nil {
		return n, writeErr
	}
	return n, partial.Err
}

// Sync implements File.
func (f *faultyFile) Sync() error {
	if err := f.fs.before(Operation{Kind: KindSync, Path: f.name}); err != nil {
		return err
	}
	return f.File.Sync()
}

// Truncate implements File.
func (f *faultyFile) Truncate(size int64) error {
	if err := f.fs.before(Operation{Kind: KindTruncate, Path: f.name, Size: size}); err != nil {
		return err
	}
	return f.File.Truncate(size)
}

// Preallocate implements File.
func (f *faultyFile) Preallocate(size int64) error {
	if err := f.fs.before(Operation{Kind: KindPreallocate, Path: f.name, Size: size}); err != nil {
		return err
	}
	return f.File.Preallocate(size)
}

// Fd implements File: reads must pass through ReadAt, so there is none.
func (f *faultyFile) Fd() (uintptr, bool) { return 0, false }
