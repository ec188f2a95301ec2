// Package vfs is the disk seam: every byte the broker stores passes through an
// FS. Three twins exist: OS (the real disk), Mem (in memory, able to crash and
// to lose un-synced blocks and directory entries) and Faulty (a wrapper that
// injects errors, delays and a full disk). The idea is pebble's vfs.
package vfs

import (
	"errors"
	"io"
	"io/fs"
)

// Errors callers branch on. Implementations wrap them with the path.
var (
	// ErrNoSpace says that the disk is full. OS maps ENOSPC and EDQUOT to it.
	ErrNoSpace = errors.New("no space left on device")
	// ErrLocked says that another process holds the lock of a directory.
	ErrLocked = errors.New("locked by another process")
)

// FS is a file system. Paths are slash-separated and given whole. All methods
// may be called concurrently. A missing file is reported with fs.ErrNotExist,
// an existing one with fs.ErrExist, both wrapped in *fs.PathError.
//
// Durability: bytes written are durable after File.Sync of that file; a name
// created, renamed or removed is durable after SyncDir of its directory.
type FS interface {
	// Create makes a new empty file, open for reading and writing. It fails with
	// fs.ErrExist when the name is taken.
	Create(name string) (File, error)
	// Open opens an existing file for reading only.
	Open(name string) (File, error)
	// OpenReadWrite opens an existing file for reading and writing.
	OpenReadWrite(name string) (File, error)
	// Remove deletes a file or an empty directory.
	Remove(name string) error
	// RemoveAll deletes a tree; a missing one is no error.
	RemoveAll(name string) error
	// Rename moves a file or directory, replacing a file at the target atomically.
	Rename(from, to string) error
	// MkdirAll makes a directory and its missing parents.
	MkdirAll(name string) error
	// List returns the names in a directory, sorted.
	List(dir string) ([]string, error)
	// Stat describes a file or directory.
	Stat(name string) (fs.FileInfo, error)
	// SyncDir makes the names in a directory durable.
	SyncDir(dir string) error
	// SyncAll makes everything on the file system that holds dir durable (syncfs
	// on Linux). It fails with errors.ErrUnsupported where there is no such call:
	// sync the files one by one instead.
	SyncAll(dir string) error
	// Lock takes the exclusive lock file name, creating it; ErrLocked when taken.
	Lock(name string) (io.Closer, error)
	// Space returns the size of dir's file system in bytes, and how many of them are
	// available to this process.
	Space(dir string) (free, total uint64, err error)
}

// File is an open file without a position: every access names its offset, so
// one File serves any number of concurrent readers.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// Sync makes the file's bytes and length durable (fdatasync on Linux). After
	// an error the state of the un-synced bytes is unknown; never retry.
	Sync() error
	// Truncate sets the file's length.
	Truncate(size int64) error
	// Preallocate reserves blocks up to size and extends the length with zeros, so
	// that later syncs of appended bytes write no metadata. Best effort on OS.
	Preallocate(size int64) error
	// Size returns the file's length.
	Size() (int64, error)
	// Fd returns the operating system's descriptor for sendfile, false when there
	// is none.
	Fd() (uintptr, bool)
}
