package broker

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/leatlog/leat/broker/internal/vfs"
)

// testConfig is a broker on a free port with a disk in memory.
func testConfig() Config {
	c := DefaultConfig()
	c.DataDir, c.Listen, c.Environment.FS = "data", "127.0.0.1:0", vfs.NewMem()
	return c
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	r, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(body)
}

func TestLifecycle(t *testing.T) {
	defer goleak.VerifyNone(t)
	c := testConfig()
	c.Admin = "127.0.0.1:0"
	b, err := Start(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	if !b.Ready() || len(b.ClusterID()) != 22 || b.NodeID() != 1 || b.Err() != nil {
		t.Errorf("ready %v, cluster %q, node %d, error %v", b.Ready(), b.ClusterID(), b.NodeID(), b.Err())
	}
	for path, want := range map[string]string{"/healthz": "ok\n", "/readyz": "ok\n", "/metrics": "leat_ready 1\n"} {
		if status, body := get(t, "http://"+b.AdminAddr()+path); status != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("%s: %d %.200s", path, status, body)
		}
	}
	cluster := b.ClusterID()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil || b.Ready() {
		t.Errorf("second close: %v, ready %v", err, b.Ready())
	}

	// The same disk gives the same cluster; another node may not have it.
	again, err := Start(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	if again.ClusterID() != cluster {
		t.Errorf("cluster %s after a restart, was %s", again.ClusterID(), cluster)
	}
	if _, err := Start(context.Background(), c); !errors.Is(err, vfs.ErrLocked) {
		t.Errorf("two brokers in one directory: %v", err)
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
	c.NodeID = 2
	if _, err := Start(context.Background(), c); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), "belongs to node 1") {
		t.Errorf("another node's directory: %v", err)
	}
}

func TestStartFails(t *testing.T) {
	defer goleak.VerifyNone(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	for name, test := range map[string]struct {
		ctx    context.Context
		change func(*Config)
		want   string
	}{
		"configuration": {context.Background(), func(c *Config) { c.Roles = []string{"broker"} }, "has to join others"},
		"port":          {context.Background(), func(c *Config) { c.Listen = taken.Addr().String() }, "in use"},
		"admin port":    {context.Background(), func(c *Config) { c.Admin = taken.Addr().String() }, "in use"},
		"cancelled":     {cancelled, func(*Config) {}, "canceled"},
		"disk": {context.Background(), func(c *Config) {
			c.Environment.FS = vfs.NewFaulty(vfs.NewMem(), func(o vfs.Operation) error {
				if o.Mutates() {
					return vfs.ErrNoSpace
				}
				return nil
			})
		}, "no space left"},
	} {
		c := testConfig()
		test.change(&c)
		b, err := Start(test.ctx, c)
		if err == nil {
			_ = b.Close()
		}
		if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v; want one line with %q", name, err, test.want)
		}
	}
}

// TestFailedDisk shows what a failed fsync leads to: the node is not healthy, says
// why, and still stops.
func TestFailedDisk(t *testing.T) {
	defer goleak.VerifyNone(t)
	c := testConfig()
	c.Admin = "127.0.0.1:0"
	broken := make(chan struct{})
	c.Environment.FS = vfs.NewFaulty(vfs.NewMem(), func(o vfs.Operation) error {
		select {
		case <-broken:
			if o.Mutates() {
				return errors.New("the disk is on fire")
			}
		default:
		}
		return nil
	})
	b, err := Start(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	close(broken)
	// Any change of metadata finds out.
	_, err = b.shell.call(context.Background(), create("t", 1))
	if err == nil {
		t.Error("a topic was created on a broken disk")
	}
	select {
	case <-b.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("the broker goes on without its metadata log")
	}
	if b.Ready() || b.Err() == nil {
		t.Errorf("ready %v, error %v", b.Ready(), b.Err())
	}
	if status, body := get(t, "http://"+b.AdminAddr()+"/healthz"); status != http.StatusServiceUnavailable || !strings.Contains(body, "on fire") {
		t.Errorf("/healthz: %d %s", status, body)
	}
	_ = b.Close() // says that it could not close cleanly, or not; it must return
}

func TestMemoryListener(t *testing.T) {
	defer goleak.VerifyNone(t)
	l := NewMemoryListener("broker.test:9092")
	accepted := make(chan net.Conn)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				close(accepted)
				return
			}
			accepted <- c
		}
	}()
	client, err := l.Dial(context.Background(), "tcp", "ignored:1")
	if err != nil {
		t.Fatal(err)
	}
	served := <-accepted
	go func() { _, _ = client.Write([]byte("hello")) }()
	buffer := make([]byte, 5)
	if _, err := io.ReadFull(served, buffer); err != nil || string(buffer) != "hello" {
		t.Errorf("%q, %v", buffer, err)
	}
	client.Close()
	served.Close()
	l.Close()
	<-accepted
	if _, err := l.Dial(context.Background(), "tcp", ""); !errors.Is(err, net.ErrClosed) {
		t.Errorf("dial after close: %v", err)
	}
}
