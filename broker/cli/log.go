package cli

import (
	"bufio"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/leatlog/leat/broker/internal/dump"
)

// LogCommand returns `leat log`, which looks into a broker's files.
func LogCommand() *cobra.Command {
	c := &cobra.Command{Use: "log", Short: "Look into a broker's files"}
	c.AddCommand(logDump())
	return c
}

func logDump() *cobra.Command {
	var options dump.Options
	c := &cobra.Command{
		Use:   "dump FILE...",
		Short: "Decode segments, indexes and checkpoints",
		Long: `Decode files of a data directory: segments (.log) with batches and records,
.index, .timeindex, .txnindex, producer snapshots (.snapshot), metadata
checkpoints (.checkpoint). Records of __consumer_offsets, __transaction_state and
__cluster_metadata are decoded by the name of their folder. Checksums are
verified; a damaged file is told by position and by the exit status. The broker
may be running.`,
		Example: "  leat log dump leat-data/greetings-0/00000000000000000000.log\n  leat log dump --json leat-data/__consumer_offsets-12/*.log",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, paths []string) error {
			out := bufio.NewWriterSize(c.OutOrStdout(), 64<<10)
			for _, path := range paths {
				if len(paths) > 1 && !options.JSON {
					fmt.Fprintf(out, "%s\n", path)
				}
				err := dumpFile(out, path, options)
				if flushed := out.Flush(); err == nil {
					err = flushed
				}
				if err != nil {
					return err
				}
			}
			return nil
		},
	}
	c.Flags().BoolVar(&options.JSON, "json", false, "write JSON, an object per line")
	c.Flags().BoolVar(&options.HeadersOnly, "headers-only", false, "write batches without their records")
	return c
}

func dumpFile(w io.Writer, path string, options dump.Options) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if info.IsDir() {
		return fmt.Errorf("%s is a folder: name files in it, for example %s/*.log", path, path)
	}
	return dump.File(w, path, file, info.Size(), options)
}
