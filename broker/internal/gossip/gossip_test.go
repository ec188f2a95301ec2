package gossip

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// network collects the nodes of a test.
type network struct {
	t       *testing.T
	changed chan struct{}
}

func (n *network) start(name string, change func(*Config)) *Gossip {
	n.t.Helper()
	c := Config{Name: name, Bind: "127.0.0.1:0", Meta: Meta{Node: -1}, Logger: zerolog.Nop(), Changed: func() {
		select {
		case n.changed <- struct{}{}:
		default:
		}
	}}
	if change != nil {
		change(&c)
	}
	g, err := Start(c)
	if err != nil {
		n.t.Fatal(err)
	}
	return g
}

// until waits until the condition holds, which changes of members bring about.
func (n *network) until(what string, holds func() bool) {
	n.t.Helper()
	limit := time.After(20 * time.Second)
	for !holds() {
		select {
		case <-n.changed:
		case <-limit:
			n.t.Fatal("never saw: " + what)
		}
	}
}

func newNetwork(t *testing.T) *network { return &network{t, make(chan struct{}, 1)} }

func TestMembersFindOneAnother(t *testing.T) {
	n := newNetwork(t)
	received := make(chan string, 1)
	key := bytes.Repeat([]byte{7}, 32)
	a := n.start("a", func(c *Config) {
		c.Keys, c.Label = [][]byte{key}, "x"
		c.Received = func(from string, m []byte) { received <- from + ": " + string(m) }
	})
	defer a.Close()
	join := func(c *Config) {
		c.Keys, c.Label, c.Join = [][]byte{bytes.Repeat([]byte{8}, 32), key}, "x", []string{a.Address()}
		if c.Name == "b" {
			c.Keys = [][]byte{key}
		} else {
			c.Keys[0], c.Keys[1] = c.Keys[1], c.Keys[0]
		}
	}
	b := n.start("b", join)
	defer b.Close()
	c := n.start("c", join)
	all := func(g *Gossip) bool { return len(g.Members()) == 3 }
	n.until("three members", func() bool { return all(a) && all(b) && all(c) })
	b.SetMeta(Meta{Node: 2, Controller: true, Internal: "127.0.0.1:1", Cluster: "id"})
	n.until("what b says", func() bool {
		m := c.Members()[1]
		return m.Name == "b" && m.Node == 2 && m.Controller && m.Internal == "127.0.0.1:1" && m.Cluster == "id"
	})
	if err := b.Send("a", []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if got := <-received; got != "b: hello" {
		t.Error(got)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	n.until("c to be gone", func() bool { return len(a.Members()) == 2 && len(b.Members()) == 2 })
	if err := b.Send("c", nil); err == nil {
		t.Error("sent to one that is gone")
	}
}

// Nodes of another label, without the key, or of another cluster are not heard.
func TestStrangersAreNotHeard(t *testing.T) {
	n := newNetwork(t)
	key := bytes.Repeat([]byte{7}, 16)
	a := n.start("a", func(c *Config) { c.Keys, c.Label, c.Meta.Cluster = [][]byte{key}, "x", "one" })
	defer a.Close()
	for name, change := range map[string]func(*Config){
		"label":   func(c *Config) { c.Keys, c.Label = [][]byte{key}, "y" },
		"no key":  func(c *Config) { c.Label = "x" },
		"key":     func(c *Config) { c.Keys, c.Label = [][]byte{bytes.Repeat([]byte{8}, 16)}, "x" },
		"cluster": func(c *Config) { c.Keys, c.Label, c.Meta.Cluster = [][]byte{key}, "x", "two" },
	} {
		g := n.start(name, change)
		if _, err := g.list.Join([]string{a.Address()}); err == nil && name != "cluster" {
			t.Errorf("%s: joined", name)
		}
		if len(a.Members()) != 1 || len(g.Members()) != 1 {
			t.Errorf("%s: %v, %v", name, a.Members(), g.Members())
		}
		if err := g.Kill(); err != nil {
			t.Error(err)
		}
	}
	same := n.start("friend", func(c *Config) {
		c.Keys, c.Label, c.Meta.Cluster, c.Join = [][]byte{key}, "x", "one", []string{a.Address()}
	})
	defer same.Close()
	n.until("a friend", func() bool { return len(a.Members()) == 2 })
}

func TestMistakes(t *testing.T) {
	for want, change := range map[string]func(*Config){
		"does not fit": func(c *Config) { c.Meta.Rack = strings.Repeat("x", 600) },
		"HOST:PORT":    func(c *Config) { c.Bind = "nonsense" },
		"key":          func(c *Config) { c.Keys = [][]byte{{1}} },
	} {
		c := Config{Name: "a", Bind: "127.0.0.1:0", Logger: zerolog.Nop()}
		change(&c)
		if g, err := Start(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
			if err == nil {
				g.Close()
			}
		}
	}
}
