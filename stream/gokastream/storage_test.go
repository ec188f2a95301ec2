package gokastream

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/lovoo/goka/storage"

	"github.com/leatlog/leat/state"
	"github.com/leatlog/leat/state/badgerstore"
	"github.com/leatlog/leat/state/memstore"
)

func badger(t *testing.T, dir string) state.Backend {
	t.Helper()
	b, err := badgerstore.New(badgerstore.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, b storage.Builder, topic string) storage.Storage {
	t.Helper()
	s, err := b(topic, 3)
	must(t, err)
	must(t, s.Open())
	return s
}

// TestConformance is what goka relies on: it holds for goka's own LevelDB storage,
// which shows that the test asks for the right thing, and for ours.
func TestConformance(t *testing.T) {
	backend := badger(t, t.TempDir())
	t.Cleanup(func() { must(t, backend.Close()) })
	for name, builder := range map[string]storage.Builder{
		"goka LevelDB": storage.DefaultBuilder(t.TempDir()),
		"memory":       StorageBuilder(memstore.New()),
		"badger":       StorageBuilder(backend),
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(3) {
				s := open(t, builder, fmt.Sprintf("a.topic_%d", seed))
				conform(t, s, rand.New(rand.NewPCG(seed, 0)))
				must(t, s.Close())
			}
		})
	}
}

// conform does random operations on a storage and on a map.
func conform(t *testing.T, s storage.Storage, random *rand.Rand) {
	t.Helper()
	if got, err := s.GetOffset(-3); err != nil || got != -3 {
		t.Fatalf("offset of a new storage %d, %v", got, err)
	}
	model := map[string][]byte{}
	for step := range 2000 {
		k := fmt.Sprintf("k%02d", random.IntN(60))
		if step == 700 {
			must(t, s.MarkRecovered())
		}
		switch random.IntN(12) {
		case 0, 1, 2:
			v := []byte(fmt.Sprint(step))
			model[k] = bytes.Clone(v)
			must(t, s.Set(k, v))
			v[0] = 'x' // it was copied
		case 3:
			model[k] = []byte{}
			must(t, s.Set(k, []byte{}))
		case 4, 5:
			delete(model, k)
			must(t, s.Delete(k))
		case 6:
			must(t, s.SetOffset(int64(step)+1))
			if got, err := s.GetOffset(-3); err != nil || got != int64(step)+1 {
				t.Fatalf("offset %d, %v after SetOffset(%d)", got, err, step+1)
			}
		case 7:
			checkIterators(t, s, model, random)
		default:
			got, err := s.Get(k)
			must(t, err)
			has, err := s.Has(k)
			must(t, err)
			want, known := model[k]
			if has != known || (got != nil) != known || !bytes.Equal(got, want) {
				t.Fatalf("step %d: %s is %q, %v; want %q, %v", step, k, got, has, want, known)
			}
		}
	}
}

// collect steps an iterator to its end.
func collect(t *testing.T, i storage.Iterator) (list []string) {
	t.Helper()
	for i.Next() {
		v, err := i.Value()
		must(t, err)
		list = append(list, string(i.Key())+"="+string(v))
	}
	must(t, i.Err())
	return list
}

func checkIterators(t *testing.T, s storage.Storage, model map[string][]byte, random *rand.Rand) {
	t.Helper()
	bound := func() string { return fmt.Sprintf("k%02d", random.IntN(60)) }
	for _, r := range [][2]string{{"", ""}, {bound(), bound()}, {"k3", ""}, {"k", "k30"}, {"z", ""}} {
		var want []string
		for k, v := range model {
			inside := k >= r[0] && k < r[1]
			if r[1] == "" {
				inside = bytes.HasPrefix([]byte(k), []byte(r[0]))
			}
			if inside {
				want = append(want, k+"="+string(v))
			}
		}
		slices.Sort(want)
		i, err := s.IteratorWithRange([]byte(r[0]), []byte(r[1]))
		must(t, err)
		// It sees the storage as it is now, whatever is written while it runs.
		victim := bound()
		before, had := model[victim]
		must(t, s.Set(victim, []byte("written meanwhile")))
		if got := collect(t, i); !slices.Equal(got, want) {
			t.Fatalf("range %q: %v, want %v", r, got, want)
		}
		i.Release()
		if had {
			must(t, s.Set(victim, before))
		} else {
			must(t, s.Delete(victim))
		}
	}
	i, err := s.Iterator()
	must(t, err)
	defer i.Release()
	at := bound()
	var want []string
	for k, v := range model {
		if k >= at {
			want = append(want, k+"="+string(v))
		}
	}
	slices.Sort(want)
	if found := i.Seek([]byte(at)); found != (len(want) > 0) {
		t.Fatalf("seek %s: %v", at, found)
	} else if found {
		v, err := i.Value()
		must(t, err)
		first := string(i.Key()) + "=" + string(v)
		if got := append([]string{first}, collect(t, i)...); !slices.Equal(got, want) {
			t.Fatalf("from %s: %v, want %v", at, got, want)
		}
	}
}

