// Command goka runs a goka program on Leat in two ways: unmodified, on the broker,
// and as a guest of a Leat app, whose topology reads on from it. See README.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/lovoo/goka"
	"github.com/rs/zerolog"

	"github.com/leatlog/leat/broker"
	"github.com/leatlog/leat/examples/goka/clicks"
	"github.com/leatlog/leat/examples/internal/local"
	"github.com/leatlog/leat/stream"
	"github.com/leatlog/leat/stream/gokastream"
)

// options are the command line.
type options struct {
	bootstrap  string
	unmodified bool
	dataDir    string
	interval   time.Duration
}

func parseOptions(arguments []string, help io.Writer) (options, error) {
	var o options
	f := flag.NewFlagSet("goka", flag.ContinueOnError)
	f.SetOutput(help)
	f.StringVar(&o.bootstrap, "bootstrap", "", "`HOST:PORT,...` of a Leat or Apache Kafka cluster to use; without it a broker is started in this process")
	f.BoolVar(&o.unmodified, "unmodified", false, "run the goka program by itself, not as a guest of a Leat app")
	f.StringVar(&o.dataDir, "data-dir", "", "`DIR` of everything that is kept; a temporary one without it")
	f.DurationVar(&o.interval, "interval", 100*time.Millisecond, "time between clicks")
	err := f.Parse(arguments)
	if err == nil && f.NArg() > 0 {
		err = fmt.Errorf("goka: %q is not understood: there are flags only, see --help", f.Arg(0))
	}
	if err == nil && o.interval <= 0 {
		err = fmt.Errorf("goka: --interval is %v: it must be more than 0", o.interval)
	}
	return o, err
}

func main() {
	o, err := parseOptions(os.Args[1:], os.Stderr)
	local.Main(err, func(ctx context.Context) error { return run(ctx, o, os.Stdout) })
}

// run runs the example until ctx ends.
func run(ctx context.Context, o options, out io.Writer) (err error) {
	if o.dataDir == "" {
		if o.dataDir, err = os.MkdirTemp("", "leat-goka-"); err != nil {
			return err
		}
		defer os.RemoveAll(o.dataDir)
	}
	out = &lines{out: out}
	bootstrap := strings.Split(o.bootstrap, ",")
	if o.bootstrap == "" {
		b, startErr := startBroker(ctx, filepath.Join(o.dataDir, "broker"))
		if startErr != nil {
			return startErr
		}
		defer func() { err = errors.Join(err, b.Close()) }()
		bootstrap = []string{b.Addr()}
	}
	fmt.Fprintf(out, "Kafka: %s   topics %s, %s\n", strings.Join(bootstrap, ","), clicks.Clicks, clicks.Totals)
	if err := clicks.EnsureTopics(bootstrap); err != nil {
		return err
	}
	if o.unmodified {
		return runUnmodified(ctx, o, bootstrap, out)
	}
	return runGuest(ctx, o, bootstrap, out)
}

func startBroker(ctx context.Context, dir string) (*broker.Broker, error) {
	config := broker.DefaultConfig()
	config.DataDir, config.Listen, config.Admin = dir, "127.0.0.1:0", ""
	config.Groups.InitialRebalanceDelay = -1 // each group here has one member
	logger := zerolog.Nop()
	config.Environment.Logger = &logger
	return broker.Start(ctx, config)
}

// runUnmodified runs the goka program as it is.
func runUnmodified(ctx context.Context, o options, bootstrap []string, out io.Writer) error {
	p, err := clicks.Processor(bootstrap, filepath.Join(o.dataDir, "goka"))
	if err != nil {
		return err
	}
	return together(ctx, p.Run,
		func(ctx context.Context) error { return clicks.Emit(ctx, bootstrap, o.interval) },
		func(ctx context.Context) error { return showTotals(ctx, func() *goka.Processor { return p }, out) })
}

// runGuest runs the goka program's graph in a Leat app.
func runGuest(ctx context.Context, o options, bootstrap []string, out io.Writer) error {
	guest := gokastream.NewGuest(clicks.Graph())
	plan, err := perWindow(out).Build()
	if err != nil {
		return err
	}
	if err := createOutput(ctx, bootstrap); err != nil {
		return err
	}
	app, err := stream.New(plan, stream.Config{
		AppID: "goka-example", Bootstrap: bootstrap, StateDir: filepath.Join(o.dataDir, "state"),
		Guarantee: stream.AtLeastOnce, // what goka's output is, before the topology reads it
		Guests:    []stream.Guest{guest},
	})
	if err != nil {
		return err
	}
	return together(ctx, app.Run,
		func(ctx context.Context) error {
			// The keys must be where Leat looks for them.
			return clicks.Emit(ctx, bootstrap, o.interval, goka.WithEmitterHasher(gokastream.Hasher()))
		},
		func(ctx context.Context) error { return showTotals(ctx, guest.Processor, out) })
}

// together runs all until ctx ends or one fails, and returns the first error.
func together(ctx context.Context, parts ...func(context.Context) error) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var wait sync.WaitGroup
	var first sync.Once
	var failed error
	for _, part := range parts {
		wait.Go(func() {
			if err := part(ctx); err != nil && ctx.Err() == nil {
				first.Do(func() { failed = err })
			}
			stop()
		})
	}
	wait.Wait()
	return failed
}

// showTotals writes a line of goka's table every second.
func showTotals(ctx context.Context, processor func() *goka.Processor, out io.Writer) error {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		p := processor()
		if p == nil || !p.Recovered() {
			continue // it is starting, or moving partitions
		}
		var line []string
		for _, user := range clicks.Users {
			total, err := p.Get(user)
			if err != nil {
				line = nil // its partition is being moved
				break
			}
			if total != nil {
				line = append(line, fmt.Sprintf("%s %d", user, total))
			}
		}
		if len(line) > 0 {
			fmt.Fprintf(out, "goka's table: %s\n", strings.Join(line, ", "))
		}
	}
}

// lines is a writer for several goroutines.
type lines struct {
	mu  sync.Mutex
	out io.Writer
}

// Write implements io.Writer.
func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.out.Write(p)
}
