package client_test

import (
	"context"
	"fmt"
	"os"

	"github.com/leatlog/leat/broker"
	"github.com/leatlog/leat/stream/client"
)

// A producer appends to batches and waits for all of them.
func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "client-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	b, err := broker.Start(ctx, broker.Config{DataDir: dir, Listen: "127.0.0.1:0"})
	if err != nil {
		panic(err)
	}
	defer b.Close()

	c, err := client.New(client.Config{Bootstrap: []string{b.Addr()}})
	if err != nil {
		panic(err)
	}
	defer c.Close()
	if err := c.CreateTopics(ctx, client.NewTopic{Name: "orders", Partitions: 2, Replication: 1}); err != nil {
		panic(err)
	}
	topics, err := c.Topics(ctx, "orders")
	if err != nil {
		panic(err)
	}
	fmt.Println("orders has", len(topics["orders"].Partitions), "partitions")
	// Equal keys go where Kafka's clients send them.
	fmt.Println(client.PartitionOf([]byte("alice"), 2), client.PartitionOf([]byte("bob"), 2))
	// Output:
	// orders has 2 partitions
	// 1 0
}
