package sim

import (
	cryptorand "crypto/rand"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/leatlog/leat/broker/internal/metadata"
	"github.com/leatlog/leat/broker/internal/quorum"
	"github.com/leatlog/leat/broker/internal/vfs"
)

const nodeCount = 3

// Config says what to simulate.
type Config struct {
	// Seed decides on everything. Runs of one program with one seed are the same.
	Seed uint64
	// Duration is how long faults go on, in virtual time. Default 2 minutes. Healing and
	// the last comparison come after it.
	Duration time.Duration
	// Log, when set, gets the log lines of the nodes and what the simulation did.
	Log io.Writer
}

// Result is what one run was and found.
type Result struct {
	Seed       uint64
	Simulated  time.Duration
	Events     int
	Trace      uint64 // a hash of all that happened, in order
	Stats      Stats
	Violations []string
}

// Cluster is a cluster under simulation.
type Cluster struct {
	cfg     Config
	s       *scheduler
	net     *network
	nodes   map[int32]*node
	voters  []quorum.Replica
	checks  *checks
	stats   Stats
	outside *life // of clients and of who does harm
	errs    []string

	minISR     int
	losesDisks bool // logs are lost for good; then nobody can promise progress with a node away
	strike     int  // when the next record is acknowledged, 1: its leader loses power, 2: all do
	topics     []string
	diskSlow   time.Duration // bounds a sync
	healed     bool
	clients    []*client
	producers  []*producer
}

// randomness is held while a cluster runs: raft draws from crypto/rand, which is one
// for the whole process.
var randomness sync.Mutex

// Run runs one cluster from its first start to the last comparison.
func Run(cfg Config) Result {
	randomness.Lock()
	defer randomness.Unlock()
	if cfg.Duration == 0 {
		cfg.Duration = 2 * time.Minute
	}
	c := &Cluster{cfg: cfg, nodes: map[int32]*node{}, diskSlow: 2 * time.Millisecond}
	c.s = newScheduler(cfg.Seed, c.fail)
	system := cryptorand.Reader
	cryptorand.Reader = reader{c.s}
	defer func() { cryptorand.Reader = system }()
	c.net, c.checks, c.outside = newNetwork(c), newChecks(c), c.s.newLife()
	c.start()
	c.live()
	for id := int32(1); id <= nodeCount; id++ {
		if p := c.nodes[id].process; p != nil {
			p.life.kill()
		}
	}
	c.outside.kill()
	return Result{Seed: cfg.Seed, Simulated: c.s.now, Events: c.s.steps, Trace: c.s.trace.Sum64(), Stats: c.stats, Violations: c.errs}
}

func (c *Cluster) start() {
	c.minISR = 1 + c.s.random.IntN(2)
	c.losesDisks = c.minISR == 2 && c.s.random.IntN(2) == 0
	for id := int32(1); id <= nodeCount; id++ {
		directory, _ := metadata.NewUUID(reader{c.s})
		c.nodes[id] = &node{c: c, id: id, disk: vfs.NewMem(), directory: directory, previous: -1,
			replica: quorum.Replica{Node: id, Directory: quorum.Directory(c.s.random.Uint32() | 1)}}
		c.voters = append(c.voters, c.nodes[id].replica)
	}
	for id := int32(1); id <= nodeCount; id++ {
		c.boot(id)
	}
}

// live runs the phases: a cluster is made, used under faults, healed and compared.
func (c *Cluster) live() {
	wrong := func() bool { return len(c.errs) > 0 }
	made := false
	c.outside.Go(func() {
		c.makeTopics()
		made = true
	})
	if !c.s.run(c.s.now+time.Minute, func() bool { return made || wrong() }) {
		c.fail("I9: no topic could be made on a cluster without faults%s", c.describe())
	}
	if wrong() {
		return
	}
	c.work()
	c.outside.after(c.s.between(0, time.Second), c.disturb)
	c.outside.after(compareEvery, c.compareSome)
	c.s.run(c.s.now+c.cfg.Duration, wrong)
	if !wrong() && c.minISR == 2 && !c.losesDisks {
		c.minority(wrong)
	}
	if wrong() {
		return
	}
	c.heal()
	if !c.s.run(c.s.now+healTime, func() bool { return wrong() || c.whole() }) {
		c.fail("I9: the cluster is not whole %v after healing%s", healTime, c.describe())
	}
	if !wrong() {
		c.checks.compareAll()
	}
}

// healTime is how long a cluster may take to be whole after all faults ended.
const healTime = 90 * time.Second

func (c *Cluster) boot(id int32) {
	if err := c.nodes[id].boot(); err != nil {
		c.fail("I11: node %d does not start: %v", id, err)
	}
}

// fail notes a violation.
func (c *Cluster) fail(format string, args ...any) {
	text := fmt.Sprintf("seed %d at %v: ", c.cfg.Seed, c.s.now) + fmt.Sprintf(format, args...)
	c.errs = append(c.errs, text)
	c.say("VIOLATION %s", text)
}

// say writes to the log.
func (c *Cluster) say(format string, args ...any) {
	if c.cfg.Log != nil {
		fmt.Fprintf(c.cfg.Log, "%12.6f      %s\n", c.s.now.Seconds(), fmt.Sprintf(format, args...))
	}
}

// logger is what a node logs to.
func (c *Cluster) logger(id int32) zerolog.Logger {
	if c.cfg.Log == nil {
		return zerolog.Nop()
	}
	level := zerolog.InfoLevel
	if os.Getenv("LEAT_SIM_DEBUG") != "" {
		level = zerolog.DebugLevel
	}
	return zerolog.New(lineWriter{c, id}).Level(level)
}

type lineWriter struct {
	c  *Cluster
	id int32
}

func (w lineWriter) Write(p []byte) (int, error) {
	fmt.Fprintf(w.c.cfg.Log, "%12.6f node%d %s\n", w.c.s.now.Seconds(), w.id, strings.TrimSpace(string(p)))
	return len(p), nil
}

// syncTime draws how long a sync takes.
func (c *Cluster) syncTime() time.Duration { return c.s.between(100*time.Microsecond, c.diskSlow) }

// describe says in what state the cluster is.
func (c *Cluster) describe() string {
	var b strings.Builder
	for id := int32(1); id <= nodeCount; id++ {
		n := c.nodes[id]
		if n.process == nil {
			fmt.Fprintf(&b, "\n  node %d: down", id)
			continue
		}
		fmt.Fprintf(&b, "\n  node %d: metadata at %d, controller %d in epoch %d, registered as %d", id, n.log.published.Offset(), n.log.leader, n.log.epoch, n.epoch)
		for _, t := range n.log.published.Topics() {
			for i := range t.Partitions {
				m := &t.Partitions[i]
				fmt.Fprintf(&b, "\n    %s-%d: leader %d epoch %d isr %v of %v", t.Name, m.ID, m.Leader, m.LeaderEpoch, m.ISR, m.Replicas)
				if r, err := n.manager.Replica(t.ID, m.ID); err == nil && r.Log() != nil {
					fmt.Fprintf(&b, ", here %v, end %d, synced %d, high watermark %d, failure %v", r.Role(), r.Log().EndOffset(), r.Log().SyncedOffset(), r.HighWatermark(), r.Failure())
				}
			}
		}
	}
	for _, p := range c.producers {
		if p.busy {
			fmt.Fprintf(&b, "\n  producer %d: waits: %s", p.client.place, p.state)
		}
	}
	return b.String()
}
