package storage

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// Names in a data directory, as Kafka has them.
const (
	lockName  = ".lock"
	cleanName = ".kafka_cleanshutdown"
)

// LogID names a log of a directory.
type LogID struct {
	Topic     string
	Partition int32
	TopicID   [16]byte // zero when the directory does not tell
}

// Directory is a data directory: the logs in it, a lock that keeps other
// processes out, and a marker that is there after a clean shutdown only. When
// an fsync fails, all its logs are fenced. Safe for concurrent use.
type Directory struct {
	env    Env
	root   string
	lock   io.Closer
	clean  bool
	fenced atomic.Pointer[fencedError]

	mu      sync.Mutex
	logs    map[string]*Log // open, by the name of their directory
	closed  bool
	deletes uint32 // the last number given to a deleted log
	remover remover

	fenceMu sync.Mutex // apart from mu, as a log may fail under it
	onFence []func(error)
}

// OpenDirectory locks a data directory, making it if need be. vfs.ErrLocked says
// that another process uses it.
func OpenDirectory(env Env, root string) (*Directory, error) {
	env.fill()
	if env.Files == nil {
		env.Files = NewFileCache(DefaultOpenFiles)
	}
	d := &Directory{env: env, root: root, logs: make(map[string]*Log)}
	d.env.directory = d
	d.remover.init(d)
	if err := d.open(); err != nil {
		d.remover.close()
		if d.lock != nil {
			d.lock.Close()
		}
		return nil, fmt.Errorf("storage: open data directory %s: %w", root, err)
	}
	return d, nil
}

