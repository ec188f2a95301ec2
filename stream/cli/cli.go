// Package cli holds the commands of `leat` that talk to a cluster, a Leat or an
// Apache Kafka one: topic, produce, consume, group, config, txn and topology.
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"github.com/leatlog/leat/stream/client"
)

// Commands returns the commands, to be added to the root.
func Commands() []*cobra.Command {
	return []*cobra.Command{topicCommand(), produceCommand(), consumeCommand(), groupCommand(), configCommand(), txnCommand(), topologyCommand()}
}

// connection is what every command is told about the cluster and its output.
type connection struct {
	bootstrap []string
	json      bool
	timeout   time.Duration
}

// answerTimeout is how long a command waits for the first answer of a broker.
const answerTimeout = 10 * time.Second

// addFlags adds the flags of a connection to a command and those below it.
func (c *connection) addFlags(cmd *cobra.Command) {
	f := cmd.PersistentFlags()
	f.StringSliceVar(&c.bootstrap, "bootstrap", []string{"127.0.0.1:9092"}, "address of a broker, `HOST:PORT`; several with commas")
	f.BoolVar(&c.json, "json", false, "write JSON")
	f.DurationVar(&c.timeout, "timeout", answerTimeout, "how long to wait for a broker to answer")
}

// run connects, calls do, and turns interruption into a clean end.
func (c *connection) run(cmd *cobra.Command, do func(ctx context.Context, cl *client.Client) error) error {
	ctx := cmd.Context()
	if ctx == nil {
		ctx = context.Background()
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	cl, err := client.New(client.Config{
		Bootstrap: c.bootstrap, ClientID: "leat-cli", Logger: zerolog.Nop(), Dialer: dialer(ctx), RetryTimeout: c.timeout,
	})
	if err != nil {
		return err
	}
	defer cl.Close()
	ping, cancel := context.WithTimeout(ctx, c.timeout)
	err = cl.Ping(ping)
	cancel()
	if err == nil {
		err = do(ctx, cl)
	} else if ctx.Err() == nil {
		err = fmt.Errorf("no broker answers at %s: start one with `leat broker`, or name another with --bootstrap: %w",
			strings.Join(c.bootstrap, ", "), errors.Unwrap(err))
	}
	if err != nil && errors.Is(err, context.Canceled) && ctx.Err() != nil {
		return nil // interrupted
	}
	return err
}

// dialerKey carries a dialer in a command's context; see WithDialer.
type dialerKey struct{}

// WithDialer returns a context whose commands open connections with dial, for
// brokers that are reached in memory.
func WithDialer(ctx context.Context, dial func(ctx context.Context, network, address string) (net.Conn, error)) context.Context {
	return context.WithValue(ctx, dialerKey{}, client.Dialer(dial))
}

func dialer(ctx context.Context) client.Dialer {
	d, _ := ctx.Value(dialerKey{}).(client.Dialer)
	return d
}

// writeJSON writes v as indented JSON.
func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// explain adds what to do to errors that users meet.
func explain(err error) error {
	switch {
	case errors.Is(err, client.ErrUnknownTopic):
		return fmt.Errorf("%w; `leat topic list` shows what there is", err)
	case errors.Is(err, client.ErrGroupNotEmpty):
		return fmt.Errorf("%w; stop them first, `leat group describe` shows who they are", err)
	case errors.Is(err, client.ErrUnknownGroup):
		return fmt.Errorf("%w; `leat group list` shows what there is", err)
	case errors.Is(err, client.ErrUnknownTransaction):
		return fmt.Errorf("%w; `leat txn list` shows what there is", err)
	}
	return err
}

// topicOf asks for one topic.
func topicOf(ctx context.Context, cl *client.Client, name string) (*client.Topic, error) {
	topics, err := cl.Topics(ctx, name)
	if err != nil {
		return nil, err
	}
	t, ok := topics[name]
	if !ok {
		return nil, fmt.Errorf("topic %q: %w", name, client.ErrUnknownTopic)
	}
	return t, nil
}

// partitionsOf reads TOPIC, which means all of its partitions, or TOPIC:0,2.
func partitionsOf(ctx context.Context, cl *client.Client, value string) ([]client.Partition, error) {
	name, list, some := strings.Cut(value, ":")
	t, err := topicOf(ctx, cl, name)
	if err != nil {
		return nil, err
	}
	var out []client.Partition
	if !some {
		for i := range t.Partitions {
			out = append(out, client.Partition{Topic: name, Partition: int32(i)})
		}
		return out, nil
	}
	for field := range strings.SplitSeq(list, ",") {
		i, err := strconv.Atoi(field)
		if err != nil || i < 0 || i >= len(t.Partitions) {
			return nil, fmt.Errorf("partition %q: topic %s has the partitions 0 to %d", field, name, len(t.Partitions)-1)
		}
		out = append(out, client.Partition{Topic: name, Partition: int32(i)})
	}
	return out, nil
}
