package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestOperationsAsWritten walks through docs/operations.md with the program itself: a
// cluster forms, grows, is drained, upgraded, and loses and replaces nodes, and what was
// produced is there at the end. Each command is in the document word for word.
func TestOperationsAsWritten(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the program and runs it")
	}
	w := newWalk(t)

	// Form, and grow.
	w.broker("leat broker --data-dir b --listen 127.0.0.1:9093 --gossip 127.0.0.1:7947 --admin 127.0.0.1:9645 --join 127.0.0.1:7946 --bootstrap-expect 3")
	w.broker("leat broker --data-dir c --listen 127.0.0.1:9094 --gossip 127.0.0.1:7948 --admin 127.0.0.1:9646 --join 127.0.0.1:7946 --bootstrap-expect 3")
	w.broker("leat broker --data-dir a --listen 127.0.0.1:9092 --gossip 127.0.0.1:7946 --bootstrap-expect 3")
	w.ready("a", "b", "c")
	w.run("", "leat topic create orders --partitions 6 --replication-factor 3 --config min.insync.replicas=2")
	w.produce()
	d := w.broker("leat broker --data-dir d --listen 127.0.0.1:9095 --gossip 127.0.0.1:7949 --admin 127.0.0.1:9647 --join 127.0.0.1:7946")
	w.ready("d")
	if d.id != 4 {
		t.Fatalf("the fourth node is %d", d.id)
	}
	w.shows(`(?m)^4 +observer`, "leat cluster quorum describe")
	w.shows("node 4 votes now", "leat cluster quorum add 4")
	w.shows("orders-", "leat cluster rebalance --plan")
	w.shows("done", "leat cluster rebalance --run")
	w.produce()

	// Drain, and take out for good.
	w.shows("replicas to copy", "leat cluster drain 2")
	w.stop(2)
	w.shows("node 2", "leat cluster quorum remove 2")
	w.shows("broker 2 is unregistered", "leat cluster unregister 2")
	w.produce()

	// Upgrade: each node stops and starts, then the cluster agrees on the format.
	for _, n := range w.running() {
		w.stop(n.id)
		w.start(n)
		w.ready(n.name)
		w.inSync()
		w.produce()
	}
	w.shows("agreed on metadata.version=26", "leat cluster features set metadata.version=26")
	w.shows("agreed on metadata.version=27", "leat cluster features set metadata.version=27")
	w.shows(`metadata.version +27`, "leat cluster features describe")

	// Lose a node, and another one's disk.
	killed := w.running()[0]
	w.kill(killed)
	w.produce()
	w.start(killed)
	w.ready(killed.name)
	w.inSync()
	wiped := w.running()[1]
	w.kill(wiped)
	if err := os.RemoveAll(filepath.Join(w.dir, wiped.name)); err != nil {
		t.Fatal(err)
	}
	wiped.line += fmt.Sprintf(" --node-id %d", wiped.id)
	w.start(wiped)
	w.ready(wiped.name)
	if out := w.run("", fmt.Sprintf("leat cluster quorum add %d", wiped.id)); !strings.Contains(out, "votes now") {
		t.Errorf("quorum add: %q", out)
	}
	w.inSync()
	w.produce()
	w.consume()
}

// walk runs the document's commands in a folder of its own and on free ports.
type walk struct {
	t        *testing.T
	dir      string
	program  string
	document string
	ports    *strings.Replacer
	nodes    []*walkNode
	produced int
}

// walkNode is a `leat broker`.
type walkNode struct {
	name, line, addr string
	id               int32 // once it is ready
	cmd              *exec.Cmd
	said             chan string
	ended            chan struct{}
}

func newWalk(t *testing.T) *walk {
	t.Helper()
	w := &walk{t: t, dir: t.TempDir()}
	w.program = filepath.Join(w.dir, "leat")
	if out, err := exec.Command("go", "build", "-o", w.program, "../..").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	text, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	w.document = strings.Join(strings.Fields(string(text)), " ")
	w.choosePorts()
	t.Cleanup(func() {
		for _, n := range w.nodes {
			if n.cmd != nil {
				_ = n.cmd.Process.Kill()
				<-n.ended
			}
		}
	})
	return w
}

// written fails the test unless the document has the command.
func (w *walk) written(line string) {
	w.t.Helper()
	if !strings.Contains(w.document, line) {
		w.t.Errorf("docs/operations.md does not say: %s", line)
	}
}

// broker starts a node as the document says.
func (w *walk) broker(line string) *walkNode {
	w.t.Helper()
	w.written(line)
	words := strings.Fields(w.ports.Replace(line))
	n := &walkNode{line: strings.Join(words, " "), name: words[3], addr: words[5]}
	if !strings.Contains(line, "--admin") {
		n.line += " --admin 127.0.0.1:0"
	}
	w.nodes = append(w.nodes, n)
	w.start(n)
	return n
}

