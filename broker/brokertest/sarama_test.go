package brokertest_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/IBM/sarama"

	"github.com/leatlog/leat/broker/brokertest"
)

func saramaConfig() *sarama.Config {
	c := sarama.NewConfig()
	c.Version = sarama.V4_0_0_0
	c.Producer.RequiredAcks = sarama.WaitForAll
	c.Producer.Return.Successes = true
	c.Producer.Retry.Max = 200
	c.Producer.Retry.Backoff = 5 * time.Millisecond
	c.Metadata.Retry.Max = 200
	c.Metadata.Retry.Backoff = 5 * time.Millisecond
	c.Consumer.Offsets.Initial = sarama.OffsetOldest
	c.Consumer.Group.Rebalance.Retry.Backoff = 50 * time.Millisecond
	c.Consumer.Group.Heartbeat.Interval = 100 * time.Millisecond
	return c
}

func TestSaramaProducesAndConsumes(t *testing.T) {
	b := brokertest.Start(t)
	createTopic(t, b, "t", 2, nil)
	for n, codec := range []sarama.CompressionCodec{sarama.CompressionNone, sarama.CompressionGZIP, sarama.CompressionSnappy, sarama.CompressionLZ4, sarama.CompressionZSTD} {
		config := saramaConfig()
		config.Producer.Compression = codec
		producer, err := sarama.NewSyncProducer([]string{b.Addr()}, config)
		if err != nil {
			t.Fatal(err)
		}
		var messages []*sarama.ProducerMessage
		for i := range 100 {
			messages = append(messages, &sarama.ProducerMessage{Topic: "t", Value: sarama.ByteEncoder(value(n*100 + i))})
		}
		if err := producer.SendMessages(messages); err != nil {
			t.Errorf("%v: %v", codec, err)
		}
		if err := producer.Close(); err != nil {
			t.Error(err)
		}
	}
	consumer, err := sarama.NewConsumer([]string{b.Addr()}, saramaConfig())
	if err != nil {
		t.Fatal(err)
	}
	defer consumer.Close()
	var got []string
	for p := range int32(2) {
		end := endOffset(t, b, "t", p)
		if end == 0 {
			continue
		}
		partition, err := consumer.ConsumePartition("t", p, sarama.OffsetOldest)
		if err != nil {
			t.Fatal(err)
		}
		for m := range partition.Messages() {
			got = append(got, string(m.Value))
			if m.Offset == end-1 {
				break
			}
		}
		if err := partition.Close(); err != nil {
			t.Error(err)
		}
	}
	slices.Sort(got)
	// sarama may close a connection that it has just made, and send a batch once more:
	// without idempotence that is there twice.
	got = slices.Compact(got)
	if len(got) != 500 || got[0] != string(value(0)) || got[499] != string(value(499)) {
		t.Errorf("%d records", len(got))
	}
}

// groupHandler counts what a member of a sarama group reads and commits it.
type groupHandler struct {
	mu   sync.Mutex
	seen map[string]int
}

func (*groupHandler) Setup(sarama.ConsumerGroupSession) error { return nil }

func (*groupHandler) Cleanup(sarama.ConsumerGroupSession) error { return nil }

func (h *groupHandler) ConsumeClaim(s sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for {
		select {
		case m, ok := <-claim.Messages():
			if !ok {
				return nil
			}
			h.mu.Lock()
			h.seen[string(m.Value)]++
			h.mu.Unlock()
			s.MarkMessage(m, "")
		case <-s.Context().Done():
			return nil
		}
	}
}

func (h *groupHandler) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.seen)
}

func TestSaramaGroup(t *testing.T) {
	b := brokertest.Start(t)
	createTopic(t, b, "t", 4, nil)
	h := &groupHandler{seen: map[string]int{}}
	ctx, cancel := context.WithCancel(testContext(t))
	var running sync.WaitGroup
	member := func() sarama.ConsumerGroup {
		g, err := sarama.NewConsumerGroup([]string{b.Addr()}, "g", saramaConfig())
		if err != nil {
			t.Fatal(err)
		}
		running.Go(func() {
			for ctx.Err() == nil && g.Consume(ctx, []string{"t"}, h) == nil {
			}
		})
		return g
	}
	first, second := member(), member()
	producer, err := sarama.NewSyncProducer([]string{b.Addr()}, saramaConfig())
	if err != nil {
		t.Fatal(err)
	}
	defer producer.Close()
	send := func(from, to int) {
		for i := from; i < to; i++ {
			if _, _, err := producer.SendMessage(&sarama.ProducerMessage{Topic: "t", Key: sarama.ByteEncoder(value(i)), Value: sarama.ByteEncoder(value(i))}); err != nil {
				t.Fatal(err)
			}
		}
	}
	send(0, 50)
	eventually(t, "the group reads what two members share", func() bool { return h.count() == 50 })
	if err := second.Close(); err != nil {
		t.Error(err)
	}
	send(50, 100)
	eventually(t, "the group reads on when one has left", func() bool { return h.count() == 100 })
	cancel()
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	running.Wait()
}

func TestSaramaIdempotentProducerOverCutConnections(t *testing.T) {
	cuts := newCuts(7, 30)
	b := brokertest.Start(t, cuts.before(t))
	createTopic(t, b, "t", 2, nil)
	config := saramaConfig()
	config.Producer.Idempotent = true
	config.Net.MaxOpenRequests = 1
	config.Producer.Flush.MaxMessages = 20
	producer, err := sarama.NewAsyncProducer([]string{b.Addr()}, config)
	if err != nil {
		t.Fatal(err)
	}
	const total = 1000
	go func() {
		for i := range total {
			producer.Input() <- &sarama.ProducerMessage{Topic: "t", Key: sarama.ByteEncoder(value(i)), Value: sarama.ByteEncoder(value(i))}
		}
	}()
	for range total {
		select {
		case <-producer.Successes():
		case err := <-producer.Errors():
			t.Errorf("%v", err)
		}
	}
	if err := producer.Close(); err != nil {
		t.Error(err)
	}
	checkOnceAndInOrder(t, b, "t", total)
	if n := cuts.made(); n < 10 {
		t.Errorf("only %d connections were cut", n)
	}
}
