package stream_test

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatlog/leat/broker"
	"github.com/leatlog/leat/stream"
	"github.com/leatlog/leat/topology"
	"github.com/leatlog/leat/topology/serde"
)

// An app counts words. It runs on the broker that this program starts, and would
// run on any Kafka cluster.
func Example() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	dir, err := os.MkdirTemp("", "words-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	b, err := broker.Start(ctx, broker.Config{DataDir: dir + "/broker", Listen: "127.0.0.1:0"})
	if err != nil {
		panic(err)
	}
	defer b.Close()
	client, err := kgo.NewClient(kgo.SeedBrokers(b.Addr()), kgo.AllowAutoTopicCreation(), kgo.ConsumeTopics("counts"))
	if err != nil {
		panic(err)
	}
	defer client.Close()
	line := &kgo.Record{Topic: "lines", Value: []byte("to be or not to be")}
	if err := client.ProduceSync(ctx, line, &kgo.Record{Topic: "counts", Key: []byte("start")}).FirstErr(); err != nil {
		panic(err)
	}

	top := topology.New()
	lines := topology.From(top, topology.NewTopic("lines", serde.Bytes, serde.String))
	words := topology.FlatMapValues(lines, strings.Fields).WithValueSerde(serde.String)
	byWord := topology.GroupBy("by-word", words, serde.String, strings.ToLower)
	counts := topology.Count("word-counts", byWord)
	topology.To(counts.Stream(), topology.NewTopic("counts", serde.String, serde.Int64))
	plan, err := top.Build()
	if err != nil {
		panic(err)
	}
	app, err := stream.New(plan, stream.Config{
		AppID: "words", Bootstrap: []string{b.Addr()}, StateDir: dir + "/state",
	})
	if err != nil {
		panic(err)
	}
	done := make(chan error)
	go func() { done <- app.Run(ctx) }()

	for seen := map[string]int64{}; len(seen) < 4; {
		client.PollFetches(ctx).EachRecord(func(r *kgo.Record) {
			if n, err := serde.Int64.Decode(r.Value); err == nil {
				seen[string(r.Key)] = n
			}
		})
		if len(seen) == 4 {
			fmt.Println(seen)
		}
	}
	cancel() // the app commits once more and ends
	fmt.Println(<-done)
	// Output:
	// map[be:2 not:1 or:1 to:2]
	// <nil>
}
