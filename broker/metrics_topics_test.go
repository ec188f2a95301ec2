package broker

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

// TestTopicMetrics scrapes a broker that has moved some records.
func TestTopicMetrics(t *testing.T) {
	c := testConfig()
	c.Admin = "127.0.0.1:0"
	b, err := Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	client, err := kgo.NewClient(kgo.AlwaysRetryEOF(), kgo.SeedBrokers(b.Addr()), kgo.AllowAutoTopicCreation(), kgo.DefaultProduceTopic("clicks"),
		kgo.ConsumeTopics("clicks"), kgo.ConsumerGroup("readers"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for range 5 {
		if err := client.ProduceSync(t.Context(), kgo.StringRecord("hello")).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	fetched := client.PollRecords(t.Context(), 1)
	if err := fetched.Err(); err != nil {
		t.Fatal(err)
	}
	if err := client.CommitRecords(t.Context(), fetched.Records()[0]); err != nil {
		t.Fatal(err)
	}
	_, body := get(t, "http://"+b.AdminAddr()+"/metrics")
	for _, want := range []string{
		`leat_topic_received_records_total{topic="clicks"} 5`,
		`leat_topic_received_bytes_total{topic="clicks"} \d{3}`,
		`leat_topic_sent_bytes_total{topic="clicks"} \d{3}`,
		`leat_topic_log_bytes{topic="clicks"} \d{3}`,
		`leat_group_lag_records{group="readers",topic="clicks"} 4`,
		`leat_partitions_under_min_isr 0`, `leat_partitions_under_replicated 0`, `leat_partitions_failed 0`,
		`leat_partitions_led \d+`, `leat_sync_seconds_count [1-9]`, `leat_request_seconds_count\{api="Produce"\} [1-9]`,
	} {
		if !regexp.MustCompile(`(?m)^` + strings.NewReplacer("{t", `\{t`, "{g", `\{g`, `"}`, `"\}`).Replace(want)).MatchString(body) {
			t.Errorf("%s is not in the metrics:\n%s", want, body)
		}
	}
	for _, file := range []string{"../docs/operations.md", "../docs/grafana-dashboard.json"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range regexp.MustCompile(`\bleat_[a-z_]+`).FindAllString(string(text), -1) {
			if strings.HasPrefix(name, "leat_stream_") {
				continue // an app's, which package stream looks after
			}
			if !strings.Contains(body, "\n"+name+" ") && !strings.Contains(body, "\n"+name+"{") && !strings.Contains(body, "\n"+name+"_sum") {
				t.Errorf("%s names %s, which is not served", file, name)
			}
		}
	}
}
