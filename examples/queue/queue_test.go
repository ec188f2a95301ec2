package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"path/filepath"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatlog/leat/broker/brokertest"
	"github.com/leatlog/leat/examples/internal/local"
	"github.com/leatlog/leat/stream/streamtest"
)

// A job that fails is tried again after 1, 2, 4 and 8 seconds, over restarts and crashes,
// and then put aside; others do not wait for it.
func TestTopology(t *testing.T) {
	d := streamtest.New(t, queueTopology(func(_ string, j Job, n int) error {
		if j.To == "nobody" || j.To == "busy" && n < 3 {
			return errors.New(j.To)
		}
		return nil
	}), streamtest.Partitions(2))
	jobs, done, failed := streamtest.NewInput(d, jobsTopic), streamtest.NewOutput(d, doneTopic), streamtest.NewOutput(d, failedTopic)
	begin := d.Now()
	jobs.Send("1", Job{To: "nobody"}, begin)
	jobs.Send("2", Job{To: "busy"}, begin)
	jobs.Send("3", Job{To: "ada"}, begin)
	jobs.SendNull("4", begin)
	if err := jobs.SendRaw([]byte("5"), []byte("no job"), begin); err != nil {
		t.Fatal(err)
	}
	if got := done.Read(); len(got) != 1 || got[0].Key != "3" || got[0].Value.Attempts != 1 {
		t.Errorf("done at once: %v", got)
	}
	doneAt, failedAt := map[string]time.Duration{}, map[string]time.Duration{}
	for second := range 40 {
		d.Advance(time.Second)
		if second%3 == 1 {
			d.Crash() // the clock of the timers begins again: some attempts come a little later
		}
		for _, r := range done.Read() {
			if doneAt[r.Key] != 0 || r.Value.Attempts != 3 {
				t.Errorf("%s was done at %v and %v", r.Key, doneAt[r.Key], r)
			}
			doneAt[r.Key] = r.Time.Sub(begin)
		}
		for _, r := range failed.Read() {
			if failedAt[r.Key] != 0 || r.Value.Attempts != maxAttempts || r.Value.Error != "nobody" {
				t.Errorf("%s failed at %v and %v", r.Key, failedAt[r.Key], r)
			}
			failedAt[r.Key] = r.Time.Sub(begin)
		}
	}
	if len(doneAt) != 1 || doneAt["2"] < 3*time.Second || len(failedAt) != 1 || failedAt["1"] < 15*time.Second {
		t.Errorf("done %v, failed %v", doneAt, failedAt)
	}
}

// Every job ends once, done or failed, though the app stops and starts in between.
func TestEveryJobEndsOnce(t *testing.T) {
	b := brokertest.Start(t)
	dir := t.TempDir()
	work := func(interval time.Duration) (stop func()) {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			cluster := &local.Cluster{Bootstrap: []string{b.Addr()}, StateDir: filepath.Join(dir, "state")}
			ended <- runOn(ctx, options{Options: local.Options{DataDir: dir}, interval: interval}, cluster, io.Discard)
		}()
		return func() {
			cancel()
			if err := <-ended; err != nil && !local.IsInterruption(err) {
				t.Error(err)
			}
		}
	}
	c, err := kgo.NewClient(kgo.AlwaysRetryEOF(), kgo.SeedBrokers(b.Addr()), kgo.ConsumeTopics(jobsTopic.Name, doneTopic.Name, failedTopic.Name),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.MetadataMinAge(20*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	jobs, ended := map[string]bool{}, map[string]bool{}
	retried := 0
	until := func(what string, enough func() bool) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for !enough() {
			fetches := c.PollFetches(ctx)
			if ctx.Err() != nil {
				t.Fatalf("never saw %s: %d of %d jobs have ended", what, len(ended), len(jobs))
			}
			fetches.EachRecord(func(r *kgo.Record) {
				id := string(r.Key)
				if r.Topic == jobsTopic.Name {
					jobs[id] = true
					return
				}
				var result Result
				if err := json.Unmarshal(r.Value, &result); err != nil || ended[id] || (result.Error != "") != (r.Topic == failedTopic.Name) {
					t.Errorf("%s: %s ended before: %v, %v", r.Topic, r.Value, ended[id], err)
				}
				ended[id] = true
				if result.Attempts > 1 && result.Error == "" {
					retried++
				}
			})
		}
	}
	for range 2 {
		n := len(jobs) + 20
		stop := work(20 * time.Millisecond)
		until("jobs", func() bool { return len(jobs) >= n && len(ended) >= n/4 })
		stop()
	}
	stop := work(time.Hour)
	defer stop()
	until("a job that was tried again", func() bool { return retried > 0 })
}
