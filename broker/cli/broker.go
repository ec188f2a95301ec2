// Package cli holds the commands of `leat` for those who run brokers: broker and log.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"github.com/leatlog/leat/broker"
)

// shutdownTimeout is how long a clean stop may take before it is given up.
const shutdownTimeout = 30 * time.Second

// flags are the command line of `leat broker`.
type flags struct {
	dataDir, listen, advertise, gossip, admin, config string
	join, roles, set                                  []string
	expect                                            int
	node                                              int32
	logLevel                                          string
}

// Command returns `leat broker`.
func Command() *cobra.Command {
	var f flags
	c := &cobra.Command{
		Use:   "broker",
		Short: "Run a broker",
		Long: `Run a broker that speaks the Apache Kafka protocol, until SIGTERM or Ctrl-C.

One line on the standard output says when it is ready; the log goes to the
standard error. Settings come from --config, then --set, then the other flags;
each overrides the ones before.

Alone it is a cluster of one. A cluster of three is formed by three of these,
started in any order, each with --bootstrap-expect 3 and all but one with --join
and the --gossip address of another; a node with --join alone joins a cluster that
is there.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			config, err := f.resolve(c)
			if err != nil {
				return err
			}
			logger, err := newLogger(c.ErrOrStderr(), f.logLevel)
			if err != nil {
				return err
			}
			config.Environment.Logger = &logger
			ctx, stop := signal.NotifyContext(c.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return run(ctx, c.OutOrStdout(), config)
		},
	}
	f.register(c)
	return c
}

func (f *flags) register(c *cobra.Command) {
	d := broker.DefaultConfig()
	p := c.Flags()
	p.StringVar(&f.dataDir, "data-dir", "leat-data", "directory of all the broker's files")
	p.StringVar(&f.listen, "listen", d.Listen, "address clients connect to, HOST:PORT; port 0 takes a free one")
	p.StringVar(&f.advertise, "advertise", "", "HOST:PORT clients are told to connect to (default: where --listen is bound)")
	p.StringVar(&f.gossip, "gossip", d.Gossip, "address nodes find each other at, HOST:PORT (default: none, with --join or --bootstrap-expect "+broker.DefaultGossip+")")
	p.StringSliceVar(&f.join, "join", nil, "gossip addresses of nodes to join, HOST:PORT,...; one is enough")
	p.IntVar(&f.expect, "bootstrap-expect", d.BootstrapExpect, "number of controllers that form a new cluster")
	p.Int32Var(&f.node, "node-id", d.NodeID, "the node's id in its cluster, 1 or more (default: that of the data directory, or one the cluster gives)")
	p.StringSliceVar(&f.roles, "roles", d.Roles, "roles of the node: broker,controller")
	p.StringVar(&f.admin, "admin", "127.0.0.1:9644", "address of /healthz, /readyz and /metrics, HOST:PORT; empty for none")
	p.StringVar(&f.config, "config", "", "file of name=value lines, as Kafka's server.properties")
	p.StringArrayVar(&f.set, "set", nil, "name=value by Kafka's broker configuration names, or flush=sync|interval|os; repeatable")
	p.StringVar(&f.logLevel, "log-level", "info", "least level that is logged: debug, info, warn, error")
}

// resolve builds the configuration out of file, --set and flags.
func (f *flags) resolve(c *cobra.Command) (broker.Config, error) {
	config := broker.DefaultConfig()
	config.DataDir, config.Admin = f.dataDir, f.admin
	if f.config != "" {
		file, err := os.Open(f.config)
		if err != nil {
			return config, fmt.Errorf("configuration file: %w", err)
		}
		defer file.Close()
		if err := config.SetFrom(file); err != nil {
			return config, fmt.Errorf("%s: %w", f.config, err)
		}
	}
	for _, s := range f.set {
		name, value, ok := strings.Cut(s, "=")
		if !ok {
			return config, fmt.Errorf("--set %.200q is not name=value", s)
		}
		if err := config.Set(name, value); err != nil {
			return config, err
		}
	}
	for name, apply := range map[string]func(){
		"data-dir":         func() { config.DataDir = f.dataDir },
		"listen":           func() { config.Listen = f.listen },
		"advertise":        func() { config.Advertise = f.advertise },
		"gossip":           func() { config.Gossip = f.gossip },
		"join":             func() { config.Join = f.join },
		"bootstrap-expect": func() { config.BootstrapExpect = f.expect },
		"node-id":          func() { config.NodeID = f.node },
		"roles":            func() { config.Roles = f.roles },
		"admin":            func() { config.Admin = f.admin },
	} {
		if c.Flags().Changed(name) {
			apply()
		}
	}
	return config, f.refuseZero(c)
}

// refuseZero refuses the values that mean "the default" in a broker.Config and
// would silently become it.
func (f *flags) refuseZero(c *cobra.Command) error {
	switch {
	case c.Flags().Changed("node-id") && f.node < 1:
		return fmt.Errorf("--node-id %d: must be 1 or more", f.node)
	case c.Flags().Changed("bootstrap-expect") && f.expect < 1:
		return fmt.Errorf("--bootstrap-expect %d: must be 1 or more", f.expect)
	case c.Flags().Changed("listen") && f.listen == "":
		return errors.New("--listen: must be HOST:PORT")
	}
	return nil
}

func newLogger(w io.Writer, level string) (zerolog.Logger, error) {
	l, err := zerolog.ParseLevel(level)
	if err != nil || level == "" {
		return zerolog.Nop(), fmt.Errorf("--log-level %.40q: must be one of debug, info, warn, error", level)
	}
	out := zerolog.ConsoleWriter{Out: w, TimeFormat: time.RFC3339, NoColor: true}
	return zerolog.New(out).Level(l).With().Timestamp().Logger(), nil
}

// run runs a broker until ctx ends or it stops by itself.
func run(ctx context.Context, out io.Writer, config broker.Config) error {
	b, err := broker.Start(ctx, config)
	if err != nil {
		if ctx.Err() != nil {
			return nil // stopped before it was ready
		}
		return err
	}
	admin := b.AdminAddr()
	if admin == "" {
		admin = "none"
	}
	fmt.Fprintf(out, "leat broker ready: node %d, clients %s, admin %s, data %s, cluster %s\n",
		b.NodeID(), b.Addr(), admin, config.DataDir, b.ClusterID())
	select {
	case <-ctx.Done():
	case <-b.Done():
	}
	stopping, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	err = b.Shutdown(stopping)
	if failed := b.Err(); failed != nil {
		return fmt.Errorf("the broker stopped: %w", failed)
	}
	return err
}
