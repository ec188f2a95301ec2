package replica

import (
	"slices"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/leatlog/leat/broker/internal/metadata"
	"github.com/leatlog/leat/broker/internal/storage"
	"github.com/leatlog/leat/broker/internal/vfs"
)

// TestDeletedWhileDown: a broker that was down while topics were deleted and a replica was
// moved away deletes their logs when it starts, and no other log.
func TestDeletedWhileDown(t *testing.T) {
	mem := vfs.NewMem()
	w := newWorld(t, mem, nil, nil)
	for _, topic := range []string{"stays", "goes", "again"} {
		w.create(topic, 2)
		w.append(topic, 0, "a")
		w.append(topic, 1, "b")
	}
	w.close()
	before := w.image
	changes := []metadata.Change{
		&metadata.TopicRemovedChange{ID: topicID("goes")},
		&metadata.TopicRemovedChange{ID: topicID("again")},
		&metadata.TopicChange{Name: "again", ID: topicID("new")}, led("new", 0, 1, 0, 0),
		&metadata.PartitionChange{Topic: topicID("stays"), Partition: 1, Replicas: []int32{2, 3}, ISR: []int32{2}, Leader: 2, LeaderEpoch: 1, PartitionEpoch: 1},
	}
	after, delta, err := before.Apply(before.Offset()+1, 0, changes)
	if err != nil {
		t.Fatal(err)
	}
	directory, err := storage.OpenDirectory(storage.Env{FS: mem, Now: time.Now, Logger: zerolog.Nop()}, "data")
	if err != nil {
		t.Fatal(err)
	}
	// A log that nobody knows of.
	if _, err := directory.Log(storage.LogID{Topic: "strange", TopicID: topicID("strange")}, storage.DefaultConfig()); err != nil {
		t.Fatal(err)
	}
	m, err := NewManager(Config{NodeID: 1, Directory: directory, RetentionInterval: -1, CleanerInterval: -1})
	if err != nil {
		t.Fatal(err)
	}
	m.Apply(before, metadata.Diff(metadata.Empty(), before))
	m.Apply(after, delta)
	if err := m.Start(after); err != nil {
		t.Fatal(err)
	}
	list, err := directory.List()
	want := []storage.LogID{{Topic: "again", TopicID: topicID("new")}, {Topic: "stays", TopicID: topicID("stays")}, {Topic: "strange", TopicID: topicID("strange")}}
	if err != nil || !slices.Equal(list, want) {
		t.Errorf("on disk: %v, want %v, %v", list, want, err)
	}
	r, kafkaErr := m.Replica(topicID("stays"), 0)
	if kafkaErr != nil || r.Log().EndOffset() != 1 {
		t.Errorf("the log that stays: %v", kafkaErr)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if err := directory.Close(); err != nil {
		t.Fatal(err)
	}
}
