package storage

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"sync"

	"github.com/leatlog/leat/broker/internal/vfs"
)

// DefaultOpenFiles is how many idle files a FileCache keeps open by default.
const DefaultOpenFiles = 2048

// FileCache bounds the number of open files of the logs that share it. It keeps
// the files in use open and as many of the others as fit, closing the least
// recently used. Files with bytes that are not durable count as in use, so that
// the descriptor that saw a failed write-back is the one that syncs. Safe for
// concurrent use.
type FileCache struct {
	limit int

	mu   sync.Mutex
	open int    // files open, in use or idle
	idle handle // head of the ring of idle open handles, most recently used first
}

// NewFileCache returns a cache that closes idle files beyond limit open ones.
func NewFileCache(limit int) *FileCache {
	c := &FileCache{limit: limit}
	c.idle.next, c.idle.previous = &c.idle, &c.idle
	return c
}

// Open returns the number of files open now.
func (c *FileCache) Open() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.open
}

// handle is one file of a log, open only while it is used or recently was.
type handle struct {
	cache    *FileCache
	fs       vfs.FS
	dir      string
	base     int64
	suffix   string
	writable bool

	opening sync.Mutex // held while the file is opened

	// Guarded by cache.mu. Invariant: next is not nil exactly while file is not
	// nil and users is 0.
	file           vfs.File
	users          int
	gone           bool // removed: close as soon as nobody uses it
	next, previous *handle
}

// name is put together when it is needed: most files are never opened.
func (h *handle) name() string { return path.Join(h.dir, segmentName(h.base, h.suffix)) }

// acquire opens the file if need be and keeps it open until release.
func (h *handle) acquire() (vfs.File, error) {
	if f := h.take(); f != nil {
		return f, nil
	}
	h.opening.Lock()
	defer h.opening.Unlock()
	if f := h.take(); f != nil {
		return f, nil
	}
	open := h.fs.Open
	if h.writable {
		open = h.fs.OpenReadWrite
	}
	name := h.name()
	f, err := open(name)
	if err != nil {
		return nil, fmt.Errorf("storage: open %s: %w", name, err)
	}
	h.adopt(f)
	return f, nil
}

// take returns the file if it is open, and counts the caller as a user.
func (h *handle) take() vfs.File {
	h.cache.mu.Lock()
	defer h.cache.mu.Unlock()
	if h.file == nil {
		return nil
	}
	if h.next != nil {
		h.next.previous, h.previous.next = h.previous, h.next
		h.next, h.previous = nil, nil
	}
	h.users++
	return h.file
}

// adopt takes over an open file, with the caller as its user.
func (h *handle) adopt(f vfs.File) {
	c := h.cache
	c.mu.Lock()
	h.file, h.gone = f, false
	h.users++
	c.open++
	victim := c.evict()
	c.mu.Unlock()
	closeFile(victim)
}

// release ends one use. The error of closing a file is of no interest: what must
// be durable has been synced before.
func (h *handle) release() {
	c := h.cache
	c.mu.Lock()
	h.users--
	var victim vfs.File
	if h.users == 0 {
		if h.gone {
			victim = h.detach()
		} else {
			h.next, h.previous = c.idle.next, &c.idle
			h.next.previous, h.previous.next = h, h
			victim = c.evict()
		}
	}
	c.mu.Unlock()
	closeFile(victim)
}

// drop closes the file, at once or when its last user releases it.
func (h *handle) drop() {
	h.cache.mu.Lock()
	var victim vfs.File
	if h.file != nil {
		if h.users > 0 {
			h.gone = true
		} else {
			victim = h.detach()
		}
	}
	h.cache.mu.Unlock()
	closeFile(victim)
}

// evict returns the idle file to close when too many are open.
func (c *FileCache) evict() vfs.File {
	if last := c.idle.previous; c.open > c.limit && last != &c.idle {
		return last.detach()
	}
	return nil
}

func (h *handle) detach() vfs.File {
	if h.next != nil {
		h.next.previous, h.previous.next = h.previous, h.next
		h.next, h.previous = nil, nil
	}
	f := h.file
	h.file = nil
	h.cache.open--
	return f
}

func closeFile(f vfs.File) {
	if f != nil {
		f.Close()
	}
}

// tempSuffix marks files that are being written; leftovers are removed at start.
const tempSuffix = ".tmp"

// writeFile replaces a file by data, atomically: a crash leaves the old file or
// the new one. With sync the bytes are durable before the new name is; the name
// itself is durable after SyncDir.
func writeFile(fsys vfs.FS, name string, data []byte, sync bool) error {
	temp := name + tempSuffix
	if err := fsys.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := fsys.Create(temp)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(data, 0)
	if err == nil && sync {
		err = f.Sync()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return err
	}
	return fsys.Rename(temp, name)
}

// writeFileDurably is writeFile with the name durable too.
func writeFileDurably(fsys vfs.FS, name string, data []byte) error {
	if err := writeFile(fsys, name, data, true); err != nil {
		return err
	}
	return fsys.SyncDir(path.Dir(name))
}

// errFileTooLarge says that a file cannot be what it should.
var errFileTooLarge = errors.New("storage: the file is too large")

// readFile returns a whole file, refusing one larger than limit bytes.
func readFile(fsys vfs.FS, name string, limit int64) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	if size > limit {
		return nil, fmt.Errorf("%w: %s has %d bytes, at most %d are sensible", errFileTooLarge, name, size, limit)
	}
	data := make([]byte, size)
	if err := readFull(f, data, 0); err != nil {
		return nil, err
	}
	return data, nil
}

// readFull fills dst from position. The end of the file is io.ErrUnexpectedEOF.
func readFull(f io.ReaderAt, dst []byte, position int64) error {
	if len(dst) == 0 {
		return nil
	}
	n, err := f.ReadAt(dst, position)
	if n == len(dst) {
		return nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// makeDir makes a directory and its missing parents, durably. Whoever made the
// parents may not have synced them, so that all names on the way are.
func makeDir(fsys vfs.FS, dir string) error {
	if err := fsys.MkdirAll(dir); err != nil {
		return err
	}
	return syncParents(fsys, dir)
}

// syncParents makes the name of a directory durable, and those of its parents.
func syncParents(fsys vfs.FS, dir string) error {
	if err := fsys.SyncDir(path.Dir(dir)); err != nil {
		return err
	}
	for parent := path.Dir(dir); parent != path.Dir(parent); parent = path.Dir(parent) {
		if err := fsys.SyncDir(path.Dir(parent)); errors.Is(err, fs.ErrPermission) {
			return nil // not ours, and there before us
		} else if err != nil {
			return err
		}
	}
	return nil
}
