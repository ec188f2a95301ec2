package cli

import (
	"context"
	"encoding/base64"
	"fmt"
	"maps"
	"slices"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/leatlog/leat/stream/client"
)

func topicCommand() *cobra.Command {
	var c connection
	cmd := &cobra.Command{Use: "topic", Short: "Create, list, describe, change and delete topics"}
	c.addFlags(cmd)
	cmd.AddCommand(topicCreate(&c), topicList(&c), topicDescribe(&c), topicAlter(&c), topicAddPartitions(&c), topicDelete(&c))
	return cmd
}

func topicCreate(c *connection) *cobra.Command {
	var (
		partitions  int32
		replication int16
		settings    []string
	)
	cmd := &cobra.Command{
		Use:     "create TOPIC...",
		Short:   "Create topics",
		Example: "  leat topic create orders --partitions 6 --config retention.ms=86400000 --config cleanup.policy=delete",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, names []string) error {
			config, err := parseSettings(settings)
			if err != nil {
				return err
			}
			return c.run(cmd, func(ctx context.Context, cl *client.Client) error {
				var topics []client.NewTopic
				for _, name := range names {
					topics = append(topics, client.NewTopic{Name: name, Partitions: partitions, Replication: replication, Config: config})
				}
				if err := cl.CreateTopics(ctx, topics...); err != nil {
					return err
				}
				if c.json {
					return writeJSON(cmd.OutOrStdout(), map[string]any{"created": names})
				}
				for _, name := range names {
					fmt.Fprintf(cmd.OutOrStdout(), "created topic %s\n", name)
				}
				return nil
			})
		},
	}
	cmd.Flags().Int32Var(&partitions, "partitions", -1, "number of partitions; -1 is the cluster's default")
	cmd.Flags().Int16Var(&replication, "replication-factor", -1, "number of replicas; -1 is the cluster's default")
	cmd.Flags().StringArrayVar(&settings, "config", nil, "a setting of the topic, `name=value`; may be repeated")
	return cmd
}

// topicJSON is a topic in JSON output.
type topicJSON struct {
	Name       string          `json:"name"`
	ID         string          `json:"id,omitempty"`
	Internal   bool            `json:"internal,omitempty"`
	Partitions []partitionJSON `json:"partitions"`
	Config     []settingJSON   `json:"config,omitempty"`
}

type partitionJSON struct {
	Partition   int32   `json:"partition"`
	Leader      int32   `json:"leader"`
	LeaderEpoch int32   `json:"leader_epoch"`
	Replicas    []int32 `json:"replicas"`
	ISR         []int32 `json:"isr"`
	Start       *int64  `json:"start,omitempty"`
	End         *int64  `json:"end,omitempty"`
}

type settingJSON struct {
	Name     string `json:"name"`
	Value    string `json:"value"`
	Default  bool   `json:"default,omitempty"`
	Source   string `json:"source"`
	ReadOnly bool   `json:"read_only,omitempty"`
}

func settingView(e client.ConfigEntry) settingJSON {
	return settingJSON{Name: e.Name, Value: e.Value, Default: e.Default, Source: e.Source, ReadOnly: e.ReadOnly}
}

func topicView(t *client.Topic) topicJSON {
	v := topicJSON{Name: t.Name, Internal: t.Internal, Partitions: []partitionJSON{}}
	if t.ID != [16]byte{} {
		v.ID = base64.RawURLEncoding.EncodeToString(t.ID[:])
	}
	for i, p := range t.Partitions {
		v.Partitions = append(v.Partitions, partitionJSON{
			Partition: int32(i), Leader: p.Leader, LeaderEpoch: p.LeaderEpoch, Replicas: p.Replicas, ISR: p.ISR,
		})
	}
	return v
}

func topicList(c *connection) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List topics",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.run(cmd, func(ctx context.Context, cl *client.Client) error {
				topics, err := cl.Topics(ctx)
				if err != nil {
					return err
				}
				names := slices.Sorted(maps.Keys(topics))
				if c.json {
					views := []topicJSON{}
					for _, name := range names {
						views = append(views, topicView(topics[name]))
					}
					return writeJSON(cmd.OutOrStdout(), views)
				}
				w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
				fmt.Fprintln(w, "TOPIC\tPARTITIONS\tREPLICAS")
				for _, name := range names {
					t := topics[name]
					replicas := 0
					if len(t.Partitions) > 0 {
						replicas = len(t.Partitions[0].Replicas)
					}
					fmt.Fprintf(w, "%s\t%d\t%d\n", name, len(t.Partitions), replicas)
				}
				return w.Flush()
			})
		},
	}
}

