package changelog

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/leatlog/leat/state"
	"github.com/leatlog/leat/state/badgerstore"
	"github.com/leatlog/leat/state/internal/statetest"
)

var errTopic = errors.New("the topic is gone")

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestConfigIsChecked(t *testing.T) {
	for _, c := range []Config{
		{Spec: state.Spec{Name: "a b"}},
		{Spec: state.Spec{Name: "s"}},
		{Spec: state.Spec{Name: "s", NoChangelog: true}, CheckpointBytes: -1},
	} {
		if _, err := New(c); err == nil {
			t.Errorf("%+v was taken", c)
		}
	}
}

func TestRecordsCarryChangelogKeys(t *testing.T) {
	var log topic
	spec := state.Spec{Name: "w", Kind: state.Window, WindowSize: time.Second, Retention: time.Minute}
	l, err := New(Config{Spec: spec, Engine: newCrashEngine(), Append: log.append})
	must(t, err)
	must(t, l.Put(state.WindowKey(nil, 7, []byte("key")), []byte("v"), 100))
	must(t, l.Put(state.WindowKey(nil, 8, []byte("key")), []byte{}, 101))
	must(t, l.Delete(state.WindowKey(nil, 7, []byte("key")), 102))
	for i, want := range []struct {
		key       string
		value     []byte
		timestamp int64
	}{
		{"key\x00\x00\x00\x00\x00\x00\x00\x07", []byte("v"), 100},
		{"key\x00\x00\x00\x00\x00\x00\x00\x08", []byte{}, 101},
		{"key\x00\x00\x00\x00\x00\x00\x00\x07", nil, 102},
	} {
		got := log.pending[i]
		if string(got.Key) != want.key || string(got.Value) != string(want.value) || (got.Value == nil) != (want.value == nil) ||
			got.Timestamp != want.timestamp {
			t.Errorf("record %d = %q %q %d, want %q %q %d", i, got.Key, got.Value, got.Timestamp, want.key, want.value, want.timestamp)
		}
	}
	if err := l.Put([]byte("short"), []byte("v"), 0); err == nil || !strings.Contains(err.Error(), "WindowKey") {
		t.Errorf("short key: %v", err)
	}
}

