package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatlog/leat/broker/brokertest"
	"github.com/leatlog/leat/examples/internal/local"
	"github.com/leatlog/leat/stream/streamtest"
)

func TestTopology(t *testing.T) {
	d := streamtest.New(t, logTopology(), streamtest.Partitions(2))
	lines := streamtest.NewInput(d, linesTopic)
	counts := streamtest.NewOutput(d, countsTopic)
	minute := time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)
	for i := range 10 {
		lines.Send("a.log", fmt.Sprintf(`{"level":"info","time":%q}`, minute.Add(time.Duration(i)*10*time.Second).Format(time.RFC3339)), minute)
	}
	lines.Send("a.log", "ERROR once", minute)
	lines.Send("a.log", "{", minute)
	got := make(map[string]int64)
	for _, r := range counts.Read() {
		got[r.Value.Level+r.Value.Minute.UTC().Format(" 15:04")] = r.Value.Lines
	}
	if len(got) != 3 || got["info 12:00"] != 6 || got["info 12:01"] != 4 || got["error 12:00"] != 1 {
		t.Errorf("counts %v", got)
	}
}

// TestRunsAndGoesOn writes lines while the example runs, while it is stopped, and
// while it runs again, and reads from the topics that each came once.
func TestRunsAndGoesOn(t *testing.T) {
	b := brokertest.Start(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "app.log")
	written := 0
	more := func() {
		for range 20 {
			write(t, file, fmt.Sprintf("level=info msg=%d\n", written))
			written++
		}
		write(t, file, "{broken\n")
	}
	reader, err := kgo.NewClient(kgo.AlwaysRetryEOF(), kgo.SeedBrokers(b.Addr()), kgo.ConsumeTopics(entriesTopic.Name, deadLetters),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.MetadataMinAge(50*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	seen := make(map[string]int)
	dead := 0
	for round := range 2 {
		more()
		out, err := os.Create(filepath.Join(dir, fmt.Sprintf("out%d", round)))
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			cluster := &local.Cluster{Bootstrap: []string{b.Addr()}, StateDir: filepath.Join(dir, "state")}
			done <- runOn(ctx, options{Options: local.Options{DataDir: dir}, fromStart: true, patterns: []string{file}}, cluster, out)
		}()
		more()
		for len(seen) < written || dead < 2*(round+1) {
			poll, cancel := context.WithTimeout(t.Context(), time.Minute)
			fetched := reader.PollFetches(poll)
			cancel()
			if poll.Err() != nil && fetched.NumRecords() == 0 {
				t.Fatalf("round %d: %d of %d lines, %d dead letters", round, len(seen), written, dead)
			}
			for _, r := range fetched.Records() {
				if r.Topic == deadLetters {
					dead++
					continue
				}
				var e Entry
				if err := json.Unmarshal(r.Value, &e); err != nil {
					t.Fatal(err)
				}
				seen[e.Message]++
			}
		}
		stop()
		if err := <-done; err != nil && !local.IsInterruption(err) {
			t.Fatal(err)
		}
		_ = out.Close()
		text, err := os.ReadFile(out.Name())
		if err != nil || !strings.Contains(string(text), "the next start goes on") {
			t.Errorf("%v: %s", err, text)
		}
	}
	for i := range written {
		if seen[fmt.Sprint(i)] != 1 {
			t.Errorf("line %d came %d times", i, seen[fmt.Sprint(i)])
		}
	}
	if dead != 4 {
		t.Errorf("%d dead letters", dead)
	}
}

func TestFrame(t *testing.T) {
	b := newBoard()
	now := time.Now()
	b.counts[kind{"error", "/var/log/app.log"}] = map[int64]int64{now.Unix(): 3, now.Add(-2 * time.Hour).Unix(): 9}
	b.trouble("evil \x1b[2J line")
	frame := b.frame(now, 30, "addr")
	if !strings.Contains(frame, "/var/log/app.log") || !strings.Contains(frame, "       3") || strings.Contains(frame, "12") || strings.Contains(frame, "evil \x1b") {
		t.Errorf("%q", frame)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for _, arguments := range [][]string{{"["}, {"--unknown"}} {
		if _, err := parseOptions(arguments, io.Discard); err == nil {
			t.Errorf("%q were taken", arguments)
		}
	}
}
