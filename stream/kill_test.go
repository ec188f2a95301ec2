package stream_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatlog/leat/state"
	"github.com/leatlog/leat/state/badgerstore"
	"github.com/leatlog/leat/stream"
	"github.com/leatlog/leat/stream/client"
	"github.com/leatlog/leat/topology"
	"github.com/leatlog/leat/topology/plan"
	"github.com/leatlog/leat/topology/serde"
)

// victim tells a process of the app under test how to run and when to die.
type victim struct {
	Addr, Prefix, In, Copy, Counts, Dir, Instance string

	Step string // the killPoint at which it kills itself; "" for none
	Nth  int    // the how-manieth time it comes there

	Stops bool // it is stopped there, and not killed: it goes on when it is woken
}

const victimVariable = "LEAT_TEST_VICTIM"

// copyAndCount copies every line, and counts words through a repartition topic.
func copyAndCount(t *testing.T, in, copied, counts string) *plan.Plan {
	t.Helper()
	top := topology.New()
	lines := topology.From(top, topology.NewTopic(in, serde.String, serde.String))
	topology.To(lines, topology.NewTopic(copied, serde.String, serde.String))
	byWord := topology.GroupBy("by-word", lines, serde.String, func(v string) string { return v })
	topology.To(topology.Count("word-counts", byWord).Stream(), topology.NewTopic(counts, serde.String, serde.Int64))
	p, err := top.Build()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestVictim is a process of the app under test: TestKilledAtEveryStepOfACommit and
// TestZombiesWakeInACommit run the test binary again for it. It ends when its standard input does.
func TestVictim(t *testing.T) {
	var v victim
	if err := json.Unmarshal([]byte(os.Getenv(victimVariable)), &v); err != nil {
		t.Skip("it is run by TestKilledAtEveryStepOfACommit")
	}
	cfg := stream.Config{
		AppID: v.Prefix + "app", Bootstrap: []string{v.Addr}, InstanceID: v.Instance, StateDir: v.Dir, ReplicationFactor: -1,
		Workers: 2, CommitInterval: 25 * time.Millisecond, CheckpointInterval: 150 * time.Millisecond,
		SessionTimeout: 6 * time.Second, TransactionTimeout: 5 * time.Second,
		Logger: zerolog.New(os.Stderr).Level(zerolog.InfoLevel),
	}
	a := &assassin{victim: v}
	a.arm(&cfg, func() state.Backend {
		disk, err := badgerstore.New(badgerstore.Config{Dir: v.Dir, Logger: cfg.Logger})
		if err != nil {
			t.Fatal(err)
		}
		return disk
	})
	app, err := stream.New(copyAndCount(t, v.In, v.Copy, v.Counts), cfg)
	if err != nil {
		t.Fatal(err)
	}
	app.Failpoint(a.at)
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	if err := app.Run(ctx); err != nil {
		t.Fatal(err)
	}
}

// process is a running victim.
type process struct {
	cmd   *exec.Cmd
	stdin io.Closer
	ended chan struct{}
	lines sync.WaitGroup
}

// ledger follows the logs of the victims: which tasks have run where, and which
// stores were rebuilt though they had a checkpoint.
type ledger struct {
	mu       sync.Mutex
	ran      map[string]bool // instance and task
	restores int
	rebuilt  []string
	runs     int
	log      *os.File
}

func (l *ledger) read(instance string, r io.Reader) {
	scan := bufio.NewScanner(r)
	scan.Buffer(nil, 1<<20)
	for scan.Scan() {
		var e struct{ Message, Task, Store, Reason string }
		_ = json.Unmarshal(scan.Bytes(), &e) // other lines are for the reader of the log
		l.mu.Lock()
		fmt.Fprintf(l.log, "%s %s\n", instance, scan.Bytes())
		key := instance + " " + e.Task
		switch e.Message {
		case "the task runs":
			l.runs++
			l.ran[key] = true
		case "restoring a store from its changelog":
			l.restores++
			if l.ran[key] && e.Reason != "from its checkpoint" {
				l.rebuilt = append(l.rebuilt, fmt.Sprintf("%s %s: %s", key, e.Store, e.Reason))
			}
		}
		l.mu.Unlock()
	}
}

// has says whether a task has run that begins with prefix: an instance and a space.
func (l *ledger) has(prefix string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for key := range l.ran {
		if strings.HasPrefix(key, prefix) {
			return true
		}
	}
	return false
}

func (l *ledger) note(format string, arguments ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Fprintf(l.log, format+"\n", arguments...)
}

func (l *ledger) start(t *testing.T, v victim) *process {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	p := &process{cmd: exec.Command(os.Args[0], "-test.run=^TestVictim$", "-test.v"), ended: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), victimVariable+"="+string(text))
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.lines.Go(func() { l.read(v.Instance, stderr) })
	go func() {
		p.lines.Wait()
		_ = p.cmd.Wait() // killed, mostly
		close(p.ended)
	}()
	t.Cleanup(p.kill)
	return p
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.ended
}