func TestFailedAppendWritesNothing(t *testing.T) {
	l, err := New(Config{Spec: state.Spec{Name: "s"}, Engine: newCrashEngine(), Append: func(_, _ []byte, _ int64) error { return errTopic }})
	must(t, err)
	for name, err := range map[string]error{"put": l.Put([]byte("k"), []byte("v"), 0), "delete": l.Delete([]byte("k"), 0)} {
		if !errors.Is(err, errTopic) || !strings.Contains(err.Error(), `store "s"`) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if l.Dirty() {
		t.Error("the store is dirty")
	}
	must(t, l.Close())
	if err := l.Put(nil, nil, 0); !errors.Is(err, state.ErrClosed) {
		t.Errorf("put after close: %v", err)
	}
	if _, _, err := l.Get(nil, nil); !errors.Is(err, state.ErrClosed) {
		t.Errorf("get after close: %v", err)
	}
}

func TestCheckpointIsDueByBytesOrTime(t *testing.T) {
	l, err := New(Config{
		Spec: state.Spec{Name: "s", NoChangelog: true}, Engine: newCrashEngine(),
		CheckpointBytes: 100, CheckpointInterval: 10 * time.Second,
	})
	must(t, err)
	begin := time.Unix(1000, 0)
	write := func(n int) {
		must(t, l.Put([]byte("k"), make([]byte, n), 0))
		must(t, l.Commit())
	}
	due := func(after time.Duration, want bool) {
		t.Helper()
		if got := l.CheckpointDue(begin.Add(after)); got != want {
			t.Errorf("after %v: due %v, want %v", after, got, want)
		}
	}
	due(0, false)
	due(time.Hour, false) // nothing was committed
	write(10)
	due(9*time.Second, false)
	due(10*time.Second, true)
	must(t, l.Checkpoint(state.Position{Offset: 1}, begin.Add(10*time.Second)))
	due(11*time.Second, false)
	write(50)
	due(11*time.Second, false)
	write(50)
	due(11*time.Second, true)
}

func TestRestoreBeginsOverWhenThePositionIsNotInTheChangelog(t *testing.T) {
	for _, c := range []struct {
		position int64
		bounds   Bounds
		reason   Reason
		next     int64
		kept     bool
	}{
		{5, Bounds{0, 10}, FromCheckpoint, 5, true},
		{10, Bounds{0, 10}, FromCheckpoint, 10, true},
		{5, Bounds{5, 10}, FromCheckpoint, 5, true},
		{5, Bounds{6, 10}, BeforeStart, 6, false},
		{11, Bounds{0, 10}, AfterEnd, 0, false},
		{-1, Bounds{3, 10}, NoCheckpoint, 3, false},
	} {
		e := newCrashEngine()
		e.Model["old"] = "1"
		if c.position >= 0 {
			must(t, e.Checkpoint(state.Position{Offset: c.position}))
		}
		r, err := NewRestorer(state.Spec{Name: "s"}, e, c.bounds)
		must(t, err)
		_, kept := e.Model["old"]
		if r.Reason() != c.reason || r.Next() != c.next || kept != c.kept {
			t.Errorf("position %d in %v: %s, next %d, kept %v", c.position, c.bounds, r.Reason(), r.Next(), kept)
		}
	}
	if _, err := NewRestorer(state.Spec{Name: "s"}, newCrashEngine(), Bounds{Start: 5, End: 4}); err == nil {
		t.Error("bounds from 5 to 4 were taken")
	}
}

func TestRestoreReportsProgress(t *testing.T) {
	spec := state.Spec{Name: "w", Kind: state.Window, WindowSize: time.Second, Retention: 10 * time.Second}
	e := newCrashEngine()
	r, err := NewRestorer(spec, e, Bounds{Start: 100, End: 205})
	must(t, err)
	var records []Record
	for i := range int64(100) {
		logged, _ := state.ChangelogKey(nil, state.Window, state.WindowKey(nil, i*1000, []byte("k")))
		records = append(records, Record{Offset: 100 + i, Timestamp: i * 1000, Key: logged, Value: []byte("v")})
	}
	late, _ := state.ChangelogKey(nil, state.Window, state.WindowKey(nil, 1000, []byte("late")))
	records = append(records, Record{Offset: 200, Timestamp: 0, Key: late, Value: []byte("v")})
	must(t, r.Add(records[:50], 150, 4))
	p := r.Progress()
	if p.From != 100 || p.Next != 150 || p.End != 205 || p.Records != 50 || p.Done() < 0.47 || p.Done() > 0.48 || r.Done() {
		t.Errorf("progress %+v, %v", p, p.Done())
	}
	rate, left := p.Rate(2 * time.Second)
	if rate != 25 || left.Round(100*time.Millisecond) != 2200*time.Millisecond {
		t.Errorf("rate %v, left %v", rate, left)
	}
	must(t, r.Add(records[50:], 205, 4))
	if p := r.Progress(); !r.Done() || p.Expired != 1 || p.Done() != 1 {
		t.Errorf("progress %+v", p)
	}
	must(t, r.Finish())
	if len(e.Model) != 11 { // starts 89 s to 99 s
		t.Errorf("%d windows are left", len(e.Model))
	}
	if got, _ := e.Position(); got != (state.Position{Offset: 205, LeaderEpoch: 4}) {
		t.Errorf("position %v", got)
	}
	// A standby goes on.
	r.Extend(206)
	must(t, r.Add([]Record{{Offset: 205, Timestamp: 100_000, Key: late, Value: nil}}, 206, 5))
	must(t, r.Finish())
	if got, _ := e.Position(); got.Offset != 206 || len(e.Model) != 10 {
		t.Errorf("position %v, %d windows", got, len(e.Model))
	}
	if err := r.Add([]Record{{Offset: 206, Key: []byte("short")}}, 207, 5); err != nil {
		t.Errorf("a record past the end was looked at: %v", err)
	}
	r.Extend(207)
	if err := r.Add([]Record{{Offset: 206, Key: []byte("short")}}, 207, 5); !errors.Is(err, ErrChangelog) {
		t.Errorf("short key: %v", err)
	}
}

// The same on Badger, with restarts that keep and that lose the directory.
func TestOverBadger(t *testing.T) {
	backend, err := badgerstore.New(badgerstore.Config{Dir: t.TempDir()})
	must(t, err)
	defer func() { must(t, backend.Close()) }()
	var log topic
	m := statetest.Model{}
	spec := state.Spec{Name: "s"}
	for round := range 4 {
		engine, err := backend.Open(context.Background(), "0_0", spec)
		must(t, err)
		r, err := NewRestorer(spec, engine, Bounds{End: log.end})
		must(t, err)
		if want := []Reason{NoCheckpoint, FromCheckpoint, FromCheckpoint, FromCheckpoint}[round]; r.Reason() != want {
			t.Errorf("round %d: %s, want %s", round, r.Reason(), want)
		}
		must(t, r.Add(log.records, log.end, 0))
		must(t, r.Finish())
		statetest.MustEqual(t, engine, m)
		l, err := New(Config{Spec: spec, Engine: engine, Append: log.append})
		must(t, err)
		for commit := range 10 {
			for i := range 50 {
				key := fmt.Appendf(nil, "%d", (round*131+commit*17+i*7)%200)
				value := fmt.Appendf(nil, "%d-%d", round, commit)
				must(t, l.Put(key, value, 0))
				m[string(key)] = string(value)
			}
			log.commit(true)
			must(t, l.Commit())
			if commit == 5 {
				must(t, l.Checkpoint(state.Position{Offset: log.end}, time.Unix(0, 0)))
			}
		}
		must(t, l.Put([]byte("never committed"), []byte("v"), 0))
		log.pending = nil
		statetest.MustEqual(t, engine, m)
		must(t, l.Close())
	}
}

func BenchmarkPutCommit(b *testing.B) {
	l, err := New(Config{Spec: state.Spec{Name: "s"}, Engine: discard{newCrashEngine()}, Append: func(_, _ []byte, _ int64) error { return nil }})
	must(b, err)
	key, value := make([]byte, 0, 32), make([]byte, 32)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		key = fmt.Appendf(key[:0], "key-%06d", i*7919%10_000)
		must(b, l.Put(key, value, 0))
		if i%10_000 == 9_999 {
			must(b, l.Commit())
		}
	}
}

// discard is an engine that forgets.
type discard struct{ *crashEngine }

func (discard) Apply(*state.Batch) error { return nil }