func (d *Directory) open() error {
	if err := makeDir(d.env.FS, d.root); err != nil {
		return err
	}
	lock, err := d.env.FS.Lock(path.Join(d.root, lockName))
	if err != nil {
		return err
	}
	d.lock = lock
	marker := path.Join(d.root, cleanName)
	switch _, err := d.env.FS.Stat(marker); {
	case err == nil:
		d.clean = true
		if err := d.env.FS.Remove(marker); err != nil {
			return err
		}
		if err := d.env.FS.SyncDir(d.root); err != nil {
			return err
		}
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	names, err := d.env.FS.List(d.root)
	if err != nil {
		return err
	}
	var deleted []string
	for _, name := range names {
		if n, ok := parseDeleted(name); ok {
			deleted = append(deleted, path.Join(d.root, name))
			d.deletes = max(d.deletes, n)
		}
	}
	d.remover.add(deleted...)
	return nil
}

// Root returns the path of the directory.
func (d *Directory) Root() string { return d.root }

// Clean reports whether the directory had been closed cleanly before it was opened.
func (d *Directory) Clean() bool { return d.clean }

// Damaged returns why the directory takes no writes, nil when it does.
func (d *Directory) Damaged() error {
	if f := d.fenced.Load(); f != nil {
		return f
	}
	return nil
}

// OnFence has f called, once, when the directory becomes fenced. f must not block.
func (d *Directory) OnFence(f func(cause error)) {
	d.fenceMu.Lock()
	d.onFence = append(d.onFence, f)
	d.fenceMu.Unlock()
}

// fence ends all writes to the directory, for good.
func (d *Directory) fence(cause error) error {
	if !d.fenced.CompareAndSwap(nil, &fencedError{dir: d.root, cause: cause}) {
		return d.fenced.Load()
	}
	d.env.Logger.Error().Err(cause).Str("directory", d.root).
		Msg("the disk failed; the data directory takes no more writes. Check the disk and restart the broker")
	d.fenceMu.Lock()
	told := slices.Clone(d.onFence)
	d.fenceMu.Unlock()
	for _, f := range told {
		f(cause)
	}
	return d.fenced.Load()
}

// Space returns the size of the disk, and how many bytes of it can still be written.
func (d *Directory) Space() (free, total uint64, err error) { return d.env.FS.Space(d.root) }

// List returns the logs on disk, by topic and partition.
func (d *Directory) List() ([]LogID, error) {
	names, err := d.env.FS.List(d.root)
	if err != nil {
		return nil, fmt.Errorf("storage: list %s: %w", d.root, err)
	}
	var list []LogID
	for _, name := range names {
		topic, partition, ok := parseLogDir(name)
		if !ok {
			continue
		}
		id, err := d.readTopicID(name)
		if err != nil {
			d.env.Logger.Warn().Err(err).Msg("the topic id of a log cannot be read; if the log is empty it is written anew")
		}
		list = append(list, LogID{Topic: topic, Partition: partition, TopicID: id})
	}
	slices.SortFunc(list, func(a, b LogID) int {
		if c := strings.Compare(a.Topic, b.Topic); c != 0 {
			return c
		}
		return int(a.Partition) - int(b.Partition)
	})
	return list, nil
}

func logDirName(topic string, partition int32) string { return fmt.Sprintf("%s-%d", topic, partition) }

// Log opens the log of a partition, or makes it with the topic's id. One that is
// open already is returned as it is. A log on disk with another topic id belongs
// to a topic that was deleted; ErrStaleLog says so, and Delete removes it.
func (d *Directory) Log(id LogID, cfg Config) (*Log, error) {
	name := logDirName(id.Topic, id.Partition)
	if id.Topic == "" || id.Topic == "." || id.Topic == ".." || strings.ContainsAny(id.Topic, "/\\\x00") || id.Partition < 0 {
		return nil, fmt.Errorf("storage: %q is no name of a log", name)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, fmt.Errorf("%w: %s", ErrClosed, d.root)
	}
	if l, ok := d.logs[name]; ok {
		return l, nil
	}
	dir := path.Join(d.root, name)
	if _, err := d.env.FS.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		if err := d.Damaged(); err != nil {
			return nil, err
		}
		if err := d.create(dir, id.TopicID); err != nil {
			return nil, fmt.Errorf("storage: create %s: %w", dir, err)
		}
	} else if err != nil {
		return nil, fmt.Errorf("storage: open %s: %w", dir, err)
	} else if found, err := d.readTopicID(name); err != nil && (!errors.Is(err, errTopicID) || d.wasSynced(dir)) {
		return nil, err
	} else if err != nil || found == [16]byte{} {
		// Made by a log that stood alone, or by a crash before the first batch.
		if err := d.writeTopicID(dir, id.TopicID); err != nil {
			return nil, fmt.Errorf("storage: write %s of %s: %w", partitionMetadata, dir, err)
		}
	} else if found != id.TopicID {
		return nil, fmt.Errorf("%w: %s has topic id %s, wanted %s", ErrStaleLog, dir, formatTopicID(found), formatTopicID(id.TopicID))
	}
	l, err := open(&d.env, dir, cfg)
	if err != nil {
		return nil, err
	}
	d.logs[name] = l
	return l, nil
}

// ErrStaleLog says that a directory holds the log of a topic that had the same
// name and was deleted.
var ErrStaleLog = errors.New("storage: log of a deleted topic of the same name")

// wasSynced reports whether a log has, or may have, ever been synced. If not,
// nothing in it was acknowledged, and a crash may have left its files in pieces.
func (d *Directory) wasSynced(dir string) bool {
	names, err := d.env.FS.List(dir)
	if err != nil || slices.Contains(names, recoveryPointName) {
		return true
	}
	segments := 0
	for _, name := range names {
		base, ok := parseSegmentName(name, logSuffix)
		if !ok {
			continue
		}
		f, err := d.env.FS.Open(path.Join(dir, name))
		if err != nil {
			return true
		}
		size, err := f.Size()
		if err != nil {
			f.Close()
			return true
		}
		mark, marked, err := (&segment{base: base}).readMark(f, size)
		f.Close()
		if segments++; err != nil || segments > 1 || marked && mark.offset > base {
			return true
		}
	}
	return false
}

func (d *Directory) create(dir string, id [16]byte) error {
	if err := d.env.FS.MkdirAll(dir); err != nil {
		return err
	}
	return d.writeTopicID(dir, id)
}

// abandon lets go of a log that is to be deleted, without making it durable.
func (l *Log) abandon() {
	l.syncMu.Lock()
	defer l.syncMu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.readMu.Lock()
	defer l.readMu.Unlock()
	for _, s := range l.segments {
		s.drop()
	}
}