// An app of two processes over eight partitions; in each round one of them is killed
// at any moment, comes back, is killed at one of killPoints, and comes back. What
// readers of committed records see is each input once, the tables are what their
// changelogs say, and no store was rebuilt that had a checkpoint. LEAT_KILLS is the
// number of rounds, LEAT_SEED the seed.
func TestKilledAtEveryStepOfACommit(t *testing.T) {
	if testing.Short() {
		t.Skip("it runs processes")
	}
	c := newCluster(t)
	if c.guarantee != stream.ExactlyOnce {
		t.Skip("the cluster has no transactions")
	}
	rounds, seed := 4, uint64(1)
	if s := os.Getenv("LEAT_KILLS"); s != "" {
		rounds, _ = strconv.Atoi(s)
	}
	if s := os.Getenv("LEAT_SEED"); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	k := newKilling(t, c, seed)
	k.run(t, rounds)
	k.verify(t)
	k.verifyStores(t, "word-counts")
	if rebuilt := k.ledger.rebuilt; len(rebuilt) > 0 {
		t.Errorf("%d stores were rebuilt though they had a checkpoint: %q", len(rebuilt), rebuilt)
	}
	t.Logf("%d rounds of 2 kills, %d records; %d starts of tasks, %d of them read the end of a changelog, %d stores were rebuilt without need", rounds, k.sent, k.ledger.runs, k.ledger.restores, len(k.ledger.rebuilt))
}

// newKilling makes the topics and the victims, which do not run yet.
func newKilling(t *testing.T, c *cluster, seed uint64) *killing {
	t.Helper()
	log, err := os.Create(filepath.Join(t.TempDir(), "victims.log"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if keep := os.Getenv("LEAT_KEEP"); t.Failed() && keep != "" {
			_ = os.Rename(log.Name(), keep)
		}
	})
	k := &killing{
		cluster: c, random: rand.New(rand.NewPCG(seed, 5)), ledger: &ledger{ran: make(map[string]bool), log: log},
		want: make(map[string]int64),
	}
	k.in, k.copied, k.counts = c.topic("in", 8), c.topic("copy", 8), c.topic("counts", 8)
	dir := t.TempDir()
	for i := range k.victims {
		k.victims[i] = victim{
			Addr: c.addr, Prefix: c.prefix, In: k.in, Copy: k.copied, Counts: k.counts,
			Dir: filepath.Join(dir, strconv.Itoa(i)), Instance: "process-" + strconv.Itoa(i),
		}
	}
	return k
}

// killing is the state of the test.
type killing struct {
	*cluster
	in, copied, counts string
	random             *rand.Rand
	ledger             *ledger
	victims            [2]victim
	running            [2]*process
	sent               int
	want               map[string]int64 // counts
}

// feed produces until stopped is closed; a record's value is one of 50 words,
// its key is unique.
func (k *killing) feed(t *testing.T, stopped <-chan struct{}) {
	p, err := k.client.NewProducer(t.Context(), client.ProducerConfig{})
	if err != nil {
		t.Error(err)
		return
	}
	defer p.Close()
	to, err := p.Topic(t.Context(), k.in)
	if err != nil {
		t.Error(err)
		return
	}
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-stopped:
			return
		case <-ticker.C:
		}
		for range 20 {
			word := "word-" + strconv.Itoa(k.sent%50)
			if err := to.AppendByKey(int64(k.sent), []byte(strconv.Itoa(k.sent)), []byte(word), nil); err != nil {
				t.Error(err)
				return
			}
			k.sent++
			k.want[word]++
		}
		if err := p.Flush(t.Context()); err != nil {
			t.Error(err)
			return
		}
	}
}

// run kills, and ends when every input is worked off.
func (k *killing) run(t *testing.T, rounds int) {
	settle := k.begin(t)
	order := k.random.Perm(len(killPoints))
	for round := range rounds {
		i := k.random.IntN(2)
		v := k.victims[i]
		point := killPoints[order[round%len(order)]]
		v.Step, v.Nth = point.name, 1+k.random.IntN(point.often)
		k.running[i].kill() // at any moment
		if k.random.IntN(10) == 0 {
			k.awaitGroup(t, 1) // it stays away until the other has its tasks
		}
		k.ledger.note("round %d: %s dies at %q, time %d", round, v.Instance, v.Step, v.Nth)
		k.running[i] = k.ledger.start(t, v)
		select {
		case <-k.running[i].ended:
		case <-time.After(60 * time.Second):
			t.Fatalf("round %d: process %d did not come to %q for the %dth time", round, i, v.Step, v.Nth)
		}
		k.running[i] = k.ledger.start(t, k.victims[i])
	}
	settle()
}

