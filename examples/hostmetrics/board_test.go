package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/shirou/gopsutil/v4/disk"
)

func window(metric, name string, start int, final bool, mean float64) Rollup {
	begin := noon.Add(time.Duration(start) * time.Second)
	return Rollup{Metric: metric, Unit: unitPercent, Window: name, Start: begin, End: begin.Add(10 * time.Second), Count: 1, Mean: mean, Final: final}
}

func testBoard() *board { return newBoard("127.0.0.1:9092", "/data", prometheus.NewRegistry()) }

func TestBoardKeepsWindowsInOrderAndOnce(t *testing.T) {
	b := testBoard()
	for _, start := range []int{20, 0, 10, 10} {
		b.show(window("cpu/core0", "10s", start, true, float64(start)))
	}
	b.show(window("cpu/core0", "10s", 30, false, 1))
	b.show(window("cpu/core0", "10s", 30, false, 2))
	b.show(window("cpu/core0", "10s", 20, false, 3)) // comes late: it is closed already
	u := b.snapshot()
	var starts []float64
	for _, r := range u.Rows[0].Closed["10s"] {
		starts = append(starts, r.Mean)
	}
	if !slices.Equal(starts, []float64{0, 10, 20}) || u.Counters.Rollups != 3 {
		t.Errorf("closed %v, %d rollups", starts, u.Counters.Rollups)
	}
	if now := u.Rows[0].Now["10s"]; now.Mean != 2 || now.Final {
		t.Errorf("now %+v", now)
	}
	b.show(window("cpu/core0", "10s", 40, true, 9))
	if now := b.snapshot().Rows[0].Now["10s"]; now.Mean != 9 {
		t.Errorf("now %+v", now)
	}
	for i := range 100 {
		b.show(window("cpu/core0", "10s", 50+10*i, true, 0))
	}
	if n := len(b.snapshot().Rows[0].Closed["10s"]); n != closedWindows {
		t.Errorf("%d closed windows are kept", n)
	}
}

func TestRowsAreInOrder(t *testing.T) {
	b := testBoard()
	want := []string{"cpu/core2", "cpu/core10", "memory/used", "disk/sda/read", "network/eth0/sent", "load/1m", "load/5m", "load/15m", "other"}
	for _, m := range []string{"load/15m", "other", "cpu/core10", "network/eth0/sent", "load/1m", "disk/sda/read", "cpu/core2", "load/5m", "memory/used"} {
		b.show(window(m, "10s", 0, true, 0))
	}
	var got []string
	for _, r := range b.snapshot().Rows {
		got = append(got, r.Metric)
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestLateSamplesComeFromTheMetrics(t *testing.T) {
	registry := prometheus.NewRegistry()
	dropped := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "leat_stream_dropped_records_total"}, []string{"operator", "reason"})
	registry.MustRegister(dropped)
	dropped.WithLabelValues("rollup-10s", "late").Add(3)
	dropped.WithLabelValues("live-10s", "late").Add(3)
	dropped.WithLabelValues("rollup-1m", "late").Add(1)
	dropped.WithLabelValues("samples", "error").Add(2)
	c := newBoard("", "", registry).snapshot().Counters
	if c.Late["10s"] != 3 || c.Late["1m"] != 1 || c.Unreadable != 2 {
		t.Errorf("%+v", c)
	}
}

func TestListenersGetEverythingThenNews(t *testing.T) {
	b := testBoard()
	b.show(window("m", "10s", 0, true, 0))
	b.tell() // nobody listens
	updates, stop := b.listen()
	defer stop()
	if u := <-updates; !u.Full || len(u.Rows[0].Closed["10s"]) != 1 {
		t.Errorf("first %+v", u)
	}
	b.show(window("m", "10s", 10, true, 0))
	b.tell()
	if u := <-updates; u.Full || len(u.Closed) != 1 || u.Rows[0].Closed != nil {
		t.Errorf("second %+v", u)
	}
	for range 10 { // more than it can hold
		b.tell()
	}
	for range 4 {
		<-updates
	}
	b.tell()
	if u := <-updates; !u.Full {
		t.Errorf("after a gap %+v", u)
	}
}

func TestTerminalFitsItsHeight(t *testing.T) {
	b := testBoard()
	for i := range 30 {
		b.show(window("cpu/core"+string(rune('a'+i)), "10s", 0, true, float64(i)))
	}
	for _, height := range []int{12, 24, 100} {
		drawn := frame(b.snapshot(), "http://page", height)
		if lines := strings.Count(drawn, "\n") + 1; lines > height {
			t.Errorf("%d lines on a terminal of %d", lines, height)
		}
		if more := strings.Contains(drawn, "more on the page"); more != (height < 36) {
			t.Errorf("height %d: more %v", height, more)
		}
	}
	if drawn := frame(testBoard().snapshot(), "http://page", 24); !strings.Contains(drawn, "waiting for the first samples") {
		t.Errorf("empty board: %q", drawn)
	}
}

