package pass_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/leatlog/leat/state"
	"github.com/leatlog/leat/topology/internal/graph"
	"github.com/leatlog/leat/topology/internal/pass"
)

// TestPasses runs the scripts in testdata: a graph in its text form, the name of
// the pass after which to print it (all when not given), the graph or problems.
func TestPasses(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			g := parse(t, d.Input)
			var until string
			d.MaybeScanArgs(t, "until", &until)
			printed := ""
			problems := pass.Run(g, func(name string, g *graph.Graph) {
				if name == until {
					printed = g.String()
				}
			})
			if len(problems) == 0 && until == "" {
				printed = g.String()
			}
			for _, p := range problems {
				printed += fmt.Sprintf("problem: %q: %s\n", p.Operator, p.Message)
			}
			return printed
		})
	})
}

// TestOrder holds the table to what it says about itself.
func TestOrder(t *testing.T) {
	var done []string
	for _, p := range pass.Passes() {
		for _, needed := range p.After {
			if !slices.Contains(done, needed) {
				t.Errorf("%s must come after %s", p.Name, needed)
			}
		}
		if slices.Contains(done, p.Name) || p.Reason == "" {
			t.Errorf("%s: listed twice or without a reason", p.Name)
		}
		done = append(done, p.Name)
	}
}

// parse reads graph's text form.
func parse(t *testing.T, text string) *graph.Graph {
	g := &graph.Graph{}
	ids := map[string]int{}
	for line := range strings.Lines(text) {
		name, rest, _ := strings.Cut(strings.TrimSpace(line), ": ")
		words := strings.Fields(strings.ReplaceAll(rest, ",", ""))
		n := graph.Node{Name: name, Kind: graph.Kind(words[0])}
		words = words[1:]
		if len(words) > 0 && words[0] == "<-" {
			words = words[1:]
			for len(words) > 0 {
				input, known := ids[words[0]]
				if !known {
					break
				}
				n.Inputs = append(n.Inputs, input)
				words = words[1:]
			}
		}
		for _, word := range words {
			attribute(t, &n, word)
		}
		if _, taken := ids[name]; taken {
			g.Add(n)
			continue
		}
		ids[name] = g.Add(n)
	}
	return g
}

func attribute(t *testing.T, n *graph.Node, word string) {
	name, value, _ := strings.Cut(word, "=")
	switch name {
	case "topic":
		n.Topic = value
	case "durable":
		n.Durable = true
	case "formerly":
		n.Formerly = value
	case "changes-key":
		n.ChangesKey = true
	case "by-key":
		n.ByKey = true
	case "store":
		n.Store = &state.Spec{Name: value}
	case "window-store":
		n.Store = &state.Spec{Name: value, Kind: state.Window, WindowSize: time.Minute}
	case "dead-letter":
		n.DeadLetter = value
	case "unwritable":
		n.Unwritable = "there is no serde for values"
	case "partitions":
		if _, err := fmt.Sscan(value, &n.Partitions); err != nil {
			t.Fatal(err)
		}
	default:
		t.Fatalf("attribute %q is not known", word)
	}
}
