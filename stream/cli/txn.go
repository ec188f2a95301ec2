package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/leatlog/leat/stream/client"
)

func txnCommand() *cobra.Command {
	var c connection
	cmd := &cobra.Command{Use: "txn", Short: "List, describe and abort transactions"}
	c.addFlags(cmd)
	cmd.AddCommand(txnList(&c), txnDescribe(&c), txnAbort(&c))
	return cmd
}

// txnJSON is a transactional id in JSON output. Times are in milliseconds.
type txnJSON struct {
	ID          string `json:"transactional_id"`
	State       string `json:"state"`
	ProducerID  int64  `json:"producer_id"`
	Coordinator int32  `json:"coordinator"`
}

func txnView(t client.TransactionInfo) txnJSON {
	return txnJSON{ID: t.TransactionalID, State: t.State, ProducerID: t.ProducerID, Coordinator: t.Coordinator}
}

func txnList(c *connection) *cobra.Command {
	var filter client.TransactionFilter
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List transactional ids",
		Example: "  leat txn list --state Ongoing --open-for 1m",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.run(cmd, func(ctx context.Context, cl *client.Client) error {
				list, err := cl.Transactions(ctx, filter)
				if err != nil {
					return err
				}
				if c.json {
					views := []txnJSON{}
					for _, t := range list {
						views = append(views, txnView(t))
					}
					return writeJSON(cmd.OutOrStdout(), views)
				}
				w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
				fmt.Fprintln(w, "TRANSACTIONAL ID\tSTATE\tPRODUCER\tCOORDINATOR")
				for _, t := range list {
					fmt.Fprintf(w, "%s\t%s\t%d\t%d\n", t.TransactionalID, t.State, t.ProducerID, t.Coordinator)
				}
				return w.Flush()
			})
		},
	}
	cmd.Flags().StringSliceVar(&filter.States, "state", nil, "only those in this `STATE`, such as Ongoing; several with commas")
	cmd.Flags().Int64SliceVar(&filter.ProducerIDs, "producer-id", nil, "only those of this producer id; several with commas")
	cmd.Flags().DurationVar(&filter.OpenFor, "open-for", 0, "only those whose transaction is open for longer than this")
	return cmd
}

// txnDescriptionJSON is a described transactional id in JSON output.
type txnDescriptionJSON struct {
	txnJSON
	Epoch      int16    `json:"producer_epoch"`
	Timeout    int64    `json:"timeout_ms"`
	Started    *int64   `json:"started"`
	OpenFor    *int64   `json:"open_for_ms"`
	Partitions []string `json:"partitions"`
}

func txnDescribe(c *connection) *cobra.Command {
	var topic string
	cmd := &cobra.Command{
		Use:   "describe TRANSACTIONAL-ID | --topic TOPIC",
		Short: "Show a transactional id, or the producers of a topic's partitions",
		Long: `Show the state of a transactional id, how long its transactions may be open, and when
the open one began and in which partitions it is.

With --topic it shows the producers that the partitions' leaders remember and
where their open transactions start: what "leat txn abort --topic" asks for.`,
		Example: "  leat txn describe billing-1\n  leat txn describe --topic orders:0,2",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if (len(args) == 1) == (topic != "") {
				return fmt.Errorf("name a transactional id, or a topic with --topic, and not both")
			}
			return c.run(cmd, func(ctx context.Context, cl *client.Client) error {
				if topic != "" {
					return describeProducers(ctx, c, cmd, cl, topic)
				}
				d, err := cl.DescribeTransaction(ctx, args[0])
				if err != nil {
					return explain(err)
				}
				return printTransaction(c, cmd, d, time.Now())
			})
		},
	}
	cmd.Flags().StringVar(&topic, "topic", "", "show the producers of `TOPIC`, or TOPIC:0,2 for some of its partitions")
	return cmd
}

