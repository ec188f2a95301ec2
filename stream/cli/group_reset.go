package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/leatlog/leat/stream/client"
)

func groupResetOffsets(c *connection) *cobra.Command {
	var (
		topics []string
		to     string
		dryRun bool
	)
	cmd := &cobra.Command{
		Use:   "reset-offsets GROUP",
		Short: "Move the offsets of a group without members",
		Long: `Move the offsets of a group without members: its consumers read on from there.
A group that does not exist is made. Without --topic it moves the topics the
group has offsets for.

--to is start, end, an offset, +N or -N records from where the group is, a time
(2026-01-31T15:04:05Z, or a date), or a time ago (1h30m): the first record at or
after it, the end when there is none. Offsets outside of a partition are moved
to its start or end.`,
		Example: "  leat group reset-offsets billing --topic orders --to start\n  leat group reset-offsets billing --topic orders:0,2 --to 1h --dry-run",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			target, err := parseTarget(to, time.Now())
			if err != nil {
				return err
			}
			return c.run(cmd, func(ctx context.Context, cl *client.Client) error {
				r := reset{client: cl, group: args[0], target: target}
				moves, err := r.plan(ctx, topics)
				if err == nil && !dryRun {
					err = r.commit(ctx, moves)
				}
				if err != nil {
					return explain(err)
				}
				if c.json {
					return writeJSON(cmd.OutOrStdout(), moves)
				}
				return printMoves(cmd, moves)
			})
		},
	}
	cmd.Flags().StringArrayVar(&topics, "topic", nil, "move `TOPIC`, or TOPIC:0,2 for some of its partitions; may be repeated")
	cmd.Flags().StringVar(&to, "to", "", "where to move: start, end, offset, +N, -N, time, or time ago")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only show what would be done")
	_ = cmd.MarkFlagRequired("to")
	return cmd
}

// target is where to move offsets: to an offset or a time as ListOffsets
// understands it, or by some records.
type target struct {
	offset, time, shift    int64
	isOffset, isTime, isBy bool
}

// parseTarget reads the value of --to.
func parseTarget(to string, now time.Time) (target, error) {
	switch to {
	case "start":
		return target{time: client.EarliestOffset, isTime: true}, nil
	case "end":
		return target{time: client.LatestOffset, isTime: true}, nil
	}
	if n, err := strconv.ParseInt(to, 10, 64); err == nil {
		if strings.HasPrefix(to, "+") || strings.HasPrefix(to, "-") {
			return target{shift: n, isBy: true}, nil
		}
		return target{offset: n, isOffset: true}, nil
	}
	if ago, err := time.ParseDuration(to); err == nil && ago > 0 {
		return target{time: now.Add(-ago).UnixMilli(), isTime: true}, nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", time.DateOnly} {
		if at, err := time.ParseInLocation(layout, to, time.Local); err == nil {
			return target{time: at.UnixMilli(), isTime: true}, nil
		}
	}
	return target{}, fmt.Errorf("--to %q: use start, end, an offset, +N, -N, a time such as 2026-01-31T15:04:05Z, or a time ago such as 1h30m", to)
}

// move is what happens to one partition. From is -1 without an offset so far.
type move struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	From      int64  `json:"from"`
	To        int64  `json:"to"`
}

// reset moves one group's offsets.
type reset struct {
	client *client.Client
	group  string
	target target
}

// plan computes the moves without doing them.
func (r reset) plan(ctx context.Context, topics []string) ([]move, error) {
	committed, err := r.client.CommittedOffsets(ctx, r.group, nil)
	if err != nil {
		return nil, err
	}
	partitions := slices.Collect(maps.Keys(committed))
	if len(topics) > 0 {
		if partitions, err = r.partitions(ctx, topics); err != nil {
			return nil, err
		}
	}
	if len(partitions) == 0 {
		return nil, fmt.Errorf("group %q has no offsets: name the topics with --topic", r.group)
	}
	slices.SortFunc(partitions, func(a, b client.Partition) int {
		if n := strings.Compare(a.Topic, b.Topic); n != 0 {
			return n
		}
		return int(a.Partition - b.Partition)
	})
	starts, err := r.client.ListOffsets(ctx, partitions, client.EarliestOffset, false)
	if err != nil {
		return nil, err
	}
	ends, err := r.client.ListOffsets(ctx, partitions, client.LatestOffset, false)
	if err != nil {
		return nil, err
	}
	at := ends
	if r.target.isTime {
		if at, err = r.client.ListOffsets(ctx, partitions, r.target.time, false); err != nil {
			return nil, err
		}
	}
	moves := make([]move, 0, len(partitions))
	for _, p := range partitions {
		from := int64(-1)
		if o, ok := committed[p]; ok {
			from = o.Offset
		}
		var to int64
		switch {
		case r.target.isOffset:
			to = r.target.offset
		case r.target.isBy && from < 0:
			return nil, fmt.Errorf("group %q has no offset for %s to count from: use start, end or an offset", r.group, p)
		case r.target.isBy:
			to = from + r.target.shift
		case at[p] < 0: // no record that late
			to = ends[p]
		default:
			to = at[p]
		}
		moves = append(moves, move{p.Topic, p.Partition, from, min(max(to, starts[p]), ends[p])})
	}
	return moves, nil
}

// partitions reads the values of --topic.
func (r reset) partitions(ctx context.Context, topics []string) ([]client.Partition, error) {
	var out []client.Partition
	for _, value := range topics {
		named, err := partitionsOf(ctx, r.client, value)
		if err != nil {
			return nil, err
		}
		out = append(out, named...)
	}
	return out, nil
}

func (r reset) commit(ctx context.Context, moves []move) error {
	offsets := make(map[client.Partition]client.Offset)
	for _, m := range moves {
		offsets[client.Partition{Topic: m.Topic, Partition: m.Partition}] = client.Offset{Offset: m.To, LeaderEpoch: -1}
	}
	return r.client.CommitOffsets(ctx, r.group, offsets)
}

func printMoves(cmd *cobra.Command, moves []move) error {
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "TOPIC\tPARTITION\tFROM\tTO")
	for _, m := range moves {
		from := strconv.FormatInt(m.From, 10)
		if m.From < 0 {
			from = "-"
		}
		fmt.Fprintf(w, "%s\t%d\t%s\t%d\n", m.Topic, m.Partition, from, m.To)
	}
	return w.Flush()
}
