package brokertest_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatlog/leat/broker/brokertest"
	"github.com/leatlog/leat/broker/internal/record"
	"github.com/leatlog/leat/broker/internal/storage"
	"github.com/leatlog/leat/broker/internal/vfs"
)

// recordsPerSegment are those that fillLogs puts into a segment, one a batch.
const recordsPerSegment = 3

// TestStartWithManySegments starts a broker on logs of many segments, after a clean stop
// and after a kill, and reads all of them. With LEAT_FIGURES=1 there are 10,000 logs and
// 100,000 segments, and it prints what docs/benchmarks.md tells.
func TestStartWithManySegments(t *testing.T) {
	topics, partitions, segments := 2, 10, 10
	if os.Getenv("LEAT_FIGURES") != "" {
		topics, partitions = 100, 100
	}
	c := startAlone(t)
	c.dumpOnFailure()
	c.waitReady(0)
	a := admin(t, c.addrs()...)
	var names []string
	for n := range topics {
		names = append(names, fmt.Sprint("topic-", n))
	}
	if r, err := a.CreateTopics(clusterContext(t), int32(partitions), 1, nil, names...); err != nil || r.Error() != nil {
		t.Fatal(err, r.Error())
	}
	c.end(0, syscall.SIGTERM)
	logs := fillLogs(t, filepath.Join(c.dir, "node-0"), segments)
	if logs != topics*partitions {
		t.Fatalf("%d logs are filled, want %d", logs, topics*partitions)
	}
	for _, how := range []string{"a clean stop", "kill -9", "kill -9 after a record was written to each partition"} {
		start := time.Now()
		c.start(0)
		c.waitReady(0)
		t.Logf("%d partitions with %d segments: serves clients %v after its start, after %s; %s", logs, logs*segments,
			time.Since(start).Round(time.Millisecond), how, c.sizes(t, 0))
		if files := c.openFiles(t, 0); files > 100+logs {
			t.Errorf("%d files are open after the start", files)
		}
		ends, err := a.ListEndOffsets(clusterContext(t), names...)
		if err != nil || ends.Error() != nil {
			t.Fatal(err, ends.Error())
		}
		more := int64(0)
		if how == "kill -9 after a record was written to each partition" {
			more = 1
		}
		ends.Each(func(o kadm.ListedOffset) {
			if o.Offset != int64(segments*recordsPerSegment)+more {
				t.Errorf("%s-%d ends at %d", o.Topic, o.Partition, o.Offset)
			}
		})
		if how == "kill -9" {
			produceToEach(t, c.addrs(), names, partitions)
			t.Logf("a record written to each partition: %s", c.sizes(t, 0))
		}
		if how != "a clean stop" {
			readEverything(t, c.addrs(), names, logs*(segments*recordsPerSegment+1))
			t.Logf("everything read: %s", c.sizes(t, 0))
			if files := c.openFiles(t, 0); files > 100+storage.DefaultOpenFiles {
				t.Errorf("%d files are open after everything was read", files)
			}
		}
		c.end(0, syscall.SIGKILL)
	}
}

// end ends a node and waits for it.
func (c *processes) end(i int, how syscall.Signal) {
	c.signal(i, how)
	c.wait(i)
}

// sizes tells the memory and the open files of a node.
func (c *processes) sizes(t *testing.T, i int) string {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.nodes[i].cmd.Process.Pid))
	if err != nil {
		t.Skip("there is no /proc")
	}
	resident := regexp.MustCompile(`VmRSS:\s+(\d+ kB)`).FindSubmatch(status)
	if resident == nil {
		t.Fatalf("no VmRSS in %s", status)
	}
	return fmt.Sprintf("%s resident, %d files open", resident[1], c.openFiles(t, i))
}

func (c *processes) openFiles(t *testing.T, i int) int {
	names, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", c.nodes[i].cmd.Process.Pid))
	if err != nil {
		t.Skip("there is no /proc")
	}
	return len(names)
}

// lazyFS leaves the syncs to the end.
type lazyFS struct{ vfs.OS }

