package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// healing is how long a cluster may take to be whole again after its last fault.
const healing = 90 * time.Second

// round is one run of a cluster under faults.
type round struct {
	seed     uint64
	size     int
	duration time.Duration
	only     string // a kind of fault, or "" for all
	binary   string
	dir      string
	cluster  *cluster
	clients  []*exec.Cmd
	result   result
}

// result is what a round tells the table.
type result struct {
	faults     map[string]int
	recoveries map[string][]time.Duration // from a fault's end to all partitions written and in sync
	operations map[kind]map[outcome]int
	batches    int // compared between replicas
	violations violations
}

// run runs the round. An error is one of the harness or of a cluster that does not heal.
func (r *round) run() (err error) {
	r.result = result{faults: map[string]int{}, recoveries: map[string][]time.Duration{}, operations: map[kind]map[outcome]int{}}
	net, err := newNetwork(r.size)
	if err != nil {
		return err
	}
	defer net.remove()
	defer r.killClients()
	r.cluster, err = startCluster(r.binary, r.dir, net, r.size)
	defer r.cluster.remove()
	if err != nil {
		return err
	}
	for _, topic := range sortedKeys(partitions) {
		if err := r.cluster.createTopic(topic, partitions[topic]); err != nil {
			return fmt.Errorf("create %s: %w", topic, err)
		}
	}
	if _, err := await(healing, r.cluster.inSync); err != nil {
		return fmt.Errorf("at the start: %w", err)
	}
	if err := r.startClients(); err != nil {
		return err
	}
	if err := r.burn(); err != nil {
		return err
	}
	if err := r.stopClients(); err != nil {
		return err
	}
	return r.check()
}

func (r *round) startClients() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	for i, kind := range sortedKeys(workloads) {
		cmd := r.cluster.network.command(clients, self, "client", "--kind", kind, "--brokers", strings.Join(r.cluster.addresses(), ","),
			"--out", r.history(kind), "--seed", fmt.Sprint(r.seed+uint64(i)))
		cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
		if err := cmd.Start(); err != nil {
			return err
		}
		r.clients = append(r.clients, cmd)
	}
	return nil
}

func (r *round) history(kind string) string { return filepath.Join(r.dir, kind+".jsonl") }

func (r *round) stopClients() error {
	for _, cmd := range r.clients {
		_ = cmd.Process.Signal(syscall.SIGTERM) // Wait tells of one that has ended
	}
	for i, cmd := range r.clients {
		timer := time.AfterFunc(2*patience, func() { _ = cmd.Process.Kill() })
		err := cmd.Wait()
		timer.Stop()
		if err != nil {
			return fmt.Errorf("client %s: %w", sortedKeys(workloads)[i], err)
		}
	}
	r.clients = nil
	return nil
}

func (r *round) killClients() {
	for _, cmd := range r.clients {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}

// burn injects faults, one after the other, until the time is over, and then waits for
// the cluster to be whole.
func (r *round) burn() error {
	random := rand.New(rand.NewPCG(r.seed, 0))
	var kinds []fault
	for _, f := range faults {
		if r.only == "" || strings.Contains(f.name, r.only) {
			kinds = append(kinds, f)
		}
	}
	if len(kinds) == 0 {
		return fmt.Errorf("no fault is called %q", r.only)
	}
	end := time.Now().Add(r.duration)
	for i := 0; time.Now().Before(end); i++ {
		if i%len(kinds) == 0 {
			random.Shuffle(len(kinds), func(a, b int) { kinds[a], kinds[b] = kinds[b], kinds[a] })
		}
		f := kinds[i%len(kinds)]
		rest(random, 200, 1500)
		fmt.Fprintf(os.Stderr, "%s %s\n", time.Now().Format("15:04:05.000"), f.name)
		if err := f.inject(r.cluster, rand.New(rand.NewPCG(random.Uint64(), 1))); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		r.result.faults[f.name]++
		for _, n := range r.cluster.nodes {
			if n.diedAlone() {
				return fmt.Errorf("%s: node %d ended by itself", f.name, n.id)
			}
		}
		// Every other fault meets a cluster that has not recovered from the one before.
		if i%2 == 0 || !time.Now().Before(end) {
			took, err := await(healing, r.whole)
			if err != nil {
				return fmt.Errorf("no recovery from %q: %w", f.name, err)
			}
			r.result.recoveries[f.name] = append(r.result.recoveries[f.name], took)
		}
	}
	_, err := await(healing, r.whole)
	return err
}

// whole fails unless all replicas are in sync and each partition takes a record.
func (r *round) whole(ctx context.Context) error {
	if err := r.cluster.inSync(ctx); err != nil {
		return err
	}
	client, err := kgo.NewClient(append(clientOptions(r.cluster.addresses()), kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		return err
	}
	defer client.Close()
	var records []*kgo.Record
	for _, topic := range sortedKeys(partitions) {
		for p := range partitions[topic] {
			records = append(records, &kgo.Record{Topic: topic, Partition: p, Value: []byte(probeValue)})
		}
	}
	return client.ProduceSync(ctx, records...).FirstErr()
}

// probeValue is the value of records that the harness writes itself.
const probeValue = "probe"

// check reads everything and has the checkers look at it.
func (r *round) check() error {
	var ops []operation
	for _, kind := range sortedKeys(workloads) {
		list, err := readHistory(r.history(kind))
		if err != nil {
			return err
		}
		ops = append(ops, list...)
	}
	for _, op := range ops {
		if r.result.operations[op.Kind] == nil {
			r.result.operations[op.Kind] = map[outcome]int{}
		}
		r.result.operations[op.Kind][op.Outcome]++
	}
	ends, err := r.cluster.stableEnds()
	if err != nil {
		return err
	}
	all, err := r.cluster.read(ends, kgo.ReadUncommitted())
	if err != nil {
		return err
	}
	onlyCommitted, err := r.cluster.read(ends, kgo.ReadCommitted())
	if err != nil {
		return err
	}
	v := &r.result.violations
	checkAcknowledged(v, ops, all)
	checkConsumed(v, ops, all)
	all, onlyCommitted = withoutProbes(all), withoutProbes(onlyCommitted)
	checkWritten(v, ops, all)
	checkOrder(v, all, idempotentTopic)
	checkTransactions(v, ops, onlyCommitted, transactionTopic)
	checkOffsets(v, ops, ends)
	checkAppends(v, ops, registerTopic)
	checkTopics(v, ops)
	for _, n := range r.cluster.nodes {
		if err := n.stop(); err != nil {
			return err
		}
	}
	return r.checkFiles(ends)
}

// checkFiles compares the files of the nodes, which have stopped.
func (r *round) checkFiles(ends map[place]int64) error {
	for p, end := range ends {
		replicas := map[string][]batch{}
		for _, n := range r.cluster.nodes {
			dir := filepath.Join(n.dir, "data", p.String())
			if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
				continue // in a larger cluster not every node has every partition
			}
			list, err := readSegments(dir)
			if err != nil {
				r.result.violations.add("node %d: %v", n.id, err)
			}
			replicas[fmt.Sprint("node ", n.id)] = list
			r.result.batches += len(list)
		}
		if len(replicas) < 3 {
			r.result.violations.add("%s has %d replicas", p, len(replicas))
		}
		checkReplicas(&r.result.violations, replicas, end, p)
	}
	return nil
}
