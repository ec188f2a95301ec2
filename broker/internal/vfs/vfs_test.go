package vfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func write(t testing.TB, f File, data string, off int64) {
	t.Helper()
	if n, err := f.WriteAt([]byte(data), off); err != nil || n != len(data) {
		t.Fatalf("write %d bytes: %d, %v", len(data), n, err)
	}
}

func must(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func create(t testing.TB, disk FS, name, data string) File {
	t.Helper()
	f, err := disk.Create(name)
	must(t, err)
	write(t, f, data, 0)
	return f
}

func content(t testing.TB, disk FS, name string) string {
	t.Helper()
	f, err := disk.Open(name)
	must(t, err)
	size, err := f.Size()
	must(t, err)
	data, err := io.ReadAll(io.NewSectionReader(f, 0, size))
	must(t, err, f.Close())
	return string(data)
}

// TestConformance holds every file system to the contract of FS and File.
func TestConformance(t *testing.T) {
	systems := map[string]func(t *testing.T) (FS, string){
		"os":  func(t *testing.T) (FS, string) { return OS{}, filepath.ToSlash(t.TempDir()) },
		"mem": func(*testing.T) (FS, string) { return NewMem(), "/root" },
		"faulty": func(*testing.T) (FS, string) {
			return NewFaulty(NewMem(), func(Operation) error { return nil }), "/root"
		},
	}
	checks := map[string]func(t *testing.T, disk FS, dir string){
		"names": checkNames, "bytes": checkBytes, "directories": checkDirectories, "locks": checkLocks,
	}
	for system, make := range systems {
		for name, check := range checks {
			t.Run(system+"/"+name, func(t *testing.T) {
				disk, dir := make(t)
				must(t, disk.MkdirAll(dir))
				check(t, disk, dir)
			})
		}
	}
}

func checkNames(t *testing.T, disk FS, dir string) {
	a, b := path.Join(dir, "a"), path.Join(dir, "b")
	if _, err := disk.Open(a); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("open a missing file: %v", err)
	}
	must(t, create(t, disk, a, "one").Close(), create(t, disk, b, "two").Close())
	if _, err := disk.Create(a); !errors.Is(err, fs.ErrExist) {
		t.Errorf("create an existing file: %v", err)
	}
	must(t, disk.Rename(a, b))
	if got := content(t, disk, b); got != "one" {
		t.Errorf("after rename b is %q", got)
	}
	if err := disk.Rename(a, b); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("rename a missing file: %v", err)
	}
	if _, err := disk.Stat(a); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("stat a missing file: %v", err)
	}
	must(t, disk.Remove(b))
	if err := disk.Remove(b); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("remove a missing file: %v", err)
	}
	var pathErr *fs.PathError
	if err := disk.Remove(b); !errors.As(err, &pathErr) || !strings.Contains(err.Error(), "b") {
		t.Errorf("error %v does not name the file", err)
	}
}

func checkBytes(t *testing.T, disk FS, dir string) {
	name := path.Join(dir, "f")
	f := create(t, disk, name, "hello")
	write(t, f, "world", 8)
	buffer := make([]byte, 20)
	if n, err := f.ReadAt(buffer, 0); n != 13 || err != io.EOF || string(buffer[:n]) != "hello\x00\x00\x00world" {
		t.Errorf("read %q, %v", buffer[:n], err)
	}
	if n, err := f.ReadAt(buffer[:5], 8); n != 5 || (err != nil && err != io.EOF) {
		t.Errorf("read to the end: %d, %v", n, err)
	}
	must(t, f.Truncate(3), f.Sync(), f.Preallocate(10))
	if size, err := f.Size(); size != 10 || err != nil {
		t.Errorf("size %d, %v", size, err)
	}
	must(t, f.Preallocate(4))
	if got := content(t, disk, name); got != "hel\x00\x00\x00\x00\x00\x00\x00" {
		t.Errorf("content %q: what was cut off must read as zeros", got)
	}
	must(t, disk.Remove(name))
	write(t, f, "still open", 0)
	must(t, f.Close())
	if _, err := f.ReadAt(buffer, 0); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("read a closed file: %v", err)
	}
	must(t, create(t, disk, name, "x").Close())
	r, err := disk.Open(name)
	must(t, err)
	if _, err := r.WriteAt([]byte("y"), 0); err == nil {
		t.Error("a file opened for reading was written")
	}
	must(t, r.Close())
	w, err := disk.OpenReadWrite(name)
	must(t, err)
	write(t, w, "z", 0)
	must(t, w.Close())
	if got := content(t, disk, name); got != "z" {
		t.Errorf("content %q", got)
	}
}

