package cli

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/leatlog/leat/stream"
	"github.com/leatlog/leat/stream/client"
	"github.com/leatlog/leat/topology/plan"
)

// IncompatiblePlanError is the end of a comparison that found something incompatible: the
// command has run, and says so with status 2.
type IncompatiblePlanError struct{ App string }

// Error implements error.
func (e *IncompatiblePlanError) Error() string {
	return fmt.Sprintf("the plan is incompatible with what app %q has left in the cluster", e.App)
}

// ExitCode is the status that the program ends with.
func (e *IncompatiblePlanError) ExitCode() int { return 2 }

func topologyCommand() *cobra.Command {
	var c connection
	cmd := &cobra.Command{Use: "topology", Short: "Look into the topologies of stream apps"}
	c.addFlags(cmd)
	cmd.AddCommand(topologyPlan(&c))
	return cmd
}

func topologyPlan(c *connection) *cobra.Command {
	var app, file string
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "Show the plan that an app runs, or compare another one with it",
		Long: `Show the plan that an app runs, or ran last: its topics, stores and serdes. With
--file, compare the plan of a program with it: each difference is safe, new,
orphaned or incompatible, and the status is 2 when the program would refuse to start.

A topology is part of a program, so the program writes its plan to a file, with
plan.Manifest and Encode; the examples do with --plan=export. Partition counts
that the file does not have are not compared.`,
		Example: `  leat topology plan --app orders
  go run ./examples/orders --bootstrap 127.0.0.1:9092 --plan=export > plan.json
  leat topology plan --file plan.json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var program *plan.Manifest
			if file != "" {
				var err error
				if program, err = readPlan(file, app); err != nil {
					return err
				}
				app = program.App
			}
			if app == "" {
				return errors.New("--app is missing: name the app by its id, or give the plan of its program with --file")
			}
			return c.run(cmd, func(ctx context.Context, cl *client.Client) error {
				return c.plan(ctx, cmd, cl, app, program)
			})
		},
	}
	cmd.Flags().StringVar(&app, "app", "", "`ID` of the app, which names its group")
	cmd.Flags().StringVar(&file, "file", "", "`FILE` with the plan of a program, to be compared")
	return cmd
}

// readPlan reads the plan of a program of the app, of any app when that is "".
func readPlan(file, app string) (*plan.Manifest, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("--file: %w", err)
	}
	program, err := plan.DecodeManifest(data)
	if err != nil {
		return nil, fmt.Errorf("--file %s: %w", file, err)
	}
	if app != "" && program.App != app {
		return nil, fmt.Errorf("--file %s: it is the plan of app %q, --app is %q: leave out --app, or give the file of that app", file, program.App, app)
	}
	return program, nil
}

// plan shows the plan that runs, or the comparison with program.
func (c *connection) plan(ctx context.Context, cmd *cobra.Command, cl *client.Client, app string, program *plan.Manifest) error {
	running, err := stream.ReadManifest(ctx, cl, app)
	if err != nil {
		return explain(err)
	}
	out := cmd.OutOrStdout()
	if program == nil {
		switch {
		case running == nil:
			return fmt.Errorf("app %q has no plan in the cluster: it has not run yet, leaves nothing durable, or has another id; `leat group list` shows the groups of apps", app)
		case c.json:
			return writeJSON(out, running)
		}
		_, err := fmt.Fprint(out, running)
		return err
	}
	compared := plan.NewComparison(running, program)
	if c.json {
		err = writeJSON(out, compared)
	} else {
		_, err = fmt.Fprint(out, compared)
	}
	if err == nil && compared.Class == plan.Incompatible {
		err = &IncompatiblePlanError{app}
	}
	return err
}
