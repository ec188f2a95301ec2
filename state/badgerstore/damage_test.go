package badgerstore

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/leatlog/leat/state"
	"github.com/leatlog/leat/state/internal/statetest"
)

// image is the directory of a store as a crash would leave it, and what is in it.
type image struct {
	dir        string
	position   int64
	checkpoint statetest.Model // at the last checkpoint
	later      map[string]bool // "key=value" of all writes after it
	marks      []fileMark
}

// writeBatches puts n batches of 20 keys with values of about size bytes.
func writeBatches(t testing.TB, e *engine, m statetest.Model, n, size int, written map[string]bool) {
	t.Helper()
	for i := range n {
		b := &state.Batch{}
		for j := range 20 {
			key := fmt.Appendf(nil, "key-%03d", (len(m)*7+i*20+j)%400)
			value := fmt.Appendf(nil, "%d-%d-%s", len(m), i, strings.Repeat("x", size))
			b.Put(key, value)
			if written != nil {
				written[string(key)+"="+string(value)] = true
			}
		}
		must(t, e.Apply(b))
		m.Apply(b)
	}
}

// takeImage makes a store with tables, a value log and a write-ahead log, a
// checkpoint, and writes after it; and copies it while it is open.
func takeImage(t testing.TB, after int) image {
	t.Helper()
	b, _ := open(t, t.TempDir())
	b.config.MemoryBytes = 1 << 20
	e, m := openStore(t, b), statetest.Model{}
	writeBatches(t, e, m, 40, 3000, nil) // more than two memtables
	large := &state.Batch{}
	large.Put([]byte("large"), bytes.Repeat([]byte("large value "), 10_000))
	must(t, e.Apply(large))
	m.Apply(large)
	must(t, e.Checkpoint(state.Position{Offset: 42, LeaderEpoch: 1}))
	i := image{dir: t.TempDir(), position: 42, checkpoint: maps.Clone(m), later: map[string]bool{}, marks: e.marks}
	writeBatches(t, e, m, after, 3000, i.later)
	e.awaitFlush()
	copyTree(t, e.dir, filepath.Join(i.dir, "0_0", statetest.Spec.Name))
	return i
}

// copyTree copies files and leaves the zeros at their ends sparse.
func copyTree(t testing.TB, from, to string) {
	t.Helper()
	must(t, filepath.WalkDir(from, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, relative)
		if d.IsDir() {
			return os.MkdirAll(target, 0o755)
		}
		return copySparse(path, target)
	}))
}

// copySparse copies a file and leaves blocks of zeros out. No file of these tests
// has anything but zeros after its first 4 MiB.
func copySparse(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	content := make([]byte, min(info.Size(), 4<<20))
	if _, err := io.ReadFull(in, content); err != nil {
		return err
	}
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	const block = 64 << 10
	zeros := make([]byte, block)
	for at := 0; at < len(content); at += block {
		if b := content[at:min(at+block, len(content))]; !bytes.Equal(b, zeros[:len(b)]) {
			if _, err := out.WriteAt(b, int64(at)); err != nil {
				return errors.Join(err, out.Close())
			}
		}
	}
	return errors.Join(out.Truncate(info.Size()), out.Close())
}

// reopen opens a copy of the image after damage was done to it; rebuilt is true when
// the engine came up empty. An engine that did not is checked against the image.
func (i image) reopen(t testing.TB, name string, damage func(store string)) (rebuilt bool, log string) {
	t.Helper()
	dir := t.TempDir()
	copyTree(t, i.dir, dir)
	damage(filepath.Join(dir, "0_0", statetest.Spec.Name))
	b, logged := open(t, dir)
	opened, err := b.Open(context.Background(), "0_0", statetest.Spec)
	if err != nil {
		t.Fatalf("%s: open: %v", name, err)
	}
	defer func() { must(t, b.Close()) }()
	defer func() { must(t, opened.Close()) }()
	position, found := opened.Position()
	if !found {
		statetest.MustEqual(t, opened, statetest.Model{})
		return true, logged.String()
	}
	if position.Offset != i.position {
		t.Fatalf("%s: position %v, want %d", name, position, i.position)
	}
	// What was written after the checkpoint may be there or not; the checkpoint's
	// contents must be.
	for key, want := range i.checkpoint {
		got, exists, err := opened.Get(nil, []byte(key))
		must(t, err)
		if !exists || string(got) != want && !i.later[key+"="+string(got)] {
			t.Fatalf("%s: %s = %.30q, want %.30q: %s", name, key, got, want, logged)
		}
	}
	return false, logged.String()
}

