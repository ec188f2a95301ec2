package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// childWindows makes the test's binary the example itself, with these windows.
const childWindows = "LEAT_HOSTMETRICS_WINDOWS"

func TestMain(m *testing.M) {
	if list := os.Getenv(childWindows); list != "" {
		windowSizes = parseWindows(list)
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func parseWindows(list string) []time.Duration {
	var sizes []time.Duration
	for _, s := range strings.Split(list, ",") {
		size, err := time.ParseDuration(s)
		if err != nil {
			panic(err)
		}
		sizes = append(sizes, size)
	}
	return sizes
}

// killTest kills the example again and again and remembers what was promised.
type killTest struct {
	t       *testing.T
	dir     string
	windows string
	kills   []time.Time

	acknowledged map[place][2]string // key and value
	seen         map[place]string    // records of host-metrics-rollup that a reader has had
}

// place is where a record is.
type place struct {
	partition int32
	offset    int64
}

// The example is killed at seeded moments, LEAT_KILLS times (3), within
// LEAT_KILL_DELAY (5s) of each start, with windows of LEAT_KILL_WINDOWS (1s,5s).
// A start goes on each time, and in the end:
//   - every sample that was acknowledged is in host-metrics, at its offset;
//   - every closed window that a reader has had is where it was;
//   - every window of the samples is in host-metrics-rollup, with the numbers of
//     a batch computation over host-metrics. One that was open or not yet
//     committed at a kill may count samples twice, and come again: the guarantee
//     is at-least-once.
func TestKilledAtAnyMoment(t *testing.T) {
	kills, err := strconv.Atoi(cmp.Or(os.Getenv("LEAT_KILLS"), "3"))
	if err != nil {
		t.Fatal(err)
	}
	delay, err := time.ParseDuration(cmp.Or(os.Getenv("LEAT_KILL_DELAY"), "5s"))
	if err != nil {
		t.Fatal(err)
	}
	seed, err := strconv.ParseUint(cmp.Or(os.Getenv("LEAT_KILL_SEED"), "1"), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	k := &killTest{
		t: t, dir: t.TempDir(), windows: cmp.Or(os.Getenv("LEAT_KILL_WINDOWS"), "1s,5s"),
		acknowledged: map[place][2]string{}, seen: map[place]string{},
	}
	windowSizes = parseWindows(k.windows)
	defer func() { windowSizes = []time.Duration{10 * time.Second, time.Minute} }()
	random := rand.New(rand.NewPCG(seed, 0))
	for round := range kills {
		c := k.start(round)
		k.observeUntilKilled(c, time.Duration(random.Int64N(int64(delay))), round == kills-1)
		k.takeAcknowledged(round)
	}
	begin := time.Now()
	c := k.start(kills)
	address := c.address()
	k.checkWindows(address, begin)
	c.stop()
	k.takeAcknowledged(kills)
	c = k.start(kills + 1)
	k.checkRecords(c.address())
	c.stop()
}

// child is a process that runs the example.
type child struct {
	t       *testing.T
	out     string
	command *exec.Cmd
	ended   chan struct{}
	err     error
}

func (k *killTest) start(round int) *child {
	k.t.Helper()
	c := &child{t: k.t, out: filepath.Join(k.dir, fmt.Sprintf("out-%d", round)), ended: make(chan struct{})}
	out, err := os.Create(c.out)
	if err != nil {
		k.t.Fatal(err)
	}
	defer out.Close()
	c.command = exec.Command(os.Args[0], "--data-dir", filepath.Join(k.dir, "data"), "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0",
		"--interval", "20ms", "--acknowledged", k.acknowledgedFile(round))
	c.command.Env = append(os.Environ(), childWindows+"="+k.windows)
	c.command.Stdout, c.command.Stderr = out, out
	if err := c.command.Start(); err != nil {
		k.t.Fatal(err)
	}
	go func() {
		defer close(c.ended)
		c.err = c.command.Wait()
	}()
	k.t.Cleanup(func() {
		c.command.Process.Kill()
		<-c.ended
	})
	return c
}

func (k *killTest) acknowledgedFile(round int) string {
	return filepath.Join(k.dir, fmt.Sprintf("acknowledged-%d", round))
}

// tryAddress returns where the child's broker listens, "" while it does not say.
func (c *child) tryAddress() string {
	text, err := os.ReadFile(c.out)
	if err != nil {
		c.t.Fatal(err)
	}
	if found := regexp.MustCompile(`Kafka: ([0-9.:]+) `).FindSubmatch(text); found != nil {
		return string(found[1])
	}
	return ""
}

func (c *child) running() bool {
	select {
	case <-c.ended:
		return false
	default:
		return true
	}
}

// address waits until the child's broker listens.
func (c *child) address() string {
	c.t.Helper()
	address := ""
	waitFor(c.t, func() bool {
		if !c.running() {
			c.t.Fatalf("it has ended: %v\n%s", c.err, readFile(c.t, c.out))
		}
		address = c.tryAddress()
		return address != ""
	})
	return address
}

// stop stops the child cleanly.
func (c *child) stop() {
	c.t.Helper()
	if err := c.command.Process.Signal(syscall.SIGTERM); err != nil {
		c.t.Fatal(err)
	}
	select {
	case <-c.ended:
	case <-time.After(30 * time.Second):
		c.t.Fatal("it did not stop within 30 s")
	}
	if c.err != nil {
		c.t.Fatalf("%v\n%s", c.err, readFile(c.t, c.out))
	}
}

// observeUntilKilled reads closed windows as any client would, and kills the
// example after the delay; in the last round not before one window was seen.
func (k *killTest) observeUntilKilled(c *child, delay time.Duration, last bool) {
	k.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), delay)
	defer cancel()
	for ticker := time.Tick(5 * time.Millisecond); ctx.Err() == nil; {
		if address := c.tryAddress(); address != "" {
			k.observe(ctx, address)
		}
		select {
		case <-ctx.Done():
		case <-ticker:
		}
	}
	for last && len(k.seen) == 0 && c.running() {
		address := c.address()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		k.observe(ctx, address)
		cancel()
	}
	if !c.running() {
		k.t.Fatalf("it has ended by itself: %v\n%s", c.err, readFile(k.t, c.out))
	}
	if err := c.command.Process.Kill(); err != nil {
		k.t.Fatal(err)
	}
	<-c.ended
	k.kills = append(k.kills, time.Now())
	k.t.Logf("killed after %v: %d closed windows seen", delay, len(k.seen))
}

// observe reads host-metrics-rollup until ctx ends.
func (k *killTest) observe(ctx context.Context, address string) {
	k.t.Helper()
	read(k.t, ctx, address, []string{rollupsTopic.Name}, func(r *kgo.Record) {
		if r == nil {
			return
		}
		at := place{r.Partition, r.Offset}
		if before, again := k.seen[at]; again && before != string(r.Value) {
			k.t.Errorf("%s at %v was %s and is %s", rollupsTopic.Name, at, before, r.Value)
		}
		k.seen[at] = string(r.Value)
	})
}

// read calls f with the records of topics until ctx ends, and with nil after each
// answer.
func read(t *testing.T, ctx context.Context, address string, topics []string, f func(*kgo.Record)) {
	t.Helper()
	c, err := kgo.NewClient(kgo.AlwaysRetryEOF(), kgo.SeedBrokers(address), kgo.ConsumeTopics(topics...), kgo.FetchMaxWait(100*time.Millisecond),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.MetadataMinAge(50*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseAllowingRebalance()
	for ctx.Err() == nil {
		fetches := c.PollFetches(ctx)
		fetches.EachError(func(topic string, partition int32, err error) {
			if ctx.Err() == nil {
				t.Errorf("read %s-%d: %v", topic, partition, err)
			}
		})
		fetches.EachRecord(f)
		f(nil)
	}
}

// takeAcknowledged reads what the cluster has acknowledged in a round.
func (k *killTest) takeAcknowledged(round int) {
	k.t.Helper()
	f, err := os.Open(k.acknowledgedFile(round))
	if errors.Is(err, fs.ErrNotExist) {
		return // killed before
	}
	if err != nil {
		k.t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewReader(f)
	for {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return // what follows the last end of line was torn by the kill
		}
		var a acknowledgement
		if err == nil {
			err = json.Unmarshal(line, &a)
		}
		if err != nil {
			k.t.Fatal(err)
		}
		at := place{a.Partition, a.Offset}
		if before, again := k.acknowledged[at]; again {
			k.t.Errorf("offset %v was acknowledged for %s and for %s", at, before[1], a.Value)
		}
		k.acknowledged[at] = [2]string{a.Key, string(a.Value)}
	}
}

// copyOf is what was read of the two topics.
type copyOf struct {
	samples, rollups map[place]*kgo.Record
	ends             map[string]map[int32]int64 // the last offset, by topic and partition
}

// readUntil reads both topics from their start until the condition holds.
func (k *killTest) readUntil(address, what string, condition func(*copyOf) bool) *copyOf {
	k.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	c := &copyOf{map[place]*kgo.Record{}, map[place]*kgo.Record{}, map[string]map[int32]int64{samplesTopic.Name: {}, rollupsTopic.Name: {}}}
	deadline, next := time.Now().Add(2*time.Minute), time.Time{}
	read(k.t, ctx, address, []string{samplesTopic.Name, rollupsTopic.Name}, func(r *kgo.Record) {
		if r == nil {
			if now := time.Now(); now.After(next) {
				next = now.Add(200 * time.Millisecond)
				if condition(c) {
					cancel()
				} else if now.After(deadline) {
					k.t.Fatalf("%s: it did not happen within two minutes", what)
				}
			}
			return
		}
		to := c.samples
		if r.Topic == rollupsTopic.Name {
			to = c.rollups
		}
		to[place{r.Partition, r.Offset}] = r
		c.ends[r.Topic][r.Partition] = r.Offset
	})
	return c
}

// passed is true when offsets as high as all of these were read.
func passed[V any](ends map[int32]int64, places map[place]V) bool {
	for at := range places {
		if end, some := ends[at.partition]; !some || end < at.offset {
			return false
		}
	}
	return true
}

// checkRecords compares the topics with what was acknowledged and seen.
func (k *killTest) checkRecords(address string) {
	k.t.Helper()
	c := k.readUntil(address, "to read as far as was acknowledged and seen", func(c *copyOf) bool {
		return passed(c.ends[samplesTopic.Name], k.acknowledged) && passed(c.ends[rollupsTopic.Name], k.seen)
	})
	for at, want := range k.acknowledged {
		if r := c.samples[at]; r == nil {
			k.t.Errorf("%s at %v is lost: %s", samplesTopic.Name, at, want[1])
		} else if string(r.Key) != want[0] || string(r.Value) != want[1] {
			k.t.Errorf("%s at %v is %q %s, acknowledged was %q %s", samplesTopic.Name, at, r.Key, r.Value, want[0], want[1])
		}
	}
	for at, want := range k.seen {
		if r := c.rollups[at]; r == nil {
			k.t.Errorf("%s at %v is lost: %s", rollupsTopic.Name, at, want)
		} else if string(r.Value) != want {
			k.t.Errorf("%s at %v is %s and was %s", rollupsTopic.Name, at, r.Value, want)
		}
	}
	if len(k.acknowledged) == 0 || len(k.seen) == 0 {
		k.t.Errorf("%d samples were acknowledged and %d closed windows seen: there is nothing to check", len(k.acknowledged), len(k.seen))
	}
	k.t.Logf("%d kills: %d acknowledged samples and %d seen windows are there", len(k.kills), len(k.acknowledged), len(k.seen))
}

// decode returns the samples, and the rollups in their order, by window.
func (k *killTest) decode(c *copyOf) (samples []Sample, rollups map[string][]Rollup) {
	k.t.Helper()
	for _, r := range c.samples {
		var s Sample
		if err := json.Unmarshal(r.Value, &s); err != nil {
			k.t.Fatal(err)
		}
		samples = append(samples, s)
	}
	rollups = map[string][]Rollup{}
	for _, r := range slices.SortedFunc(maps.Values(c.rollups), func(a, b *kgo.Record) int { return cmp.Compare(a.Offset, b.Offset) }) {
		var u Rollup
		if err := json.Unmarshal(r.Value, &u); err != nil {
			k.t.Fatal(err)
		}
		rollups[id(u)] = append(rollups[id(u)], u)
	}
	return samples, rollups
}

// checkWindows waits until every window that was over before the last start is
// closed, and one that began after it too; then it checks all numbers.
func (k *killTest) checkWindows(address string, begin time.Time) {
	k.t.Helper()
	c := k.readUntil(address, "to close the windows of before the last start, and a new one", func(c *copyOf) bool {
		samples, rollups := k.decode(c)
		continues := false
		for id, want := range batch(samples) {
			if len(rollups[id]) == 0 && !want.End.Add(grace).After(begin) {
				return false
			}
			continues = continues || len(rollups[id]) > 0 && want.Start.After(begin)
		}
		return continues
	})
	samples, rollups := k.decode(c)
	want := batch(samples)
	var exact, again, more, less int
	for id, list := range rollups {
		w := want[id]
		if !k.openAtAKill(w) {
			exact++
			for _, r := range list {
				if !sameRollup(r, w) {
					k.t.Errorf("no kill came near this window\ngot  %+v\nwant %+v", r, w)
				}
			}
			continue
		}
		again += len(list) - 1
		complete := false
		for _, r := range list {
			complete = complete || r.Count >= w.Count && r.Min == w.Min && r.Max == w.Max
			switch {
			case r.Count > w.Count:
				more++
			case r.Count < w.Count:
				less++
			}
		}
		if !complete {
			k.t.Errorf("this window has lost samples\ngot  %+v\nwant %+v", list, w)
		}
	}
	if exact == 0 {
		k.t.Error("a kill came near every window: no numbers were checked exactly")
	}
	k.t.Logf("%d windows, %d far from any kill and exact; of the others %d came again, %d counted samples twice, %d were sent again with fewer samples", len(rollups), exact, again, more, less)
}

// openAtAKill is true when the window may not have been closed and committed when
// a kill came, or was rolled up partly before it: at-least-once.
func (k *killTest) openAtAKill(w Rollup) bool {
	const commits = 2 * time.Second // two intervals
	return slices.ContainsFunc(k.kills, func(kill time.Time) bool {
		return kill.After(w.Start) && kill.Before(w.End.Add(grace+commits))
	})
}
