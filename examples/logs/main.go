// Command logs gathers the lines of log files in a topic, understands them, counts
// them by file, level and minute, and keeps what it does not understand as dead
// letters. See README.md.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/leatlog/leat/examples/internal/local"
	"github.com/leatlog/leat/stream"
	"github.com/leatlog/leat/stream/client"
)

const appID = "logs"

// options are the command line.
type options struct {
	local.Options
	fromStart bool
	patterns  []string
}

func parseOptions(arguments []string, help io.Writer) (options, error) {
	o := options{Options: local.Options{Name: appID}}
	f := flag.NewFlagSet(appID, flag.ContinueOnError)
	f.SetOutput(help)
	f.Usage = func() {
		fmt.Fprintf(help, "logs [flags] [FILE or pattern ...]\nWithout files: /var/log/*.log, /var/log/*/*.log, and the example's own log.\n")
		f.PrintDefaults()
	}
	o.Flags(f)
	f.BoolVar(&o.fromStart, "from-start", false, "read files that are new from their start, not their last 64 KiB")
	if err := f.Parse(arguments); err != nil {
		return o, err
	}
	o.patterns = f.Args()
	for _, pattern := range o.patterns {
		if _, err := filepath.Match(pattern, ""); err != nil {
			return o, fmt.Errorf("logs: pattern %q: %w", pattern, err)
		}
	}
	return o, nil
}

func main() {
	o, err := parseOptions(os.Args[1:], os.Stderr)
	local.Main(err, func(ctx context.Context) error { return run(ctx, o, os.Stdout) })
}

// run runs the example until ctx ends.
func run(ctx context.Context, o options, out *os.File) error {
	return local.Run(ctx, o.Options, out, func(cluster *local.Cluster) error { return runOn(ctx, o, cluster, out) })
}

// runOn runs the example on a cluster until ctx ends or a part of it fails.
func runOn(ctx context.Context, o options, cluster *local.Cluster, out *os.File) error {
	patterns := o.patterns
	if len(patterns) == 0 {
		patterns = []string{"/var/log/*.log", "/var/log/*/*.log", cluster.LogFile}
	}
	c, err := client.New(client.Config{Bootstrap: cluster.Bootstrap, ClientID: appID, Logger: cluster.Log})
	if err != nil {
		return err
	}
	defer c.Close()
	if err := createTopics(ctx, c); err != nil {
		return err
	}
	read, err := loadPositions(filepath.Join(o.DataDir, "positions.json"))
	if err != nil {
		return err
	}
	plan, err := logTopology().Build()
	if err != nil {
		return err
	}
	config := stream.Config{
		AppID: appID, Bootstrap: cluster.Bootstrap, InstanceID: cluster.InstanceID, StateDir: cluster.StateDir, Logger: cluster.Log,
		CommitInterval: 500 * time.Millisecond,
	}
	if asked, err := o.ShowPlan(ctx, plan, config, out); asked {
		return err
	}
	app, err := stream.New(plan, config)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "files: %s\nKafka: %s   topics %s, %s, %s, %s\ndata:  %s\n", strings.Join(patterns, " "), strings.Join(cluster.Bootstrap, ","),
		linesTopic.Name, entriesTopic.Name, countsTopic.Name, deadLetters, o.DataDir)
	defer fmt.Fprintln(out, "\nstopped; the next start goes on from here")

	board := newBoard()
	s := &shipper{client: c, log: cluster.Log, patterns: patterns, fromStart: o.fromStart, positions: read}
	return local.Together(ctx,
		app.Run,
		func(ctx context.Context) error { return s.run(ctx) },
		func(ctx context.Context) error { return follow(ctx, c, board) },
		func(ctx context.Context) error { show(ctx, out, board, cluster); return nil },
	)
}
