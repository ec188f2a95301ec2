package brokertest_test

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatlog/leat/broker/brokertest"
)

// TestMetadataIsATopic: every change of the cluster is a record of
// __cluster_metadata that a client reads, old ones first and new ones as they
// come, across a restart of the broker; and nobody else writes to it.
func TestMetadataIsATopic(t *testing.T) {
	b := brokertest.Start(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	client, err := kgo.NewClient(kgo.AlwaysRetryEOF(), kgo.SeedBrokers(b.Addr()), kgo.ConsumeTopics("__cluster_metadata"),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	sees := func(topic string) {
		t.Helper()
		for {
			fetches := client.PollFetches(ctx)
			if ctx.Err() != nil {
				t.Fatalf("the creation of %s was never read: %v", topic, fetches.Errors())
			}
			seen := false
			fetches.EachRecord(func(r *kgo.Record) {
				var entry struct {
					Changes []struct{ Type, Name string }
				}
				if err := json.Unmarshal(r.Value, &entry); err != nil {
					t.Fatalf("offset %d: %v in %q", r.Offset, err, r.Value)
				}
				for _, c := range entry.Changes {
					seen = seen || c.Type == "topic" && c.Name == topic
				}
			})
			if seen {
				return
			}
		}
	}
	create := func(topic string) {
		t.Helper()
		if _, err := admin.CreateTopic(ctx, 1, -1, nil, topic); err != nil {
			t.Fatal(err)
		}
	}
	create("first")
	sees("first")
	create("second") // while the consumer waits for more
	sees("second")
	b.Restart()
	create("third")
	sees("third")

	if err := client.ProduceSync(ctx, &kgo.Record{Topic: "__cluster_metadata", Value: []byte("{}")}).FirstErr(); err != kerr.InvalidTopicException {
		t.Errorf("producing to the metadata topic: %v", err)
	}
	if _, err := admin.DeleteTopic(ctx, "__cluster_metadata"); err == nil {
		t.Error("the metadata topic was deleted")
	}
}
