package stream_test

import (
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/leatlog/leat/stream"
	"github.com/leatlog/leat/stream/client"
	"github.com/leatlog/leat/topology/plan"
)

// pair is an app of two processes with a disk each, whose tasks have standbys in the other.
type pair struct {
	*cluster
	t      *testing.T
	plan   *plan.Plan
	dirs   [2]string
	apps   [2]*running
	change func(*stream.Config)
	begun  atomic.Int64 // offsets of the restores that tasks have begun
}

func newPair(t *testing.T, c *cluster, p *plan.Plan, change func(*stream.Config)) *pair {
	return &pair{cluster: c, t: t, plan: p, dirs: [2]string{t.TempDir(), t.TempDir()}, change: change}
}

func (p *pair) start(i int) {
	p.t.Helper()
	p.apps[i] = p.cluster.start(p.plan, func(cfg *stream.Config) {
		cfg.StateDir, cfg.StandbyReplicas = p.dirs[i], 1
		cfg.OnRestore = func(r stream.RestoreProgress) {
			if r.Restored == 0 { // its begin
				p.begun.Add(r.Total)
			}
		}
		if p.change != nil {
			p.change(cfg)
		}
	})
}

// restored returns how many offsets tasks have restored since the last call.
func (p *pair) restored() int64 { return p.begun.Swap(0) }

// settled waits until each process runs tasks stateful tasks and has all others' copies,
// which hold all that the changelogs do.
func (p *pair) settled(changelog string, tasks, copies int) {
	p.t.Helper()
	eventually(p.t, func() error {
		for i, app := range p.apps {
			h := app.Health()
			ran := 0
			for _, task := range h.Tasks {
				if strings.HasPrefix(task.Task, "1_") && task.Running {
					ran++
				}
			}
			if ran != tasks || len(h.Standbys) != copies || h.State != stream.Running {
				return fmt.Errorf("process %d: %+v", i, h)
			}
			for _, b := range h.Standbys {
				_, partition, _ := strings.Cut(b.Task, "_")
				n, err := strconv.Atoi(partition)
				if err != nil {
					return err
				}
				end, err := p.client.ListOffset(p.t.Context(), client.Partition{Topic: changelog, Partition: int32(n)}, client.LatestOffset)
				if err != nil {
					return err
				}
				if !b.Following || b.Lag != 0 || len(b.Stores) != 1 || b.Stores[0].Offset != end {
					return fmt.Errorf("process %d: standby %+v, the changelog ends at %d", i, b, end)
				}
			}
		}
		return nil
	})
}

// distinct is n records whose words are all different.
func distinct(n int) (out []plan.Record) {
	for i := range n {
		out = append(out, plan.Record{Timestamp: int64(i), Key: fmt.Appendf(nil, "k%d", i), Value: fmt.Appendf(nil, "d%d", i)})
	}
	return out
}

// Processes are killed in turn: the other goes on with its copies, without a rebuild, and
// nothing is lost or counted twice. Who comes back gets its tasks when it has caught up.
func TestStandbysTakeOver(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	in, out := c.topic("lines", 4), c.topic("counts", 4)
	p := newPair(t, c, wordCount(t, in, out), func(cfg *stream.Config) { cfg.AcceptableRecoveryLag = 100 })
	changelog := c.prefix + "app-word-counts-changelog"
	p.start(0)
	p.start(1)
	r, got := c.reader(out), newCounts()
	c.produce(in, distinct(4000)...)
	r.until("all words", func(rec plan.Record) bool { got.see(rec); return len(got.latest) == 4000 })
	sent := int64(0)
	for round := range 2 {
		p.settled(changelog, 2, 2)
		p.restored()
		dead := p.apps[round]
		dead.kill()
		killed := time.Now()
		c.produce(in, lines("wN", 100)...)
		sent += 10
		got.reach(r, sent, tenWords...)
		t.Logf("round %d: all results were there %v after the kill", round, time.Since(killed).Round(time.Millisecond))
		// What the copies had not got: the end of a transaction that the dead had begun.
		if n := p.restored(); n > 2*2 {
			t.Errorf("round %d: %d offsets were restored after the kill", round, n)
		}
		if err := dead.wait(); err == nil {
			t.Error("the app was not killed")
		}
		p.start(round)
	}
	p.settled(changelog, 2, 2)
	for i := range 4000 {
		if n := got.latest["d"+strconv.Itoa(i)]; n != 1 {
			t.Fatalf("d%d is counted %d times", i, n)
		}
	}
	if c.guarantee == stream.ExactlyOnce {
		c.produce(in, lines("wN", 10)...)
		got.reach(r, sent+1, tenWords...)
	}
}

// A process that comes empty-handed gets no task whose state it would have to restore: it
// warms up, and then the task moves.
func TestTasksMoveWhenTheirCopiesAreWarm(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	in, out := c.topic("lines", 4), c.topic("counts", 4)
	p := newPair(t, c, wordCount(t, in, out), func(cfg *stream.Config) {
		cfg.StandbyReplicas, cfg.AcceptableRecoveryLag, cfg.MaxWarmupReplicas = 0, 100, 1
	})
	p.start(0)
	r, got := c.reader(out), newCounts()
	c.produce(in, distinct(4000)...)
	r.until("all words", func(rec plan.Record) bool { got.see(rec); return len(got.latest) == 4000 })
	p.restored()
	p.start(1)
	p.settled("", 2, 0)
	if n := p.restored(); n > 2*100 {
		t.Errorf("%d offsets were restored by tasks, the acceptable lag is 100", n)
	}
	c.produce(in, lines("wN", 100)...)
	got.reach(r, 10, tenWords...)
	p.apps[0].stopped()
	c.produce(in, lines("wN", 100)...)
	got.reach(r, 20, tenWords...)
	p.apps[1].stopped()
}

// Copies in memory go with their process, and serve as well as those on disk until then.
func TestStandbysInMemory(t *testing.T) {
	c := newCluster(t)
	in, out := c.topic("lines", 2), c.topic("counts", 2)
	p := newPair(t, c, wordCount(t, in, out), func(cfg *stream.Config) { cfg.StateDir = "" })
	p.start(0)
	p.start(1)
	r, got := c.reader(out), newCounts()
	c.produce(in, distinct(1000)...)
	r.until("all words", func(rec plan.Record) bool { got.see(rec); return len(got.latest) == 1000 })
	p.settled(c.prefix+"app-word-counts-changelog", 1, 1)
	p.restored()
	p.apps[0].stopped()
	c.produce(in, lines("wN", 100)...)
	got.reach(r, 10, tenWords...)
	if n := p.restored(); n > 2 {
		t.Errorf("%d offsets were restored", n)
	}
	p.apps[1].stopped()
}

func TestStandbyConfigIsChecked(t *testing.T) {
	p := &plan.Plan{SubTopologies: []plan.SubTopology{{}}}
	_, err := stream.New(p, stream.Config{AppID: "a", Bootstrap: []string{"x:1"}, StandbyReplicas: 17, AcceptableRecoveryLag: -1, MaxWarmupReplicas: -2})
	for _, want := range []string{"StandbyReplicas is 17", "AcceptableRecoveryLag is -1", "MaxWarmupReplicas is -2"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
}
