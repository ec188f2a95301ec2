package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/leatlog/leat/examples/internal/local"
	"github.com/leatlog/leat/stream/client"
	"github.com/leatlog/leat/topology"
	"github.com/leatlog/leat/topology/plan"
)

func money(cents int64) string { return fmt.Sprintf("%d.%02d", cents/100, cents%100) }

// book is what the events say, added up by who only reads them.
type book struct {
	balances map[string]int64
	transit  int64 // sent and not received yet
	events   int
	refused  int
}

func newBook() *book { return &book{balances: map[string]int64{}} }

// enter takes an event in and describes it.
func (b *book) enter(account string, e Event) string {
	b.events++
	switch e.Kind {
	case "deposited":
		b.balances[account] += e.Amount
		return fmt.Sprintf("%-6s deposits %10s", account, money(e.Amount))
	case "withdrawn":
		b.balances[account] -= e.Amount
		return fmt.Sprintf("%-6s withdraws %9s", account, money(e.Amount))
	case "sent":
		b.transit += e.Amount
		b.balances[account] -= e.Amount
		return fmt.Sprintf("%-6s sends %13s to %s", account, money(e.Amount), e.Other)
	case "received":
		b.transit -= e.Amount
		b.balances[account] += e.Amount
		return fmt.Sprintf("%-6s receives %10s from %s", account, money(e.Amount), e.Other)
	}
	return account + " " + e.Kind
}

func (b *book) String() string {
	var words []string
	for _, account := range slices.Sorted(maps.Keys(b.balances)) {
		words = append(words, account+" "+money(b.balances[account]))
	}
	return fmt.Sprintf("%s; on the way %s; %d events, %d rejections", strings.Join(words, ", "), money(b.transit), b.events, b.refused)
}

// follow reads committed events and rejections from the beginning and shows them, and the
// book after every twenty.
func follow(ctx context.Context, c *client.Client, out io.Writer) error {
	b := newBook()
	from := map[string]time.Time{eventsTopic.Name: {}, rejectionsTopic.Name: {}}
	return local.Follow(ctx, c, local.Following{From: from, Partitions: partitions, ReadCommitted: true}, func(p client.Partition, r *plan.Record) error {
		fmt.Fprintln(out, time.UnixMilli(r.Timestamp).Format("15:04:05 "), b.read(p.Topic, r.Key, r.Value))
		if (b.events+b.refused)%20 == 0 {
			fmt.Fprintln(out, b)
		}
		return nil
	})
}

// read takes a record of one of the topics in and describes it.
func (b *book) read(topic string, key, value []byte) string {
	if topic == eventsTopic.Name {
		var e Event
		if err := json.Unmarshal(value, &e); err != nil {
			return err.Error()
		}
		return b.enter(string(key), e)
	}
	b.refused++
	var refused topology.Rejection[Command]
	if err := json.Unmarshal(value, &refused); err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%-6s may not %s %s: %s", key, refused.Command.Kind, money(refused.Command.Amount), refused.Reason)
}