// A storage that was closed goes on; one that was not, as in a crash, has its last
// checkpoint's offset, and no key that is older than it; a damaged one starts over.
func TestStorageGoesOn(t *testing.T) {
	dir := t.TempDir()
	backend := badger(t, dir)
	s := open(t, StorageBuilder(backend), "t")
	must(t, s.Set("a", []byte("1")))
	must(t, s.SetOffset(5))
	must(t, s.Close())
	must(t, s.Close()) // nothing is left to do
	if _, err := s.Get("a"); !errors.Is(err, state.ErrClosed) {
		t.Errorf("get after close: %v", err)
	}
	must(t, backend.Close())

	backend = badger(t, dir)
	s = open(t, StorageBuilder(backend), "t")
	check := func(s storage.Storage, key, want string, offset int64) {
		t.Helper()
		got, err := s.Get(key)
		must(t, err)
		at, err := s.GetOffset(-3)
		must(t, err)
		if string(got) != want || at != offset {
			t.Errorf("%s is %q at offset %d, want %q at %d", key, got, at, want, offset)
		}
	}
	check(s, "a", "1", 5)
	must(t, s.Set("b", []byte("2")))
	must(t, s.SetOffset(6))
	must(t, s.MarkRecovered())
	must(t, s.Set("a", []byte("3")))
	must(t, s.SetOffset(7))
	crashed := t.TempDir() // what is on the disk at this moment
	must(t, os.CopyFS(crashed, os.DirFS(dir)))
	must(t, s.Close())
	must(t, backend.Close())

	backend = badger(t, crashed)
	s = open(t, StorageBuilder(backend), "t")
	check(s, "b", "2", 6)
	must(t, s.Close())
	must(t, backend.Close())

	manifests, err := filepath.Glob(filepath.Join(crashed, "*", "*", "badger", "MANIFEST"))
	if err != nil || len(manifests) != 1 {
		t.Fatal(manifests, err)
	}
	must(t, os.Remove(manifests[0]))
	backend = badger(t, crashed)
	s = open(t, StorageBuilder(backend), "t")
	check(s, "b", "", -3)
	must(t, s.Close())
	must(t, backend.Close())
}

// Iterators of views outlive their storage now and then.
func TestCloseEndsIterators(t *testing.T) {
	backend := badger(t, t.TempDir())
	s := open(t, StorageBuilder(backend), "t")
	must(t, s.Set("a", []byte("1")))
	i, err := s.Iterator()
	must(t, err)
	must(t, s.Close())
	if i.Next() || i.Seek([]byte("a")) || i.Key() != nil {
		t.Error("it goes on")
	}
	i.Release()
	must(t, backend.Close())
}

func TestStorageRefuses(t *testing.T) {
	b := StorageBuilder(memstore.New())
	if _, err := b("t", -1); err == nil {
		t.Error("partition -1")
	}
	s := open(t, b, "t")
	if err := s.Set("a", nil); err == nil {
		t.Error("a nil value")
	}
	if err := s.Open(); !errors.Is(err, state.ErrOpen) {
		t.Errorf("opened twice: %v", err)
	}
	must(t, s.Close())
	for what, err := range map[string]error{"set": s.Set("a", []byte("1")), "delete": s.Delete("a"), "offset": s.SetOffset(1), "recovered": s.MarkRecovered()} {
		if !errors.Is(err, state.ErrClosed) {
			t.Errorf("%s after close: %v", what, err)
		}
	}
}

// Topics with names that look alike have stores of their own.
func TestTasks(t *testing.T) {
	seen := map[string]string{}
	for _, topic := range []string{"a.b", "a_b", "a-b", "a_-b", "a__b", "a._b", "a_.b", "a.-b"} {
		task := (&store{topic: topic, partition: 1}).task()
		if other, twice := seen[task]; twice {
			t.Errorf("%s and %s are both %s", topic, other, task)
		}
		seen[task] = topic
	}
}
