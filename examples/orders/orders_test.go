package main

import (
	"context"
	"encoding/json"
	"io"
	"path/filepath"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatlog/leat/broker/brokertest"
	"github.com/leatlog/leat/examples/internal/local"
	"github.com/leatlog/leat/stream/streamtest"
)

// A shipment has the customer of its time; what an order costs follows the price, over a
// restart; an order that is removed costs nothing any more.
func TestTopology(t *testing.T) {
	d := streamtest.New(t, ordersTopology(), streamtest.Partitions(3))
	orders, customers, products := streamtest.NewInput(d, ordersTopic), streamtest.NewInput(d, customersTopic), streamtest.NewInput(d, productsTopic)
	shipments, priced := streamtest.NewOutput(d, shipmentsTopic), streamtest.NewOutput(d, pricedTopic)
	at := time.Unix(1_700_000_000, 0)
	totals := map[string]int64{}
	read := func() {
		for _, r := range priced.Read() {
			if totals[r.Key] = r.Value.Total; r.Null {
				delete(totals, r.Key)
			}
		}
	}
	customers.Send("c0", Customer{"Ada", "London"}, at)
	orders.Send("1", Order{"c0", "p0", 2}, at)
	orders.Send("2", Order{"c9", "p1", 1}, at)
	products.Send("p0", Product{"tea", 450}, at)
	customers.Send("c0", Customer{"Ada", "Paris"}, at)
	orders.Send("3", Order{"c0", "p0", 1}, at)
	cities := map[string]string{}
	for _, r := range shipments.Read() {
		cities[r.Value.Order.Product+r.Key] += r.Value.City + "."
	}
	if cities["p0c0"] != "London.Paris." || cities["p1c9"] != "." || len(cities) != 2 {
		t.Errorf("shipments to %v", cities)
	}
	if read(); len(totals) != 2 || totals["1"] != 900 || totals["3"] != 450 {
		t.Errorf("totals %v", totals)
	}
	d.Crash()
	products.Send("p0", Product{"tea", 500}, at)
	products.Send("p1", Product{"lamp", 10}, at)
	orders.SendNull("3", at)
	if read(); len(totals) != 2 || totals["1"] != 1000 || totals["2"] != 10 {
		t.Errorf("totals %v", totals)
	}
}

// The example runs on a broker: every order is shipped and priced, over a restart.
func TestRun(t *testing.T) {
	b := brokertest.Start(t)
	dir := t.TempDir()
	c, err := kgo.NewClient(kgo.AlwaysRetryEOF(), kgo.SeedBrokers(b.Addr()), kgo.ConsumeTopics(ordersTopic.Name, shipmentsTopic.Name, pricedTopic.Name),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.MetadataMinAge(20*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	orders, priced, shipped := map[string]Order{}, map[string]bool{}, 0
	until := func(enough func() bool) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for !enough() {
			fetches := c.PollFetches(ctx)
			if ctx.Err() != nil {
				t.Fatalf("of %d orders %d are priced, and %d shipped", len(orders), len(priced), shipped)
			}
			fetches.EachRecord(func(r *kgo.Record) {
				switch r.Topic {
				case ordersTopic.Name:
					var o Order
					if err := json.Unmarshal(r.Value, &o); err != nil {
						t.Error(err)
					}
					orders[string(r.Key)] = o
				case shipmentsTopic.Name:
					shipped++
				default:
					priced[string(r.Key)] = true
				}
			})
		}
	}
	for range 2 {
		n := len(orders) + 20
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			cluster := &local.Cluster{Bootstrap: []string{b.Addr()}, StateDir: filepath.Join(dir, "state")}
			ended <- runOn(ctx, options{Options: local.Options{DataDir: dir}, interval: 20 * time.Millisecond}, cluster, io.Discard)
		}()
		until(func() bool { return len(orders) >= n && len(priced) >= n/2 && shipped >= n/2 })
		cancel()
		if err := <-ended; err != nil && !local.IsInterruption(err) {
			t.Error(err)
		}
	}
	if shipped > len(orders) {
		until(func() bool { return shipped <= len(orders) }) // the order topic may be read later
	}
}