func (w *walk) start(n *walkNode) {
	w.t.Helper()
	n.cmd = exec.Command(w.program, strings.Fields(n.line)[1:]...)
	n.cmd.Dir = w.dir
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := n.cmd.StdoutPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	n.said, n.ended = make(chan string, 1), make(chan struct{})
	if err := n.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	go func(cmd *exec.Cmd, said chan<- string, ended chan<- struct{}) {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			select {
			case said <- lines.Text():
			default:
			}
		}
		_ = cmd.Wait()
		close(ended)
	}(n.cmd, n.said, n.ended)
}

// ready waits until nodes say that they are.
func (w *walk) ready(names ...string) {
	w.t.Helper()
	for _, n := range w.nodes {
		if !slices.Contains(names, n.name) {
			continue
		}
		select {
		case line := <-n.said:
			if _, err := fmt.Sscanf(line, "leat broker ready: node %d,", &n.id); err != nil {
				w.t.Fatalf("%s said %q", n.line, line)
			}
		case <-n.ended:
			w.t.Fatalf("%s ended", n.line)
		case <-time.After(time.Minute):
			w.t.Fatalf("%s is not ready after a minute", n.line)
		}
	}
}

// running returns the nodes that run, in the order they were first started.
func (w *walk) running() []*walkNode {
	var list []*walkNode
	for _, n := range w.nodes {
		if n.cmd != nil {
			list = append(list, n)
		}
	}
	return list
}

func (w *walk) kill(n *walkNode) {
	_ = n.cmd.Process.Kill()
	<-n.ended
	n.cmd = nil
}

// stop stops the node with that id, which ends well.
func (w *walk) stop(id int32) {
	w.t.Helper()
	n := w.nodes[slices.IndexFunc(w.nodes, func(n *walkNode) bool { return n.id == id })]
	if err := n.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		w.t.Fatal(err)
	}
	<-n.ended
	if n.cmd.ProcessState.ExitCode() != 0 {
		w.t.Errorf("%s ended with %v", n.line, n.cmd.ProcessState)
	}
	n.cmd = nil
}

// run runs a command against a node that runs and returns what it says.
func (w *walk) run(input, line string) string {
	w.t.Helper()
	out, err := w.try(input, line)
	if err != nil {
		w.t.Fatalf("%s: %v\n%s", line, err, out)
	}
	return string(out)
}

func (w *walk) try(input, line string) ([]byte, error) {
	running := w.running()
	return w.ask(running[len(running)-1], input, line)
}

// ask runs a command against a node.
func (w *walk) ask(n *walkNode, input, line string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(w.t.Context(), 2*time.Minute)
	defer cancel()
	args := append(strings.Fields(line)[1:], "--bootstrap", n.addr, "--timeout", "60s")
	c := exec.CommandContext(ctx, w.program, args...)
	c.Dir, c.Stdin = w.dir, strings.NewReader(input)
	return c.CombinedOutput()
}

// shows runs a command of the document until it says what it should: what a node shows may
// be a moment behind. A command that changes something says it at once, or fails.
func (w *walk) shows(want, line string) {
	w.t.Helper()
	w.written(line)
	pattern := regexp.MustCompile(want)
	var out string
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		if out = w.run("", line); pattern.MatchString(out) {
			return
		}
		if !strings.HasSuffix(line, "describe") || time.Now().After(deadline) {
			w.t.Fatalf("%s: want %q in\n%s", line, want, out)
		}
	}
}

// produce has some more records acknowledged.
func (w *walk) produce() {
	w.t.Helper()
	var lines strings.Builder
	for range 50 {
		fmt.Fprintln(&lines, w.produced)
		w.produced++
	}
	w.run(lines.String(), "leat produce orders")
}

// consume reads all that was produced.
func (w *walk) consume() {
	w.t.Helper()
	seen := map[string]int{}
	for line := range strings.Lines(w.run("", "leat consume orders --until-end")) {
		seen[strings.TrimSpace(line)]++
	}
	for n := range w.produced {
		if seen[fmt.Sprint(n)] != 1 {
			w.t.Errorf("record %d of %d was read %d times", n, w.produced, seen[fmt.Sprint(n)])
		}
	}
}

// inSync waits until all replicas of all partitions are in sync.
func (w *walk) inSync() {
	w.t.Helper()
	waitUntil(w.t, "all replicas in sync", func() bool {
		var topic struct {
			Partitions []struct{ Replicas, ISR []int32 }
		}
		out, err := w.try("", "leat topic describe orders --json")
		if err != nil || json.Unmarshal(out, &topic) != nil {
			return false // it asks a leader that has just gone
		}
		for _, p := range topic.Partitions {
			if len(p.ISR) != 3 || len(p.Replicas) != 3 {
				return false
			}
		}
		return len(topic.Partitions) == 6
	})
}
