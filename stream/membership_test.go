package stream_test

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/leatlog/leat/stream"
)

// told collects what an app logs about its tasks and its group.
type told struct{ syncBuffer }

func (l *told) follow(cfg *stream.Config) {
	cfg.Logger = zerolog.New(l).Level(zerolog.InfoLevel)
}

// count returns how often the app has said message, by task ("" for no task).
func (l *told) count(message string) map[string]int {
	out := make(map[string]int)
	for line := range strings.Lines(l.String()) {
		var e struct {
			Message string
			Task    any
		}
		if json.Unmarshal([]byte(line), &e) != nil || e.Message != message {
			continue
		}
		if name, ok := e.Task.(string); ok {
			out[name]++
		} else {
			out[""]++
		}
	}
	return out
}

// ranTasks returns the names of the tasks that an app runs now.
func ranTasks(app *running) (names []string) {
	for _, task := range app.Health().Tasks {
		if task.Running {
			names = append(names, task.Task)
		}
	}
	slices.Sort(names)
	return names
}

// awaitTasks waits until an app runs n tasks, and no others.
func awaitTasks(t *testing.T, app *running, n int) []string {
	t.Helper()
	eventually(t, func() error {
		if names := ranTasks(app); len(names) != n || len(app.Health().Tasks) != n {
			return fmt.Errorf("it runs %d tasks, not %d: %q", len(names), n, names)
		}
		return nil
	})
	return ranTasks(app)
}

// Processes come and go beside one that stays: the tasks that it keeps run on, without
// having been closed once.
func TestRebalanceLeavesOtherTasksAlone(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	in, out := c.topic("lines", 4), c.topic("counts", 4)
	p := wordCount(t, in, out)
	var log told
	first := c.start(p, log.follow)
	started := awaitTasks(t, first, 8)
	c.produce(in, lines("wN", 100)...)
	r, got := c.reader(out), newCounts()
	got.reach(r, 10, tenWords...)
	second := c.start(p, nil)
	kept := awaitTasks(t, first, 4)
	awaitTasks(t, second, 4)
	c.produce(in, lines("wN", 100)...)
	got.reach(r, 20, tenWords...)
	second.stopped()
	awaitTasks(t, first, 8)
	c.produce(in, lines("wN", 100)...)
	got.reach(r, 30, tenWords...)
	ran := log.count("the task runs")
	for _, task := range started {
		want := 2 // it went, and came back
		if slices.Contains(kept, task) {
			want = 1
		}
		if ran[task] != want {
			t.Errorf("task %s began %d times, not %d", task, ran[task], want)
		}
	}
}

// A process with an instance id that is back before its session ends takes its tasks up
// again, and the other processes hear nothing of it.
func TestStaticMemberReturnsUnnoticed(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"stopped", "killed"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			in, out := c.topic("lines", 4), c.topic("counts", 4)
			p := wordCount(t, in, out)
			dirs := [2]string{t.TempDir(), t.TempDir()}
			var log told
			start := func(i int, follow func(*stream.Config)) *running {
				return c.start(p, func(cfg *stream.Config) {
					cfg.InstanceID, cfg.StateDir, cfg.SessionTimeout = fmt.Sprint("process-", i), dirs[i], 30*time.Second
					if follow != nil {
						follow(cfg)
					}
				})
			}
			stays := start(0, log.follow)
			awaitTasks(t, stays, 8)
			returns := start(1, nil)
			awaitTasks(t, stays, 4)
			before := awaitTasks(t, returns, 4)
			c.produce(in, lines("wN", 100)...)
			r, got := c.reader(out), newCounts()
			got.reach(r, 10, tenWords...)
			ran, took := log.count("the task runs"), log.count("took up the assignment")[""]
			if how == "stopped" {
				returns.stopped()
			} else {
				returns.kill()
				_ = returns.wait()
			}
			c.produce(in, lines("wN", 100)...)
			returns = start(1, nil)
			if after := awaitTasks(t, returns, 4); !slices.Equal(after, before) {
				t.Errorf("it runs %q after its return, and %q before", after, before)
			}
			got.reach(r, 20, tenWords...)
			if now := log.count("took up the assignment")[""]; now != took {
				t.Errorf("the other process took up %d assignments meanwhile", now-took)
			}
			if now := log.count("the task runs"); fmt.Sprint(now) != fmt.Sprint(ran) {
				t.Errorf("the other process's tasks began %v times, %v before", now, ran)
			}
		})
	}
}

// stormTime is LEAT_STORM, by default 8 s.
func stormTime() time.Duration {
	if d, err := time.ParseDuration(os.Getenv("LEAT_STORM")); err == nil {
		return d
	}
	return 8 * time.Second
}

// Members join and leave ten times a second; what comes out is each input once.
func TestRebalanceStorm(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	if c.guarantee != stream.ExactlyOnce {
		t.Skip("the cluster has no transactions")
	}
	k := newKilling(t, c, 7)
	p := copyAndCount(t, k.in, k.copied, k.counts)
	stopped := make(chan struct{})
	fed := make(chan struct{})
	go func() {
		defer close(fed)
		k.feed(t, stopped)
	}()
	stays := c.start(p, nil)
	var members []*running
	changes := 0
	for end := time.Now().Add(stormTime()); time.Now().Before(end); changes++ {
		began := time.Now()
		switch n := len(members); {
		case n < 5 && (n == 0 || k.random.IntN(2) == 0):
			members = append(members, c.start(p, nil))
		default:
			at := k.random.IntN(n)
			leaves := members[at]
			members = slices.Delete(members, at, at+1)
			if k.random.IntN(4) == 0 {
				leaves.kill()
			} else {
				leaves.stop() // it has until the end of the test
			}
		}
		time.Sleep(time.Until(began.Add(100 * time.Millisecond)))
	}
	for _, m := range members {
		m.stop()
	}
	close(stopped)
	<-fed
	k.awaitLag(t)
	stays.stopped()
	k.verify(t)
	t.Logf("%d changes of membership, %d records", changes, k.sent)
}