// begin starts both processes and feeds them. The function it returns ends that, waits
// until every input is worked off, and stops the processes.
func (k *killing) begin(t *testing.T) (settle func()) {
	stopped := make(chan struct{})
	var feeding sync.WaitGroup
	feeding.Go(func() { k.feed(t, stopped) })
	for i := range k.running {
		k.running[i] = k.ledger.start(t, k.victims[i])
	}
	k.poll(t, "both processes run tasks", func() bool { return k.ledger.has("process-0 ") && k.ledger.has("process-1 ") })
	return func() {
		close(stopped)
		feeding.Wait()
		k.awaitLag(t)
		for _, p := range k.running {
			_ = p.stdin.Close()
			<-p.ended
			if !p.cmd.ProcessState.Success() {
				t.Errorf("a process ended with %v", p.cmd.ProcessState)
			}
		}
	}
}

// awaitGroup waits until the group has n members.
func (k *killing) awaitGroup(t *testing.T, n int) {
	t.Helper()
	k.poll(t, fmt.Sprintf("the group has %d members", n), func() bool {
		d, err := k.client.DescribeGroup(t.Context(), k.prefix+"app")
		return err == nil && len(d.Members) == n
	})
}

// awaitLag waits until everything is processed: counts have come through the
// repartition topic.
func (k *killing) awaitLag(t *testing.T) {
	t.Helper()
	k.poll(t, "every record is processed", func() bool {
		committed, err := k.client.CommittedOffsets(t.Context(), k.prefix+"app", nil)
		if err != nil {
			return false
		}
		for _, topic := range []string{k.in, k.prefix + "app-by-word-repartition"} {
			for p := range int32(8) {
				at := client.Partition{Topic: topic, Partition: p}
				end, err := k.client.ListOffset(t.Context(), at, client.LatestOffset)
				if err != nil || committed[at].Offset < end {
					return false
				}
			}
		}
		return true
	})
}

func (k *killing) poll(t *testing.T, what string, reached func() bool) {
	t.Helper()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	timeout := time.After(60 * time.Second)
	for !reached() {
		select {
		case <-ticker.C:
		case <-timeout:
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// verify reads the topics with a client that knows nothing of Leat's.
func (k *killing) verify(t *testing.T) {
	t.Helper()
	seen := make(map[string]int)
	for _, r := range readCommitted(t, k.addr, k.copied) {
		seen[string(r.Key)]++
	}
	for i := range k.sent {
		if n := seen[strconv.Itoa(i)]; n != 1 {
			t.Errorf("record %d was copied %d times", i, n)
		}
	}
	if len(seen) != k.sent {
		t.Errorf("%d different records were copied, not %d", len(seen), k.sent)
	}
	latest := make(map[string]int64)
	for _, r := range readCommitted(t, k.addr, k.counts) {
		n := int64(binary.BigEndian.Uint64(r.Value))
		if before := latest[string(r.Key)]; n <= before {
			t.Errorf("the count of %s went from %d to %d", r.Key, before, n)
		}
		latest[string(r.Key)] = n
	}
	if !maps.Equal(latest, k.want) {
		t.Errorf("counts are %v, want %v", latest, k.want)
	}
	changelog := make(map[string]int64)
	for _, r := range readCommitted(t, k.addr, k.prefix+"app-word-counts-changelog") {
		changelog[string(r.Key)] = int64(binary.BigEndian.Uint64(r.Value[len(r.Value)-8:]))
	}
	if !maps.Equal(changelog, k.want) {
		t.Errorf("the changelog adds up to %v, want %v", changelog, k.want)
	}
}

// readCommitted reads the committed records of a topic to its end.
func readCommitted(t *testing.T, addr, topic string) []*kgo.Record {
	t.Helper()
	cl, err := kgo.NewClient(kgo.AlwaysRetryEOF(), kgo.SeedBrokers(addr), kgo.ConsumeTopics(topic), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	ends, err := kadm.NewClient(cl).ListEndOffsets(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	left := make(map[int32]int64)
	ends.Each(func(o kadm.ListedOffset) {
		if o.Offset > 0 {
			left[o.Partition] = o.Offset
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var out []*kgo.Record
	for len(left) > 0 {
		fetches := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			t.Fatalf("%s: partitions %v were not read to their ends", topic, left)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if !r.Attrs.IsControl() {
				out = append(out, r)
			}
			if end, ok := left[r.Partition]; ok && r.Offset+1 >= end {
				delete(left, r.Partition)
			}
		})
	}
	return out
}
