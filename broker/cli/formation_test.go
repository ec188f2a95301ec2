package cli

import (
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/leatlog/leat/broker/brokertest"
)

// TestThreeCommandsFormACluster starts the three commands of docs/operations.md on empty
// directories, in orders and with pauses drawn from a seed, again and again: each time they
// have to form one cluster with three votes. It does it three times, or LEAT_FORMATIONS
// times, from the seed LEAT_SEED on, and prints how long it takes from the last start until
// all three are ready.
func TestThreeCommandsFormACluster(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the program and runs it")
	}
	commands := []string{
		"leat broker --data-dir a --listen 127.0.0.1:9092 --gossip 127.0.0.1:7946 --bootstrap-expect 3",
		"leat broker --data-dir b --listen 127.0.0.1:9093 --gossip 127.0.0.1:7947 --admin 127.0.0.1:9645 --join 127.0.0.1:7946 --bootstrap-expect 3",
		"leat broker --data-dir c --listen 127.0.0.1:9094 --gossip 127.0.0.1:7948 --admin 127.0.0.1:9646 --join 127.0.0.1:7946 --bootstrap-expect 3",
	}
	rounds, seed := 3, 1
	for name, number := range map[string]*int{"LEAT_FORMATIONS": &rounds, "LEAT_SEED": &seed} {
		if text := os.Getenv(name); text != "" {
			n, err := strconv.Atoi(text)
			if err != nil {
				t.Fatalf("%s=%s: %v", name, text, err)
			}
			*number = n
		}
	}
	w := newWalk(t)
	var took []time.Duration
	for round := range rounds {
		random := rand.New(rand.NewPCG(uint64(seed+round), 0))
		w.again()
		var last time.Time
		order := random.Perm(len(commands))
		for _, n := range order {
			time.Sleep(time.Duration(random.IntN(4)*random.IntN(200)) * time.Millisecond) // what is tested, not a wait
			last = time.Now()
			w.broker(commands[n])
		}
		w.ready("a", "b", "c")
		took = append(took, time.Since(last))
		if err := w.oneQuorum(); err != nil {
			t.Fatalf("seed %d, order %v: %v", seed+round, order, err)
		}
	}
	slices.Sort(took)
	t.Logf("%d of %d formed one cluster: median %v, most %v after the last start", len(took), rounds, took[len(took)/2], took[len(took)-1])
}

// oneQuorum says what is wrong unless all nodes see the same three votes and a leader.
func (w *walk) oneQuorum() error {
	row := regexp.MustCompile(`(?m)^(\d+) +(leader|voter|observer) +(\S+)`)
	var first []string
	for _, n := range w.nodes {
		var seen []string
		out, err := w.ask(n, "", "leat cluster quorum describe")
		for _, r := range row.FindAllStringSubmatch(string(out), -1) {
			seen = append(seen, r[1]+" "+r[3]) // which of them leads may change
		}
		if err != nil || len(seen) != 3 || strings.Contains(string(out), "observer") || strings.Count(string(out), " leader ") != 1 {
			return fmt.Errorf("node %d sees: %v\n%s", n.id, err, out)
		}
		if first == nil {
			first = seen
		}
		if !slices.Equal(first, seen) {
			return fmt.Errorf("one node sees %q, another %q", first, seen)
		}
	}
	return nil
}

// again ends all nodes and begins with an empty folder and other ports.
func (w *walk) again() {
	for _, n := range w.running() {
		w.kill(n)
	}
	w.nodes, w.dir = nil, w.t.TempDir()
	w.choosePorts()
}

// choosePorts has the document's ports stand for free ones.
func (w *walk) choosePorts() {
	var ports []string
	for _, port := range regexp.MustCompile(`127\.0\.0\.1:(9092|9093|9094|9095|794\d|964\d)\b`).FindAllString(w.document, -1) {
		if !slices.Contains(ports, port) {
			ports = append(ports, port, brokertest.FreeAddress(w.t))
		}
	}
	w.ports = strings.NewReplacer(ports...)
}