func (i image) mark(suffix string) fileMark {
	for _, m := range i.marks {
		if strings.HasSuffix(m.name, suffix) {
			return m
		}
	}
	panic("the image has no " + suffix)
}

func flip(t testing.TB, path string, offset int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	var b [1]byte
	_, err = f.ReadAt(b[:], offset)
	must(t, err)
	b[0] ^= 1 << (offset % 8)
	_, err = f.WriteAt(b[:], offset)
	must(t, err)
}

func TestDamageIsFoundAndTheStoreIsRebuilt(t *testing.T) {
	i := takeImage(t, 3)
	database := func(store, name string) string { return filepath.Join(databaseDir(store), name) }
	table, wal, vlog, manifest := i.mark(tableSuffix), i.mark(writeAheadExt), i.mark(valueLogExt), i.mark(manifestName)
	for _, c := range []struct {
		name   string
		damage func(store string)
	}{
		{"directory deleted", func(s string) { must(t, os.RemoveAll(s)) }},
		{"database deleted", func(s string) { must(t, os.RemoveAll(databaseDir(s))) }},
		{"MANIFEST deleted", func(s string) { must(t, os.Remove(database(s, manifestName))) }},
		{"MANIFEST empty", func(s string) { must(t, os.Truncate(database(s, manifestName), 0)) }},
		{"MANIFEST cut to its header", func(s string) { must(t, os.Truncate(database(s, manifestName), 8)) }},
		{"MANIFEST cut by a byte", func(s string) { must(t, os.Truncate(database(s, manifestName), manifest.size-1)) }},
		{"MANIFEST flipped", func(s string) { flip(t, database(s, manifestName), manifest.size/2) }},
		{"table deleted", func(s string) { must(t, os.Remove(database(s, table.name))) }},
		{"table cut", func(s string) { must(t, os.Truncate(database(s, table.name), table.size/2)) }},
		{"table empty", func(s string) { must(t, os.Truncate(database(s, table.name), 0)) }},
		{"table's data flipped", func(s string) { flip(t, database(s, table.name), 100) }},
		{"table's index flipped", func(s string) { flip(t, database(s, table.name), table.size-60) }},
		{"table's last byte flipped", func(s string) { flip(t, database(s, table.name), table.size-1) }},
		{"write-ahead log deleted", func(s string) { must(t, os.Remove(database(s, wal.name))) }},
		{"write-ahead log empty", func(s string) { must(t, os.Truncate(database(s, wal.name), 0)) }},
		{"write-ahead log cut", func(s string) { must(t, os.Truncate(database(s, wal.name), wal.size-1)) }},
		{"write-ahead log flipped at its begin", func(s string) { flip(t, database(s, wal.name), 25) }},
		{"write-ahead log flipped at its end", func(s string) { flip(t, database(s, wal.name), wal.size-1) }},
		{"value log deleted", func(s string) { must(t, os.Remove(database(s, vlog.name))) }},
		{"value log flipped", func(s string) { flip(t, database(s, vlog.name), vlog.size/2) }},
		{"checkpoint empty", func(s string) { must(t, os.Truncate(filepath.Join(s, checkpointName), 0)) }},
		{"checkpoint cut", func(s string) { must(t, os.Truncate(filepath.Join(s, checkpointName), 40)) }},
		{"checkpoint flipped", func(s string) { flip(t, filepath.Join(s, checkpointName), 12) }},
		{"checkpoint deleted", func(s string) { must(t, os.Remove(filepath.Join(s, checkpointName))) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			rebuilt, log := i.reopen(t, c.name, c.damage)
			if !rebuilt {
				t.Fatal("the damage was not found")
			}
			warned := strings.Contains(log, "rebuilt from its changelog")
			if quiet := c.name == "directory deleted" || c.name == "checkpoint deleted"; warned == quiet {
				t.Errorf("log: %q", log)
			}
		})
	}
}

