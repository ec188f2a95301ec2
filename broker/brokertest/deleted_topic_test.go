package brokertest_test

import (
	"os"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatlog/leat/broker/brokertest"
)

// Offsets that a group committed go with the topic, and are not those of another
// topic that comes under its name; a restart brings none back. With
// LEAT_TEST_ORACLE=HOST:PORT a Kafka is asked the same, without the restart.
func TestOffsetsGoWithTheTopic(t *testing.T) {
	restart, opts := func() {}, []kgo.Opt{}
	if address := os.Getenv("LEAT_TEST_ORACLE"); address != "" {
		opts = append(opts, kgo.AlwaysRetryEOF(), kgo.SeedBrokers(address))
	} else {
		b := brokertest.Start(t)
		restart, opts = b.Restart, append(opts, kgo.AlwaysRetryEOF(), kgo.SeedBrokers(b.Addr()))
	}
	client, err := kgo.NewClient(opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	admin, ctx := kadm.NewClient(client), testContext(t)
	const group, gone, kept = "offsets-go", "offsets-gone", "offsets-kept"
	create := func(topics ...string) {
		t.Helper()
		if created, err := admin.CreateTopics(ctx, 2, -1, nil, topics...); err != nil || created.Error() != nil {
			t.Fatal(err, created.Error())
		}
	}
	remove := func(topics ...string) {
		t.Helper()
		if deleted, err := admin.DeleteTopics(ctx, topics...); err != nil || deleted.Error() != nil {
			t.Fatal(err, deleted.Error())
		}
	}
	committed := func(when string, want map[string]int) {
		t.Helper()
		for ticker := time.Tick(20 * time.Millisecond); ; <-ticker {
			offsets, err := admin.FetchOffsets(ctx, group)
			if err != nil {
				t.Fatal(when, err)
			}
			if len(offsets[gone]) == want[gone] && len(offsets[kept]) == want[kept] {
				return
			}
			// The answer of a Kafka does not wait for it, nor that of a controller which is not the
			// group's coordinator.
			if os.Getenv("LEAT_TEST_ORACLE") == "" && nodes() == 1 || ctx.Err() != nil {
				t.Fatalf("%s: %v, want %v", when, offsets, want)
			}
		}
	}
	create(gone, kept)
	var offsets kadm.Offsets
	for _, topic := range []string{gone, kept} {
		offsets.AddOffset(topic, 0, 5, -1)
		offsets.AddOffset(topic, 1, 7, -1)
	}
	eventually(t, "the group's coordinator knows the topics", func() bool { return admin.CommitAllOffsets(ctx, group, offsets) == nil })
	committed("as committed", map[string]int{gone: 2, kept: 2})
	remove(gone)
	committed("after the topic", map[string]int{kept: 2})
	create(gone)
	committed("of a topic made anew", map[string]int{kept: 2})
	restart()
	committed("after a restart", map[string]int{kept: 2})
	remove(gone, kept)
	committed("after both", map[string]int{})
	if _, err := admin.DeleteGroups(ctx, group); err != nil {
		t.Fatal(err)
	}
}