func topicDescribe(c *connection) *cobra.Command {
	return &cobra.Command{
		Use:   "describe TOPIC",
		Short: "Show a topic's partitions, offsets and settings",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.run(cmd, func(ctx context.Context, cl *client.Client) error {
				view, err := describeTopic(ctx, cl, args[0])
				if err != nil {
					return explain(err)
				}
				if c.json {
					return writeJSON(cmd.OutOrStdout(), view)
				}
				return printTopic(cmd, view)
			})
		},
	}
}

func describeTopic(ctx context.Context, cl *client.Client, name string) (topicJSON, error) {
	t, err := topicOf(ctx, cl, name)
	if err != nil {
		return topicJSON{}, err
	}
	view := topicView(t)
	partitions := make([]client.Partition, len(t.Partitions))
	for i := range partitions {
		partitions[i] = client.Partition{Topic: name, Partition: int32(i)}
	}
	starts, err := cl.ListOffsets(ctx, partitions, client.EarliestOffset, false)
	if err != nil {
		return view, err
	}
	ends, err := cl.ListOffsets(ctx, partitions, client.LatestOffset, false)
	if err != nil {
		return view, err
	}
	for i, p := range partitions {
		start, end := starts[p], ends[p]
		view.Partitions[i].Start, view.Partitions[i].End = &start, &end
	}
	config, err := cl.TopicConfig(ctx, name)
	if err != nil {
		return view, err
	}
	for _, s := range config {
		view.Config = append(view.Config, settingView(s))
	}
	return view, nil
}

func printTopic(cmd *cobra.Command, view topicJSON) error {
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "topic %s", view.Name)
	if view.ID != "" {
		fmt.Fprintf(w, ", id %s", view.ID)
	}
	fmt.Fprint(w, "\n\nPARTITION\tLEADER\tEPOCH\tREPLICAS\tISR\tSTART\tEND\n")
	for _, p := range view.Partitions {
		fmt.Fprintf(w, "%d\t%d\t%d\t%v\t%v\t%d\t%d\n", p.Partition, p.Leader, p.LeaderEpoch, p.Replicas, p.ISR, *p.Start, *p.End)
	}
	fmt.Fprint(w, "\nSETTING\tVALUE\n")
	for _, s := range view.Config {
		note := ""
		if s.Default {
			note = "(default)"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", s.Name, s.Value, note)
	}
	return w.Flush()
}

func topicAlter(c *connection) *cobra.Command {
	var settings, remove []string
	cmd := &cobra.Command{
		Use:     "alter TOPIC",
		Short:   "Change a topic's settings, all of those given or none",
		Example: "  leat topic alter orders --config retention.ms=86400000 --unset max.message.bytes",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			set, err := parseSettings(settings)
			if err != nil {
				return err
			}
			return c.alter(cmd, client.TopicResource(args[0]), set, remove)
		},
	}
	cmd.Flags().StringArrayVar(&settings, "config", nil, "a setting of the topic, `name=value`; may be repeated")
	cmd.Flags().StringArrayVar(&remove, "unset", nil, "go back to the default of setting `name`; may be repeated")
	return cmd
}

func topicAddPartitions(c *connection) *cobra.Command {
	var total int
	cmd := &cobra.Command{
		Use:   "add-partitions TOPIC...",
		Short: "Give topics more partitions",
		Long: `Give topics more partitions. Records stay where they are, but keys are spread over
the new number: a key's next record may go to another partition than its last.`,
		Example: "  leat topic add-partitions orders --total 12",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, names []string) error {
			if total < 1 {
				return fmt.Errorf("--total %d: give the number of partitions wanted in all", total)
			}
			return c.run(cmd, func(ctx context.Context, cl *client.Client) error {
				if err := cl.AddPartitions(ctx, total, names...); err != nil {
					return explain(err)
				}
				if c.json {
					return writeJSON(cmd.OutOrStdout(), map[string]any{"topics": names, "partitions": total})
				}
				for _, name := range names {
					fmt.Fprintf(cmd.OutOrStdout(), "topic %s has %d partitions\n", name, total)
				}
				return nil
			})
		},
	}
	cmd.Flags().IntVar(&total, "total", 0, "number of partitions in all")
	return cmd
}

func topicDelete(c *connection) *cobra.Command {
	return &cobra.Command{
		Use:   "delete TOPIC...",
		Short: "Delete topics and all their records",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, names []string) error {
			return c.run(cmd, func(ctx context.Context, cl *client.Client) error {
				if err := cl.DeleteTopics(ctx, names...); err != nil {
					return explain(err)
				}
				if c.json {
					return writeJSON(cmd.OutOrStdout(), map[string]any{"deleted": names})
				}
				for _, name := range names {
					fmt.Fprintf(cmd.OutOrStdout(), "deleted topic %s\n", name)
				}
				return nil
			})
		},
	}
}