func (lazyFS) SyncDir(string) error { return nil }
func (lazyFS) SyncAll(string) error { return nil }
func (l lazyFS) Create(name string) (vfs.File, error) {
	f, err := l.OS.Create(name)
	return lazyFile{f}, err
}
func (l lazyFS) OpenReadWrite(name string) (vfs.File, error) {
	f, err := l.OS.OpenReadWrite(name)
	return lazyFile{f}, err
}

type lazyFile struct{ vfs.File }

func (lazyFile) Sync() error { return nil }

// fillLogs writes segments of a few records into all logs of a stopped broker and
// returns how many logs there are.
func fillLogs(t *testing.T, root string, segments int) int {
	t.Helper()
	d, err := storage.OpenDirectory(storage.Env{FS: lazyFS{}, Now: time.Now, Logger: zerolog.Nop()}, root)
	if err != nil {
		t.Fatal(err)
	}
	list, err := d.List()
	if err != nil {
		t.Fatal(err)
	}
	b := record.NewBuilder(record.CodecNone)
	b.Append(time.Now().UnixMilli(), []byte("key"), make([]byte, 1000), nil)
	batch := b.Build(nil)
	cfg := storage.DefaultConfig()
	cfg.SegmentBytes = int64(recordsPerSegment * len(batch))
	for _, id := range list {
		log, err := d.Log(id, cfg)
		if err != nil {
			t.Fatal(err)
		}
		for range segments * recordsPerSegment {
			if _, err := log.Append(batch, 0); err != nil {
				t.Fatal(err)
			}
		}
		if err := log.Sync(); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := (vfs.OS{}).SyncAll(root); err != nil {
		t.Fatal(err)
	}
	return len(list)
}

func produceToEach(t *testing.T, addrs, topics []string, partitions int) {
	client, err := kgo.NewClient(kgo.AlwaysRetryEOF(), kgo.SeedBrokers(addrs...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for _, topic := range topics {
		for p := range partitions {
			client.Produce(t.Context(), &kgo.Record{Topic: topic, Partition: int32(p), Value: []byte("x")}, func(_ *kgo.Record, err error) {
				if err != nil {
					t.Error(err)
				}
			})
		}
	}
	if err := client.Flush(clusterContext(t)); err != nil {
		t.Fatal(err)
	}
}

func readEverything(t *testing.T, addrs, topics []string, want int) {
	client, err := kgo.NewClient(kgo.AlwaysRetryEOF(), kgo.SeedBrokers(addrs...), kgo.ConsumeTopics(topics...), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx := clusterContext(t)
	for got := 0; got < want; {
		fetches := client.PollFetches(ctx)
		if err := ctx.Err(); err != nil {
			t.Fatalf("%d of %d records read: %v", got, want, err)
		}
		got += fetches.NumRecords()
	}
}

// TestIdlePartitionFigures prints the memory that a partition takes that nobody uses: it
// runs with LEAT_FIGURES=1 only.
func TestIdlePartitionFigures(t *testing.T) {
	if os.Getenv("LEAT_FIGURES") == "" {
		t.Skip("LEAT_FIGURES is not set")
	}
	oneNodeOnly(t, "the memory of one process is measured")
	b := brokertest.Start(t)
	a := admin(t, b.Addr())
	heap := func() int64 {
		var stats runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&stats)
		return int64(stats.HeapAlloc)
	}
	before, goroutines := heap(), runtime.NumGoroutine()
	var names []string
	for n := range 100 {
		names = append(names, fmt.Sprint("topic-", n))
	}
	if r, err := a.CreateTopics(clusterContext(t), 100, 1, nil, names...); err != nil || r.Error() != nil {
		t.Fatal(err, r.Error())
	}
	created := heap()
	t.Logf("10,000 idle partitions: %d bytes of heap each, %d goroutines more", (created-before)/10_000, runtime.NumGoroutine()-goroutines)
	b.Stop()
	b.Restart()
	t.Logf("after a restart: %d bytes of heap each", (heap()-before)/10_000)
	produceToEach(t, []string{b.Addr()}, names, 100)
	t.Logf("with a record in each: %d bytes of heap each", (heap()-before)/10_000)
}
