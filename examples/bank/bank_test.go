package main

import (
	"context"
	"encoding/json"
	"io"
	"maps"
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
	d := streamtest.New(t, bankTopology(), streamtest.Partitions(3))
	commands, events, rejections, balances := streamtest.NewInput(d, commandsTopic), streamtest.NewOutput(d, eventsTopic),
		streamtest.NewOutput(d, rejectionsTopic), streamtest.NewOutput(d, balancesTopic)
	at := time.Unix(1_700_000_000, 0)
	for _, c := range []struct {
		account string
		Command
	}{
		{"ada", Command{Kind: "deposit", Amount: 1000}},
		{"ada", Command{Kind: "withdraw", Amount: 1001}},
		{"ada", Command{Kind: "send", Amount: 400, Other: "bob"}},
		{"ada", Command{Kind: "send", Amount: 5}},
		{"ada", Command{Kind: "deposit"}},
		{"ada", Command{Kind: "rob", Amount: 1}},
		{"ada", Command{Kind: "withdraw", Amount: 600}},
	} {
		commands.Send(c.account, c.Command, at)
	}
	var happened []string
	b := newBook()
	for _, r := range events.Read() {
		happened = append(happened, strings.Join(strings.Fields(b.enter(r.Key, r.Value)), " "))
	}
	if got := strings.Join(happened, "; "); !strings.Contains(got, "ada deposits 10.00; ada sends 4.00 to bob") ||
		!strings.Contains(got, "ada withdraws 6.00") {
		t.Errorf("events %s", got)
	}
	var reasons []string
	for _, r := range rejections.Read() {
		reasons = append(reasons, r.Value.Reason)
	}
	if got := strings.Join(reasons, "; "); got != `the balance is 10.00; the money has nowhere to go; the amount is 0: it must be positive; there is no "rob"` {
		t.Errorf("rejections %s", got)
	}
	last := map[string]int64{}
	for _, r := range balances.Read() {
		last[r.Key] = r.Value.Balance
	}
	if !maps.Equal(last, map[string]int64{"ada": 0, "bob": 400}) {
		t.Errorf("balances %v", last)
	}
}

// What was sent arrives once, no account is ever below zero, and the balances are what the
// events add up to, though the bank stops in the middle.
func TestMoneyIsKept(t *testing.T) {
	b := brokertest.Start(t)
	dir := t.TempDir()
	work := func(interval time.Duration) (stop func()) {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			cluster := &local.Cluster{Bootstrap: []string{b.Addr()}, StateDir: filepath.Join(dir, "state")}
			done <- runOn(ctx, options{Options: local.Options{DataDir: dir}, interval: interval}, cluster, io.Discard)
		}()
		return func() {
			cancel()
			if err := <-done; err != nil && !local.IsInterruption(err) {
				t.Error(err)
			}
		}
	}
	c, err := kgo.NewClient(kgo.AlwaysRetryEOF(), kgo.SeedBrokers(b.Addr()), kgo.ConsumeTopics(eventsTopic.Name, rejectionsTopic.Name, balancesTopic.Name),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.MetadataMinAge(20*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	seen, balances := newBook(), map[string]int64{}
	until := func(what string, enough func() bool) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for !enough() {
			fetches := c.PollFetches(ctx)
			if ctx.Err() != nil {
				t.Fatalf("never saw %s: %s", what, seen)
			}
			fetches.EachRecord(func(r *kgo.Record) {
				if r.Topic != balancesTopic.Name {
					seen.read(r.Topic, r.Key, r.Value)
					if seen.balances[string(r.Key)] < 0 {
						t.Errorf("%s has %d", r.Key, seen.balances[string(r.Key)])
					}
					return
				}
				var a Account
				if err := json.Unmarshal(r.Value, &a); err != nil {
					t.Error(err)
				}
				balances[string(r.Key)] = a.Balance
			})
		}
	}
	for _, events := range []int{60, 120} {
		stop := work(2 * time.Millisecond)
		until("events", func() bool { return seen.events >= events })
		stop()
	}
	stop := work(time.Hour)
	defer stop()
	until("all transfers arrive", func() bool { return seen.transit == 0 && maps.Equal(balances, seen.balances) })
	if seen.refused == 0 || len(balances) != 5 {
		t.Errorf("the customers did not do much: %s", seen)
	}
}
