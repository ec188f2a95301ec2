//go:build mutant

// Command mutants runs the simulation on brokers with known bugs, each of which it must
// catch, and on the broker as it is, which must pass the same seeds.
//
//	go run -tags mutant ./broker/internal/sim/mutants
//
// It fails when a mutant outlives the seeds that the table gives it.
package main

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/leatlog/leat/broker/internal/mutant"
	"github.com/leatlog/leat/broker/internal/sim"
)

// bugs are the mutants and the number of seeds within which each is caught.
var bugs = []struct {
	name  mutant.Name
	seeds int
}{
	{mutant.AckBeforeSync, 80},
	{mutant.FollowerAckBeforeSync, 80},
	{mutant.NoEpochCheck, 30},
	{mutant.TruncateByHighWatermark, 30},
	{mutant.ReadBeyondHighWatermark, 30},
	{mutant.OldLeaderAcknowledges, 150},
	{mutant.ProposedReplicaIgnored, 80},
	{mutant.ProposalTakenForCommitted, 80},
	{mutant.CommitsBelowMinISR, 80},
	{mutant.OutOfSyncElected, 30},
	{mutant.LeaderEpochStays, 30},
	{mutant.LostLogKeptInSync, 150},
	{mutant.ControllerAnswersBeforeCommit, 30},
	{mutant.DuplicateAppended, 30},
	{mutant.FollowerForgetsProducers, 30},
	{mutant.MetadataNotSynced, 30},
}

func main() {
	first := flag.Uint64("seed", 1, "first seed")
	duration := flag.Duration("duration", time.Minute, "virtual time under faults of each cluster")
	only := flag.String("only", "", "run this mutant alone")
	flag.Parse()
	os.Exit(hunt(*first, *duration, mutant.Name(*only)))
}

func hunt(first uint64, duration time.Duration, only mutant.Name) (failed int) {
	fmt.Printf("%-34s %-7s %-9s %s\n", "mutant", "within", "caught by", "first violation")
	most, begin := 0, time.Now()
	for _, b := range bugs {
		if only != "" && only != b.name {
			continue
		}
		after, what := 0, ""
		mutant.Set(b.name)
		for n := 1; n <= b.seeds && what == ""; n++ {
			if r := sim.Run(sim.Config{Seed: first + uint64(n) - 1, Duration: duration}); len(r.Violations) > 0 {
				after, what = n, strings.SplitN(r.Violations[0], "\n", 2)[0]
			}
		}
		most = max(most, after)
		by := fmt.Sprintf("seed %d", first+uint64(after)-1)
		if what == "" {
			by, what, failed = "-", "NOT CAUGHT", 1
		}
		fmt.Printf("%-34s %-7d %-9s %.150s\n", b.name, b.seeds, by, what)
	}
	mutant.Set("")
	for n := range most {
		for _, v := range sim.Run(sim.Config{Seed: first + uint64(n), Duration: duration}).Violations {
			fmt.Printf("without a mutant: %s\n", v)
			failed = 1
		}
	}
	fmt.Printf("%d seeds passed without a mutant; %v\n", most, time.Since(begin).Round(time.Second))
	return failed
}
