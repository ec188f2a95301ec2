package main

import (
	"fmt"
	"runtime"
	"strconv"
	"time"

	"github.com/leatlog/leat/benchmarks/nexmark"
	"github.com/leatlog/leat/topology/plan"
)

const (
	nexmarkEvents = 1_000_000
	nexmarkSeed   = 1
)

// printNexmark runs each query once over the events, on one processor.
func printNexmark(arguments []string) error {
	events := nexmarkEvents
	if len(arguments) > 0 {
		n, err := strconv.Atoi(arguments[0])
		if err != nil || n < 50 {
			return fmt.Errorf("%q is no number of events: give at least 50", arguments[0])
		}
		events = n
	}
	runtime.GOMAXPROCS(1)
	input, err := nexmark.NewInput(nexmarkSeed, events)
	if err != nil {
		return err
	}
	fmt.Printf("%s %s/%s\n\nNexmark, %d events, seed %d, in memory, on one processor, serdes, stores, repartition topics and garbage collection included\n",
		runtime.Version(), runtime.GOOS, runtime.GOARCH, events, nexmarkSeed)
	fmt.Printf("  %-4s %-38s %10s %10s %10s %12s %14s\n", "", "", "read", "results", "ns/record", "records/s", "allocs/record")
	for _, q := range nexmark.Queries {
		results := 0
		run, err := nexmark.NewRun(q.Topology(), 64<<20, func(string, *plan.Record) { results++ })
		if err != nil {
			return err
		}
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		start := time.Now()
		read, err := input.Play(run, nexmark.CommitRecords)
		if err != nil {
			return fmt.Errorf("%s: %w", q.Name, err)
		}
		elapsed := time.Since(start)
		runtime.ReadMemStats(&after)
		fmt.Printf("  %-4s %-38s %10d %10d %10.0f %12.0f %14.2f\n", q.Name, q.Title, read, results, float64(elapsed.Nanoseconds())/float64(read),
			float64(read)/elapsed.Seconds(), float64(after.Mallocs-before.Mallocs)/float64(read))
	}
	return nil
}
