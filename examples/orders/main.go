// Command orders joins orders with customers and products. See README.md.
package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"os"
	"time"

	"github.com/leatlog/leat/examples/internal/local"
	"github.com/leatlog/leat/stream"
	"github.com/leatlog/leat/stream/client"
	"github.com/leatlog/leat/topology/plan"
)

const (
	appID      = "orders"
	partitions = 4
)

// options are the command line.
type options struct {
	local.Options
	interval time.Duration
}

func parseOptions(arguments []string, help io.Writer) (options, error) {
	o := options{Options: local.Options{Name: appID}}
	f := flag.NewFlagSet(appID, flag.ContinueOnError)
	f.SetOutput(help)
	o.Flags(f)
	f.DurationVar(&o.interval, "interval", 500*time.Millisecond, "the time between two orders")
	if err := f.Parse(arguments); err != nil {
		return o, err
	}
	if o.interval <= 0 {
		return o, fmt.Errorf("orders: --interval is %v: it must be positive", o.interval)
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("orders: %q is too much", f.Args())
	}
	return o, nil
}

func main() {
	o, err := parseOptions(os.Args[1:], os.Stderr)
	local.Main(err, func(ctx context.Context) error { return run(ctx, o, os.Stdout) })
}

// run runs the example until ctx ends.
func run(ctx context.Context, o options, out io.Writer) error {
	return local.Run(ctx, o.Options, out, func(cluster *local.Cluster) error { return runOn(ctx, o, cluster, out) })
}

// runOn runs the example on a cluster until ctx ends or a part of it fails.
func runOn(ctx context.Context, o options, cluster *local.Cluster, out io.Writer) error {
	c, err := client.New(client.Config{Bootstrap: cluster.Bootstrap, ClientID: appID, Logger: cluster.Log})
	if err != nil {
		return err
	}
	defer c.Close()
	for _, name := range []string{ordersTopic.Name, customersTopic.Name, productsTopic.Name, shipmentsTopic.Name, pricedTopic.Name} {
		topic := client.NewTopic{Name: name, Partitions: partitions, Replication: -1}
		if name != ordersTopic.Name && name != shipmentsTopic.Name {
			topic.Config = map[string]string{"cleanup.policy": "compact"} // they are tables
		}
		err := c.CreateTopics(ctx, topic)
		if err != nil && !errors.Is(err, client.ErrTopicExists) {
			return fmt.Errorf("create topic %q: %w", name, err)
		}
	}
	plan, err := ordersTopology().Build()
	if err != nil {
		return err
	}
	config := stream.Config{
		AppID: appID, Bootstrap: cluster.Bootstrap, InstanceID: cluster.InstanceID, StateDir: cluster.StateDir, Logger: cluster.Log,
	}
	if asked, err := o.ShowPlan(ctx, plan, config, out); asked {
		return err
	}
	app, err := stream.New(plan, config)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "Kafka: %v   topics %s, %s, %s\ndata:  %s\n", cluster.Bootstrap, ordersTopic.Name, shipmentsTopic.Name, pricedTopic.Name, o.DataDir)
	defer fmt.Fprintln(out, "\nstopped; the next start goes on from here")

	return local.Together(ctx,
		app.Run,
		func(ctx context.Context) error { return shop(ctx, c, o.interval) },
		func(ctx context.Context) error { return follow(ctx, c, out) },
	)
}

// shop makes customers and products, and then an order every now and then, or a new price.
func shop(ctx context.Context, c *client.Client, interval time.Duration) error {
	producer, err := c.NewProducer(ctx, client.ProducerConfig{})
	if err != nil {
		return err
	}
	defer producer.Close()
	if err := producer.Topics(ctx, ordersTopic.Name, customersTopic.Name, productsTopic.Name); err != nil {
		return err
	}
	put := func(topic, key string, value any) error {
		to, err := producer.Topic(ctx, topic)
		if err != nil {
			return err
		}
		encoded, err := json.Marshal(value)
		if err != nil {
			return err
		}
		return to.AppendByKey(time.Now().UnixMilli(), []byte(key), encoded, nil)
	}
	customers := []Customer{{"Ada", "London"}, {"Bob", "Oslo"}, {"Cyd", "Porto"}}
	products := []Product{{"tea", 450}, {"lamp", 3900}, {"chair", 12500}}
	for n, customer := range customers {
		if err := put(customersTopic.Name, fmt.Sprint("c", n), customer); err != nil {
			return err
		}
	}
	for n, product := range products {
		if err := put(productsTopic.Name, fmt.Sprint("p", n), product); err != nil {
			return err
		}
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		if err := producer.Flush(ctx); err != nil && ctx.Err() == nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		n := mathrand.IntN(len(products))
		if mathrand.IntN(10) == 0 {
			products[n].Price += 100
			err = put(productsTopic.Name, fmt.Sprint("p", n), products[n])
		} else {
			err = put(ordersTopic.Name, rand.Text()[:8],
				Order{Customer: fmt.Sprint("c", mathrand.IntN(len(customers))), Product: fmt.Sprint("p", n), Quantity: 1 + mathrand.Int64N(4)})
		}
		if err != nil {
			return err
		}
	}
}

// follow shows what comes of the joins, from the beginning.
func follow(ctx context.Context, c *client.Client, out io.Writer) error {
	from := map[string]time.Time{shipmentsTopic.Name: {}, pricedTopic.Name: {}}
	return local.Follow(ctx, c, local.Following{From: from, Partitions: partitions, ReadCommitted: true}, func(p client.Partition, r *plan.Record) error {
		_, err := fmt.Fprintln(out, time.UnixMilli(r.Timestamp).Format("15:04:05 "), show(p.Topic, string(r.Key), r.Value))
		return err
	})
}

// show describes a result.
func show(topic, key string, value []byte) string {
	if topic == shipmentsTopic.Name {
		var s Shipment
		if err := json.Unmarshal(value, &s); err != nil {
			return err.Error()
		}
		return fmt.Sprintf("ship  %d x %s to %s in %s", s.Order.Quantity, s.Order.Product, s.Name, s.City)
	}
	var p Priced
	if err := json.Unmarshal(value, &p); err != nil {
		return err.Error()
	}
	return fmt.Sprintf("order %s: %d x %s costs %d.%02d", key, p.Order.Quantity, p.Product, p.Total/100, p.Total%100)
}
