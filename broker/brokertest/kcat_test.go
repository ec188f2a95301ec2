package brokertest_test

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/brokertest"
	"github.com/leatlog/leat/broker/internal/record"
)

func needKcat(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("kcat"); err != nil {
		t.Skip("kcat is not installed (Debian package kcat)")
	}
}

// kcat runs kcat, which is built on librdkafka, against the broker. It may be
// called from any goroutine.
func kcat(t *testing.T, b *brokertest.Broker, stdin string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	var out, complaints bytes.Buffer
	command := exec.CommandContext(ctx, "kcat", append([]string{"-b", b.Addr()}, args...)...)
	command.Stdin, command.Stdout, command.Stderr = strings.NewReader(stdin), &out, &complaints
	if err := command.Run(); err != nil {
		t.Errorf("kcat %v: %v\n%s", args, err, complaints.String())
	}
	return out.String()
}

// storedBytes returns how many bytes of batches a topic's partition 0 stores
// under each codec.
func storedBytes(t *testing.T, b *brokertest.Broker, topic string) map[record.Codec]int {
	t.Helper()
	client, err := kgo.NewClient(kgo.AlwaysRetryEOF(), kgo.SeedBrokers(b.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	fetch := kmsg.NewPtrFetchRequest()
	fetch.MaxWaitMillis, fetch.MinBytes, fetch.MaxBytes = 1000, 1, 10<<20
	partition := kmsg.NewFetchRequestTopicPartition()
	partition.PartitionMaxBytes = 10 << 20
	one := kmsg.NewFetchRequestTopic()
	one.Topic, one.Partitions = topic, []kmsg.FetchRequestTopicPartition{partition}
	metadata, err := kmsg.NewPtrMetadataRequest().RequestWith(t.Context(), client)
	if err != nil {
		t.Fatal(err)
	}
	for _, known := range metadata.Topics {
		if known.Topic != nil && *known.Topic == topic {
			one.TopicID = known.TopicID
		}
	}
	fetch.Topics = []kmsg.FetchRequestTopic{one}
	response, err := fetch.RequestWith(t.Context(), client)
	if err != nil {
		t.Fatal(err)
	}
	stored := map[record.Codec]int{}
	for rest := response.Topics[0].Partitions[0].RecordBatches; len(rest) > 0; {
		var batch record.Batch
		if batch, rest, err = record.Parse(rest); err != nil {
			t.Fatal(err)
		}
		stored[batch.Codec()] += len(batch)
	}
	return stored
}

// TestKcatProducesAndConsumesEveryCodec: what a client compresses is stored
// compressed, and comes back as it was.
func TestKcatProducesAndConsumesEveryCodec(t *testing.T) {
	needKcat(t)
	b := brokertest.Start(t)
	var lines strings.Builder
	for i := range 2000 {
		fmt.Fprintf(&lines, "key-%d\tthe same words again and again, line %d\n", i%10, i)
	}
	plain := 0
	for _, c := range []struct {
		name  string
		codec record.Codec
	}{
		{"none", record.CodecNone}, {"gzip", record.CodecGzip}, {"snappy", record.CodecSnappy}, {"lz4", record.CodecLZ4}, {"zstd", record.CodecZstd},
	} {
		t.Run(c.name, func(t *testing.T) {
			topic := "kcat-" + c.name
			kcat(t, b, lines.String(), "-P", "-t", topic, "-z", c.name, "-K", "\t", "-X", "linger.ms=500")
			if got := kcat(t, b, "", "-C", "-t", topic, "-K", "\t", "-e", "-q", "-X", "check.crcs=true"); got != lines.String() {
				t.Fatalf("consumed %d bytes, produced %d", len(got), lines.Len())
			}
			stored := storedBytes(t, b, topic)
			if c.codec == record.CodecNone {
				plain = stored[record.CodecNone]
				return
			}
			// librdkafka sends its first, small batches plain when that is shorter.
			if stored[c.codec] == 0 || stored[c.codec] > plain/2 || stored[record.CodecNone] > plain/4 {
				t.Fatalf("stored bytes by codec are %v, and %d without compression", stored, plain)
			}
		})
	}
}

// TestKcatGroupSharesPartitions: two members share four partitions, and when one
// leaves, the other reads on from what was committed.
func TestKcatGroupSharesPartitions(t *testing.T) {
	needKcat(t)
	b := brokertest.Start(t, brokertest.Set("num.partitions", "4"), brokertest.Set("group.initial.rebalance.delay.ms", "500"))
	produce := func(from, to int) {
		var lines strings.Builder
		for i := from; i < to; i++ {
			fmt.Fprintf(&lines, "key-%d\tvalue-%d\n", i, i)
		}
		kcat(t, b, lines.String(), "-P", "-t", "shared", "-K", "\t", "-X", "partitioner=murmur2")
	}
	produce(0, 400)
	// Each member ends by itself: -e leaves the group when all its partitions are
	// read, -c after a number of messages.
	consume := func(args ...string) string {
		return kcat(t, b, "", append([]string{"-q", "-X", "auto.offset.reset=earliest", "-f", "%p %s\n"}, append(args, "-G", "readers", "shared")...)...)
	}
	results := make(chan string, 2)
	for range 2 {
		go func() { results <- consume("-e") }()
	}
	partitions, seen := map[string]int{}, map[string]int{}
	for range 2 {
		for line := range strings.Lines(<-results) {
			partition, value, _ := strings.Cut(strings.TrimSpace(line), " ")
			partitions[partition]++
			seen[value]++
		}
	}
	if len(partitions) != 4 || len(seen) != 400 {
		t.Fatalf("both members together saw %d values of partitions %v", len(seen), partitions)
	}
	produce(400, 500)
	again := map[string]bool{}
	for line := range strings.Lines(consume("-e")) {
		_, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		again[value] = true
	}
	for i := 400; i < 500; i++ {
		if !again[fmt.Sprintf("value-%d", i)] {
			t.Fatalf("value-%d was not read after the others left; %d values were", i, len(again))
		}
	}
	if len(again) > 150 {
		t.Fatalf("%d values were read again though they were committed", len(again)-100)
	}
}
