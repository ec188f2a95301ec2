package stream_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatlog/leat/state"
	"github.com/leatlog/leat/state/badgerstore"
	"github.com/leatlog/leat/state/memstore"
	"github.com/leatlog/leat/stream"
	"github.com/leatlog/leat/stream/client"
	"github.com/leatlog/leat/topology"
	"github.com/leatlog/leat/topology/plan"
	"github.com/leatlog/leat/topology/serde"
)

// damaged is an app of one process whose disk is damaged between its runs.
type damaged struct {
	*cluster
	t    *testing.T
	plan *plan.Plan
	in   string
	out  *reader
	got  *counts
	n    int64 // what each of tenWords is counted to

	backend state.Backend // of the run
}

func newDamaged(t *testing.T) *damaged {
	t.Helper()
	c := newCluster(t)
	in, out := c.topic("lines", 2), c.topic("counts", 2)
	return &damaged{cluster: c, t: t, plan: wordCount(t, in, out), in: in, out: c.reader(out), got: newCounts()}
}

// count has the running app count each word ten times more.
func (d *damaged) count() {
	d.t.Helper()
	d.produce(d.in, lines("wN", 100)...)
	d.n += 10
	d.got.reach(d.out, d.n, tenWords...)
	for word, n := range d.got.latest {
		if n != d.n {
			d.t.Fatalf("%s was counted to %d, not to %d", word, n, d.n)
		}
	}
}

// over runs the app with the stores of backend, which logs to what is returned.
func (d *damaged) over(backend func(zerolog.Logger) state.Backend, change func(*stream.Config)) (*running, *shared) {
	d.t.Helper()
	log := &shared{}
	logger := zerolog.New(log).Level(zerolog.InfoLevel)
	app := d.start(d.plan, func(cfg *stream.Config) {
		d.backend = backend(logger)
		cfg.Logger, cfg.Stores = logger, d.backend
		if change != nil {
			change(cfg)
		}
	})
	return app, log
}

// end stops the app and lets go of the disk.
func (d *damaged) end(app *running) {
	d.t.Helper()
	app.stopped()
	if err := d.backend.Close(); err != nil {
		d.t.Fatal(err)
	}
}

// disk is Badger in dir, in memtables that are quick to copy.
func (d *damaged) disk(dir string) func(zerolog.Logger) state.Backend {
	return func(logger zerolog.Logger) state.Backend {
		b, err := badgerstore.New(badgerstore.Config{Dir: dir, Logger: logger, MemoryBytes: 1 << 20, ReserveBytes: 1 << 20})
		if err != nil {
			d.t.Fatal(err)
		}
		return b
	}
}

// shared is a log that is read while it is written.
type shared struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *shared) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(b)
}

func (s *shared) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// keeping is a backend that keeps the files of each store as they are before it is
// closed: what kill -9 leaves.
type keeping struct {
	state.Backend
	dir, to string
}

func (k keeping) Open(ctx context.Context, task string, spec state.Spec) (state.Engine, error) {
	e, err := k.Backend.Open(ctx, task, spec)
	store := filepath.Join(task, spec.Name)
	return keptEngine{e, filepath.Join(k.dir, store), filepath.Join(k.to, store)}, err
}

type keptEngine struct {
	state.Engine
	dir, to string
}

func (e keptEngine) Close() error {
	return errors.Join(copyStore(e.dir, e.to), e.Engine.Close())
}

// copyStore copies files and leaves the zeros at their ends, of which Badger's have
// megabytes, sparse.
func copyStore(from, to string) error {
	return filepath.WalkDir(from, func(path string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, relative)
		if entry.IsDir() {
			return os.MkdirAll(target, 0o755)
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := os.WriteFile(target, bytes.TrimRight(content, "\x00"), 0o644); err != nil {
			return err
		}
		return os.Truncate(target, int64(len(content)))
	})
}

// flipIn flips a bit in the middle of what a file holds before its trailing zeros.
func flipIn(path string) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	content[len(bytes.TrimRight(content, "\x00"))/2] ^= 4
	return os.WriteFile(path, content, 0o644)
}