func TestFormat(t *testing.T) {
	for _, c := range []struct {
		value float64
		unit  string
		want  string
	}{
		{12.345, unitPercent, "12.3%"}, {0, unitRate, "0B/s"}, {999, unitBytes, "999B"}, {1536, unitBytes, "1.5KB"},
		{300 << 20, unitBytes, "300MB"}, {1020, unitRate, "1.0KB/s"}, {3 << 50, unitBytes, "3072TB"}, {0.5, unitNone, "0.50"},
	} {
		if got := format(c.value, c.unit); got != c.want {
			t.Errorf("format(%v, %q) = %q, want %q", c.value, c.unit, got, c.want)
		}
	}
}

func TestPage(t *testing.T) {
	b := testBoard()
	b.show(window("cpu/core0", "10s", 0, true, 5))
	first, moved, err := openPage("127.0.0.1:0", b)
	if err != nil || moved {
		t.Fatal(err, moved)
	}
	second, moved, err := openPage(strings.TrimPrefix(first.URL(), "http://"), b)
	if err != nil || !moved {
		t.Fatalf("a taken port: %v, moved %v", err, moved)
	}
	ended, end := context.WithCancel(context.Background())
	end()
	if err := second.Serve(ended); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- first.Serve(ctx) }()
	get := func(path, host string) *http.Response {
		t.Helper()
		request, err := http.NewRequest(http.MethodGet, first.URL()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if host != "" {
			request.Host = host
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = response.Body.Close() })
		return response
	}
	for _, c := range []struct {
		path, host string
		status     int
	}{{"/", "", 200}, {"/", "localhost:1", 200}, {"/", "evil.example", 403}, {"/state", "evil.example:8080", 403}, {"/nothing", "", 404}} {
		if got := get(c.path, c.host).StatusCode; got != c.status {
			t.Errorf("%s for host %q: %d, want %d", c.path, c.host, got, c.status)
		}
	}
	var u update
	if err := json.NewDecoder(get("/state", "").Body).Decode(&u); err != nil || len(u.Rows) != 1 || u.Rows[0].Metric != "cpu/core0" {
		t.Errorf("state %+v, %v", u, err)
	}
	events := get("/events", "")
	line, err := bufio.NewReader(events.Body).ReadString('\n')
	if err != nil || !strings.HasPrefix(line, `data: {"address":"127.0.0.1:9092"`) {
		t.Errorf("event %q, %v", line, err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestWholeDisks(t *testing.T) {
	devices := map[string]disk.IOCountersStat{}
	for _, name := range []string{"sda", "sda1", "vdb", "nvme0n1", "nvme0n1p2", "loop3", "zram0", "dm-0", "sr0", "mmcblk0", "mmcblk0p1"} {
		devices[name] = disk.IOCountersStat{}
	}
	var whole []string
	for name := range devices {
		if wholeDisk(name, devices) {
			whole = append(whole, name)
		}
	}
	slices.Sort(whole)
	if want := []string{"dm-0", "mmcblk0", "nvme0n1", "sda", "vdb"}; !slices.Equal(whole, want) {
		t.Errorf("got %v, want %v", whole, want)
	}
}

func TestSamplerReadsThisMachine(t *testing.T) {
	s := newSampler()
	now := time.Now()
	_, _ = s.Read(context.Background(), now) // rates need two
	samples, err := s.Read(context.Background(), now.Add(time.Second))
	if err != nil {
		t.Logf("this machine does not tell everything: %v", err)
	}
	kinds := map[string]bool{}
	for _, sample := range samples {
		group, _, _ := strings.Cut(sample.Metric, "/")
		kinds[group] = true
		if sample.Host == "" || sample.Value < 0 || !sample.Time.Equal(now.Add(time.Second)) {
			t.Errorf("%+v", sample)
		}
	}
	if !kinds["cpu"] || !kinds["memory"] {
		t.Errorf("samples of %v only", kinds)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for _, arguments := range [][]string{{"extra"}, {"--interval", "1ms"}, {"--data-dir", ""}, {"--unknown"}} {
		if _, err := parseOptions(arguments, io.Discard); err == nil {
			t.Errorf("%q were taken", arguments)
		}
	}
	if o, err := parseOptions([]string{"--bootstrap", "a:1", "--http", "127.0.0.1:0"}, io.Discard); err != nil || o.Bootstrap != "a:1" || o.read == nil {
		t.Errorf("%+v, %v", o, err)
	}
}

func TestPipedOutputIsLines(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	writeLines(f, []Rollup{window("cpu/core0", "10s", 0, true, 5)})
	text, err := os.ReadFile(f.Name())
	if err != nil || !strings.Contains(string(text), "cpu/core0") || strings.Contains(string(text), "\x1b") {
		t.Errorf("%q, %v", text, err)
	}
}
