package cli

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/leatlog/leat/stream/client"
)

// consumeFlags are the flags of `leat consume`.
type consumeFlags struct {
	connection
	from      string
	count     int64
	format    string
	partition int32
	untilEnd  bool
	committed bool
}

func consumeCommand() *cobra.Command {
	var f consumeFlags
	cmd := &cobra.Command{
		Use:   "consume TOPIC",
		Short: "Write a topic's records to the standard output",
		Long: `Write a topic's records to the standard output, until --count records, the end
of the topic (--until-end) or Ctrl-C. It reads all partitions and belongs to no
group. With --json each record is a line of JSON; bytes that are not UTF-8 come
as base64.`,
		Example: `  leat consume greetings --from start --count 10 --format '%p@%o %k: %s\n'`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			parsed, err := parseFormat(f.format)
			if err != nil {
				return err
			}
			if f.count < 0 {
				return fmt.Errorf("--count %d: use 0 for all or a positive number", f.count)
			}
			return f.run(cmd, func(ctx context.Context, cl *client.Client) error {
				return explain(f.consume(ctx, cl, args[0], parsed, cmd.OutOrStdout()))
			})
		},
	}
	f.addFlags(cmd)
	cmd.Flags().StringVar(&f.from, "from", "start", "`start`, end, an offset, or -N for the last N of each partition")
	cmd.Flags().Int64Var(&f.count, "count", 0, "stop after this many records; 0 goes on")
	cmd.Flags().StringVar(&f.format, "format", `%s\n`, formatHelp)
	cmd.Flags().Int32Var(&f.partition, "partition", -1, "read this partition only")
	cmd.Flags().BoolVar(&f.untilEnd, "until-end", false, "stop at the records that were there at the start")
	cmd.Flags().BoolVar(&f.committed, "read-committed", false, "leave out records of open and aborted transactions")
	return cmd
}

// consume reads until it is done or ctx ends.
func (f *consumeFlags) consume(ctx context.Context, cl *client.Client, topic string, layout *format, out io.Writer) error {
	begin, ends, err := f.positions(ctx, cl, topic)
	if err != nil {
		return err
	}
	fetcher := cl.NewFetcher(client.FetcherConfig{ReadCommitted: f.committed})
	defer fetcher.Close()
	inbox := client.NewInbox()
	left := 0 // partitions not at their end yet
	for p, offset := range begin {
		if offset < ends[p] {
			left++
		} else if f.untilEnd {
			continue
		}
		fetcher.Add(p, offset, client.ResetFail, inbox)
	}
	c := consumer{flags: f, topic: topic, format: layout, out: bufio.NewWriterSize(out, 64<<10), ends: ends, left: left}
	defer c.out.Flush()
	if f.untilEnd && left == 0 {
		return nil
	}
	var batches []*client.Fetched
	for {
		select {
		case <-inbox.Ready():
		case <-ctx.Done():
			return nil
		}
		batches = inbox.Take(batches[:0])
		for _, b := range batches {
			done, err := c.write(b)
			if done || err != nil {
				return err
			}
			b.Release()
		}
		if err := c.out.Flush(); err != nil {
			return err
		}
	}
}

// positions finds where to begin and where the partitions end now.
func (f *consumeFlags) positions(ctx context.Context, cl *client.Client, topic string) (begin, ends map[client.Partition]int64, err error) {
	t, err := topicOf(ctx, cl, topic)
	if err != nil {
		return nil, nil, err
	}
	if int(f.partition) >= len(t.Partitions) {
		return nil, nil, fmt.Errorf("--partition %d: topic %q has partitions 0 to %d", f.partition, topic, len(t.Partitions)-1)
	}
	var partitions []client.Partition
	for i := range t.Partitions {
		if f.partition < 0 || int32(i) == f.partition {
			partitions = append(partitions, client.Partition{Topic: topic, Partition: int32(i)})
		}
	}
	starts, err := cl.ListOffsets(ctx, partitions, client.EarliestOffset, false)
	if err != nil {
		return nil, nil, err
	}
	if ends, err = cl.ListOffsets(ctx, partitions, client.LatestOffset, f.committed); err != nil {
		return nil, nil, err
	}
	begin = make(map[client.Partition]int64)
	for _, p := range partitions {
		switch f.from {
		case "start":
			begin[p] = starts[p]
		case "end":
			begin[p] = ends[p]
		default:
			n, err := strconv.ParseInt(f.from, 10, 64)
			if err != nil {
				return nil, nil, fmt.Errorf("--from %q: use start, end, an offset such as 42, or -10 for the last ten", f.from)
			}
			if n < 0 {
				n = ends[p] + n
			}
			begin[p] = min(max(n, starts[p]), ends[p])
		}
	}
	return begin, ends, nil
}

// consumer writes what is fetched.
type consumer struct {
	flags   *consumeFlags
	topic   string
	format  *format
	out     *bufio.Writer
	ends    map[client.Partition]int64
	left    int
	written int64
	records client.Records
	line    []byte
}

// write writes the records of one fetch; done when there are enough.
func (c *consumer) write(b *client.Fetched) (done bool, err error) {
	if b.Err != nil {
		return true, b.Err
	}
	for !b.Done() {
		c.records.Reset()
		if err := b.Decode(&c.records, 1); err != nil {
			return true, err
		}
		for i := range c.records.Records {
			r := &c.records.Records[i]
			if c.flags.untilEnd && r.Offset >= c.ends[b.Partition] {
				break
			}
			if c.flags.json {
				c.line, err = appendJSON(c.line[:0], c.topic, b.Partition.Partition, r)
			} else {
				c.line = c.format.appendRecord(c.line[:0], c.topic, b.Partition.Partition, r)
			}
			if err != nil {
				return true, err
			}
			if _, err := c.out.Write(c.line); err != nil {
				return true, err
			}
			if c.written++; c.written == c.flags.count {
				return true, nil
			}
		}
	}
	if end := c.ends[b.Partition]; c.flags.untilEnd && b.End() >= end && end >= 0 {
		c.ends[b.Partition] = -1 // counted
		if c.left--; c.left == 0 {
			return true, nil
		}
	}
	return false, nil
}
