package broker_test

import (
	"context"
	"fmt"
	"os"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatlog/leat/broker"
)

// A broker inside a program, and a Kafka client that talks to it.
func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "broker-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)

	b, err := broker.Start(ctx, broker.Config{DataDir: dir, Listen: "127.0.0.1:0"})
	if err != nil {
		panic(err)
	}
	defer b.Close()

	client, err := kgo.NewClient(kgo.SeedBrokers(b.Addr()), kgo.AllowAutoTopicCreation(), kgo.ConsumeTopics("greetings"))
	if err != nil {
		panic(err)
	}
	defer client.Close()
	if err := client.ProduceSync(ctx, &kgo.Record{Topic: "greetings", Value: []byte("hello")}).FirstErr(); err != nil {
		panic(err)
	}
	client.PollFetches(ctx).EachRecord(func(r *kgo.Record) { fmt.Println(r.Offset, string(r.Value)) })
	// Output: 0 hello
}

// Settings go by Kafka's names.
func ExampleConfig_Set() {
	cfg := broker.DefaultConfig()
	fmt.Println(cfg.Set("log.retention.hours", "24"))
	fmt.Println(cfg.Set("num.partitions", "many"))
	// Output:
	// <nil>
	// invalid setting: num.partitions=many: must be an integer
}
