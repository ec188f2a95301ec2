package badgerstore

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
	"github.com/dgraph-io/badger/v4/table"
	"github.com/dgraph-io/ristretto/v2/z"
)

const (
	manifestName  = badger.ManifestFilename
	tableSuffix   = ".sst"
	writeAheadExt = ".mem"
	valueLogExt   = ".vlog"
)

func isLog(name string) bool {
	return strings.HasSuffix(name, writeAheadExt) || strings.HasSuffix(name, valueLogExt)
}

// readManifest returns the tables that the MANIFEST in dir names, sorted, and the
// length of its valid part.
func readManifest(dir string) (tables []string, size int64, err error) {
	f, err := os.Open(filepath.Join(dir, manifestName))
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	manifest, size, err := badger.ReplayManifestFile(f, 0, badger.DefaultOptions(dir).WithLogger(nil))
	if err != nil {
		return nil, 0, fmt.Errorf("MANIFEST: %w", err)
	}
	for id := range manifest.Tables {
		tables = append(tables, table.IDToFilename(id))
	}
	slices.Sort(tables)
	return tables, size, nil
}

// inventoryAttempts is how often inventory starts over because a flush or a
// compaction changed the files under it.
const inventoryAttempts = 20

// inventory marks all files of the database in dir and syncs its logs. known are
// marks from before: of tables they are taken as they are, of logs they are
// where the walk begins. Flushes and compactions may run meanwhile; the answer
// is consistent with one state of the MANIFEST.
func inventory(dir string, known []fileMark) ([]fileMark, error) {
	byName := make(map[string]fileMark, len(known))
	for _, m := range known {
		byName[m.name] = m
	}
	var err error
	for range inventoryAttempts {
		var marks []fileMark
		marks, err = markFiles(dir, byName)
		if err == nil {
			return marks, nil
		}
		if !errors.Is(err, errChanged) && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return nil, err
}

var errChanged = errors.New("the MANIFEST changed while the files were listed")

func markFiles(dir string, known map[string]fileMark) ([]fileMark, error) {
	tables, manifestSize, err := readManifest(dir)
	if err != nil {
		return nil, err
	}
	manifest, err := prefixMark(filepath.Join(dir, manifestName), manifestSize)
	if err != nil {
		return nil, err
	}
	manifest.name = manifestName
	marks := []fileMark{manifest}
	for _, name := range tables {
		mark, ok := known[name]
		if !ok {
			if mark, err = prefixMark(filepath.Join(dir, name), math.MaxInt64); err != nil {
				return nil, err
			}
			mark.name = name
			known[name] = mark
		}
		marks = append(marks, mark)
	}
	names, err := logs(dir)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		mark, err := markLog(filepath.Join(dir, name), known[name])
		if err != nil {
			return nil, err
		}
		mark.name = name
		marks = append(marks, mark)
	}
	if _, size, err := readManifest(dir); err != nil || size != manifestSize {
		return nil, errors.Join(errChanged, err)
	}
	slices.SortFunc(marks, func(a, b fileMark) int { return strings.Compare(a.name, b.name) })
	return marks, nil
}

// markLog syncs a log and marks it. Badger's own Sync leaves out the logs of
// memtables that wait for their flush.
func markLog(path string, known fileMark) (fileMark, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return fileMark{}, err
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return fileMark{}, fmt.Errorf("sync %s: %w", path, err)
	}
	return logMark(f, known)
}

// logs lists the logs in dir, sorted by name.
func logs(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if isLog(e.Name()) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// removeEmptyLogs finishes what a crash interrupted: Badger cuts a log to nothing
// before it removes it, and does not open a database with such a log. Whether
// the log's contents are elsewhere is for verify and verifyOpened to find out.
func removeEmptyLogs(dir string) error {
	names, err := logs(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		path := filepath.Join(dir, name)
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		if info.Size() == 0 {
			if err := os.Remove(path); err != nil {
				return err
			}
		}
	}
	return nil
}

// verify says how the files of the database in dir contradict its checkpoint, nil
// when they do not.
func verify(dir string, c *checkpoint) error {
	byName := make(map[string]fileMark, len(c.files))
	for _, m := range c.files {
		byName[m.name] = m
	}
	if _, ok := byName[manifestName]; !ok {
		return fmt.Errorf("the checkpoint does not list the MANIFEST")
	}
	for _, m := range c.files {
		if strings.HasSuffix(m.name, tableSuffix) {
			continue // some may be gone: the MANIFEST says which must be there
		}
		err := verifyPrefix(dir, m)
		if errors.Is(err, fs.ErrNotExist) && mayBeGone(m) {
			continue
		}
		if err != nil {
			return err
		}
	}
	tables, _, err := readManifest(dir)
	if err != nil {
		return err
	}
	for _, name := range tables {
		if err := verifyTable(dir, name, byName); err != nil {
			return err
		}
	}
	return nil
}

// mayBeGone is true for files that Badger removes in its normal course: a
// write-ahead log once its memtable is a table (the checkpoint's number in the
// database tells whether it is), and value logs with nothing in them.
func mayBeGone(m fileMark) bool {
	return strings.HasSuffix(m.name, writeAheadExt) ||
		strings.HasSuffix(m.name, valueLogExt) && m.size <= logHeaderSize
}

func verifyPrefix(dir string, want fileMark) error {
	got, err := prefixMark(filepath.Join(dir, want.name), want.size)
	switch {
	case err != nil:
		return err
	case got.size != want.size:
		return fmt.Errorf("%s has %d bytes, at the checkpoint it had %d", want.name, got.size, want.size)
	case got.crc != want.crc:
		return fmt.Errorf("%s: the checksum of its first %d bytes is %08x, at the checkpoint it was %08x",
			want.name, want.size, got.crc, want.crc)
	}
	return nil
}

func verifyTable(dir, name string, marks map[string]fileMark) error {
	info, err := os.Stat(filepath.Join(dir, name))
	if err != nil {
		return err
	}
	want, ok := marks[name]
	if !ok {
		return checkNewTable(filepath.Join(dir, name), info.Size())
	}
	if info.Size() != want.size {
		return fmt.Errorf("%s has %d bytes, at the checkpoint it had %d", name, info.Size(), want.size)
	}
	return verifyPrefix(dir, want)
}

// checkNewTable reads a table through Badger's checksums. Badger panics on some
// damage; here that is an error.
func checkNewTable(path string, size int64) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%s cannot be read", filepath.Base(path))
		}
	}()
	if size == 0 {
		return fmt.Errorf("%s is empty", filepath.Base(path))
	}
	f, err := z.OpenMmapFile(path, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	t, err := table.OpenTable(f, table.Options{ChkMode: options.OnTableRead, Compression: options.None})
	if err != nil {
		return err
	}
	return t.Close(-1)
}