func checkDirectories(t *testing.T, disk FS, dir string) {
	sub := path.Join(dir, "x", "y")
	must(t, disk.MkdirAll(sub), disk.MkdirAll(sub))
	must(t, create(t, disk, path.Join(sub, "f"), "").Close(), create(t, disk, path.Join(dir, "a"), "").Close())
	names, err := disk.List(dir)
	if err != nil || !slices.Equal(names, []string{"a", "x"}) {
		t.Errorf("list: %v, %v", names, err)
	}
	info, err := disk.Stat(sub)
	if err != nil || !info.IsDir() {
		t.Errorf("stat: %v, %v", info, err)
	}
	if err := disk.Remove(sub); err == nil {
		t.Error("a directory with a file in it was removed")
	}
	must(t, disk.Rename(path.Join(dir, "x"), path.Join(dir, "z")), disk.SyncDir(dir))
	if got := content(t, disk, path.Join(dir, "z", "y", "f")); got != "" {
		t.Errorf("content %q", got)
	}
	must(t, disk.RemoveAll(path.Join(dir, "z")), disk.RemoveAll(path.Join(dir, "z")))
	if err := disk.SyncAll(dir); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		t.Error(err)
	}
	if _, err := disk.List(path.Join(dir, "z")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("list a removed directory: %v", err)
	}
	if free, total, err := disk.Space(dir); err != nil || free == 0 || total < free {
		t.Errorf("%d bytes free of %d, %v", free, total, err)
	}
}

func checkLocks(t *testing.T, disk FS, dir string) {
	name := path.Join(dir, ".lock")
	l, err := disk.Lock(name)
	must(t, err)
	if _, err := disk.Lock(name); !errors.Is(err, ErrLocked) {
		t.Errorf("second lock: %v", err)
	}
	must(t, l.Close())
	l, err = disk.Lock(name)
	must(t, err, l.Close())
}

func TestCrashKeepsWhatWasSynced(t *testing.T) {
	for seed := range uint64(50) {
		random := rand.New(rand.NewPCG(seed, 1))
		disk := NewMem()
		must(t, disk.MkdirAll("d"), disk.SyncDir("/"))
		f := create(t, disk, "d/synced", strings.Repeat("a", 3*BlockSize))
		must(t, f.Sync(), disk.SyncDir("d"))
		write(t, f, strings.Repeat("b", 2*BlockSize), BlockSize)
		lost := create(t, disk, "d/no-entry", "x")
		must(t, lost.Sync())
		must(t, disk.Rename("d/no-entry", "d/renamed"))

		strict := disk.Crash(nil)
		if names, err := strict.List("d"); err != nil || !slices.Equal(names, []string{"synced"}) {
			t.Fatalf("strict crash has %v, %v", names, err)
		}
		if got := content(t, strict, "d/synced"); got != strings.Repeat("a", 3*BlockSize) {
			t.Fatal("strict crash kept un-synced bytes or lost synced ones")
		}
		crashed := disk.Crash(random)
		got := content(t, crashed, "d/synced")
		for block := range 3 {
			part := got[block*BlockSize : (block+1)*BlockSize]
			if want := strings.Repeat(part[:1], BlockSize); part != want || (block == 0 && part[0] != 'a') {
				t.Fatalf("seed %d: block %d is torn", seed, block)
			}
		}
		if again := disk.Crash(rand.New(rand.NewPCG(seed, 1))); again.String() != crashed.String() {
			t.Fatalf("seed %d gives %s, then %s", seed, crashed, again)
		}
	}
}

func TestRenameReplacesAtomically(t *testing.T) {
	seen := map[string]int{}
	for seed := range uint64(40) {
		disk := NewMem()
		must(t, create(t, disk, "f", "old").Sync(), disk.SyncDir("/"))
		must(t, create(t, disk, "f.tmp", "new").Sync(), disk.Rename("f.tmp", "f"))
		seen[content(t, disk.Crash(rand.New(rand.NewPCG(seed, 2))), "f")]++
	}
	if len(seen) != 2 || seen["old"] == 0 || seen["new"] == 0 {
		t.Fatalf("after a crash f was %v", seen)
	}
}

