// Command pageviews is a small web site that shows what happens on it: page views and
// clicks go to a topic, a topology makes sessions and the top pages of each minute of
// them, and the page and the terminal show those. See README.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/leatlog/leat/examples/internal/local"
	"github.com/leatlog/leat/stream"
	"github.com/leatlog/leat/stream/client"
)

const (
	appID = "pageviews"
	// partitions of the example's topics.
	partitions = 2
)

// options are the command line, and what a test has its own of.
type options struct {
	local.Options
	http string
	now  func() time.Time
	tick time.Duration
}

func parseOptions(arguments []string, help io.Writer) (options, error) {
	o := options{Options: local.Options{Name: appID}, now: time.Now, tick: 2 * time.Second}
	f := flag.NewFlagSet(appID, flag.ContinueOnError)
	f.SetOutput(help)
	o.Flags(f)
	f.StringVar(&o.http, "http", "127.0.0.1:8080", "`HOST:PORT` of the site; a free port when it is taken")
	if err := f.Parse(arguments); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("pageviews: %q is not understood: there are flags only, see --help", f.Arg(0))
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
	log := cluster.Log
	c, err := client.New(client.Config{Bootstrap: cluster.Bootstrap, ClientID: appID, Logger: log})
	if err != nil {
		return err
	}
	defer c.Close()
	if err := createTopics(ctx, c); err != nil {
		return err
	}
	plan, err := pageviewsTopology().Build()
	if err != nil {
		return err
	}
	config := stream.Config{
		AppID: appID, Bootstrap: cluster.Bootstrap, InstanceID: cluster.InstanceID, StateDir: cluster.StateDir, Logger: log,
	}
	if asked, err := o.ShowPlan(ctx, plan, config, out); asked {
		return err
	}
	app, err := stream.New(plan, config)
	if err != nil {
		return err
	}
	p := newPublisher(c, o.now, o.tick)
	b := newBoard(strings.Join(cluster.Bootstrap, ","), o.now)
	web, moved, err := openSite(o.http, b, p.publish)
	if err != nil {
		return err
	}
	if moved {
		fmt.Fprintf(out, "%s is taken: the site is on another port\n", o.http)
	}
	fmt.Fprintf(out, "open:  %s\nKafka: %s   topics %s, %s, %s\ndata:  %s\n",
		web.URL(), strings.Join(cluster.Bootstrap, ","), activityTopic.Name, sessionsTopic.Name, topTopic.Name, o.DataDir)
	defer fmt.Fprintln(out, "\nstopped; the next start goes on from here")

	// The site ends first, then what it took is written, then the app commits what it has read.
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	publishing, stopPublishing := context.WithCancel(context.Background())
	defer stopPublishing()
	var parts, publisherDone sync.WaitGroup
	failures := make(chan error, 4)
	start := func(wait *sync.WaitGroup, part func() error) {
		wait.Go(func() {
			if err := part(); err != nil {
				failures <- err
				stop()
			}
		})
	}
	start(&publisherDone, func() error {
		p.run(publishing, func(err error) { log.Warn().Err(err).Msg("writing failed; the next activity tries again") })
		return nil
	})
	start(&parts, func() error { return app.Run(ctx) })
	start(&parts, func() error { return b.follow(ctx, c, log) })
	start(&parts, func() error { return web.Serve(ctx) })
	start(&parts, func() error { showTerminal(ctx, out, b, web.URL()); return nil })
	parts.Wait()
	stopPublishing()
	publisherDone.Wait()
	close(failures)
	return <-failures
}

// createTopics makes the example's topics unless they are there.
func createTopics(ctx context.Context, c *client.Client) error {
	for name, retention := range map[string]time.Duration{
		activityTopic.Name: 7 * 24 * time.Hour, sessionsTopic.Name: 7 * 24 * time.Hour, openTopic.Name: time.Hour, topTopic.Name: 7 * 24 * time.Hour,
	} {
		err := c.CreateTopics(ctx, client.NewTopic{
			Name: name, Partitions: partitions, Replication: -1,
			Config: map[string]string{"retention.ms": strconv.FormatInt(retention.Milliseconds(), 10)},
		})
		if err != nil && !errors.Is(err, client.ErrTopicExists) {
			return fmt.Errorf("create topic %q: %w", name, err)
		}
	}
	return nil
}
