package stream_test

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"testing"

	"github.com/leatlog/leat/stream"
	"github.com/leatlog/leat/stream/client"
)

// An app of two processes, of which in each round one stops at one of killPoints, as a
// machine that is suspended does, for longer than its session and its transaction last.
// The other takes its tasks over and goes on; then the first one wakes up in the middle of
// what it was doing. What readers of committed records see is each input once.
// LEAT_ZOMBIES is the number of rounds, LEAT_SEED the seed.
func TestZombiesWakeInACommit(t *testing.T) {
	if testing.Short() {
		t.Skip("it runs processes")
	}
	c := newCluster(t)
	if c.guarantee != stream.ExactlyOnce {
		t.Skip("the cluster has no transactions")
	}
	rounds, seed := 2, uint64(1)
	if s := os.Getenv("LEAT_ZOMBIES"); s != "" {
		rounds, _ = strconv.Atoi(s)
	}
	if s := os.Getenv("LEAT_SEED"); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	k := newKilling(t, c, seed)
	settle := k.begin(t)
	var points []killPoint
	for _, p := range killPoints {
		if p.name != syncedOnly { // which only a death gets over
			points = append(points, p)
		}
	}
	order := k.random.Perm(len(points))
	for round := range rounds {
		i := k.random.IntN(2)
		v, point := k.victims[i], points[order[round%len(order)]]
		v.Step, v.Nth, v.Stops = point.name, 1+k.random.IntN(point.often), true
		k.running[i].kill()
		k.ledger.note("round %d: %s stops at %q, time %d", round, v.Instance, v.Step, v.Nth)
		k.running[i] = k.ledger.start(t, v)
		pid := k.running[i].cmd.Process.Pid
		k.poll(t, fmt.Sprintf("round %d: process %d stops at %q", round, i, v.Step), func() bool { return isStopped(t, pid) })
		k.awaitGroup(t, 1)
		k.awaitProgress(t)
		if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		k.ledger.note("round %d: %s wakes up", round, v.Instance)
		k.awaitGroup(t, 2)
		k.awaitProgress(t)
	}
	settle()
	k.verify(t)
	k.verifyStores(t, "word-counts")
	t.Logf("%d zombies, %d records, %d starts of tasks", rounds, k.sent, k.ledger.runs)
}

// isStopped says whether a process is stopped, from /proc/PID/stat.
func isStopped(t *testing.T, pid int) bool {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	after := bytes.LastIndexByte(stat, ')') // of the command's name
	return stat[after+2] == 'T'
}

// awaitProgress waits until what is there now is processed.
func (k *killing) awaitProgress(t *testing.T) {
	t.Helper()
	ends := make(map[client.Partition]int64)
	for p := range int32(8) {
		at := client.Partition{Topic: k.in, Partition: p}
		end, err := k.client.ListOffset(t.Context(), at, client.LatestOffset)
		if err != nil {
			t.Fatal(err)
		}
		ends[at] = end
	}
	k.poll(t, "all tasks get on", func() bool {
		committed, err := k.client.CommittedOffsets(t.Context(), k.prefix+"app", nil)
		for at, end := range ends {
			if err != nil || committed[at].Offset < end {
				return false
			}
		}
		return true
	})
}
