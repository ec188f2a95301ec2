// Command leat runs a broker and talks to any Kafka-compatible cluster.
package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	brokercli "github.com/leatlog/leat/broker/cli"
	streamcli "github.com/leatlog/leat/stream/cli"
)

func main() {
	root := &cobra.Command{
		Use:           "leat",
		Short:         "A log that speaks the Kafka protocol, and the tools to look into one",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(brokercli.Command(), brokercli.LogCommand(), brokercli.ClusterCommand())
	root.AddCommand(streamcli.Commands()...)
	if err := root.Execute(); err != nil {
		fmt.Fprintln(os.Stderr, "leat:", err)
		var status interface{ ExitCode() int }
		if errors.As(err, &status) {
			os.Exit(status.ExitCode())
		}
		os.Exit(1)
	}
}
