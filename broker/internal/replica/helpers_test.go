package replica

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/leatlog/leat/broker/internal/metadata"
	"github.com/leatlog/leat/broker/internal/record"
	"github.com/leatlog/leat/broker/internal/storage"
	"github.com/leatlog/leat/broker/internal/vfs"
)

// world is a manager with metadata that the test changes.
type world struct {
	t         *testing.T
	directory *storage.Directory
	manager   *Manager
	image     *metadata.Image
	roles     []string
}

// newWorld starts a manager on fs. Its metadata is empty unless image is given.
func newWorld(t *testing.T, fs vfs.FS, image *metadata.Image, change func(*Config)) *world {
	t.Helper()
	directory, err := storage.OpenDirectory(storage.Env{FS: fs, Now: time.Now, Logger: zerolog.Nop()}, "data")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, directory: directory, image: image}
	cfg := Config{NodeID: 1, Directory: directory, RetentionInterval: -1, CleanerInterval: -1, Verify: VerifyConfig{Interval: -1},
		OnRole: func(r *Replica, role Role, epoch int32) {
			w.roles = append(w.roles, fmt.Sprintf("%s-%d %s %d", r.Topic(), r.Index(), role, epoch))
		}}
	if change != nil {
		change(&cfg)
	}
	if w.manager, err = NewManager(cfg); err != nil {
		t.Fatal(err)
	}
	if image == nil {
		w.image = metadata.Empty()
	}
	if err := w.manager.Start(w.image); err != nil {
		t.Fatal(err)
	}
	return w
}

// crash ends the world without a clean close.
func (w *world) crash() { w.manager.Close() }

func (w *world) close() {
	w.t.Helper()
	if err := w.manager.Close(); err != nil {
		w.t.Error(err)
	}
	if err := w.directory.Close(); err != nil {
		w.t.Error(err)
	}
}

// apply commits changes.
func (w *world) apply(changes ...metadata.Change) {
	w.t.Helper()
	image, delta, err := w.image.Apply(w.image.Offset()+1, 0, changes)
	if err != nil {
		w.t.Fatal(err)
	}
	w.image = image
	w.manager.Apply(image, delta)
}

// topicID makes the id that the tests give to a topic.
func topicID(name string) (id metadata.UUID) {
	copy(id[:], name+"----------------")
	return id
}

// create makes a topic with partitions led here.
func (w *world) create(name string, partitions int32) {
	w.t.Helper()
	changes := []metadata.Change{&metadata.TopicChange{Name: name, ID: topicID(name)}}
	for p := range partitions {
		changes = append(changes, led(name, p, 1, 0, 0))
	}
	w.apply(changes...)
}

// led is a partition with one replica here and one on broker 2, in sync here.
func led(name string, partition, leader, leaderEpoch, partitionEpoch int32) *metadata.PartitionChange {
	return &metadata.PartitionChange{Topic: topicID(name), Partition: partition, Replicas: []int32{1, 2}, ISR: []int32{1},
		Leader: leader, LeaderEpoch: leaderEpoch, PartitionEpoch: partitionEpoch}
}

func (w *world) replica(name string, partition int32) *Replica {
	w.t.Helper()
	r, err := w.manager.Replica(topicID(name), partition)
	if err != nil {
		w.t.Fatalf("%s-%d: %v", name, partition, err)
	}
	return r
}

// batch builds a batch of one record.
func batch(value string) []byte {
	b := record.NewBuilder(record.CodecNone)
	b.Append(time.Now().UnixMilli(), nil, []byte(value), nil)
	return b.Build(nil)
}

// outcomes collects how appends end, by tag.
type outcomes struct {
	mu   sync.Mutex
	done map[int]string
	wait chan struct{} // gets one element for each outcome
}

func newOutcomes() *outcomes {
	return &outcomes{done: map[int]string{}, wait: make(chan struct{}, 10_000)}
}

func (o *outcomes) Appended(tag int, err *kerr.Error, base, _, _ int64) {
	o.mu.Lock()
	if _, twice := o.done[tag]; twice {
		panic("answered twice")
	}
	o.done[tag] = fmt.Sprintf("%d %s", base, code(err))
	o.mu.Unlock()
	o.wait <- struct{}{}
}

func (o *outcomes) get(tag int) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.done[tag]
}

// append appends with acks=all and returns how it ended.
func (w *world) append(name string, partition int32, value string) string {
	w.t.Helper()
	o := newOutcomes()
	w.replica(name, partition).Append(batch(value), -1, time.Time{}, 0, o)
	<-o.wait
	return o.get(0)
}

// values reads all that a partition lets clients read, separated by spaces.
func (r *Replica) values(t *testing.T) string {
	t.Helper()
	var list []string
	for offset := r.log.StartOffset(); ; {
		result := r.Read(ReadRequest{Offset: offset, MaxBytes: 1 << 20, AtLeastOne: true, CurrentLeaderEpoch: -1, LastFetchedEpoch: -1})
		if result.Err != nil {
			t.Fatalf("read at %d: %v", offset, result.Err)
		}
		if result.Slice.Size == 0 {
			return strings.Join(list, " ")
		}
		data, err := result.Slice.AppendTo(nil)
		result.Slice.Release()
		if err != nil {
			t.Fatal(err)
		}
		for len(data) > 0 {
			b, rest, err := record.Parse(data)
			if err != nil {
				t.Fatal(err)
			}
			if err := b.Iterate(func(rec *record.Record) error { list = append(list, string(rec.Value)); return nil }); err != nil {
				t.Fatal(err)
			}
			offset, data = b.NextOffset(), rest
		}
	}
}
