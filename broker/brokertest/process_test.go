package brokertest_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/leatlog/leat/broker"
	"github.com/leatlog/leat/broker/brokertest"
)

// nodeEnv has the test binary run as a node: its settings, a line each.
const nodeEnv = "LEAT_TEST_NODE"

func TestMain(m *testing.M) {
	if settings := os.Getenv(nodeEnv); settings != "" {
		if err := runNode(settings); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// runNode runs a node until it gets SIGTERM.
func runNode(settings string) error {
	zerolog.TimeFieldFormat = "15:04:05.000"
	logger := zerolog.New(os.Stderr).Level(zerolog.InfoLevel).With().Timestamp().Logger()
	c := broker.DefaultConfig()
	c.Environment.Logger = &logger
	c.BootstrapExpect = 3
	for line := range strings.Lines(settings) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch name {
		case "gossip":
			c.Gossip = value
		case "alone":
			c.BootstrapExpect = 1
		case "join":
			c.Join = []string{value}
		default:
			if err := c.Set(name, value); err != nil {
				return err
			}
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	b, err := broker.Start(ctx, c)
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
	case <-b.Done():
		return b.Err()
	}
	return b.Close()
}

// processes is a cluster of three nodes that are processes of their own, with Leat's
// default settings but for those given.
type processes struct {
	t     *testing.T
	dir   string
	nodes []*process
}

type process struct {
	settings string
	address  string
	cmd      *exec.Cmd // nil while it does not run
	ended    chan struct{}
}

func startProcesses(t *testing.T, settings ...string) *processes {
	t.Helper()
	c := &processes{t: t, dir: t.TempDir()}
	ports := freeAddresses(t, 6)
	for i := range 3 {
		lines := append([]string{
			"log.dirs=" + filepath.Join(c.dir, fmt.Sprint("node-", i)), "listeners=PLAINTEXT://" + ports[i], "gossip=" + ports[3+i],
			"cluster.name=" + filepath.Base(filepath.Dir(c.dir)) + fmt.Sprint(os.Getpid()), "group.initial.rebalance.delay.ms=0", "offsets.topic.num.partitions=5",
		}, settings...)
		if i > 0 {
			lines = append(lines, "join="+ports[3])
		}
		c.nodes = append(c.nodes, &process{settings: strings.Join(lines, "\n"), address: ports[i]})
	}
	t.Cleanup(func() {
		for i := range c.nodes {
			c.kill(i)
		}
	})
	for i := range c.nodes {
		c.start(i)
	}
	return c
}

// startAlone starts a node that is a process and a cluster of its own.
func startAlone(t *testing.T, settings ...string) *processes {
	t.Helper()
	c := &processes{t: t, dir: t.TempDir()}
	address := brokertest.FreeAddress(t)
	lines := append([]string{"alone=", "log.dirs=" + filepath.Join(c.dir, "node-0"), "listeners=PLAINTEXT://" + address}, settings...)
	c.nodes = []*process{{settings: strings.Join(lines, "\n"), address: address}}
	t.Cleanup(func() { c.kill(0) })
	c.start(0)
	return c
}

func freeAddresses(t *testing.T, n int) []string {
	t.Helper()
	var list []string
	for range n {
		list = append(list, brokertest.FreeAddress(t))
	}
	return list
}

func (c *processes) addrs() []string {
	var list []string
	for _, p := range c.nodes {
		list = append(list, p.address)
	}
	return list
}

// start starts a node; it does not wait until that serves clients.
func (c *processes) start(i int) {
	c.t.Helper()
	p := c.nodes[i]
	log, err := os.OpenFile(filepath.Join(c.dir, fmt.Sprint("node-", i, ".log")), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		c.t.Fatal(err)
	}
	defer log.Close()
	p.cmd = exec.Command(os.Args[0])
	p.cmd.Env = append(os.Environ(), nodeEnv+"="+p.settings)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	if err := p.cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	cmd, ended := p.cmd, make(chan struct{})
	p.ended = ended
	go func() {
		defer close(ended)
		_ = cmd.Wait() // it was killed, or the test ends
	}()
}

// signal sends a signal to a node that runs.
func (c *processes) signal(i int, s os.Signal) {
	if p := c.nodes[i]; p.cmd != nil {
		_ = p.cmd.Process.Signal(s) // it may have ended just now
	}
}

// kill ends a node as kill -9 does.
func (c *processes) kill(i int) {
	p := c.nodes[i]
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Kill()
	<-p.ended
	p.cmd = nil
}

// log returns the end of what a node logged.
func (c *processes) log(i int) string {
	data, err := os.ReadFile(filepath.Join(c.dir, fmt.Sprint("node-", i, ".log")))
	if err != nil {
		return err.Error()
	}
	return string(data[max(0, len(data)-10_000):])
}

// dumpOnFailure shows the logs when the test fails.
func (c *processes) dumpOnFailure() {
	c.t.Cleanup(func() {
		if c.t.Failed() {
			for i := range c.nodes {
				c.t.Logf("node %d:\n%s", i, c.log(i))
			}
		}
	})
}

// waitReady waits until a node answers clients.
func (c *processes) waitReady(i int) {
	c.t.Helper()
	a := admin(c.t, c.nodes[i].address)
	waitFor(c.t, fmt.Sprint("node ", i, " serves"), func() bool {
		ctx, cancel := context.WithTimeout(c.t.Context(), time.Second)
		defer cancel()
		_, err := a.ListBrokers(ctx)
		return err == nil
	})
}
