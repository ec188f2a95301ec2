// Command cmd simulates clusters from a seed and says what was done.
//
//	go run ./broker/internal/sim/cmd --seed 1 --hours 1
//
// Each cluster runs for --minutes of virtual time; its seed follows from the first. A
// violation prints the seed of its cluster, which --seed N --runs 1 repeats; --log prints
// what the nodes logged.
package main

import (
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/leatlog/leat/broker/internal/sim"
)

func main() {
	seed := flag.Uint64("seed", 1, "seed of the first cluster")
	hours := flag.Float64("hours", 0.1, "virtual hours to simulate, of all clusters together")
	runs := flag.Int("runs", 0, "number of clusters; 0: as many as --hours takes")
	minutes := flag.Float64("minutes", 2, "virtual minutes under faults of each cluster")
	log := flag.Bool("log", false, "print what the nodes log")
	repeat := flag.Int("repeat", 100, "run each cluster of so many a second time and compare the traces; 0: none")
	flag.Parse()
	os.Exit(simulate(*seed, *hours, *runs, *minutes, *repeat, *log))
}

func simulate(seed uint64, hours float64, runs int, minutes float64, repeat int, log bool) int {
	var total sim.Stats
	var simulated time.Duration
	events, repeated, n := 0, 0, 0
	begin := time.Now()
	for ; runs > 0 && n < runs || runs == 0 && simulated.Hours() < hours; n++ {
		cfg := sim.Config{Seed: seed + uint64(n), Duration: time.Duration(minutes * float64(time.Minute))}
		if log {
			cfg.Log = os.Stdout
		}
		result := sim.Run(cfg)
		if len(result.Violations) > 0 {
			fmt.Printf("VIOLATION with seed %d, trace %016x\n", result.Seed, result.Trace)
			for _, v := range result.Violations {
				fmt.Println(" ", v)
			}
			fmt.Printf("repeat: go run ./broker/internal/sim/cmd --seed %d --runs 1 --minutes %v --log\n", result.Seed, minutes)
			return 1
		}
		if repeat > 0 && n%repeat == 0 {
			cfg.Log = nil
			if again := sim.Run(cfg); again.Trace != result.Trace {
				fmt.Printf("seed %d gave the trace %016x and then %016x\n", result.Seed, result.Trace, again.Trace)
				return 1
			}
			repeated++
		}
		simulated += result.Simulated
		events += result.Events
		total.Add(&result.Stats)
		if runs == 1 {
			fmt.Printf("trace %016x\n", result.Trace)
		}
	}
	took := time.Since(begin)
	fmt.Printf("seeds %d to %d: no violation\n%d clusters, %.2f virtual hours, %d events, %d traces repeated\n", seed, seed+uint64(n)-1, n, simulated.Hours(), events, repeated)
	fmt.Printf("%.2f cluster-hours a minute\n%s", simulated.Hours()/took.Minutes(), total.String())
	return 0
}