func printTransaction(c *connection, cmd *cobra.Command, d *client.TransactionDescription, now time.Time) error {
	view := txnDescriptionJSON{txnJSON: txnView(d.TransactionInfo), Epoch: d.ProducerEpoch, Timeout: d.Timeout.Milliseconds(), Partitions: []string{}}
	for _, p := range d.Partitions {
		view.Partitions = append(view.Partitions, p.String())
	}
	started, openFor := "-", "-"
	if !d.Started.IsZero() {
		at, since := d.Started.UnixMilli(), now.Sub(d.Started)
		ms := since.Milliseconds()
		view.Started, view.OpenFor = &at, &ms
		started, openFor = d.Started.Format(time.RFC3339), since.Round(time.Millisecond).String()
	}
	if c.json {
		return writeJSON(cmd.OutOrStdout(), view)
	}
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	for _, line := range [][2]string{
		{"transactional id", view.ID}, {"state", view.State}, {"producer", fmt.Sprintf("%d, epoch %d", view.ProducerID, view.Epoch)},
		{"coordinator", fmt.Sprint(view.Coordinator)}, {"timeout", d.Timeout.String()}, {"started", started}, {"open for", openFor},
		{"partitions", strings.Join(view.Partitions, " ")},
	} {
		fmt.Fprintf(w, "%s\t%s\n", line[0], line[1])
	}
	return w.Flush()
}

// producerJSON is a producer of a partition in JSON output.
type producerJSON struct {
	Topic            string `json:"topic"`
	Partition        int32  `json:"partition"`
	ProducerID       int64  `json:"producer_id"`
	Epoch            int16  `json:"producer_epoch"`
	CoordinatorEpoch int32  `json:"coordinator_epoch"`
	LastSequence     int32  `json:"last_sequence"`
	LastTimestamp    int64  `json:"last_timestamp"`
	Start            *int64 `json:"start_offset"`
}

func producerView(p client.ProducerState) producerJSON {
	v := producerJSON{Topic: p.Partition.Topic, Partition: p.Partition.Partition, ProducerID: p.ID, Epoch: p.Epoch,
		CoordinatorEpoch: p.CoordinatorEpoch, LastSequence: p.LastSequence, LastTimestamp: p.LastTimestamp.UnixMilli()}
	if p.Start >= 0 {
		v.Start = &p.Start
	}
	return v
}

func describeProducers(ctx context.Context, c *connection, cmd *cobra.Command, cl *client.Client, topic string) error {
	partitions, err := partitionsOf(ctx, cl, topic)
	if err != nil {
		return explain(err)
	}
	producers, err := cl.Producers(ctx, partitions...)
	if err != nil {
		return explain(err)
	}
	if c.json {
		views := []producerJSON{}
		for _, p := range producers {
			views = append(views, producerView(p))
		}
		return writeJSON(cmd.OutOrStdout(), views)
	}
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "TOPIC\tPARTITION\tPRODUCER\tEPOCH\tLAST WRITTEN\tOPEN TRANSACTION FROM")
	for _, p := range producers {
		from := "-"
		if p.Start >= 0 {
			from = fmt.Sprintf("offset %d", p.Start)
		}
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%s\t%s\n", p.Partition.Topic, p.Partition.Partition, p.ID, p.Epoch, p.LastTimestamp.Format(time.RFC3339), from)
	}
	return w.Flush()
}

// abortion is what `leat txn abort` is told to abort in one partition.
type abortion struct {
	topic      string
	partition  int32
	start      int64
	producerID int64
	force      bool
}

