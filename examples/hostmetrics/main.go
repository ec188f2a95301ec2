// Command hostmetrics shows a live rollup of this machine's metrics: it samples
// them every second into a topic, rolls them up in windows with a topology, and
// shows the result in the terminal and on a local page. See README.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/leatlog/leat/examples/internal/local"
	"github.com/leatlog/leat/stream"
	"github.com/leatlog/leat/stream/client"
)

const appID = "hostmetrics"

// options are the command line.
type options struct {
	local.Options
	http     string
	interval time.Duration
	// acknowledged is the file of acknowledged samples; none when empty.
	acknowledged string
	// read takes the samples; a test has its own.
	read func(context.Context, time.Time) ([]Sample, error)
}

func parseOptions(arguments []string, help io.Writer) (options, error) {
	o := options{Options: local.Options{Name: appID}, read: newSampler().Read}
	f := flag.NewFlagSet("hostmetrics", flag.ContinueOnError)
	f.SetOutput(help)
	o.Flags(f)
	f.StringVar(&o.http, "http", "127.0.0.1:8080", "`HOST:PORT` of the page; a free port when it is taken")
	f.DurationVar(&o.interval, "interval", time.Second, "time between samples")
	f.StringVar(&o.acknowledged, "acknowledged", "", "`FILE` to append each sample to once the cluster has acknowledged it, as a line of JSON with its partition and offset")
	if err := f.Parse(arguments); err != nil {
		return o, err
	}
	switch {
	case f.NArg() > 0:
		return o, fmt.Errorf("hostmetrics: %q is not understood: there are flags only, see --help", f.Arg(0))
	case o.interval < 10*time.Millisecond:
		return o, fmt.Errorf("hostmetrics: --interval is %v: it must be at least 10ms", o.interval)
	case o.DataDir == "":
		return o, errors.New("hostmetrics: --data-dir is empty: give a directory")
	}
	return o, nil
}

func main() {
	o, err := parseOptions(os.Args[1:], os.Stderr)
	local.Main(err, func(ctx context.Context) error { return run(ctx, o, os.Stdout) })
}

// run runs the example until ctx ends.
func run(ctx context.Context, o options, out *os.File) error {
	cluster, err := local.Start(ctx, o.Options, out)
	if err != nil {
		return fmt.Errorf("hostmetrics: %w", err)
	}
	return errors.Join(runOn(ctx, o, cluster, out), cluster.Close())
}

// runOn runs the example on a cluster until ctx ends or a part of it fails.
func runOn(ctx context.Context, o options, cluster *local.Cluster, out *os.File) error {
	bootstrap, log := cluster.Bootstrap, cluster.Log
	c, err := client.New(client.Config{Bootstrap: bootstrap, ClientID: appID, Logger: log})
	if err != nil {
		return fmt.Errorf("hostmetrics: %w", err)
	}
	defer c.Close()
	if err := createTopics(ctx, c); err != nil {
		return fmt.Errorf("hostmetrics: %w", err)
	}
	var acknowledged *acknowledgedFile
	if o.acknowledged != "" {
		if acknowledged, err = openAcknowledged(o.acknowledged); err != nil {
			return fmt.Errorf("hostmetrics: open the file of --acknowledged: %w", err)
		}
		defer acknowledged.close()
	}
	plan, err := rollupTopology().Build()
	if err != nil {
		return err
	}
	registry := prometheus.NewRegistry()
	config := stream.Config{
		AppID: appID, Bootstrap: bootstrap, InstanceID: cluster.InstanceID, StateDir: cluster.StateDir, Logger: log, Metrics: registry,
		// Open windows are shown once a second; nobody waits for them more often.
		CommitInterval: time.Second, Workers: partitions,
	}
	if asked, err := o.ShowPlan(ctx, plan, config, out); asked {
		return err
	}
	app, err := stream.New(plan, config)
	if err != nil {
		return err
	}
	b := newBoard(strings.Join(bootstrap, ","), o.DataDir, registry)
	web, moved, err := openPage(o.http, b)
	if err != nil {
		return fmt.Errorf("hostmetrics: %w", err)
	}
	announce(out, o, web, moved, bootstrap)
	defer fmt.Fprintln(out, "\nstopped; the next start goes on from here")

	// Samples stop first and are acknowledged, then the app commits what it has read.
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	appContext, stopApp := context.WithCancel(context.Background())
	defer stopApp()
	var parts, appDone sync.WaitGroup
	var first sync.Once
	var failed error
	part := func(wait *sync.WaitGroup, f func() error) {
		wait.Go(func() {
			if err := f(); err != nil {
				first.Do(func() { failed = fmt.Errorf("hostmetrics: %w", err) })
				stop()
			}
		})
	}
	part(&appDone, func() error { return app.Run(appContext) })
	part(&parts, func() error {
		p := publisher{client: c, log: log, board: b, acknowledged: acknowledged}
		p.run(ctx, o.interval, o.read)
		return nil
	})
	part(&parts, func() error { return follow(ctx, c, b, log) })
	part(&parts, func() error { return web.Serve(ctx) })
	part(&parts, func() error { showTerminal(ctx, out, b, web.URL()); return nil })
	part(&parts, func() error { b.run(ctx); return nil })
	parts.Wait()
	stopApp()
	appDone.Wait()
	return failed
}

func announce(out *os.File, o options, web *page, moved bool, bootstrap []string) {
	if moved {
		fmt.Fprintf(out, "%s is taken: the page is on another port\n", o.http)
	}
	fmt.Fprintf(out, "page:  %s\nKafka: %s   topics %s, %s   (kcat -b %s -t %s)\ndata:  %s\n",
		web.URL(), strings.Join(bootstrap, ","), samplesTopic.Name, rollupsTopic.Name, bootstrap[0], rollupsTopic.Name, o.DataDir)
}
