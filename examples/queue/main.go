// Command queue is a work queue: jobs are tried, tried again later when they fail, and put
// aside when they keep failing. See README.md.
package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"hash/fnv"
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
	appID      = "queue"
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
	f.DurationVar(&o.interval, "interval", 500*time.Millisecond, "the time between two new jobs")
	if err := f.Parse(arguments); err != nil {
		return o, err
	}
	if o.interval <= 0 {
		return o, fmt.Errorf("queue: --interval is %v: it must be positive", o.interval)
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("queue: %q is too much", f.Args())
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
	for _, name := range []string{jobsTopic.Name, doneTopic.Name, failedTopic.Name, unreadable} {
		err := c.CreateTopics(ctx, client.NewTopic{Name: name, Partitions: partitions, Replication: -1})
		if err != nil && !errors.Is(err, client.ErrTopicExists) {
			return fmt.Errorf("create topic %q: %w", name, err)
		}
	}
	plan, err := queueTopology(deliver).Build()
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
	fmt.Fprintf(out, "Kafka: %v   topics %s, %s, %s\ndata:  %s\n", cluster.Bootstrap, jobsTopic.Name, doneTopic.Name, failedTopic.Name, o.DataDir)
	defer fmt.Fprintln(out, "\nstopped; the next start goes on from here")

	return local.Together(ctx,
		app.Run,
		func(ctx context.Context) error { return submit(ctx, c, o.interval) },
		func(ctx context.Context) error { return follow(ctx, c, out) },
	)
}

// deliver stands for the world outside: half of what it is given fails, by chance of the
// id, so that a job that runs again after a crash ends in the same way.
func deliver(id string, j Job, n int) error {
	if j.To == "nobody" {
		return errors.New("there is no such mailbox")
	}
	h := fnv.New32a()
	fmt.Fprint(h, id, "/", n)
	if h.Sum32()%2 == 0 {
		return errors.New("the mailbox is busy")
	}
	return nil
}

// submit puts a job into the queue every now and then.
func submit(ctx context.Context, c *client.Client, interval time.Duration) error {
	producer, err := c.NewProducer(ctx, client.ProducerConfig{})
	if err != nil {
		return err
	}
	defer producer.Close()
	topic, err := producer.Topic(ctx, jobsTopic.Name)
	if err != nil {
		return err
	}
	people := []string{"ada", "bob", "cyd", "dan", "nobody"}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		value, err := json.Marshal(Job{To: people[mathrand.IntN(len(people))], Text: "hello"})
		if err != nil {
			return err
		}
		if err := topic.AppendByKey(time.Now().UnixMilli(), []byte(rand.Text()[:8]), value, nil); err != nil {
			return err
		}
		if err := producer.Flush(ctx); err != nil && ctx.Err() == nil {
			return err
		}
	}
}

// follow shows what became of jobs, from the beginning.
func follow(ctx context.Context, c *client.Client, out io.Writer) error {
	from := map[string]time.Time{doneTopic.Name: {}, failedTopic.Name: {}}
	return local.Follow(ctx, c, local.Following{From: from, Partitions: partitions, ReadCommitted: true}, func(_ client.Partition, r *plan.Record) error {
		_, err := fmt.Fprintln(out, time.UnixMilli(r.Timestamp).Format("15:04:05 "), show(string(r.Key), r.Value))
		return err
	})
}

// show describes a result.
func show(id string, value []byte) string {
	var r Result
	if err := json.Unmarshal(value, &r); err != nil {
		return id + "  " + err.Error()
	}
	if r.Error != "" {
		return fmt.Sprintf("%s  to %-7s given up after %d attempts: %s", id, r.Job.To, r.Attempts, r.Error)
	}
	return fmt.Sprintf("%s  to %-7s delivered at attempt %d", id, r.Job.To, r.Attempts)
}
