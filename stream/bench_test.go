package stream_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/leatlog/leat/broker/brokertest"
	"github.com/leatlog/leat/stream"
	"github.com/leatlog/leat/stream/client"
	"github.com/leatlog/leat/topology"
	"github.com/leatlog/leat/topology/plan"
	"github.com/leatlog/leat/topology/serde"
)

// benchmarkApp measures an App over a broker of the same process: b.N records of
// 100 bytes over four partitions, from the topic to the topic and committed.
func benchmarkApp(b *testing.B, build func(in, out string, seen *atomic.Int64) (*plan.Plan, error)) {
	broker := brokertest.Start(b, brokertest.InMemoryNetwork())
	cl, err := client.New(client.Config{Bootstrap: []string{broker.Addr()}, Dialer: broker.Dial})
	if err != nil {
		b.Fatal(err)
	}
	defer cl.Close()
	for _, topic := range []string{"in", "out"} {
		if err := cl.CreateTopics(b.Context(), client.NewTopic{Name: topic, Partitions: 4, Replication: 1}); err != nil {
			b.Fatal(err)
		}
	}
	p, err := cl.NewProducer(b.Context(), client.ProducerConfig{})
	if err != nil {
		b.Fatal(err)
	}
	to, err := p.Topic(b.Context(), "in")
	if err != nil {
		b.Fatal(err)
	}
	value := make([]byte, 90)
	for i := range b.N {
		if err := to.Append(int32(i&3), int64(i), fmt.Appendf(nil, "key-%d", i%10_000), value, nil); err != nil {
			b.Fatal(err)
		}
	}
	if err := p.Flush(b.Context()); err != nil {
		b.Fatal(err)
	}
	p.Close()

	var seen atomic.Int64
	pl, err := build("in", "out", &seen)
	if err != nil {
		b.Fatal(err)
	}
	app, err := stream.New(pl, stream.Config{AppID: "bench", Bootstrap: []string{broker.Addr()}, Dialer: broker.Dial, Guarantee: stream.AtLeastOnce})
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	b.ReportAllocs()
	b.ResetTimer()
	go func() { done <- app.Run(ctx) }()
	for seen.Load() < int64(b.N) {
		select {
		case err := <-done:
			b.Fatal(err)
		case <-time.After(time.Millisecond):
		}
	}
	stop()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
}

func BenchmarkAppStateless(b *testing.B) {
	benchmarkApp(b, func(in, out string, seen *atomic.Int64) (*plan.Plan, error) {
		top := topology.New()
		s := topology.From(top, topology.NewTopic(in, serde.Bytes, serde.Bytes))
		topology.To(s.Filter(func(v []byte) bool { seen.Add(1); return len(v) > 0 }), topology.NewTopic(out, serde.Bytes, serde.Bytes))
		return top.Build()
	})
}

func BenchmarkAppCount(b *testing.B) {
	benchmarkApp(b, func(in, out string, seen *atomic.Int64) (*plan.Plan, error) {
		top := topology.New()
		s := topology.From(top, topology.NewTopic(in, serde.String, serde.Bytes))
		s = s.Filter(func([]byte) bool { seen.Add(1); return true })
		topology.To(topology.Count("counts", s.GroupByKey(), topology.InMemory()).Stream(), topology.NewTopic(out, serde.String, serde.Int64))
		return top.Build()
	})
}
