package vfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"syscall"
)

// OS is the real file system. The zero value is ready.
type OS struct{}

var _ FS = OS{}

// osFile is an open file of the operating system.
type osFile struct{ *os.File }

// full maps the two ways in which a disk is full to ErrNoSpace, keeping the
// original error in the chain.
func full(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	return err
}

func openOS(name string, flag int) (File, error) {
	f, err := os.OpenFile(filepath.FromSlash(name), flag, 0o644)
	if err != nil {
		return nil, full(err)
	}
	return osFile{f}, nil
}

// Create implements FS.
func (OS) Create(name string) (File, error) { return openOS(name, os.O_RDWR|os.O_CREATE|os.O_EXCL) }

// Open implements FS.
func (OS) Open(name string) (File, error) { return openOS(name, os.O_RDONLY) }

// OpenReadWrite implements FS.
func (OS) OpenReadWrite(name string) (File, error) { return openOS(name, os.O_RDWR) }

// Remove implements FS.
func (OS) Remove(name string) error { return full(os.Remove(filepath.FromSlash(name))) }

// RemoveAll implements FS.
func (OS) RemoveAll(name string) error { return full(os.RemoveAll(filepath.FromSlash(name))) }

// Rename implements FS.
func (OS) Rename(from, to string) error {
	return full(os.Rename(filepath.FromSlash(from), filepath.FromSlash(to)))
}

// MkdirAll implements FS.
func (OS) MkdirAll(name string) error { return full(os.MkdirAll(filepath.FromSlash(name), 0o755)) }

// List implements FS.
func (OS) List(dir string) ([]string, error) {
	entries, err := os.ReadDir(filepath.FromSlash(dir))
	if err != nil {
		return nil, err
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	sort.Strings(names)
	return names, nil
}

// Stat implements FS.
func (OS) Stat(name string) (fs.FileInfo, error) { return os.Stat(filepath.FromSlash(name)) }

// SyncDir implements FS.
func (OS) SyncDir(dir string) error {
	f, err := os.Open(filepath.FromSlash(dir))
	if err != nil {
		return err
	}
	err = f.Sync()
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	return full(err)
}

// SyncAll implements FS.
func (OS) SyncAll(dir string) error { return full(syncAll(filepath.FromSlash(dir))) }

// Lock implements FS. The lock ends with the process, however it ends.
func (OS) Lock(name string) (io.Closer, error) {
	f, err := os.OpenFile(filepath.FromSlash(name), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, full(err)
	}
	if err := lockFile(f); err != nil {
		return nil, errors.Join(&fs.PathError{Op: "lock", Path: name, Err: err}, f.Close())
	}
	return f, nil
}

// Space implements FS.
func (OS) Space(dir string) (free, total uint64, err error) { return space(filepath.FromSlash(dir)) }

// WriteAt implements File.
func (f osFile) WriteAt(p []byte, off int64) (int, error) {
	n, err := f.File.WriteAt(p, off)
	return n, full(err)
}

// Sync implements File.
func (f osFile) Sync() error { return full(syncData(f.File)) }

// Truncate implements File.
func (f osFile) Truncate(size int64) error { return full(f.File.Truncate(size)) }

// Preallocate implements File.
func (f osFile) Preallocate(size int64) error {
	have, err := f.Size()
	if err != nil || have >= size {
		return err
	}
	return full(preallocate(f.File, have, size))
}

// Size implements File.
func (f osFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// Fd implements File.
func (f osFile) Fd() (uintptr, bool) { return f.File.Fd(), true }
