package cli

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/leatlog/leat/broker"
)

func resolve(t *testing.T, args ...string) (broker.Config, error) {
	t.Helper()
	var f flags
	c := Command()
	c.ResetFlags()
	f.register(c)
	if err := c.ParseFlags(args); err != nil {
		t.Fatal(err)
	}
	return f.resolve(c)
}

func TestPrecedence(t *testing.T) {
	file := filepath.Join(t.TempDir(), "server.properties")
	if err := os.WriteFile(file, []byte("node.id=3\nlisteners=PLAINTEXT://127.0.0.1:1\nlog.dirs=from-file\nbroker.rack=a\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := resolve(t, "--config", file, "--set", "node.id=4", "--set", "log.dirs=from-set", "--listen", "127.0.0.1:2")
	if err != nil {
		t.Fatal(err)
	}
	if c.NodeID != 4 || c.DataDir != "from-set" || c.Listen != "127.0.0.1:2" || c.Rack != "a" || c.Admin != "127.0.0.1:9644" {
		t.Errorf("%+v", c)
	}
	c, err = resolve(t)
	if err != nil || c.DataDir != "leat-data" || c.Listen != "127.0.0.1:9092" || c.Gossip != "" || c.BootstrapExpect != 1 || len(c.Roles) != 2 {
		t.Errorf("%+v, %v", c, err)
	}
	for _, args := range [][]string{{"--set", "nonsense"}, {"--set", "a=b"}, {"--config", file + ".missing"}, {"--node-id", "0"}, {"--bootstrap-expect", "0"}} {
		if _, err := resolve(t, args...); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v: %v; want one line", args, err)
		}
	}
}

// output collects what a command prints, and lets a test wait for a line.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
	line chan string
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text.Write(p)
	if bytes.HasSuffix(p, []byte("\n")) {
		o.line <- o.text.String()
		o.text.Reset()
	}
	return len(p), nil
}

func TestRunUntilStopped(t *testing.T) {
	ctx, stop := context.WithCancel(context.Background())
	out := &output{line: make(chan string, 10)}
	c := Command()
	c.SetOut(out)
	c.SetErr(&bytes.Buffer{})
	c.SetArgs([]string{"--data-dir", t.TempDir(), "--listen", "127.0.0.1:0", "--admin", "", "--log-level", "error"})
	done := make(chan error, 1)
	go func() { done <- c.ExecuteContext(ctx) }()
	select {
	case line := <-out.line:
		if !strings.HasPrefix(line, "leat broker ready: node 1, clients 127.0.0.1:") || !strings.Contains(line, "admin none") {
			t.Error(line)
		}
	case err := <-done:
		t.Fatal(err)
	case <-time.After(20 * time.Second):
		t.Fatal("not ready")
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