// TestCrashAgainstModel writes, syncs and truncates a file at random and checks
// each block after a crash: it is what was last synced, or what was last written.
func TestCrashAgainstModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		disk := NewMem()
		f := create(t, disk, "f", "")
		must(t, disk.SyncDir("/"))
		var synced, current []byte
		for range rapid.IntRange(1, 20).Draw(rt, "steps") {
			switch rapid.IntRange(0, 4).Draw(rt, "step") {
			case 0:
				must(t, f.Sync())
				synced = bytes.Clone(current)
			default:
				off := rapid.IntRange(0, 4*BlockSize).Draw(rt, "offset")
				data := bytes.Repeat([]byte{byte(rapid.IntRange(1, 255).Draw(rt, "byte"))}, rapid.IntRange(1, 2*BlockSize).Draw(rt, "length"))
				write(t, f, string(data), int64(off))
				if grow := off + len(data) - len(current); grow > 0 {
					current = append(current, make([]byte, grow)...)
				}
				copy(current[off:], data)
			}
		}
		crashed := []byte(content(t, disk.Crash(rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 0))), "f"))
		if len(crashed) != len(synced) && len(crashed) != len(current) {
			rt.Fatalf("length %d, synced %d, current %d", len(crashed), len(synced), len(current))
		}
		at := func(b []byte, i int) byte {
			if i < len(b) {
				return b[i]
			}
			return 0
		}
		for from := 0; from < len(crashed); from += BlockSize {
			isOld, isNew := true, true
			for i := from; i < min(from+BlockSize, len(crashed)); i++ {
				isOld = isOld && crashed[i] == at(synced, i)
				isNew = isNew && crashed[i] == at(current, i)
			}
			if !isOld && !isNew {
				rt.Fatalf("block at %d is neither old nor new", from)
			}
		}
	})
}

// TestKillKeepsEverything kills a process in the midst of un-synced changes of
// all kinds: the next one sees them all, and gets the lock.
func TestKillKeepsEverything(t *testing.T) {
	disk := NewMem()
	must(t, disk.MkdirAll("d"), create(t, disk, "d/old", "old").Sync(), disk.SyncDir("d"), disk.SyncDir("/"))
	f := create(t, disk, "d/f", strings.Repeat("a", 2*BlockSize))
	must(t, f.Sync(), f.Truncate(10), f.Preallocate(BlockSize), disk.Rename("d/f", "d/g"), disk.Remove("d/old"))
	_, err := disk.Lock("d/lock")
	must(t, err)
	killed := disk.Kill()
	if got := content(t, killed, "d/g"); got != strings.Repeat("a", 10)+strings.Repeat("\x00", BlockSize-10) {
		t.Fatalf("content of %d bytes is not what was written", len(got))
	}
	if _, err := killed.Stat("d/old"); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("a removed file: %v", err)
	}
	if _, err := killed.Lock("d/lock"); err != nil {
		t.Fatal(err)
	}
	if _, err := disk.Lock("d/lock"); !errors.Is(err, ErrLocked) {
		t.Fatalf("the old process lost its lock: %v", err)
	}
	must(t, killed.Crash(nil).SyncAll("/"))
	if again := killed.Crash(nil); again.String() != killed.String() {
		t.Fatalf("what the kill left is not durable:\n%s", again)
	}
}

func TestFaultsTakeTheOperationsPlace(t *testing.T) {
	inner := NewMem()
	broken := errors.New("broken")
	var fail Kind
	armed := false
	var seen []string
	disk := NewFaulty(inner, func(o Operation) error {
		if o.Mutates() {
			seen = append(seen, fmt.Sprint(o.Kind, " ", o.Path))
		}
		if armed && o.Kind == fail {
			return broken
		}
		return nil
	})
	f := create(t, disk, "f", "abc")
	for kind, call := range map[Kind]func() error{
		KindSync:        f.Sync,
		KindWrite:       func() error { _, err := f.WriteAt([]byte("x"), 0); return err },
		KindRead:        func() error { _, err := f.ReadAt(make([]byte, 1), 0); return err },
		KindRename:      func() error { return disk.Rename("f", "g") },
		KindRemove:      func() error { return disk.Remove("f") },
		KindSyncDir:     func() error { return disk.SyncDir("/") },
		KindTruncate:    func() error { return f.Truncate(0) },
		KindPreallocate: func() error { return f.Preallocate(100) },
	} {
		fail, armed = kind, true
		if err := call(); !errors.Is(err, broken) {
			t.Errorf("%v: %v", kind, err)
		}
		armed = false
	}
	if got := content(t, disk, "f"); got != "abc" {
		t.Errorf("a failed operation had an effect: %q", got)
	}
	if want := []string{"create f", "write f"}; !slices.Equal(seen[:2], want) {
		t.Errorf("saw %v", seen)
	}
}

func TestQuotaFillsTheDisk(t *testing.T) {
	var quota Quota
	quota.Set(10)
	disk := NewFaulty(NewMem(), quota.Before)
	f := create(t, disk, "f", "12345678")
	n, err := f.WriteAt([]byte("90abc"), 8)
	if n != 2 || !errors.Is(err, ErrNoSpace) {
		t.Fatalf("wrote %d, %v", n, err)
	}
	if _, err := disk.Create("g"); !errors.Is(err, ErrNoSpace) {
		t.Fatalf("create: %v", err)
	}
	quota.Set(100)
	write(t, f, "abc", 10)
	if got := content(t, disk, "f"); got != "1234567890abc" {
		t.Fatalf("content %q", got)
	}
}
