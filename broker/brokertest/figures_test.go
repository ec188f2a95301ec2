package brokertest_test

import (
	"fmt"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// TestClusterFigures prints what docs/operations.md tells of clusters: it runs with
// LEAT_FIGURES=1 only, on three processes of this machine with default settings.
func TestClusterFigures(t *testing.T) {
	if os.Getenv("LEAT_FIGURES") == "" {
		t.Skip("LEAT_FIGURES is not set")
	}
	for name, print := range map[string]func(*testing.T, *processes, *kadm.Client){
		"produce": produceFigures, "create": createFigures, "restart": restartFigures, "delete": deleteFigures,
	} {
		t.Run(name, func(t *testing.T) {
			c := startProcesses(t)
			c.dumpOnFailure()
			for i := range 3 {
				c.waitReady(i)
			}
			a := admin(t, c.addrs()...)
			waitFor(t, "three brokers", func() bool {
				list, err := a.ListBrokers(clusterContext(t))
				return err == nil && len(list) == 3
			})
			print(t, c, a)
		})
	}
}

// produceFigures prints how long a record with acks=all takes alone, and how many fit
// into a second.
func produceFigures(t *testing.T, c *processes, a *kadm.Client) {
	for _, replicas := range []int16{1, 3} {
		produceFigure(t, c, a, replicas)
	}
}

func produceFigure(t *testing.T, c *processes, a *kadm.Client, replicas int16) {
	topic := fmt.Sprint("replicas-", replicas)
	if r, err := a.CreateTopic(clusterContext(t), 3, replicas, nil, topic); err != nil || r.Err != nil {
		t.Fatal(err, r.Err)
	}
	client, err := kgo.NewClient(kgo.AlwaysRetryEOF(), kgo.SeedBrokers(c.addrs()...), kgo.DefaultProduceTopic(topic), kgo.ProducerLinger(0),
		kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.MaxBufferedRecords(50_000))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	value := make([]byte, 1024)
	var took []time.Duration
	for range 1000 {
		start := time.Now()
		if err := client.ProduceSync(clusterContext(t), &kgo.Record{Value: value}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	const many = 200_000
	start := time.Now()
	for range many {
		client.Produce(t.Context(), &kgo.Record{Value: value}, func(_ *kgo.Record, err error) {
			if err != nil {
				t.Error(err)
			}
		})
	}
	if err := client.Flush(clusterContext(t)); err != nil {
		t.Fatal(err)
	}
	rate := many / time.Since(start).Seconds()
	t.Logf("acks=all, %d replicas, fsynced on each: one record of 1 KiB takes %v (p50), %v (p99); %.0f records a second", replicas,
		took[len(took)/2].Round(10*time.Microsecond), took[len(took)*99/100].Round(10*time.Microsecond), rate)
}

// createMany creates topics of ten partitions with three replicas, and returns after how
// long that was answered, and after how long all of them were in sync.
func createMany(t *testing.T, a *kadm.Client, topics int) (answered, inSync time.Duration) {
	var names []string
	for n := range topics {
		names = append(names, fmt.Sprint("topic-", n))
	}
	start := time.Now()
	created, err := a.CreateTopics(clusterContext(t), 10, 3, nil, names...)
	if err != nil || created.Error() != nil {
		t.Fatal(err, created.Error())
	}
	answered = time.Since(start)
	waitInSync(t, a, names)
	return answered, time.Since(start)
}

func waitInSync(t *testing.T, a *kadm.Client, names []string) {
	waitFor(t, "all partitions have a leader and are in sync", func() bool {
		topics, err := a.ListTopics(clusterContext(t))
		if err != nil {
			return false
		}
		ready := 0
		for _, name := range names {
			for _, p := range topics[name].Partitions {
				if p.Leader >= 0 && len(p.ISR) == 3 {
					ready++
				}
			}
		}
		return ready == 10*len(names)
	})
}

// createFigures prints how long it takes to create many topics.
func createFigures(t *testing.T, _ *processes, a *kadm.Client) {
	const topics = 1000
	answered, inSync := createMany(t, a, topics)
	t.Logf("%d topics of 10 partitions, 3 replicas: answered after %v, in sync after %v", topics,
		answered.Round(time.Millisecond), inSync.Round(time.Millisecond))
}

// restartFigures prints how long a node with 5,000 partitions takes to serve clients
// again.
func restartFigures(t *testing.T, c *processes, a *kadm.Client) {
	createMany(t, a, 500)
	for _, how := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		start := time.Now()
		c.signal(1, how)
		c.wait(1)
		stopped := time.Since(start)
		start = time.Now()
		c.start(1)
		c.waitReady(1)
		t.Logf("a node with 5,000 partitions ended by %v in %v and served clients again after %v", how,
			stopped.Round(time.Millisecond), time.Since(start).Round(time.Millisecond))
	}
}

// deleteFigures prints how long a node takes to stop, and to serve clients again, right
// after 5,000 partitions were deleted.
func deleteFigures(t *testing.T, c *processes, a *kadm.Client) {
	for _, how := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		createMany(t, a, 500)
		var names []string
		for n := range 500 {
			names = append(names, fmt.Sprint("topic-", n))
		}
		start := time.Now()
		deleted, err := a.DeleteTopics(clusterContext(t), names...)
		if err != nil || deleted.Error() != nil {
			t.Fatal(err, deleted.Error())
		}
		answered := time.Since(start)
		start = time.Now()
		c.signal(1, how)
		c.wait(1)
		stopped := time.Since(start)
		start = time.Now()
		c.start(1)
		c.waitReady(1)
		t.Logf("5,000 partitions deleted, answered after %v; a node ended by %v in %v and served clients again after %v",
			answered.Round(time.Millisecond), how, stopped.Round(time.Millisecond), time.Since(start).Round(time.Millisecond))
	}
}

// wait waits for a node that was told to end.
func (c *processes) wait(i int) {
	p := c.nodes[i]
	<-p.ended
	p.cmd = nil
}