func TestCrashIsNoDamage(t *testing.T) {
	t.Parallel()
	for _, after := range []int{0, 3, 40} {
		i := takeImage(t, after)
		for name, damage := range map[string]func(store string){
			"as it is": func(string) {},
			"write-ahead log lost what was not synced": func(s string) {
				wal := i.mark(writeAheadExt)
				path := filepath.Join(databaseDir(s), wal.name)
				if _, err := os.Stat(path); err == nil {
					must(t, os.Truncate(path, wal.size))
				}
			},
			"temporary files": func(s string) {
				must(t, os.WriteFile(filepath.Join(s, checkpointName+".new"), []byte("half"), 0o644))
				must(t, os.WriteFile(filepath.Join(databaseDir(s), "009999.sst"), []byte("half a table"), 0o644))
			},
		} {
			if rebuilt, log := i.reopen(t, name, damage); rebuilt {
				t.Errorf("%d batches after the checkpoint, %s: rebuilt without need: %s", after, name, log)
			}
		}
	}
}

// A flush after the checkpoint moves what the checkpoint counts on from a log to
// a table. When the MANIFEST then loses that table, all that is left looks whole.
func TestLostFlushIsFound(t *testing.T) {
	t.Parallel()
	i := takeImage(t, 40)
	rebuilt, log := i.reopen(t, "MANIFEST cut to the checkpoint", func(s string) {
		must(t, os.Truncate(filepath.Join(databaseDir(s), manifestName), i.mark(manifestName).size))
	})
	if !rebuilt || !strings.Contains(log, "older than checkpoint") && !strings.Contains(log, "does not know checkpoint") {
		t.Errorf("rebuilt %v: %s", rebuilt, log)
	}
}

func TestNewTableIsChecked(t *testing.T) {
	t.Parallel()
	i := takeImage(t, 40)
	known := map[string]bool{}
	for _, m := range i.marks {
		known[m.name] = true
	}
	for _, offset := range []int64{50, 5000, -1, -70} {
		rebuilt, _ := i.reopen(t, "new table flipped", func(s string) {
			tables, _, err := readManifest(databaseDir(s))
			must(t, err)
			for _, name := range tables {
				if known[name] {
					continue
				}
				path := filepath.Join(databaseDir(s), name)
				info, err := os.Stat(path)
				must(t, err)
				flip(t, path, (offset+info.Size())%info.Size())
				return
			}
			t.Fatal("there is no table that the checkpoint does not know")
		})
		if !rebuilt {
			t.Errorf("offset %d: the damage was not found", offset)
		}
	}
}

func TestOldFilesWithNewCheckpointAreFound(t *testing.T) {
	t.Parallel()
	i, later := takeImage(t, 0), takeImage(t, 0)
	rebuilt, _ := i.reopen(t, "newer checkpoint", func(s string) {
		c, err := readCheckpoint(filepath.Join(later.dir, "0_0", statetest.Spec.Name))
		must(t, err)
		old, err := readCheckpoint(s)
		must(t, err)
		c.files, c.number = old.files, old.number+1 // as if only the database had been restored
		must(t, writeCheckpoint(s, c))
	})
	if !rebuilt {
		t.Error("the damage was not found")
	}
}

func TestAnotherKindOfStoreStartsOver(t *testing.T) {
	b, log := open(t, t.TempDir())
	e := openStore(t, b)
	must(t, e.Apply(statetest.Build("a=1")))
	must(t, e.Checkpoint(state.Position{Offset: 1}))
	must(t, e.Close())
	window := state.Spec{Name: statetest.Spec.Name, Kind: state.Window, WindowSize: 1e9, Retention: 1e9}
	opened := statetest.OpenTask(t, b, "0_0", window)
	if _, found := opened.Position(); found || !strings.Contains(log.String(), "of a key-value store") {
		t.Errorf("found %v: %s", found, log)
	}
	statetest.MustEqual(t, opened, statetest.Model{})
}

