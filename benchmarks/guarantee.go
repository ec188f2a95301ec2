package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/leatlog/leat/broker"
	"github.com/leatlog/leat/stream"
	"github.com/leatlog/leat/stream/client"
	"github.com/leatlog/leat/topology"
	"github.com/leatlog/leat/topology/plan"
	"github.com/leatlog/leat/topology/serde"
)

const (
	guaranteeRecords    = 15_000_000
	guaranteePartitions = 4
	guaranteeValueBytes = 90
	guaranteeRounds     = 3
)

// printGuarantee measures whole apps, from topic to topic and committed every
// 100 ms, with exactly-once and at-least-once: on the cluster at address, or on a
// broker in this process when address is "".
func printGuarantee(ctx context.Context, address string) error {
	dir, err := os.MkdirTemp("", "leat-benchmark-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if address == "" {
		b, err := broker.Start(ctx, broker.Config{DataDir: dir, Listen: "127.0.0.1:0"})
		if err != nil {
			return err
		}
		defer func() { _ = b.Close() }()
		address = b.Addr()
	}
	c, err := client.New(client.Config{Bootstrap: []string{address}})
	if err != nil {
		return err
	}
	defer c.Close()
	version, err := c.TransactionVersion(ctx)
	if err != nil {
		return err
	}
	g := &guaranteed{client: c, address: address, prefix: "benchmark-" + strconv.FormatInt(time.Now().UnixNano(), 36) + "-"}
	if err := g.prepare(ctx); err != nil {
		return err
	}
	fmt.Printf("\n%s, transaction.version %d: apps over %d partitions, %d records of about 100 bytes, commits every 100 ms; best of %d rounds, alternating\n",
		address, version, guaranteePartitions, guaranteeRecords, guaranteeRounds)
	for _, app := range []struct {
		name  string
		build func(in, out string, seen *atomic.Int64) (*plan.Plan, error)
	}{{"stateless", forwarding}, {"count of 10,000 keys", countingKeys}} {
		var best [2]time.Duration
		for range guaranteeRounds {
			for i, guarantee := range []stream.Guarantee{stream.ExactlyOnce, stream.AtLeastOnce} {
				took, err := g.run(ctx, guarantee, app.build)
				if err != nil {
					return err
				}
				if best[i] == 0 || took < best[i] {
					best[i] = took
				}
			}
		}
		rate := func(d time.Duration) float64 { return guaranteeRecords / d.Seconds() }
		fmt.Printf("%-22s exactly-once %9.0f records/s   at-least-once %9.0f records/s   cost %4.1f %%\n", app.name,
			rate(best[0]), rate(best[1]), 100*(1-rate(best[0])/rate(best[1])))
	}
	return nil
}

// guaranteed runs apps against a cluster.
type guaranteed struct {
	client          *client.Client
	address, prefix string
	runs            int
}

// prepare writes the input.
func (g *guaranteed) prepare(ctx context.Context) error {
	if err := g.create(ctx, "in"); err != nil {
		return err
	}
	p, err := g.client.NewProducer(ctx, client.ProducerConfig{Codec: client.LZ4})
	if err != nil {
		return err
	}
	defer p.Close()
	to, err := p.Topic(ctx, g.prefix+"in")
	if err != nil {
		return err
	}
	value := make([]byte, guaranteeValueBytes)
	for i := range guaranteeRecords {
		key := "key-" + strconv.Itoa(i%10_000)
		if err := to.Append(int32(i%guaranteePartitions), int64(i), []byte(key), value, nil); err != nil {
			return err
		}
	}
	return p.Flush(ctx)
}

func (g *guaranteed) create(ctx context.Context, name string) error {
	return g.client.CreateTopics(ctx, client.NewTopic{Name: g.prefix + name, Partitions: guaranteePartitions, Replication: 1})
}

// run returns the time from the first record to the end of the last commit.
func (g *guaranteed) run(ctx context.Context, guarantee stream.Guarantee, build func(in, out string, seen *atomic.Int64) (*plan.Plan, error)) (time.Duration, error) {
	g.runs++
	out := "out-" + strconv.Itoa(g.runs)
	if err := g.create(ctx, out); err != nil {
		return 0, err
	}
	var seen atomic.Int64
	p, err := build(g.prefix+"in", g.prefix+out, &seen)
	if err != nil {
		return 0, err
	}
	app, err := stream.New(p, stream.Config{
		AppID: g.prefix + "app-" + strconv.Itoa(g.runs), Bootstrap: []string{g.address}, Guarantee: guarantee, ReplicationFactor: 1,
	})
	if err != nil {
		return 0, err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan error, 1)
	go func() { done <- app.Run(ctx) }()
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	var begin time.Time
	for {
		select {
		case err := <-done:
			return 0, errors.Join(errors.New("the app has ended early"), err)
		case now := <-ticker.C:
			n := seen.Load()
			if begin.IsZero() && n > 0 {
				begin = now
			}
			if n < guaranteeRecords {
				continue
			}
			stop()
			err := <-done
			return time.Since(begin), err
		}
	}
}

func forwarding(in, out string, seen *atomic.Int64) (*plan.Plan, error) {
	top := topology.New()
	s := topology.From(top, topology.NewTopic(in, serde.Bytes, serde.Bytes))
	topology.To(s.Filter(func(v []byte) bool { seen.Add(1); return len(v) > 0 }), topology.NewTopic(out, serde.Bytes, serde.Bytes))
	return top.Build()
}

func countingKeys(in, out string, seen *atomic.Int64) (*plan.Plan, error) {
	top := topology.New()
	s := topology.From(top, topology.NewTopic(in, serde.String, serde.Bytes))
	s = s.Filter(func([]byte) bool { seen.Add(1); return true })
	topology.To(topology.Count("counts", s.GroupByKey(), topology.InMemory()).Stream(), topology.NewTopic(out, serde.String, serde.Int64))
	return top.Build()
}
