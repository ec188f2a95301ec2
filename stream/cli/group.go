package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/leatlog/leat/stream/client"
)

func groupCommand() *cobra.Command {
	var c connection
	cmd := &cobra.Command{Use: "group", Short: "List, describe, move and delete consumer groups"}
	c.addFlags(cmd)
	cmd.AddCommand(groupList(&c), groupDescribe(&c), groupResetOffsets(&c), groupDelete(&c))
	return cmd
}

func groupList(c *connection) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List consumer groups",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.run(cmd, func(ctx context.Context, cl *client.Client) error {
				groups, err := cl.Groups(ctx)
				if err != nil {
					return err
				}
				if c.json {
					type view struct {
						Group       string `json:"group"`
						State       string `json:"state"`
						Type        string `json:"protocol_type"`
						Coordinator int32  `json:"coordinator"`
					}
					views := []view{}
					for _, g := range groups {
						views = append(views, view{g.Group, g.State, g.ProtocolType, g.Coordinator})
					}
					return writeJSON(cmd.OutOrStdout(), views)
				}
				w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
				fmt.Fprintln(w, "GROUP\tSTATE\tCOORDINATOR")
				for _, g := range groups {
					fmt.Fprintf(w, "%s\t%s\t%d\n", g.Group, g.State, g.Coordinator)
				}
				return w.Flush()
			})
		},
	}
}

// groupJSON is a described group in JSON output.
type groupJSON struct {
	Group       string           `json:"group"`
	State       string           `json:"state"`
	Protocol    string           `json:"protocol,omitempty"`
	Coordinator int32            `json:"coordinator"`
	Members     []memberJSON     `json:"members"`
	Offsets     []groupOffsetRow `json:"offsets"`
}

type memberJSON struct {
	ID         string   `json:"id"`
	InstanceID string   `json:"instance_id,omitempty"`
	ClientID   string   `json:"client_id"`
	Host       string   `json:"host"`
	Partitions []string `json:"partitions"`
}

type groupOffsetRow struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Committed int64  `json:"committed"`
	End       int64  `json:"end"`
	Lag       int64  `json:"lag"`
	Member    string `json:"member,omitempty"`
}

func groupDescribe(c *connection) *cobra.Command {
	return &cobra.Command{
		Use:   "describe GROUP",
		Short: "Show a group's members, committed offsets and lag",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.run(cmd, func(ctx context.Context, cl *client.Client) error {
				view, err := describeGroup(ctx, cl, args[0])
				if err != nil {
					return explain(err)
				}
				if c.json {
					return writeJSON(cmd.OutOrStdout(), view)
				}
				return printGroup(cmd, view)
			})
		},
	}
}

func describeGroup(ctx context.Context, cl *client.Client, name string) (groupJSON, error) {
	d, err := cl.DescribeGroup(ctx, name)
	if err != nil {
		return groupJSON{}, err
	}
	view := groupJSON{Group: d.Group, State: d.State, Protocol: d.Protocol, Coordinator: d.Coordinator, Members: []memberJSON{}, Offsets: []groupOffsetRow{}}
	reader := make(map[client.Partition]string)
	for _, m := range d.Members {
		v := memberJSON{ID: m.ID, InstanceID: m.InstanceID, ClientID: m.ClientID, Host: m.Host, Partitions: []string{}}
		for _, p := range m.Partitions {
			reader[p] = m.ID
			v.Partitions = append(v.Partitions, p.String())
		}
		view.Members = append(view.Members, v)
	}
	committed, err := cl.CommittedOffsets(ctx, name, nil)
	if err != nil {
		return view, err
	}
	partitions := slices.SortedFunc(maps.Keys(committed), func(a, b client.Partition) int {
		if n := strings.Compare(a.Topic, b.Topic); n != 0 {
			return n
		}
		return int(a.Partition - b.Partition)
	})
	if len(partitions) == 0 {
		return view, nil
	}
	ends, err := cl.ListOffsets(ctx, partitions, client.LatestOffset, false)
	if err != nil {
		return view, err
	}
	for _, p := range partitions {
		row := groupOffsetRow{Topic: p.Topic, Partition: p.Partition, Committed: committed[p].Offset, End: ends[p], Member: reader[p]}
		row.Lag = max(0, row.End-row.Committed)
		view.Offsets = append(view.Offsets, row)
	}
	return view, nil
}

func printGroup(cmd *cobra.Command, view groupJSON) error {
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "group %s, %s, coordinator %d\n\nMEMBER\tCLIENT\tHOST\tPARTITIONS\n", view.Group, view.State, view.Coordinator)
	for _, m := range view.Members {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", m.ID, m.ClientID, m.Host, strings.Join(m.Partitions, " "))
	}
	fmt.Fprint(w, "\nTOPIC\tPARTITION\tCOMMITTED\tEND\tLAG\tMEMBER\n")
	for _, o := range view.Offsets {
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%s\n", o.Topic, o.Partition, o.Committed, o.End, o.Lag, o.Member)
	}
	return w.Flush()
}

func groupDelete(c *connection) *cobra.Command {
	return &cobra.Command{
		Use:   "delete GROUP...",
		Short: "Delete groups without members, and their offsets",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, groups []string) error {
			return c.run(cmd, func(ctx context.Context, cl *client.Client) error {
				if err := cl.DeleteGroups(ctx, groups...); err != nil {
					return explain(err)
				}
				if c.json {
					return writeJSON(cmd.OutOrStdout(), map[string]any{"deleted": groups})
				}
				for _, group := range groups {
					fmt.Fprintf(cmd.OutOrStdout(), "deleted group %s\n", group)
				}
				return nil
			})
		},
	}
}
