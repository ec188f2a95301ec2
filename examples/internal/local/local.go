// Package local gives an example a cluster: a broker in its own process, so that
// nothing has to be installed, or one elsewhere that is named with --bootstrap.
package local

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/rs/zerolog"

	"github.com/leatlog/leat/broker"
)

// Options are what an example is told about its cluster.
type Options struct {
	// Name is the example's; it names the folder and the log.
	Name string
	// Bootstrap is HOST:PORT,... of a cluster; empty for a broker in this process,
	// which listens on Listen or, when that is taken, on a free port.
	Bootstrap string
	Listen    string
	// DataDir is the directory of everything that is kept.
	DataDir string
	// Plan says that the example is to show its plan and not to run; see ShowPlan.
	Plan string
}

// Flags registers the flags --bootstrap, --listen, --data-dir and --plan.
func (o *Options) Flags(f *flag.FlagSet) {
	f.StringVar(&o.Bootstrap, "bootstrap", "", "`HOST:PORT,...` of a Leat or Apache Kafka cluster to use; without it a broker is started in this process")
	f.StringVar(&o.Listen, "listen", "127.0.0.1:9092", "`HOST:PORT` that the broker in this process listens on; a free port when it is taken")
	f.StringVar(&o.DataDir, "data-dir", defaultDataDir(o.Name), "`DIR` of everything that is kept")
	o.planFlag(f)
}

// defaultDataDir is a directory of the user's, the same at every start.
func defaultDataDir(name string) string {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "leat-data"
	}
	return filepath.Join(cache, "leat", name)
}

// Cluster is what an example runs on.
type Cluster struct {
	// Bootstrap are the addresses of its brokers.
	Bootstrap []string
	// StateDir is where the example's app keeps its state of this cluster.
	StateDir string
	// InstanceID is for the app's Config. Alone on its own broker, a start after a
	// crash is the same member of the group again, and goes on at once instead of
	// waiting for the session of the dead one to end. Empty on a shared cluster.
	InstanceID string
	// Log is the file NAME.log in the data directory.
	Log zerolog.Logger
	// LogFile is its path.
	LogFile string

	file   *os.File
	broker *broker.Broker
}

// Start opens the data directory and, without a bootstrap address, starts a broker.
// What the user should know is written to out. Close it.
func Start(ctx context.Context, o Options, out io.Writer) (*Cluster, error) {
	if o.Plan != "" {
		out = os.Stderr // the output is the plan's
	}
	if o.DataDir == "" {
		return nil, errors.New("--data-dir is empty: give a directory")
	}
	if err := os.MkdirAll(o.DataDir, 0o755); err != nil {
		return nil, fmt.Errorf("make --data-dir: %w", err)
	}
	c := &Cluster{StateDir: filepath.Join(o.DataDir, "state"), LogFile: filepath.Join(o.DataDir, o.Name+".log")}
	var err error
	if c.file, err = os.OpenFile(c.LogFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644); err != nil {
		return nil, fmt.Errorf("open the log: %w", err)
	}
	c.Log = zerolog.New(zerolog.SyncWriter(c.file)).With().Timestamp().Logger().Level(zerolog.InfoLevel)
	if o.Bootstrap != "" {
		// The state belongs to the cluster that holds its changelogs.
		c.Bootstrap = strings.Split(o.Bootstrap, ",")
		c.StateDir = filepath.Join(o.DataDir, "cluster-"+FileName(o.Bootstrap), "state")
		return c, nil
	}
	if err := c.startBroker(ctx, o, out); err != nil {
		return nil, errors.Join(err, c.file.Close())
	}
	c.Bootstrap, c.InstanceID = []string{c.broker.Addr()}, o.Name
	return c, nil
}

func (c *Cluster) startBroker(ctx context.Context, o Options, out io.Writer) error {
	config := broker.DefaultConfig()
	config.DataDir = filepath.Join(o.DataDir, "broker")
	config.Environment.Logger = &c.Log
	// The example is alone in its group: its tasks need not wait for others.
	config.Groups.InitialRebalanceDelay = -1
	l, moved, err := Listen(o.Listen)
	if err != nil {
		return fmt.Errorf("--listen %s: %w", o.Listen, err)
	}
	if moved {
		fmt.Fprintf(out, "%s is taken: the broker listens on %s\n", o.Listen, l.Addr())
	}
	config.Listener = l
	if c.broker, err = broker.Start(ctx, config); err != nil {
		return fmt.Errorf("start the broker in %s: %w", config.DataDir, err)
	}
	return nil
}

// Close stops the broker, if it is the example's own.
func (c *Cluster) Close() error {
	var err error
	if c.broker != nil {
		err = c.broker.Close()
	}
	return errors.Join(err, c.file.Close())
}

// FileName turns an address into the name of a file.
func FileName(address string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '-' {
			return r
		}
		return '_'
	}, address)
}
