package brokertest_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker"
	"github.com/leatlog/leat/broker/brokertest"
	"github.com/leatlog/leat/broker/internal/vfs"
)

// sickNode is a node whose disk fails to sync when it is told to, and what the node says.
type sickNode struct {
	vfs.FS
	memory *vfs.Mem
	fails  func(path string) bool
	sick   atomic.Bool

	mu  sync.Mutex
	log bytes.Buffer
}

var errSick = errors.New("input/output error")

func (n *sickNode) Write(p []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.log.Write(p)
}

func (n *sickNode) logged(text string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return strings.Contains(n.log.String(), text)
}

// mount makes what is in memory the node's disk.
func (n *sickNode) mount(memory *vfs.Mem) { n.memory, n.FS = memory, vfs.NewFaulty(memory, n.before) }

func (n *sickNode) before(o vfs.Operation) error {
	switch o.Kind {
	case vfs.KindSync, vfs.KindSyncDir, vfs.KindSyncAll:
		if n.sick.Load() && n.fails(o.Path) {
			return errSick
		}
	}
	return nil
}

// TestFailedSyncHandsOver: a node whose disk fails to sync takes no more writes and says
// so; others lead what it led, producers go on without it, and nothing that was
// acknowledged is lost, even when what was not synced goes with its power. When the disk
// is sound again it comes back.
func TestFailedSyncHandsOver(t *testing.T) {
	for name, fails := range map[string]func(string) bool{
		"logs":             func(path string) bool { return !strings.Contains(path, "quorum") },
		"metadata as well": func(string) bool { return true },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			failedSyncHandsOver(t, fails, name == "logs")
		})
	}
}

func failedSyncHandsOver(t *testing.T, fails func(string) bool, lives bool) {
	var nodes []*sickNode
	c := brokertest.StartCluster(t, 3, brokertest.Configure(func(c *broker.Config) {
		n := &sickNode{fails: fails}
		n.mount(vfs.NewMem())
		nodes = append(nodes, n)
		logger := zerolog.New(n).Level(zerolog.WarnLevel)
		c.Environment.FS, c.DataDir = n, "data"
		c.Environment.Logger, c.Admin = &logger, "127.0.0.1:0"
	}))
	newTopic(t, "orders", 1, 3, minInSync(2), c.Addrs()...)
	newTopic(t, "others", 6, 3, minInSync(2), c.Addrs()...)
	client := newSteady(t, c.Addrs(), "orders")
	client.produce()
	sick := leaderOf(t, admin(t, c.Addrs()...), c, "orders")
	running := c.Node(sick).Running()
	id := running.NodeID()
	nodes[sick].sick.Store(true)
	client.produce() // the first of these finds out
	shown := metadataAt(t, c.Addrs()[(sick+1)%3])
	waitFor(t, "others to lead and to be in sync without the node whose disk failed", func() bool {
		client.produce()
		return withoutNode(shown("orders", "others"), id)
	})
	client.check()
	if !nodes[sick].logged("the disk failed") || !nodes[sick].logged("Check the disk") {
		t.Errorf("the log does not tell what happened and what to do:\n%s", nodes[sick].log.String())
	}
	if lives {
		admin := "http://" + running.AdminAddr()
		if status, text := get(t, admin+"/readyz"); status != http.StatusServiceUnavailable || !strings.Contains(text, errSick.Error()) {
			t.Errorf("/readyz: %d %s", status, text)
		}
		if status, text := get(t, admin+"/healthz"); status != http.StatusServiceUnavailable || !strings.Contains(text, errSick.Error()) {
			t.Errorf("/healthz: %d %s", status, text)
		}
		if _, text := get(t, admin+"/metrics"); !strings.Contains(text, "\nleat_directory_damaged 1\n") {
			t.Error("leat_directory_damaged is not 1")
		}
	} else {
		waitFor(t, "the node to stop, since it cannot keep metadata", func() bool { return running.Err() != nil })
		if err := running.Err(); !errors.Is(err, errSick) {
			t.Errorf("the node stopped with %v", err)
		}
	}
	c.Kill(sick)
	nodes[sick].sick.Store(false)
	nodes[sick].mount(nodes[sick].memory.Crash(rand.New(rand.NewPCG(7, 0))))
	c.Restart(sick)
	waitFor(t, "all replicas in sync when the disk is sound", func() bool {
		topics := shown("orders", "others")
		return topics != nil && allInSync(topics[0].Partitions, 3) && allInSync(topics[1].Partitions, 3)
	})
	client.produce()
	client.check()
}

// withoutNode reports whether a node leads none of the topics' partitions and is in sync
// with none, while two others are.
func withoutNode(topics []kmsg.MetadataResponseTopic, id int32) bool {
	for _, topic := range topics {
		for _, p := range topic.Partitions {
			if p.Leader < 0 || p.Leader == id || len(p.ISR) != 2 || p.ISR[0] == id || p.ISR[1] == id {
				return false
			}
		}
	}
	return len(topics) > 0
}

func get(t *testing.T, url string) (status int, text string) {
	t.Helper()
	response, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(body)
}
