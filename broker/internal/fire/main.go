// Command fire runs real Leat brokers under fire: processes in network namespaces of
// their own on disks of their own, with Kafka clients in other processes that record
// every operation as ok, failed or unknown, while faults of all kinds come from a seed.
// When all faults have ended, checkers that share nothing with the broker compare what
// clients were told with what is there.
//
//	go run ./broker/internal/fire --rounds 3 --seed 1 --duration 60s
//
// It needs Linux, root, the command ip, and the right to mount. A failure prints the
// seed and the command that repeats it. Faults and their order are the same for a seed;
// when processes meet them is the machine's affair.
//
// This package imports none of Leat's: see segments.go for the one file format it reads.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

func main() {
	run := runHarness
	args := os.Args[1:]
	if len(args) > 0 && args[0] == "client" {
		run, args = runClient, args[1:]
	}
	if err := run(args); err != nil {
		fmt.Fprintln(os.Stderr, "fire:", err)
		os.Exit(1)
	}
}

func runHarness(args []string) error {
	flags := flag.NewFlagSet("fire", flag.ContinueOnError)
	rounds := flags.Int("rounds", 1, "number of rounds, each with a new cluster and the next seed")
	seed := flags.Uint64("seed", uint64(time.Now().UnixNano()%1_000_000), "seed of the first round")
	duration := flags.Duration("duration", 60*time.Second, "how long faults are injected in a round")
	nodes := flags.Int("nodes", 3, "nodes of the cluster, 3 to 5")
	only := flags.String("fault", "", "inject only faults whose name contains this")
	binary := flags.String("leat", "", "the leat command (default: built from this module)")
	keep := flags.String("keep", "", "directory for histories and logs of failed rounds (default: a temporary one)")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *nodes < 3 || *nodes > 5 {
		return fmt.Errorf("--nodes %d: must be 3 to 5", *nodes)
	}
	dir, err := os.MkdirTemp("", "fire")
	if err != nil {
		return err
	}
	if *keep != "" {
		dir = *keep
	}
	if *binary == "" {
		*binary = filepath.Join(dir, "leat")
		build := exec.Command("go", "build", "-o", *binary, "github.com/leatlog/leat")
		build.Stdout, build.Stderr = os.Stderr, os.Stderr
		if err := build.Run(); err != nil {
			return fmt.Errorf("build leat: %w", err)
		}
	}
	var total table
	for i := range *rounds {
		r := &round{seed: *seed + uint64(i), size: *nodes, duration: *duration, only: *only, binary: *binary, dir: filepath.Join(dir, fmt.Sprint("seed-", *seed+uint64(i)))}
		if err := os.MkdirAll(r.dir, 0o700); err != nil {
			return err
		}
		fmt.Printf("round %d of %d, seed %d\n", i+1, *rounds, r.seed)
		err := r.run()
		total.add(&r.result)
		for _, text := range sortedKeys(r.result.errors) {
			fmt.Fprintf(os.Stderr, "%7d %s\n", r.result.errors[text], text)
		}
		if err == nil && r.result.violations.count() == 0 {
			os.RemoveAll(r.dir)
			continue
		}
		total.print()
		for _, found := range r.result.violations.list {
			fmt.Println("VIOLATION:", found)
		}
		fmt.Printf("histories and logs: %s\nrepeat: go run ./broker/internal/fire --seed %d --duration %v --nodes %d --fault %q\n", r.dir, r.seed, *duration, *nodes, *only)
		if err == nil {
			err = fmt.Errorf("seed %d: %d violations", r.seed, r.result.violations.count())
		}
		return err
	}
	total.print()
	if *keep == "" {
		os.RemoveAll(dir)
	}
	return nil
}

// table adds up rounds.
type table struct {
	rounds     int
	faults     map[string]int
	recoveries map[string][]time.Duration
	operations map[kind]map[outcome]int
	batches    int
	restarts   int
}

func (t *table) add(r *result) {
	if t.rounds == 0 {
		t.faults, t.recoveries, t.operations = map[string]int{}, map[string][]time.Duration{}, map[kind]map[outcome]int{}
	}
	t.rounds++
	t.batches += r.batches
	t.restarts += r.restarts
	for name, n := range r.faults {
		t.faults[name] += n
		t.recoveries[name] = append(t.recoveries[name], r.recoveries[name]...)
	}
	for k, outcomes := range r.operations {
		if t.operations[k] == nil {
			t.operations[k] = map[outcome]int{}
		}
		for o, n := range outcomes {
			t.operations[k][o] += n
		}
	}
}

// print prints the sums as tables of Markdown.
func (t *table) print() {
	out := tabwriter.NewWriter(os.Stdout, 0, 0, 1, ' ', 0)
	line := func(cells ...any) { fmt.Fprintf(out, "|"+strings.Repeat(" %v\t|", len(cells))+"\n", cells...) }
	fmt.Fprintf(out, "\nrounds: %d; batches compared on disk: %d; restarts of nodes that a full disk stopped: %d\n\n", t.rounds, t.batches, t.restarts)
	line("fault", "times", "recovery, median", "longest")
	line("---", "---", "---", "---")
	for _, name := range sortedKeys(t.faults) {
		list := t.recoveries[name]
		slices.Sort(list)
		middle, longest := "", ""
		if len(list) > 0 {
			middle, longest = list[len(list)/2].Round(100*time.Millisecond).String(), list[len(list)-1].Round(100*time.Millisecond).String()
		}
		line(name, t.faults[name], middle, longest)
	}
	fmt.Fprintln(out)
	line("operation", "ok", "failed", "unknown")
	line("---", "---", "---", "---")
	for _, k := range sortedKeys(t.operations) {
		line(string(k), t.operations[k][succeeded], t.operations[k][failed], t.operations[k][unknown])
	}
	out.Flush()
}