// Close closes all logs, leaves the marker of a clean shutdown, if it was one, and
// unlocks the directory. Deleted logs whose files are not removed yet are removed
// after the next OpenDirectory.
func (d *Directory) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil
	}
	d.closed = true
	d.remover.close()
	var failed []error
	if err := d.closeTogether(); err != nil {
		failed = append(failed, err)
	}
	for _, name := range sortedNames(d.logs) {
		if err := d.logs[name].Close(); err != nil {
			failed = append(failed, err)
		}
	}
	if len(failed) == 0 && d.Damaged() == nil {
		if err := writeFileDurably(d.env.FS, path.Join(d.root, cleanName), []byte(`{"version":0,"brokerEpoch":-1}`)); err != nil {
			failed = append(failed, fmt.Errorf("storage: mark %s as cleanly closed: %w", d.root, err))
		}
	}
	if err := d.lock.Close(); err != nil {
		failed = append(failed, fmt.Errorf("storage: unlock %s: %w", d.root, err))
	}
	return errors.Join(failed...)
}

// closeTogether does what closing each log does, with a few syncs of the whole
// file system in place of several for each log, when there are many.
func (d *Directory) closeTogether() error {
	var logs []*Log
	for _, name := range sortedNames(d.logs) {
		if l := d.logs[name]; l.Damaged() == nil && l.needsCheckpoint() {
			logs = append(logs, l)
		}
	}
	if len(logs) < syncAllFrom || d.Damaged() != nil {
		return nil
	}
	// Each step relies on the one before to be durable.
	for _, step := range []func(*Log) error{(*Log).closeDerived, (*Log).closePoint, (*Log).closeTail} {
		for _, l := range logs {
			if err := step(l); err != nil {
				return err
			}
		}
		if err := d.env.FS.SyncAll(d.root); err != nil {
			return d.fence(fmt.Errorf("storage: sync %s: %w", d.root, err))
		}
	}
	return nil
}

func sortedNames(logs map[string]*Log) []string {
	names := make([]string, 0, len(logs))
	for name := range logs {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// A partition.metadata file tells the topic's id:
//
//	version: 0
//	topic_id: <base64url without padding>
//
// It is durable when the log's first batch is. Until then a crash may leave a
// file that cannot be read.
func (d *Directory) writeTopicID(dir string, id [16]byte) error {
	if id == [16]byte{} {
		return nil
	}
	return writeFile(d.env.FS, path.Join(dir, partitionMetadata), encodeTopicID(id), false)
}

func formatTopicID(id [16]byte) string { return base64.RawURLEncoding.EncodeToString(id[:]) }

func encodeTopicID(id [16]byte) []byte {
	return fmt.Appendf(nil, "version: %d\ntopic_id: %s\n", metadataFileVersion, formatTopicID(id))
}

var errTopicID = errors.New("storage: partition.metadata is malformed")

func decodeTopicID(data []byte) (id [16]byte, err error) {
	version, found := "", ""
	for line := range strings.Lines(string(data)) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), ": ")
		switch {
		case ok && name == "version" && version == "":
			version = value
		case ok && name == "topic_id" && found == "":
			found = value
		default:
			return id, fmt.Errorf("%w: line %.60q", errTopicID, line)
		}
	}
	raw, err := base64.RawURLEncoding.DecodeString(found)
	if version != "0" || err != nil || len(raw) != len(id) {
		return id, fmt.Errorf("%w: version %.20q, topic id %.60q", errTopicID, version, found)
	}
	copy(id[:], raw)
	return id, nil
}

// readTopicID returns the topic id of a log on disk, zero when there is none.
func (d *Directory) readTopicID(name string) (id [16]byte, err error) {
	data, err := readFile(d.env.FS, path.Join(d.root, name, partitionMetadata), maxPartitionMetadata)
	if errors.Is(err, fs.ErrNotExist) {
		return id, nil
	}
	switch {
	case err == nil:
		id, err = decodeTopicID(data)
	case errors.Is(err, errFileTooLarge):
		err = fmt.Errorf("%w: %w", errTopicID, err)
	}
	if err != nil {
		return id, fmt.Errorf("storage: read %s of %s: %w", partitionMetadata, path.Join(d.root, name), err)
	}
	return id, nil
}
