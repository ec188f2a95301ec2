package badgerstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/rs/zerolog"

	"github.com/leatlog/leat/state"
)

// Config configures a Backend. Dir must be set; the zero value of the others
// takes the default.
type Config struct {
	// Dir holds the stores of one process of one app. It is created when missing.
	Dir string
	// Logger gets a warning for every store that must be rebuilt; Badger's own
	// messages come at debug. The zero value is silent.
	Logger zerolog.Logger
	// MemoryBytes bounds the memtables of all stores together. A store that is
	// opened takes up to an eighth of what is left; when nothing is left stores are
	// opened with the smallest memtables (4 MiB each) and a warning. Default 256 MiB.
	MemoryBytes int64
	// RestoreBytes bounds the memory in which restores sort, all stores together.
	// Default 64 MiB.
	RestoreBytes int64
	// ReserveBytes is the space that must stay free on the disk: writes fail with
	// state.ErrNoSpace before it is touched. What open memtables may still need is
	// added to it. Default 64 MiB.
	ReserveBytes int64
}

const (
	defaultMemoryBytes  = 256 << 20
	defaultRestoreBytes = 64 << 20
	defaultReserveBytes = 64 << 20
)

func (c Config) withDefaults() (Config, error) {
	if c.Dir == "" {
		return c, errors.New("badgerstore: Config.Dir is empty: set the directory that holds the stores")
	}
	for _, setting := range []struct {
		name           string
		value          *int64
		defaultValue   int64
		smallestUseful int64
	}{
		{"MemoryBytes", &c.MemoryBytes, defaultMemoryBytes, 1 << 20},
		{"RestoreBytes", &c.RestoreBytes, defaultRestoreBytes, 1},
		{"ReserveBytes", &c.ReserveBytes, defaultReserveBytes, 1},
	} {
		if *setting.value == 0 {
			*setting.value = setting.defaultValue
		}
		if *setting.value < setting.smallestUseful {
			return c, fmt.Errorf("badgerstore: Config.%s is %d: it must be at least %d, or 0 for the default, %d",
				setting.name, *setting.value, setting.smallestUseful, setting.defaultValue)
		}
	}
	return c, nil
}

// Backend opens stores below one directory. Safe for concurrent use. Create it
// with New; one process at a time may have it.
type Backend struct {
	config Config
	lock   *os.File
	// freeSpace returns the bytes a user may still write to the file system of a path.
	freeSpace func(path string) (int64, error)

	restores atomic.Int64 // restores that sort at the moment

	mu     sync.Mutex
	open   map[string]bool
	memory int64 // what the open stores may use
	closed bool
}

var _ state.Backend = (*Backend)(nil)

// New locks the directory and returns its Backend.
func New(config Config) (*Backend, error) {
	config, err := config.withDefaults()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(config.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("badgerstore: create the state directory: %w", err)
	}
	path := filepath.Join(config.Dir, "LOCK")
	lock, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("badgerstore: open the lock file: %w", err)
	}
	if err := lockFile(lock); err != nil {
		return nil, errors.Join(fmt.Errorf("badgerstore: lock %s: %w: another process uses this state directory: "+
			"stop it or choose another directory", path, err), lock.Close())
	}
	return &Backend{config: config, lock: lock, freeSpace: freeSpace, open: map[string]bool{}}, nil
}

// Close unlocks the directory. It fails when an engine is open.
func (b *Backend) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return state.ErrClosed
	}
	if len(b.open) > 0 {
		return fmt.Errorf("badgerstore: close the backend: %d stores are open: close them first", len(b.open))
	}
	b.closed = true
	return b.lock.Close()
}