// TestFlippedBitsNeverGiveAWrongAnswer flips one bit at a time at seeded places of
// every file. LEAT_FLIPS says how many for each.
func TestFlippedBitsNeverGiveAWrongAnswer(t *testing.T) {
	i := takeImage(t, 0)
	random := rand.New(rand.NewPCG(3, 4))
	store := filepath.Join(i.dir, "0_0", statetest.Spec.Name)
	var files []string
	must(t, filepath.WalkDir(store, func(path string, d os.DirEntry, err error) error {
		if !d.IsDir() {
			files = append(files, strings.TrimPrefix(path, store))
		}
		return err
	}))
	flips, err := strconv.Atoi(cmp.Or(os.Getenv("LEAT_FLIPS"), "1"))
	must(t, err)
	var found atomic.Int64
	for _, name := range files {
		info, err := os.Stat(store + name)
		must(t, err)
		for range flips {
			if info.Size() == 0 {
				continue
			}
			offset := random.Int64N(min(info.Size(), 64<<10))
			t.Run(fmt.Sprintf("%s at %d", name, offset), func(t *testing.T) {
				t.Parallel()
				if rebuilt, _ := i.reopen(t, "flipped", func(s string) { flip(t, s+name, offset) }); rebuilt {
					found.Add(1)
				}
			})
		}
	}
	t.Cleanup(func() {
		if found.Load() == 0 {
			t.Error("no flip was found")
		}
	})
}

func TestFlipWhileOpenIsReportedAndRepaired(t *testing.T) {
	b, log := open(t, t.TempDir())
	e := openStore(t, b)
	must(t, e.Apply(statetest.Build("key=a value to be found in the table", "other=1")))
	must(t, e.Checkpoint(state.Position{Offset: 1}))
	must(t, e.Close())
	e = openStore(t, b) // now the data is in a table
	tables, _, err := readManifest(databaseDir(e.dir))
	must(t, err)
	path := filepath.Join(databaseDir(e.dir), tables[0])
	content, err := os.ReadFile(path)
	must(t, err)
	flip(t, path, int64(bytes.Index(content, []byte("to be found"))))
	_, _, err = e.Get(nil, []byte("key"))
	if !errors.Is(err, state.ErrDamaged) {
		t.Errorf("get = %v, want ErrDamaged", err)
	}
	if err := e.Scan(nil, nil, false, func(_, _ []byte) bool { return true }); !errors.Is(err, state.ErrDamaged) {
		t.Errorf("scan = %v, want ErrDamaged", err)
	}
	must(t, e.Close())
	if !strings.Contains(log.String(), "the store is damaged") {
		t.Errorf("log: %s", log)
	}
	e = openStore(t, b)
	if _, found := e.Position(); found {
		t.Error("the damaged store was opened again")
	}
}

func FuzzDecodeCheckpoint(f *testing.F) {
	c := &checkpoint{kind: state.Window, position: state.Position{Offset: 7, LeaderEpoch: 2}, number: 3, files: []fileMark{
		{name: "000001.sst", size: 10, crc: 1}, {name: manifestName, size: 100, crc: 2},
	}}
	f.Add(c.encode(nil))
	f.Add((&checkpoint{}).encode(nil))
	f.Add([]byte(checkpointMagic))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := decodeCheckpoint(b)
		if err != nil {
			if !errors.Is(err, errCheckpoint) {
				t.Fatalf("error %v does not wrap errCheckpoint", err)
			}
			return
		}
		if again := c.encode(nil); !bytes.Equal(again, b) {
			t.Fatalf("%x decodes to %+v, which encodes to %x", b, c, again)
		}
	})
}

func TestCheckpointEndsAreChecked(t *testing.T) {
	c := &checkpoint{position: state.Position{Offset: 1}, files: []fileMark{{name: "a", size: 1}, {name: "b", size: 2}}}
	whole := c.encode(nil)
	for n := range whole {
		if _, err := decodeCheckpoint(whole[:n]); !errors.Is(err, errCheckpoint) {
			t.Fatalf("%d of %d bytes: %v", n, len(whole), err)
		}
	}
	for name, bad := range map[string]*checkpoint{
		"negative offset": {position: state.Position{Offset: -1}},
		"order":           {files: []fileMark{{name: "b"}, {name: "a"}}},
		"twice":           {files: []fileMark{{name: "a"}, {name: "a"}}},
		"path":            {files: []fileMark{{name: "../a"}}},
		"no name":         {files: []fileMark{{}}},
		"size":            {files: []fileMark{{name: "a", size: -1}}},
	} {
		if _, err := decodeCheckpoint(bad.encode(nil)); !errors.Is(err, errCheckpoint) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
