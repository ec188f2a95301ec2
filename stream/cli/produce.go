package cli

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/leatlog/leat/stream/client"
	"github.com/leatlog/leat/topology/plan"
)

// produceFlags are the flags of `leat produce`.
type produceFlags struct {
	connection
	separator string
	codec     string
	partition int32
	headers   []string
	null      bool
}

// maxLine bounds a line of input.
const maxLine = 64 << 20

// sendInterval is how long a line may wait for others of its batch.
const sendInterval = 20 * time.Millisecond

func produceCommand() *cobra.Command {
	var f produceFlags
	cmd := &cobra.Command{
		Use:   "produce TOPIC",
		Short: "Write the lines of the standard input to a topic",
		Long: `Write the lines of the standard input to a topic, one record each, acknowledged
by all in-sync replicas. Records without a key take turns over the partitions;
equal keys go to the same partition, the one that Kafka's clients choose. A topic
that does not exist is created with the cluster's defaults where the cluster allows
that (auto.create.topics.enable).`,
		Example: "  echo 'alice:hello' | leat produce greetings --key-separator :",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			codec, err := client.ParseCodec(f.codec)
			if err != nil {
				return fmt.Errorf("--compression: %w", err)
			}
			headers, err := f.parseHeaders()
			if err != nil {
				return err
			}
			return f.run(cmd, func(ctx context.Context, cl *client.Client) error {
				n, err := f.produce(ctx, cl, args[0], codec, headers, cmd.InOrStdin())
				if err != nil {
					return explain(err)
				}
				if f.json {
					return writeJSON(cmd.OutOrStdout(), map[string]any{"topic": args[0], "records": n})
				}
				return nil
			})
		},
	}
	f.addFlags(cmd)
	cmd.Flags().StringVar(&f.separator, "key-separator", "", "what ends the key of a line; without it records have no key")
	cmd.Flags().StringVar(&f.codec, "compression", "none", "none, gzip, snappy, lz4 or zstd")
	cmd.Flags().Int32Var(&f.partition, "partition", -1, "write to this partition; -1 goes by key")
	cmd.Flags().StringArrayVar(&f.headers, "header", nil, "a header for every record, `name=value`; may be repeated")
	cmd.Flags().BoolVar(&f.null, "null-value", false, "write empty values as null, which deletes the key in a compacted topic")
	return cmd
}

func (f *produceFlags) parseHeaders() ([]plan.Header, error) {
	var headers []plan.Header
	for _, h := range f.headers {
		name, value, ok := strings.Cut(h, "=")
		if !ok {
			return nil, fmt.Errorf("--header %q: use name=value", h)
		}
		headers = append(headers, plan.Header{Key: name, Value: []byte(value)})
	}
	return headers, nil
}

// produce writes the lines of in and returns how many were acknowledged.
func (f *produceFlags) produce(ctx context.Context, cl *client.Client, topic string, codec client.Codec, headers []plan.Header, in io.Reader) (int, error) {
	p, err := cl.NewProducer(ctx, client.ProducerConfig{Codec: codec, DeliveryTimeout: 3 * f.timeout})
	if err != nil {
		return 0, err
	}
	defer p.Close()
	create, cancel := context.WithTimeout(ctx, f.timeout)
	_, err = cl.AutoCreateTopic(create, topic)
	cancel()
	if err != nil {
		return 0, err
	}
	to, err := p.Topic(ctx, topic)
	if err != nil {
		return 0, err
	}
	if f.partition >= to.Partitions() {
		return 0, fmt.Errorf("--partition %d: topic %q has partitions 0 to %d", f.partition, topic, to.Partitions()-1)
	}
	lines := make(chan []byte, 1024)
	readError := make(chan error, 1)
	go readLines(ctx, in, lines, readError)
	ticker := time.NewTicker(sendInterval)
	defer ticker.Stop()
	n := 0
	for open := true; open; {
		select {
		case line, ok := <-lines:
			if !ok {
				open = false
				break
			}
			if err := f.append(to, line, n, headers); err != nil {
				return 0, err
			}
			n++
		case <-ticker.C: // lines typed by hand go at once
			if err := p.Send(); err != nil {
				return 0, err
			}
		case <-ctx.Done():
			open = false
		}
	}
	flush, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*f.timeout)
	defer cancel()
	if err := p.Flush(flush); err != nil {
		return 0, err
	}
	select {
	case err := <-readError:
		return n, err
	default:
		return n, nil
	}
}

// append writes line number n as a record.
func (f *produceFlags) append(to *client.ProducerTopic, line []byte, n int, headers []plan.Header) error {
	value := line
	var key []byte
	if f.separator != "" {
		before, after, ok := bytes.Cut(line, []byte(f.separator))
		if !ok {
			return fmt.Errorf("line %d has no key separator %q: %.60q", n+1, f.separator, line)
		}
		key, value = before, after
	}
	if f.null && len(value) == 0 {
		value = nil
	}
	partition := f.partition
	switch {
	case partition >= 0:
	case key != nil:
		partition = client.PartitionOf(key, to.Partitions())
	default:
		partition = int32(n/1000) % to.Partitions() // whole batches in turn
	}
	return to.Append(partition, time.Now().UnixMilli(), key, value, headers)
}

// readLines sends the lines of in, without their ends, and closes lines.
func readLines(ctx context.Context, in io.Reader, lines chan<- []byte, failed chan<- error) {
	defer close(lines)
	s := bufio.NewScanner(in)
	s.Buffer(make([]byte, 64<<10), maxLine)
	for s.Scan() {
		select {
		case lines <- bytes.Clone(s.Bytes()):
		case <-ctx.Done():
			return
		}
	}
	if err := s.Err(); err != nil {
		if errors.Is(err, bufio.ErrTooLong) {
			err = fmt.Errorf("a line has more than %d MiB", maxLine>>20)
		}
		failed <- fmt.Errorf("read the input: %w", err)
	}
}
