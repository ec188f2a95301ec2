// Command bank keeps accounts by event sourcing: commands are decided into events and
// rejections, and the events are the accounts. See README.md.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"time"

	"github.com/leatlog/leat/examples/internal/local"
	"github.com/leatlog/leat/stream"
	"github.com/leatlog/leat/stream/client"
)

const (
	appID      = "bank"
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
	f.DurationVar(&o.interval, "interval", 300*time.Millisecond, "the time between two commands of the customers")
	if err := f.Parse(arguments); err != nil {
		return o, err
	}
	if o.interval <= 0 {
		return o, fmt.Errorf("bank: --interval is %v: it must be positive", o.interval)
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("bank: %q is too much", f.Args())
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
	if err := createTopics(ctx, c); err != nil {
		return err
	}
	plan, err := bankTopology().Build()
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
	fmt.Fprintf(out, "Kafka: %v   topics %s, %s, %s, %s\ndata:  %s\n", cluster.Bootstrap,
		commandsTopic.Name, eventsTopic.Name, rejectionsTopic.Name, balancesTopic.Name, o.DataDir)
	defer fmt.Fprintln(out, "\nstopped; the next start goes on from here")

	return local.Together(ctx,
		app.Run,
		func(ctx context.Context) error { return customers(ctx, c, o.interval) },
		func(ctx context.Context) error { return follow(ctx, c, out) },
	)
}

func createTopics(ctx context.Context, c *client.Client) error {
	for _, name := range []string{commandsTopic.Name, eventsTopic.Name, rejectionsTopic.Name, balancesTopic.Name, deadLetters} {
		topic := client.NewTopic{Name: name, Partitions: partitions, Replication: -1, Config: map[string]string{}}
		switch name {
		case eventsTopic.Name:
			topic.Config["retention.ms"] = "-1" // they are the accounts
		case balancesTopic.Name:
			topic.Config["cleanup.policy"] = "compact"
		}
		if err := c.CreateTopics(ctx, topic); err != nil && !errors.Is(err, client.ErrTopicExists) {
			return fmt.Errorf("create topic %q: %w", name, err)
		}
	}
	return nil
}

// customers want something every now and then.
func customers(ctx context.Context, c *client.Client, interval time.Duration) error {
	producer, err := c.NewProducer(ctx, client.ProducerConfig{})
	if err != nil {
		return err
	}
	defer producer.Close()
	topic, err := producer.Topic(ctx, commandsTopic.Name)
	if err != nil {
		return err
	}
	names := []string{"ada", "bob", "cyd", "dan", "eve"}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		from, to := rand.IntN(len(names)), rand.IntN(len(names)-1)
		if to >= from {
			to++
		}
		command := Command{Kind: []string{"deposit", "withdraw", "send", "send"}[rand.IntN(4)], Amount: 1 + rand.Int64N(50_000)}
		if command.Kind == "send" {
			command.Other = names[to]
		}
		value, err := json.Marshal(command)
		if err != nil {
			return err
		}
		if err := topic.AppendByKey(time.Now().UnixMilli(), []byte(names[from]), value, nil); err != nil {
			return err
		}
		if err := producer.Flush(ctx); err != nil && ctx.Err() == nil {
			return err
		}
	}
}
