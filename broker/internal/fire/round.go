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
	restarts   int            // of nodes that stopped themselves because their disk was full
	errors     map[string]int // of operations of unknown outcome
	batches    int            // compared between replicas
	violations violations
}

// run runs the round. An error is one of the harness or of a cluster that does not heal.
func (r *round) run() (err error) {
	r.result = result{faults: map[string]int{}, recoveries: map[string][]time.Duration{}, operations: map[kind]map[outcome]int{}, errors: map[string]int{}}
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
		if f.calm {
			if _, err := r.recover(); err != nil {
				return fmt.Errorf("before %q: %w", f.name, err)
			}
		}
		fmt.Fprintf(os.Stderr, "%s %s\n", time.Now().Format("15:04:05.000"), f.name)
		if err := f.inject(r.cluster, rand.New(rand.NewPCG(random.Uint64(), 1))); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		r.result.faults[f.name]++
		if err := r.supervise(); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		// Every other fault meets a cluster that has not recovered from the one before.
		if i%2 == 0 || !time.Now().Before(end) {
			took, err := r.recover()
			if err != nil {
				return fmt.Errorf("no recovery from %q: %w", f.name, err)
			}
			r.result.recoveries[f.name] = append(r.result.recoveries[f.name], took)
		}
	}
	_, err := r.recover()
	return err
}

// recover waits until the cluster is whole, and returns how long that took.
func (r *round) recover() (time.Duration, error) {
	var ended error
	took, err := await(healing, func(ctx context.Context) error {
		if ended = r.supervise(); ended != nil {
			return nil // no use to wait
		}
		return r.whole(ctx)
	})
	return took, errors.Join(ended, err)
}

// supervise starts a node again that stopped itself because its disk was full, as the
// broker says an operator must. A node that ends for another reason is a failure.
func (r *round) supervise() error {
	for _, n := range r.cluster.nodes {
		if !n.diedAlone() {
			continue
		}
		log, err := os.ReadFile(n.log)
		if err != nil {
			return err
		}
		lines := strings.Split(strings.TrimSpace(string(log)), "\n")
		if last := lines[len(lines)-1]; !strings.Contains(last, "no space left on device") {
			return fmt.Errorf("node %d ended by itself: %s", n.id, last)
		}
		r.result.restarts++
		if err := r.cluster.start(n); err != nil {
			return err
		}
	}
	return nil
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
		if op.Outcome == unknown {
			producer, _, _ := strings.Cut(op.Client, "-")
			r.result.errors[producer+": "+op.Error]++
		}
	}
	ends, err := r.cluster.stableEnds()
	if err != nil {
		return err
	}
	// Nothing is written any more, but nodes may still be repairing what was damaged. If
	// they do not, the check below tells.
	_, _ = await(healing, func(context.Context) error {
		var damage violations
		return errors.Join(r.checkFiles(&damage, ends, true), damage.err())
	})
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
	return r.checkFiles(v, ends, false)
}

// checkFiles compares the files of the nodes, which may be running if nothing is written.
func (r *round) checkFiles(v *violations, ends map[place]int64, running bool) error {
	r.result.batches = 0
	for p, end := range ends {
		replicas := map[string][]batch{}
		for _, n := range r.cluster.nodes {
			dir := filepath.Join(n.dir, "data", p.String())
			if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
				continue // in a larger cluster not every node has every partition
			}
			list, err := readSegments(dir, running)
			if err != nil {
				v.add("node %d: %v", n.id, err)
			}
			replicas[fmt.Sprint("node ", n.id)] = list
			r.result.batches += len(list)
		}
		if len(replicas) < 3 {
			v.add("%s has %d replicas", p, len(replicas))
		}
		checkReplicas(v, replicas, end, p)
	}
	return nil
}