func txnAbort(c *connection) *cobra.Command {
	var a abortion
	cmd := &cobra.Command{
		Use:   "abort TRANSACTIONAL-ID | --topic TOPIC --partition N (--start-offset N | --producer-id N)",
		Short: "Abort the transaction of a transactional id, or one that hangs in a partition",
		Long: `With a transactional id: abort its open transaction, in all partitions, and fence
the producer that has the id. It can go on only as a new producer.

With --topic: end a transaction in one partition, by the offset where it starts
there or by its producer's id. This is for transactions that hang: no
coordinator knows them, so that they never end and nothing behind them can be
read by consumers of committed records. "leat txn describe --topic" shows what is open. A
transaction that its coordinator knows would be torn by that; it is refused
unless --force is given.`,
		Example: "  leat txn abort billing-1\n  leat txn abort --topic orders --partition 2 --start-offset 1207",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := a.check(cmd, args); err != nil {
				return err
			}
			return c.run(cmd, func(ctx context.Context, cl *client.Client) error {
				if len(args) == 0 {
					return a.run(ctx, c, cmd, cl)
				}
				if err := cl.FenceTransaction(ctx, args[0]); err != nil {
					return explain(err)
				}
				if c.json {
					return writeJSON(cmd.OutOrStdout(), map[string]any{"aborted": args[0]})
				}
				fmt.Fprintf(cmd.OutOrStdout(), "nothing of %s is open, and its producer is fenced\n", args[0])
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&a.topic, "topic", "", "the topic of a transaction that hangs")
	cmd.Flags().Int32Var(&a.partition, "partition", -1, "its partition")
	cmd.Flags().Int64Var(&a.start, "start-offset", -1, "the offset where it starts")
	cmd.Flags().Int64Var(&a.producerID, "producer-id", -1, "the id of its producer")
	cmd.Flags().BoolVar(&a.force, "force", false, "abort it in this partition though its coordinator knows it")
	return cmd
}

// check says what is missing on the command line.
func (a *abortion) check(cmd *cobra.Command, args []string) error {
	inPartition := slices.ContainsFunc([]string{"topic", "partition", "start-offset", "producer-id", "force"}, cmd.Flags().Changed)
	switch {
	case len(args) == 1 && inPartition:
		return fmt.Errorf("name a transactional id, or a transaction by --topic, and not both")
	case len(args) == 1:
		return nil
	case a.topic == "":
		return fmt.Errorf("name a transactional id (`leat txn list` shows them), or the --topic and --partition of a transaction that hangs")
	case a.partition < 0:
		return fmt.Errorf("--partition is missing: the partition of topic %q in which the transaction hangs", a.topic)
	case (a.start < 0) == (a.producerID < 0):
		return fmt.Errorf("give either --start-offset or --producer-id; `leat txn describe --topic %s` shows both", a.topic)
	}
	return nil
}

// run ends the transaction in the partition.
func (a *abortion) run(ctx context.Context, c *connection, cmd *cobra.Command, cl *client.Client) error {
	p, err := a.find(ctx, cl)
	if err != nil {
		return explain(err)
	}
	if owner, err := ownerOf(ctx, cl, p); err != nil {
		return err
	} else if owner != nil && !a.force {
		return fmt.Errorf("the transaction is not hanging: it is that of transactional id %q, which is aborted after %v at most; "+
			"`leat txn abort %s` aborts it now, in all of its partitions; --force aborts it in this one and tears it",
			owner.TransactionalID, owner.Timeout, owner.TransactionalID)
	}
	if err := cl.AbortInPartition(ctx, p); err != nil {
		return err
	}
	if c.json {
		return writeJSON(cmd.OutOrStdout(), map[string]any{"aborted": producerView(p)})
	}
	fmt.Fprintf(cmd.OutOrStdout(), "aborted the transaction of producer %d, epoch %d, from offset %d of %s on\n", p.ID, p.Epoch, p.Start, p.Partition)
	return nil
}

// find finds the open transaction.
func (a *abortion) find(ctx context.Context, cl *client.Client) (client.ProducerState, error) {
	partition := client.Partition{Topic: a.topic, Partition: a.partition}
	if _, err := partitionsOf(ctx, cl, fmt.Sprintf("%s:%d", a.topic, a.partition)); err != nil {
		return client.ProducerState{}, err
	}
	producers, err := cl.Producers(ctx, partition)
	if err != nil {
		return client.ProducerState{}, err
	}
	for _, p := range producers {
		if p.Start >= 0 && (p.Start == a.start || p.ID == a.producerID) {
			return p, nil
		}
	}
	asked := fmt.Sprintf("starts at offset %d", a.start)
	if a.start < 0 {
		asked = fmt.Sprintf("is of producer %d", a.producerID)
	}
	return client.ProducerState{}, fmt.Errorf("no open transaction in %s %s; `leat txn describe --topic %s` shows those that are open", partition, asked, a.topic)
}

// ownerOf returns the transactional id whose coordinator knows this transaction and
// will end it, nil when none does.
func ownerOf(ctx context.Context, cl *client.Client, p client.ProducerState) (*client.TransactionDescription, error) {
	ids, err := cl.Transactions(ctx, client.TransactionFilter{ProducerIDs: []int64{p.ID}})
	if err != nil {
		return nil, err
	}
	for _, t := range ids {
		d, err := cl.DescribeTransaction(ctx, t.TransactionalID)
		if errors.Is(err, client.ErrUnknownTransaction) {
			continue // expired meanwhile
		}
		if err != nil {
			return nil, err
		}
		if d.ProducerID == p.ID && slices.Contains(d.Partitions, p.Partition) {
			return d, nil
		}
	}
	return nil, nil
}