// everyFile does something to the files of all stores of a disk that match a pattern.
func everyFile(pattern string, damage func(path string) error) func(t *testing.T, disk string) {
	return func(t *testing.T, disk string) {
		t.Helper()
		files, err := filepath.Glob(filepath.Join(disk, "*", "word-counts", pattern))
		if err != nil {
			t.Fatal(err)
		}
		if len(files) == 0 {
			t.Fatalf("no store has a %s", pattern)
		}
		for _, f := range files {
			if err := damage(f); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func cut(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	return os.Truncate(path, info.Size()/2)
}

// Whatever happens to the files of an app that is not running, its next run counts on
// as if nothing had happened; and it says in the log what it rebuilt.
func TestDamagedDisk(t *testing.T) {
	d := newDamaged(t)
	home, image := t.TempDir(), t.TempDir()
	app, _ := d.over(d.disk(home), nil)
	d.count()
	d.end(app) // its rows go to a table
	app, _ = d.over(func(l zerolog.Logger) state.Backend { return keeping{d.disk(home)(l), home, image} }, nil)
	d.count() // and these are in a log
	d.end(app)
	const (
		goesOn  = "from its checkpoint"
		rebuilt = "from the beginning: the store has no checkpoint"
		warning = "rebuilt from its changelog"
	)
	for _, c := range []struct {
		name   string
		damage func(t *testing.T, disk string)
		reason string // of the restores
		warns  bool
	}{
		{"none", func(*testing.T, string) {}, goesOn, false},
		{"stores deleted", everyFile("", os.RemoveAll), rebuilt, false},
		{"databases deleted", everyFile("badger", os.RemoveAll), rebuilt, true},
		{"MANIFEST deleted", everyFile("badger/MANIFEST", os.Remove), rebuilt, true},
		{"MANIFEST cut", everyFile("badger/MANIFEST", cut), rebuilt, true},
		{"tables flipped", everyFile("badger/*.sst", flipIn), rebuilt, true},
		{"tables deleted", everyFile("badger/*.sst", os.Remove), rebuilt, true},
		{"write-ahead logs flipped", everyFile("badger/*.mem", flipIn), rebuilt, true},
		{"write-ahead logs deleted", everyFile("badger/*.mem", os.Remove), rebuilt, true},
		{"checkpoints flipped", everyFile("checkpoint", flipIn), rebuilt, true},
	} {
		disk := t.TempDir()
		if err := copyStore(image, disk); err != nil {
			t.Fatal(err)
		}
		c.damage(t, disk)
		app, log := d.over(d.disk(disk), nil)
		d.count()
		d.end(app)
		text := log.String()
		if strings.Contains(text, warning) != c.warns {
			t.Errorf("%s: whether the log warns is not %v: %s", c.name, c.warns, text)
		}
		if n, all := strings.Count(text, c.reason), strings.Count(text, "restoring a store"); n != all || n == 0 && c.reason == rebuilt {
			t.Errorf("%s: %d of %d restores began %s: %s", c.name, n, all, c.reason, text)
		}
	}
}

// A table is damaged under a running app: it says so, begins again from its last
// commit, rebuilds the store, and counts on.
func TestDamageUnderARunningApp(t *testing.T) {
	d := newDamaged(t)
	disk := t.TempDir()
	app, _ := d.over(d.disk(disk), nil)
	d.count()
	d.end(app)
	var reported atomic.Int64
	app, log := d.over(d.disk(disk), func(cfg *stream.Config) {
		cfg.OnError = func(err error) {
			if errors.Is(err, state.ErrDamaged) {
				reported.Add(1)
			}
		}
	})
	app.reach(stream.Running)
	ten := []byte{0, 0, 0, 0, 0, 0, 0, 10}
	everyFile("badger/*.sst", func(path string) error {
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if !bytes.Contains(content, ten) {
			return nil // a table of Badger's own
		}
		return overwrite(path, content, ten, []byte{0, 0, 0, 0, 0, 0, 1, 10})
	})(t, disk)
	d.count()
	d.end(app)
	if text := log.String(); reported.Load() == 0 || !strings.Contains(text, "the store is damaged") {
		t.Errorf("%d reports: %s", reported.Load(), text)
	}
}

// overwrite replaces bytes of a file in place.
func overwrite(path string, content, old, replacement []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(bytes.ReplaceAll(content, old, replacement))
	return errors.Join(err, f.Close())
}

// full is a backend on a disk that gets full.
type full struct {
	state.Backend
	left *atomic.Int64 // batches that have room
}

func (f full) Open(ctx context.Context, task string, spec state.Spec) (state.Engine, error) {
	e, err := f.Backend.Open(ctx, task, spec)
	return fullEngine{e, f.left}, err
}

type fullEngine struct {
	state.Engine
	left *atomic.Int64
}

func (e fullEngine) Apply(b *state.Batch) error {
	if e.left.Add(-1) < 0 {
		return fmt.Errorf("%w: 0 MiB are free", state.ErrNoSpace)
	}
	return e.Engine.Apply(b)
}

// The disk is full when a commit has ended its transaction and its stores are to take
// it over: the app ends and says why, and with room it counts on.
func TestFullDiskEndsTheApp(t *testing.T) {
	d := newDamaged(t)
	disk := t.TempDir()
	var left atomic.Int64
	for round := range int64(2) { // each of the two tasks applies one batch or more
		left.Store(round)
		app, _ := d.over(func(l zerolog.Logger) state.Backend { return full{d.disk(disk)(l), &left} }, nil)
		app.reach(stream.Running)
		d.produce(d.in, lines("wN", 100)...)
		if err := app.wait(); !errors.Is(err, state.ErrNoSpace) {
			t.Fatalf("round %d: the app ended with %v, want state.ErrNoSpace", round, err)
		}
		if err := d.backend.Close(); err != nil {
			t.Fatal(err)
		}
		d.n += 10 // what is not committed yet comes with the next run
		left.Store(1 << 40)
		app, _ = d.over(func(l zerolog.Logger) state.Backend { return full{d.disk(disk)(l), &left} }, nil)
		d.count()
		d.end(app)
	}
}

// deletable makes a changelog such as those of windows, whose oldest records go.
func (d *damaged) deletable(topic string) {
	d.t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(d.addr))
	if err != nil {
		d.t.Fatal(err)
	}
	defer cl.Close()
	policy, forever := "compact,delete", "-1"
	answers, err := kadm.NewClient(cl).AlterTopicConfigs(d.t.Context(), []kadm.AlterConfig{
		{Op: kadm.SetConfig, Name: "cleanup.policy", Value: &policy}, {Op: kadm.SetConfig, Name: "retention.ms", Value: &forever},
	}, topic)
	if err != nil {
		d.t.Fatal(err)
	}
	if _, err := answers.On(topic, nil); err != nil {
		d.t.Fatal(err)
	}
}

// While a store is restored its changelog loses the records that come next: the restore
// begins again, with an empty store, and what it had is not mixed with what is left.
func TestChangelogIsCutDuringARestore(t *testing.T) {
	d := newDamaged(t)
	app, _ := d.over(d.disk(t.TempDir()), nil)
	d.count()
	d.end(app)
	changelog := d.prefix + "app-word-counts-changelog"
	d.deletable(changelog)
	before := make(map[client.Partition]int64)
	for p := range int32(2) {
		at := client.Partition{Topic: changelog, Partition: p}
		end, err := d.client.ListOffset(t.Context(), at, client.LatestOffset)
		if err != nil {
			t.Fatal(err)
		}
		before[at] = end
	}
	app, _ = d.over(d.disk(t.TempDir()), nil)
	d.count() // every row is in what follows
	d.end(app)
	var once sync.Once
	app, log := d.over(d.disk(t.TempDir()), func(cfg *stream.Config) {
		cfg.OnRestore = func(stream.RestoreProgress) {
			once.Do(func() {
				if err := d.client.DeleteRecords(context.Background(), before); err != nil {
					t.Error(err)
				}
			})
		}
	})
	d.count()
	d.end(app)
	if text := log.String(); !strings.Contains(text, "the changelog has lost") {
		t.Errorf("log: %s", text)
	}
}

// damagedOnce is a backend of which, when armed, a store is found damaged as it applies.
type damagedOnce struct {
	state.Backend
	armed *atomic.Bool
}

func (b damagedOnce) Open(ctx context.Context, task string, spec state.Spec) (state.Engine, error) {
	e, err := b.Backend.Open(ctx, task, spec)
	if err != nil {
		return nil, err
	}
	return damagedEngine{e, b.armed}, nil
}

type damagedEngine struct {
	state.Engine
	armed *atomic.Bool
}

func (e damagedEngine) Apply(b *state.Batch) error {
	if e.armed.CompareAndSwap(true, false) {
		return fmt.Errorf("%w: as the test says", state.ErrDamaged)
	}
	return e.Engine.Apply(b)
}

// A store that was found damaged in the commit before its tasks moved ended the app.
func TestDamageInTheCommitBeforeTasksMove(t *testing.T) {
	c := newCluster(t)
	for _, guarantee := range []stream.Guarantee{stream.AtLeastOnce, c.guarantee} {
		c.prefix += "x-"
		in, out := c.topic("lines", 4), c.topic("counts", 4)
		var processed atomic.Int64
		top := topology.New()
		text := topology.MapValues(topology.From(top, topology.NewTopic(in, serde.String, serde.String)), func(v string) string {
			processed.Add(1)
			return v
		}).WithValueSerde(serde.String)
		topology.To(topology.Count("by-key", text.GroupByKey()).Stream(), topology.NewTopic(out, serde.String, serde.Int64))
		p, err := top.Build()
		if err != nil {
			t.Fatal(err)
		}
		var armed atomic.Bool
		first := c.start(p, func(cfg *stream.Config) {
			cfg.Stores = damagedOnce{memstore.New(), &armed}
			cfg.Guarantee, cfg.CommitInterval = guarantee, 4*time.Second // that of the moves comes first
		})
		first.reach(stream.Running)
		c.produce(in, lines("wN", 100)...)
		eventually(t, func() error {
			if n := processed.Load(); n < 100 {
				return fmt.Errorf("%d records are processed", n)
			}
			return nil
		})
		armed.Store(true)
		second := c.start(p, func(cfg *stream.Config) { cfg.Guarantee = guarantee })
		awaitTasks(t, second, 2)
		awaitTasks(t, first, 2)
		first.stopped()
		c.produce(in, lines("wN", 100)...)
		got, keys := newCounts(), []string{}
		for i := range 100 {
			keys = append(keys, fmt.Sprint("k", i))
		}
		got.reach(c.reader(out), 2, keys...)
		if armed.Load() {
			t.Error("no store was found damaged")
		}
		second.stopped()
	}
}