// Open implements state.Backend. It does not look at spec.InMemory: the caller
// chooses the backend.
func (b *Backend) Open(ctx context.Context, task string, spec state.Spec) (state.Engine, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	if task == "" || strings.Trim(task, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_-") != "" {
		return nil, fmt.Errorf("badgerstore: open store %q: task %q is no name of a directory: use letters, digits, '_' and '-'",
			spec.Name, task)
	}
	id := filepath.Join(task, spec.Name)
	dir := filepath.Join(b.config.Dir, id)
	if err := b.checkSpace(0); err != nil {
		return nil, fmt.Errorf("badgerstore: open store %q of task %q: %w", spec.Name, task, err)
	}
	log := b.config.Logger.With().Str("task", task).Str("store", spec.Name).Logger()
	memtable, err := b.reserve(id, dir, log)
	if err != nil {
		return nil, fmt.Errorf("badgerstore: open store %q of task %q: %w", spec.Name, task, err)
	}
	e := &engine{
		backend: b, dir: dir, kind: spec.Kind, log: log, memtable: memtable,
		release: func() { b.unreserve(id, memtable) },
	}
	if err := e.openVerified(); err != nil {
		b.unreserve(id, memtable)
		return nil, fmt.Errorf("badgerstore: open store %q of task %q in %s: %w", spec.Name, task, dir, err)
	}
	return e, nil
}

// reserve notes that the store is open and chooses the size of its memtables.
func (b *Backend) reserve(id, dir string, log zerolog.Logger) (memtable int64, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return 0, state.ErrClosed
	}
	if b.open[id] {
		return 0, fmt.Errorf("%w: close it first", state.ErrOpen)
	}
	memtable = smallestMemtable
	for memtable < largestMemtable && memoryOf(memtable*2) <= (b.config.MemoryBytes-b.memory)/8 {
		memtable *= 2
	}
	// Badger reads a write-ahead log into one memtable: it must not be smaller than
	// the one that wrote it.
	for memtable < largestMemtable && memtable*2 < largestWriteAhead(databaseDir(dir)) {
		memtable *= 2
	}
	b.memory += memoryOf(memtable)
	b.open[id] = true
	if b.memory > b.config.MemoryBytes {
		log.Warn().Int64("budget", b.config.MemoryBytes).Int64("needed", b.memory).Int("stores", len(b.open)).
			Msg("the open stores may need more memory than their budget: raise MemoryBytes or run more processes")
	}
	return memtable, nil
}

func (b *Backend) unreserve(id string, memtable int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.open, id)
	b.memory -= memoryOf(memtable)
}

// checkSpace returns state.ErrNoSpace when writing n bytes may fill the disk.
func (b *Backend) checkSpace(n int64) error {
	free, err := b.freeSpace(b.config.Dir)
	if err != nil {
		return fmt.Errorf("look up the free space of %s: %w", b.config.Dir, err)
	}
	b.mu.Lock()
	// Each memtable is written to a log and to a table, and tables are merged.
	needed := b.config.ReserveBytes + b.memory + 2*n
	b.mu.Unlock()
	if free < needed {
		return fmt.Errorf("%w: %s has %d MiB free and %d MiB must stay free: remove files or use a larger disk",
			state.ErrNoSpace, b.config.Dir, free>>20, needed>>20)
	}
	return nil
}

func databaseDir(dir string) string { return filepath.Join(dir, "badger") }

// largestWriteAhead returns the length of the longest write-ahead log in a
// database; it is twice the memtable's size unless Badger cut it.
func largestWriteAhead(dir string) int64 {
	names, err := logs(dir)
	if err != nil {
		return 0 // there is no database yet; opening it reports what is wrong
	}
	var largest int64
	for _, name := range names {
		if info, err := os.Stat(filepath.Join(dir, name)); err == nil && strings.HasSuffix(name, writeAheadExt) {
			largest = max(largest, info.Size())
		}
	}
	return largest
}

// startOver removes everything of the store and makes its directory again.
func startOver(dir string) error {
	// The checkpoint goes first: without it, whatever is left counts for nothing.
	if err := removeCheckpoint(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return syncDirectory(filepath.Dir(dir))
}
