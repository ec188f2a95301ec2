package replica

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/leatlog/leat/broker/internal/metadata"
	"github.com/leatlog/leat/broker/internal/record"
	"github.com/leatlog/leat/broker/internal/vfs"
)

// A leader that does not know whether it still leads says nothing for good: its successor may
// have what it misses.
func TestLeaderInDoubtSendsClientsToAskWhoLeads(t *testing.T) {
	current := true
	w := newWorld(t, vfs.NewMem(), nil, func(c *Config) { c.Current = func() bool { return current } })
	defer w.close()
	w.create("shared", 1)
	w.apply(&metadata.TopicChange{Name: "own", ID: topicID("own")}, &metadata.PartitionChange{Topic: topicID("own"),
		Replicas: []int32{1}, ISR: []int32{1}, Leader: 1})
	sequence := func(name string, number int32) string {
		b := record.NewBuilder(record.CodecNone)
		b.SetProducer(7, 0, number)
		b.Append(1, nil, []byte("x"), nil)
		o := newOutcomes()
		w.replica(name, 0).Append(b.Build(nil), 1, time.Time{}, 0, o)
		<-o.wait
		return o.get(0)
	}
	read := func(name string) *kerr.Error {
		return w.replica(name, 0).Read(ReadRequest{Offset: 10, MaxBytes: 1, CurrentLeaderEpoch: -1, LastFetchedEpoch: -1}).Err
	}
	for _, topic := range []string{"shared", "own"} {
		if got := sequence(topic, 0); got != "0 ok" {
			t.Fatal(got)
		}
	}
	for _, c := range []struct {
		topic   string
		current bool
		append  *kerr.Error
		read    *kerr.Error
	}{
		{"shared", true, kerr.OutOfOrderSequenceNumber, kerr.OffsetOutOfRange},
		{"shared", false, kerr.NotLeaderForPartition, kerr.NotLeaderForPartition},
		{"own", false, kerr.OutOfOrderSequenceNumber, kerr.OffsetOutOfRange},
	} {
		current = c.current
		if got, want := sequence(c.topic, 5), "-1 "+code(c.append); got != want {
			t.Errorf("%s, current %v: a sequence number that does not follow: %s, want %s", c.topic, c.current, got, want)
		}
		if got := read(c.topic); got != c.read {
			t.Errorf("%s, current %v: an offset beyond the end: %v, want %v", c.topic, c.current, got, c.read)
		}
	}
	current = false
	if got := w.append("shared", 0, "a"); got != "1 ok" {
		t.Errorf("appending goes on: %s", got)
	}
}
