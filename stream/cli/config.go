package cli

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/leatlog/leat/stream/client"
)

func configCommand() *cobra.Command {
	var c connection
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Show and change the settings of topics and brokers",
		Long: `Show and change settings. They are named as in Apache Kafka. The resource is
"topic NAME", "broker ID", or "brokers" for what all brokers have that do not say
otherwise.`,
	}
	c.addFlags(cmd)
	cmd.AddCommand(configGet(&c), configSet(&c))
	return cmd
}

// parseResource takes a resource off the front of args.
func parseResource(args []string) (client.Resource, []string, error) {
	if len(args) > 0 && args[0] == "brokers" {
		return client.BrokersResource(), args[1:], nil
	}
	if len(args) < 2 {
		return client.Resource{}, nil, fmt.Errorf(`name a resource: "topic NAME", "broker ID" or "brokers"`)
	}
	switch args[0] {
	case "topic":
		return client.TopicResource(args[1]), args[2:], nil
	case "broker":
		id, err := strconv.ParseInt(args[1], 10, 32)
		if err != nil || id < 0 {
			return client.Resource{}, nil, fmt.Errorf("broker %q: use the broker's id, a number", args[1])
		}
		return client.BrokerResource(int32(id)), args[2:], nil
	}
	return client.Resource{}, nil, fmt.Errorf(`resource %q: use "topic NAME", "broker ID" or "brokers"`, args[0])
}

func configGet(c *connection) *cobra.Command {
	var changed bool
	cmd := &cobra.Command{
		Use:     "get topic NAME | broker ID | brokers [SETTING...]",
		Short:   "Show settings, all or those named",
		Example: "  leat config get topic orders retention.ms\n  leat config get broker 1 --changed",
		RunE: func(cmd *cobra.Command, args []string) error {
			resource, names, err := parseResource(args)
			if err != nil {
				return err
			}
			return c.run(cmd, func(ctx context.Context, cl *client.Client) error {
				entries, err := cl.Configs(ctx, resource)
				if err != nil {
					return explain(err)
				}
				entries, err = selectSettings(entries, names, changed)
				if err != nil {
					return fmt.Errorf("%s: %w", resource, err)
				}
				if c.json {
					views := []settingJSON{}
					for _, e := range entries {
						views = append(views, settingView(e))
					}
					return writeJSON(cmd.OutOrStdout(), views)
				}
				return printSettings(cmd.OutOrStdout(), entries)
			})
		},
	}
	cmd.Flags().BoolVar(&changed, "changed", false, "only what the resource sets itself")
	return cmd
}

// selectSettings returns the entries of these names, in their order, or all.
func selectSettings(entries []client.ConfigEntry, names []string, changed bool) ([]client.ConfigEntry, error) {
	byName := make(map[string]client.ConfigEntry)
	all := entries[:0:0]
	for _, e := range entries {
		byName[e.Name] = e
		if !changed || !e.Default {
			all = append(all, e)
		}
	}
	if len(names) == 0 {
		return all, nil
	}
	var named []client.ConfigEntry
	for _, name := range names {
		e, ok := byName[name]
		if !ok {
			return nil, fmt.Errorf("there is no setting %q; leave the names away to see all", name)
		}
		if !changed || !e.Default {
			named = append(named, e)
		}
	}
	return named, nil
}

func printSettings(out io.Writer, entries []client.ConfigEntry) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "SETTING\tVALUE\tFROM")
	for _, e := range entries {
		value, source := e.Value, e.Source
		if e.Sensitive {
			value = "(hidden)"
		}
		if e.ReadOnly {
			source += ", needs a restart to change"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", e.Name, value, source)
	}
	return w.Flush()
}

func configSet(c *connection) *cobra.Command {
	var remove []string
	cmd := &cobra.Command{
		Use:     "set topic NAME | broker ID | brokers SETTING=VALUE...",
		Short:   "Change settings, all of those given or none",
		Example: "  leat config set topic orders retention.ms=86400000 --unset max.message.bytes",
		RunE: func(cmd *cobra.Command, args []string) error {
			resource, pairs, err := parseResource(args)
			if err != nil {
				return err
			}
			set, err := parseSettings(pairs)
			if err != nil {
				return err
			}
			return c.alter(cmd, resource, set, remove)
		},
	}
	cmd.Flags().StringArrayVar(&remove, "unset", nil, "go back to the default of `SETTING`; may be repeated")
	return cmd
}

// parseSettings takes name=value pairs apart.
func parseSettings(pairs []string) (map[string]string, error) {
	set := make(map[string]string)
	for _, pair := range pairs {
		name, value, ok := strings.Cut(pair, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("setting %q: use name=value, for example retention.ms=86400000", pair)
		}
		set[name] = value
	}
	return set, nil
}

// alter changes settings and says so.
func (c *connection) alter(cmd *cobra.Command, resource client.Resource, set map[string]string, remove []string) error {
	if len(set)+len(remove) == 0 {
		return fmt.Errorf("%s: nothing to change: give name=value or --unset name", resource)
	}
	return c.run(cmd, func(ctx context.Context, cl *client.Client) error {
		if err := cl.AlterConfigs(ctx, resource, set, remove...); err != nil {
			return explain(err)
		}
		if c.json {
			return writeJSON(cmd.OutOrStdout(), map[string]any{"resource": resource.String(), "set": set, "unset": append([]string{}, remove...)})
		}
		fmt.Fprintf(cmd.OutOrStdout(), "changed %s\n", resource)
		return nil
	})
}
