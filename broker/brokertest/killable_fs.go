package brokertest

import (
	"errors"
	"io"
	"io/fs"
	"sync"

	"github.com/leatlog/leat/broker/internal/vfs"
)

// errKilled is what a killed broker gets from its disk.
var errKilled = errors.New("brokertest: the broker was killed")

// killableFS is a file system that its broker can be cut off from: after kill
// every operation fails, and none is under way. What was written stays, as it
// does in the operating system when a process is killed.
type killableFS struct {
	fs vfs.FS

	mu     sync.RWMutex // held for reading by every operation
	killed bool
}

func newKillableFS(files vfs.FS) *killableFS { return &killableFS{fs: files} }

func (k *killableFS) kill() {
	k.mu.Lock()
	k.killed = true
	k.mu.Unlock()
}

// do runs an operation unless the broker was killed.
func (k *killableFS) do(operation func() error) error {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if k.killed {
		return errKilled
	}
	return operation()
}

func (k *killableFS) open(open func() (vfs.File, error)) (vfs.File, error) {
	var f vfs.File
	err := k.do(func() (err error) { f, err = open(); return err })
	if err != nil {
		return nil, err
	}
	return &killableFile{f, k}, nil
}

func (k *killableFS) Create(name string) (vfs.File, error) {
	return k.open(func() (vfs.File, error) { return k.fs.Create(name) })
}

func (k *killableFS) Open(name string) (vfs.File, error) {
	return k.open(func() (vfs.File, error) { return k.fs.Open(name) })
}

func (k *killableFS) OpenReadWrite(name string) (vfs.File, error) {
	return k.open(func() (vfs.File, error) { return k.fs.OpenReadWrite(name) })
}

func (k *killableFS) Remove(name string) error {
	return k.do(func() error { return k.fs.Remove(name) })
}

func (k *killableFS) RemoveAll(name string) error {
	return k.do(func() error { return k.fs.RemoveAll(name) })
}

func (k *killableFS) Rename(from, to string) error {
	return k.do(func() error { return k.fs.Rename(from, to) })
}

func (k *killableFS) MkdirAll(name string) error {
	return k.do(func() error { return k.fs.MkdirAll(name) })
}

func (k *killableFS) List(dir string) (names []string, err error) {
	err = k.do(func() error { names, err = k.fs.List(dir); return err })
	return names, err
}

func (k *killableFS) Stat(name string) (info fs.FileInfo, err error) {
	err = k.do(func() error { info, err = k.fs.Stat(name); return err })
	return info, err
}

func (k *killableFS) SyncDir(dir string) error {
	return k.do(func() error { return k.fs.SyncDir(dir) })
}

func (k *killableFS) SyncAll(dir string) error {
	return k.do(func() error { return k.fs.SyncAll(dir) })
}

// Lock is given back by its Close even after kill, as the operating system does.
func (k *killableFS) Lock(name string) (lock io.Closer, err error) {
	err = k.do(func() error { lock, err = k.fs.Lock(name); return err })
	return lock, err
}

func (k *killableFS) Space(dir string) (free, total uint64, err error) {
	err = k.do(func() error { free, total, err = k.fs.Space(dir); return err })
	return free, total, err
}

// killableFile is a file of a killableFS. Close always goes through.
type killableFile struct {
	vfs.File
	fs *killableFS
}

func (f *killableFile) WriteAt(p []byte, offset int64) (n int, err error) {
	err = f.fs.do(func() error { n, err = f.File.WriteAt(p, offset); return err })
	return n, err
}

func (f *killableFile) Sync() error { return f.fs.do(f.File.Sync) }

func (f *killableFile) Truncate(size int64) error {
	return f.fs.do(func() error { return f.File.Truncate(size) })
}

func (f *killableFile) Preallocate(size int64) error {
	return f.fs.do(func() error { return f.File.Preallocate(size) })
}
