//go:build unix && !linux

package vfs

import (
	"errors"
	"os"
)

func syncData(f *os.File) error { return f.Sync() }

// syncAll has no equivalent here: files are synced one by one by their owners.
// Reporting an error makes the caller do so.
func syncAll(dir string) error {
	return &os.PathError{Op: "syncfs", Path: dir, Err: errors.ErrUnsupported}
}

func preallocate(f *os.File, _, to int64) error { return f.Truncate(to) }
