package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/leatlog/leat/broker/brokertest"
	"github.com/leatlog/leat/examples/internal/local"
	"github.com/leatlog/leat/stream/client"
)

// fakeHost has an event time of its own: each reading is a second later. It
// remembers what was read.
type fakeHost struct {
	mu   sync.Mutex
	now  time.Time
	sent []Sample
}

func (h *fakeHost) read(context.Context, time.Time) ([]Sample, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now = h.now.Add(time.Second)
	var samples []Sample
	for i, m := range []string{"cpu/core0", "memory/used", "load/1m"} {
		samples = append(samples, Sample{Host: "h", Metric: m, Value: float64(h.now.Unix()%(17+int64(i))) + 1, Unit: unitPercent, Time: h.now})
	}
	h.sent = append(h.sent, samples...)
	return samples, nil
}

func (h *fakeHost) seconds() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.sent) / 3
}

// example is a start of the example on a broker.
type example struct {
	t    *testing.T
	out  string // what it has written
	stop context.CancelFunc
	done chan error
}

func start(t *testing.T, dir, name string, addresses []string, read func(context.Context, time.Time) ([]Sample, error)) *example {
	t.Helper()
	out, err := os.Create(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	e := &example{t: t, out: out.Name(), stop: stop, done: make(chan error, 1)}
	o := options{Options: local.Options{DataDir: dir}, http: "127.0.0.1:0", interval: 10 * time.Millisecond, read: read}
	go func() {
		defer out.Close()
		e.done <- runOn(ctx, o, &local.Cluster{Bootstrap: addresses, StateDir: filepath.Join(dir, "state")}, out)
	}()
	return e
}

// end stops the example cleanly.
func (e *example) end() {
	e.t.Helper()
	e.stop()
	if err := <-e.done; err != nil && !local.IsInterruption(err) {
		e.t.Fatal(err)
	}
	if text := readFile(e.t, e.out); !strings.Contains(text, "the next start goes on") {
		e.t.Errorf("%s: %s", e.out, text)
	}
}

// The example runs on a broker, is stopped, and goes on: every closed window
// equals the batch computation over all samples of both runs.
func TestRunsAndGoesOn(t *testing.T) {
	b := brokertest.Start(t)
	runAndGoOn(t, []string{b.Addr()}, func() {})
}

// The same on a cluster of three, whose nodes are killed while the example runs.
func TestRunsOnACluster(t *testing.T) {
	c := brokertest.StartCluster(t, 3, brokertest.Set("default.replication.factor", "3"), brokertest.Set("min.insync.replicas", "2"))
	next := 0
	runAndGoOn(t, c.Addrs(), func() {
		c.Kill(next)
		c.Restart(next)
		next++
	})
	if next == 0 {
		t.Error("no node was killed")
	}
}

// runAndGoOn starts the example, stops it and starts it again; each time disturb is called
// when it runs.
func runAndGoOn(t *testing.T, addresses []string, disturb func()) {
	t.Helper()
	dir := t.TempDir()
	host := &fakeHost{now: time.Now().Add(-10 * time.Minute).Truncate(time.Minute)}
	for i := range 2 {
		e := start(t, dir, fmt.Sprintf("out%d", i), addresses, host.read)
		middle, until := host.seconds()+40, host.seconds()+75
		waitFor(t, func() bool { return ended(t, e.done) || host.seconds() > middle })
		disturb()
		waitFor(t, func() bool { return ended(t, e.done) || host.seconds() > until })
		text := readFile(t, e.out)
		if !strings.Contains(text, "Kafka: "+strings.Join(addresses, ",")) {
			t.Errorf("start %d: %s", i, text)
		}
		url := regexp.MustCompile(`http://[0-9.:]+`).FindString(text)
		waitFor(t, func() bool { return ended(t, e.done) || len(pageRows(t, url)) == 3 })
		e.end()
	}
	// What was acknowledged and not yet read when it stopped is rolled up by the next.
	e := start(t, dir, "out2", addresses, func(context.Context, time.Time) ([]Sample, error) { return nil, nil })
	checkRollups(t, addresses, host)
	e.end()
}

// ended fails the test when the example has ended by itself.
func ended(t *testing.T, done chan error) bool {
	t.Helper()
	select {
	case err := <-done:
		t.Fatalf("it has ended: %v", err)
	default:
	}
	return false
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func pageRows(t *testing.T, url string) []row {
	t.Helper()
	response, err := http.Get(url + "/state")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var u update
	if err := json.NewDecoder(response.Body).Decode(&u); err != nil {
		t.Fatal(err)
	}
	return u.Rows
}

// checkRollups reads host-metrics-rollup and compares it with what was sampled.
func checkRollups(t *testing.T, addresses []string, host *fakeHost) {
	t.Helper()
	c, err := client.New(client.Config{Bootstrap: addresses})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	seen := newBoard("", "", prometheus.NewRegistry())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- follow(ctx, c, seen, zerolog.Nop()) }()
	// Windows that end with the last samples stay open.
	closedBefore := host.now.Add(-grace)
	want := batch(host.sent)
	for id, r := range want {
		if r.End.After(closedBefore) {
			delete(want, id)
		}
	}
	got := func() map[string]Rollup {
		rollups := map[string]Rollup{}
		for _, row := range seen.snapshot().Rows {
			for _, list := range row.Closed {
				for _, r := range list {
					rollups[id(r)] = r
				}
			}
		}
		return rollups
	}
	waitFor(t, func() bool { return len(got()) >= len(want) })
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	for id, w := range want {
		if g := got()[id]; !sameRollup(g, w) {
			t.Errorf("%s:\ngot  %+v\nwant %+v", id, g, w)
		}
	}
}

// waitFor waits until the condition holds.
func waitFor(t *testing.T, condition func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for !condition() {
		select {
		case <-ticker.C:
		case <-deadline:
			t.Fatal("it did not happen within 30 s")
		}
	}
}
