package brokertest_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatlog/leat/broker/brokertest"
)

// codecsByName are the values of compression.type with what kgo calls them.
var codecsByName = map[string]struct {
	codec kgo.CompressionCodec
	kind  uint8
}{
	"uncompressed": {kgo.NoCompression(), 0}, "gzip": {kgo.GzipCompression(), 1}, "snappy": {kgo.SnappyCompression(), 2},
	"lz4": {kgo.Lz4Compression(), 3}, "zstd": {kgo.ZstdCompression(), 4},
}

// A topic holds what is produced to it in the codec it asks for, whatever the producer's,
// and from when it asks.
func TestCompressionType(t *testing.T) {
	b := brokertest.Start(t)
	a := admin(t, b.Addr())
	for to, asked := range codecsByName {
		topic := "to-" + to
		if _, err := a.CreateTopic(t.Context(), 1, 1, map[string]*string{"compression.type": &to}, topic); err != nil {
			t.Fatal(err)
		}
		for from, codec := range codecsByName {
			produceWith(t, b, topic, codec.codec, "from "+from+strings.Repeat(" and on", 100))
		}
		for _, r := range readRecords(t, b, topic, len(codecsByName)) {
			if r.Attrs.CompressionType() != asked.kind || !strings.HasSuffix(string(r.Value), " and on") || string(r.Key) != "key" || r.Headers[0].Key != "header" {
				t.Errorf("%s holds %.20q in codec %d", topic, r.Value, r.Attrs.CompressionType())
			}
		}
	}
	if _, err := a.CreateTopic(t.Context(), 1, 1, nil, "changed"); err != nil {
		t.Fatal(err)
	}
	zstd, produced := "zstd", 1
	produceWith(t, b, "changed", kgo.GzipCompression(), strings.Repeat("before", 100))
	change := kadm.AlterConfig{Op: kadm.SetConfig, Name: "compression.type", Value: &zstd}
	if r, err := a.AlterTopicConfigs(t.Context(), []kadm.AlterConfig{change}, "changed"); err != nil || r[0].Err != nil {
		t.Fatal(err, r)
	}
	waitFor(t, "a batch in the new codec", func() bool {
		produceWith(t, b, "changed", kgo.GzipCompression(), strings.Repeat("after", 100))
		produced++
		records := readRecords(t, b, "changed", produced)
		if kind := records[0].Attrs.CompressionType(); kind != 1 {
			t.Fatalf("the first batch is in codec %d now", kind)
		}
		return records[produced-1].Attrs.CompressionType() == 4
	})
}

// A batch that would be too large in the topic's codec is refused.
func TestConvertedBatchIsTooLarge(t *testing.T) {
	b := brokertest.Start(t)
	to, most := "uncompressed", "10000"
	if _, err := admin(t, b.Addr()).CreateTopic(t.Context(), 1, 1, map[string]*string{"compression.type": &to, "max.message.bytes": &most}, "t"); err != nil {
		t.Fatal(err)
	}
	client := newClient(t, b, kgo.ProducerBatchCompression(kgo.ZstdCompression()))
	for _, size := range []int{20_000, 40 << 20} { // the second is larger than what is opened
		record := &kgo.Record{Topic: "t", Value: make([]byte, size)}
		c := newClient(t, b, kgo.ProducerBatchCompression(kgo.ZstdCompression()), kgo.ProducerBatchMaxBytes(50<<20), kgo.MaxBufferedRecords(10))
		if err := c.ProduceSync(t.Context(), record).FirstErr(); !errors.Is(err, kerr.MessageTooLarge) {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
	if err := client.ProduceSync(t.Context(), &kgo.Record{Topic: "t", Value: make([]byte, 5000)}).FirstErr(); err != nil {
		t.Error(err)
	}
}

func produceWith(t *testing.T, b *brokertest.Broker, topic string, codec kgo.CompressionCodec, value string) {
	t.Helper()
	client := newClient(t, b, kgo.ProducerBatchCompression(codec))
	record := &kgo.Record{Topic: topic, Key: []byte("key"), Value: []byte(value), Headers: []kgo.RecordHeader{{Key: "header", Value: []byte("h")}}}
	if err := client.ProduceSync(t.Context(), record).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

func readRecords(t *testing.T, b *brokertest.Broker, topic string, n int) []*kgo.Record {
	t.Helper()
	client := newClient(t, b, kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	var records []*kgo.Record
	for len(records) < n && ctx.Err() == nil {
		records = append(records, client.PollFetches(ctx).Records()...)
	}
	if len(records) != n {
		t.Fatalf("%d records of %s, want %d", len(records), topic, n)
	}
	return records
}
