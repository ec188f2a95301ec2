package vfs

import (
	"io"
	"io/fs"
	"sync/atomic"
)

// memHandle is an open file of a Mem.
type memHandle struct {
	fs     *Mem
	file   *memFile
	name   string
	write  bool
	closed atomic.Bool
}

func (h *memHandle) check(op string, write bool) error {
	if h.closed.Load() {
		return pathError(op, h.name, fs.ErrClosed)
	}
	if write && !h.write {
		return pathError(op, h.name, fs.ErrPermission)
	}
	return nil
}

// ReadAt implements File.
func (h *memHandle) ReadAt(p []byte, off int64) (int, error) {
	if err := h.check("read", false); err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, pathError("read", h.name, fs.ErrInvalid)
	}
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if off >= int64(len(h.file.data)) {
		return 0, io.EOF
	}
	n := copy(p, h.file.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// WriteAt implements File.
func (h *memHandle) WriteAt(p []byte, off int64) (int, error) {
	if err := h.check("write", true); err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, pathError("write", h.name, fs.ErrInvalid)
	}
	if len(p) == 0 {
		return 0, nil
	}
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	f := h.file
	end := off + int64(len(p))
	if end > int64(len(f.data)) {
		f.resize(end)
	}
	copy(f.data[off:], p)
	f.touch(off, end)
	return len(p), nil
}

// Sync implements File.
func (h *memHandle) Sync() error {
	if err := h.check("sync", false); err != nil {
		return err
	}
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	h.file.sync()
	return nil
}

// Truncate implements File.
func (h *memHandle) Truncate(size int64) error {
	if err := h.check("truncate", true); err != nil {
		return err
	}
	if size < 0 {
		return pathError("truncate", h.name, fs.ErrInvalid)
	}
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	h.file.resize(size)
	return nil
}

// Preallocate implements File.
func (h *memHandle) Preallocate(size int64) error {
	if err := h.check("preallocate", true); err != nil {
		return err
	}
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if size > int64(len(h.file.data)) {
		h.file.resize(size)
	}
	return nil
}

// Size implements File.
func (h *memHandle) Size() (int64, error) {
	if err := h.check("stat", false); err != nil {
		return 0, err
	}
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	return int64(len(h.file.data)), nil
}

// Fd implements File: there is none.
func (h *memHandle) Fd() (uintptr, bool) { return 0, false }

// Close implements File.
func (h *memHandle) Close() error {
	if h.closed.Swap(true) {
		return pathError("close", h.name, fs.ErrClosed)
	}
	return nil
}

// resize sets the length. What it cuts off reads as zeros when the file grows
// again, before and after a crash.
func (f *memFile) resize(size int64) {
	old := int64(len(f.data))
	if size <= old {
		f.data = f.data[:size]
		if size < old {
			f.touch(size, old)
		}
		return
	}
	if size <= int64(cap(f.data)) {
		f.data = f.data[:size]
		clear(f.data[old:])
		return
	}
	grown := make([]byte, size, max(size, 2*int64(cap(f.data))))
	copy(grown, f.data)
	f.data = grown
}

// touch marks the blocks of [from, to) as not durable.
func (f *memFile) touch(from, to int64) {
	for block := from / BlockSize; block*BlockSize < to; block++ {
		f.dirty[block] = struct{}{}
	}
}

// sync makes everything durable.
func (f *memFile) sync() {
	size := len(f.data)
	if size <= cap(f.durable) {
		old := len(f.durable)
		f.durable = f.durable[:size]
		if size > old {
			clear(f.durable[old:])
		}
	} else {
		grown := make([]byte, size, max(size, 2*cap(f.durable)))
		copy(grown, f.durable)
		f.durable = grown
	}
	for block := range f.dirty {
		if from := block * BlockSize; from < int64(size) {
			copy(f.durable[from:min(from+BlockSize, int64(size))], f.data[from:])
		}
	}
	clear(f.dirty)
}
