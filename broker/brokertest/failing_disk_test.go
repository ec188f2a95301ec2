package brokertest_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatlog/leat/broker"
	"github.com/leatlog/leat/broker/brokertest"
	"github.com/leatlog/leat/broker/internal/vfs"
)

// fillable is a disk that says how much of it is free.
type fillable struct {
	vfs.FS
	free atomic.Uint64
}

func (f *fillable) Space(string) (free, total uint64, err error) { return f.free.Load(), 1 << 40, nil }

// A node whose disk is full has others lead what it leads, and is in sync again when it
// has room: a producer goes on.
func TestFullDiskHandsOver(t *testing.T) {
	t.Parallel()
	var disks []*fillable
	c := brokertest.StartCluster(t, 3, brokertest.Configure(func(c *broker.Config) {
		disks = append(disks, &fillable{FS: vfs.NewMem()})
		disks[len(disks)-1].free.Store(1 << 40)
		c.Environment.FS, c.DataDir = disks[len(disks)-1], "data"
	}))
	newTopic(t, "orders", 1, 3, minInSync(2), c.Addrs()...)
	client := newSteady(t, c.Addrs(), "orders")
	full := leaderOf(t, admin(t, c.Addrs()...), c, "orders")
	disks[full].free.Store(1 << 20)
	id := c.Node(full).Running().NodeID()
	shown := metadataAt(t, c.Addrs()[(full+1)%3])
	waitFor(t, "others to lead and to be in sync without the node whose disk is full", func() bool {
		client.produce()
		topics := shown("orders")
		return topics != nil && topics[0].Partitions[0].Leader >= 0 && topics[0].Partitions[0].Leader != id &&
			!slices.Contains(topics[0].Partitions[0].ISR, id) && len(topics[0].Partitions[0].ISR) == 2
	})
	if !c.Node(full).Running().Ready() {
		t.Error("the node with the full disk does not serve what it has")
	}
	client.produce()
	disks[full].free.Store(1 << 40)
	waitFor(t, "all replicas in sync when there is room", func() bool {
		topics := shown("orders")
		return topics != nil && allInSync(topics[0].Partitions, 3)
	})
	client.check()
}

// A leader whose log is damaged while it runs has another one lead, is emptied, and copied
// again.
func TestDamagedLeaderHandsOver(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := brokertest.StartCluster(t, 3, brokertest.Dir(dir))
	newTopic(t, "orders", 1, 3, minInSync(2), c.Addrs()...)
	client := newSteady(t, c.Addrs(), "orders")
	client.produce()
	damaged := leaderOf(t, admin(t, c.Addrs()...), c, "orders")
	segment := filepath.Join(dir, fmt.Sprint("node-", damaged), "orders-0", "00000000000000000000.log")
	whole, err := os.ReadFile(segment)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(segment, 5000); err != nil {
		t.Fatal(err)
	}
	client.check() // reads find out
	shown := metadataAt(t, c.Addrs()[(damaged+1)%3])
	waitFor(t, "another leader, and all replicas in sync", func() bool {
		topics := shown("orders")
		return topics != nil && allInSync(topics[0].Partitions, 3) && topics[0].Partitions[0].Leader != c.Node(damaged).Running().NodeID()
	})
	client.produce()
	client.check()
	again, err := os.ReadFile(segment)
	if err != nil {
		t.Fatal(err)
	}
	if n := 10_000; !bytes.Equal(again[:n], whole[:n]) {
		t.Error("the copy differs from what was there before")
	}
}

// steady produces numbered records of 8 KiB to one topic with one partition.
type steady struct {
	t        *testing.T
	addrs    []string
	topic    string
	client   *kgo.Client
	produced int
}

func newSteady(t *testing.T, addrs []string, topic string) *steady {
	t.Helper()
	client, err := kgo.NewClient(kgo.AlwaysRetryEOF(), kgo.SeedBrokers(addrs...), kgo.DefaultProduceTopic(topic), kgo.ProducerBatchCompression(kgo.NoCompression()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return &steady{t: t, addrs: addrs, topic: topic, client: client}
}

func (s *steady) produce() {
	s.t.Helper()
	for range 8 {
		value := fmt.Sprintf("%08d%8184d", s.produced, 0)
		if err := s.client.ProduceSync(clusterContext(s.t), kgo.StringRecord(value)).FirstErr(); err != nil {
			s.t.Fatal(err)
		}
		s.produced++
	}
}

// check reads all that was produced: everything once.
func (s *steady) check() {
	s.t.Helper()
	got := valuesOf(s.t, s.addrs, s.topic, kgo.ReadUncommitted(), s.produced)
	for n := range max(len(got), s.produced) {
		if n >= len(got) || n >= s.produced || got[n][:8] != fmt.Sprintf("%08d", n) {
			s.t.Fatalf("%d records for %d produced, the first %d of them right", len(got), s.produced, n)
		}
	}
}
