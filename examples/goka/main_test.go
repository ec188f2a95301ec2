package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatlog/leat/broker/brokertest"
	"github.com/leatlog/leat/examples/goka/clicks"
	"github.com/leatlog/leat/examples/internal/local"
)

// output is what the example writes, while it runs.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) has(what string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return strings.Contains(o.text.String(), what)
}

// readTo reads a topic from its start until it is enough.
func readTo(t *testing.T, address, topic string, enough func([]*kgo.Record) bool) []*kgo.Record {
	t.Helper()
	c, err := kgo.NewClient(kgo.AlwaysRetryEOF(), kgo.SeedBrokers(address), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(100*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var records []*kgo.Record
	for !enough(records) {
		fetches := c.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			t.Fatalf("%s, after %d records: %v", topic, len(records), err)
		}
		records = append(records, fetches.Records()...)
	}
	return records
}

// runUntil runs the example until it has written all of these, and checks its
// topics: each user's totals are 1, 2, 3 and so on, up to the number of clicks that
// were processed.
func runUntil(t *testing.T, unmodified bool, all ...string) {
	t.Helper()
	b := brokertest.Start(t)
	out := &output{}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	o := options{bootstrap: b.Addr(), unmodified: unmodified, dataDir: t.TempDir(), interval: 5 * time.Millisecond}
	go func() { done <- run(ctx, o, out) }()
	deadline := time.After(60 * time.Second)
	for _, what := range all {
		for ticker := time.Tick(20 * time.Millisecond); !out.has(what); {
			select {
			case <-ticker:
			case err := <-done:
				t.Fatalf("it has ended: %v\n%s", err, &out.text)
			case <-deadline:
				t.Fatalf("%q does not come:\n%s", what, &out.text)
			}
		}
	}
	stop()
	if err := <-done; err != nil && !local.IsInterruption(err) {
		t.Fatal(err)
	}
	clicked := map[string]int64{}
	for _, r := range readTo(t, b.Addr(), string(clicks.Clicks), func(r []*kgo.Record) bool { return len(r) > 0 }) {
		clicked[string(r.Key)]++
	}
	last := map[string]int64{}
	for _, r := range readTo(t, b.Addr(), string(clicks.Totals), func(r []*kgo.Record) bool { return len(r) > 0 }) {
		total, err := strconv.ParseInt(string(r.Value), 10, 64)
		if err != nil || total != last[string(r.Key)]+1 {
			t.Errorf("%s: total %s after %d, %v", r.Key, r.Value, last[string(r.Key)], err)
		}
		last[string(r.Key)] = total
	}
	if len(clicked) == 0 || len(last) == 0 {
		t.Errorf("clicks %v, totals %v", clicked, last)
	}
	if unmodified {
		return
	}
	for _, r := range readTo(t, b.Addr(), windowsTopic.Name, func(r []*kgo.Record) bool { return len(r) > 0 }) {
		key, start := string(r.Key[:len(r.Key)-8]), int64(binary.BigEndian.Uint64(r.Key[len(r.Key)-8:]))
		if n := int64(binary.BigEndian.Uint64(r.Value)); n < 1 || n > last[key] || start%window.Milliseconds() != 0 {
			t.Errorf("%s clicked %d times of %d from %d", key, n, last[key], start)
		}
	}
}

func TestGuest(t *testing.T) {
	t.Parallel()
	runUntil(t, false, "goka's table: ", "Leat's windows: ")
}

func TestUnmodified(t *testing.T) {
	t.Parallel()
	runUntil(t, true, "goka's table: ")
}

func TestMistakesAreTold(t *testing.T) {
	for _, arguments := range [][]string{{"extra"}, {"--interval", "0s"}, {"--no-such"}} {
		if _, err := parseOptions(arguments, io.Discard); err == nil {
			t.Errorf("%v are taken", arguments)
		}
	}
}
