package brokertest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatlog/leat/broker/brokertest"
)

func TestProduceAndConsume(t *testing.T) {
	for name, network := range map[string][]brokertest.Option{"tcp": nil, "memory": {brokertest.InMemoryNetwork(), brokertest.InMemoryDisk()}} {
		t.Run(name, func(t *testing.T) {
			b := brokertest.Start(t, network...)
			createTopic(t, b, "t", 3, nil)
			const each = 200
			codecs := []kgo.CompressionCodec{kgo.NoCompression(), kgo.GzipCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression()}
			for n, codec := range codecs {
				c := newClient(t, b, kgo.ProducerBatchCompression(codec), kgo.DefaultProduceTopic("t"))
				var records []*kgo.Record
				for i := range each {
					records = append(records, &kgo.Record{Key: fmt.Appendf(nil, "k%d", i), Value: value(n*each + i),
						Headers: []kgo.RecordHeader{{Key: "h", Value: []byte("v")}}})
				}
				if err := c.ProduceSync(testContext(t), records...).FirstErr(); err != nil {
					t.Fatal(err)
				}
			}
			got := consume(t, b, "t", each*len(codecs))
			var values []string
			for p, records := range got {
				for i, r := range records {
					if r.Offset != int64(i) {
						t.Fatalf("partition %d: record %d is at offset %d", p, i, r.Offset)
					}
					if len(r.Headers) != 1 || r.Headers[0].Key != "h" || len(r.Key) == 0 {
						t.Fatalf("record %+v", r)
					}
					values = append(values, string(r.Value))
				}
			}
			slices.Sort(values)
			for i, v := range values {
				if v != string(value(i)) {
					t.Fatalf("value %d is %s", i, v)
				}
			}
		})
	}
}

func TestLongPollSeesARecordAtOnce(t *testing.T) {
	b := brokertest.Start(t, brokertest.InMemoryNetwork(), brokertest.InMemoryDisk())
	createTopic(t, b, "t", 1, nil)
	consumer := newClient(t, b, kgo.ConsumeTopics("t"), kgo.FetchMaxWait(20*time.Second))
	producer := newClient(t, b, kgo.DefaultProduceTopic("t"))
	start := time.Now()
	for i := range 20 {
		if err := producer.ProduceSync(testContext(t), &kgo.Record{Value: value(i)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		poll(t, consumer, 1)
	}
	if took := time.Since(start); took > 15*time.Second {
		t.Errorf("20 records one by one took %v: the poll is not woken", took)
	}
}

func TestTopicIsCreatedWhenItIsAskedFor(t *testing.T) {
	b := brokertest.Start(t, brokertest.Set("num.partitions", "2"))
	c := newClient(t, b, kgo.AllowAutoTopicCreation(), kgo.DefaultProduceTopic("fresh"),
		kgo.UnknownTopicRetries(-1)) // else a few that follow each other fast
	if err := c.ProduceSync(testContext(t), &kgo.Record{Value: value(1)}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	topics, err := kadm.NewClient(c).ListTopics(testContext(t), "fresh")
	if err != nil || len(topics["fresh"].Partitions) != 2 {
		t.Errorf("%v, %v", topics, err)
	}
	refusing := brokertest.Start(t, brokertest.Set("auto.create.topics.enable", "false"))
	c = newClient(t, refusing, kgo.AllowAutoTopicCreation(), kgo.DefaultProduceTopic("fresh"), kgo.UnknownTopicRetries(1))
	if err := c.ProduceSync(testContext(t), &kgo.Record{Value: value(1)}).FirstErr(); !errors.Is(err, kerr.UnknownTopicOrPartition) {
		t.Errorf("produce to a topic that may not be created: %v", err)
	}
}

func TestAdministration(t *testing.T) {
	b := brokertest.Start(t, brokertest.InMemoryNetwork(), brokertest.InMemoryDisk())
	admin, ctx := kadm.NewClient(newClient(t, b)), testContext(t)
	hour := "3600000"
	createTopic(t, b, "a", 2, map[string]*string{"retention.ms": &hour})
	if r, err := admin.CreateTopic(ctx, 1, 1, nil, "a"); !errors.Is(errors.Join(err, r.Err), kerr.TopicAlreadyExists) {
		t.Errorf("creating a topic twice: %v, %v", err, r.Err)
	}
	if r, err := admin.CreateTopic(ctx, 1, int16(nodes()+1), nil, "b"); !errors.Is(errors.Join(err, r.Err), kerr.InvalidReplicationFactor) {
		t.Errorf("a replica more than there are brokers: %v, %v", err, r.Err)
	}
	if r, err := admin.UpdatePartitions(ctx, 5, "a"); err != nil || r.Error() != nil {
		t.Errorf("more partitions: %v, %v", err, r.Error())
	}
	day := "86400000"
	if r, err := admin.AlterTopicConfigs(ctx, []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "retention.ms", Value: &day}}, "a"); err != nil || r[0].Err != nil {
		t.Errorf("alter configuration: %v, %v", err, r)
	}
	// Nodes that the controller is not may be a moment behind it.
	eventually(t, "the changes at every node", func() bool {
		configs, err := admin.DescribeTopicConfigs(ctx, "a")
		if err != nil || len(configs) != 1 {
			t.Fatalf("%v, %v", configs, err)
		}
		changed := slices.ContainsFunc(configs[0].Configs, func(c kadm.Config) bool { return c.Key == "retention.ms" && c.MaybeValue() == day })
		topics, err := admin.ListTopics(ctx)
		done := err == nil && changed && len(topics["a"].Partitions) == 5
		if nodes() == 1 && !done {
			t.Fatalf("%v, %v, %v", configs, topics, err)
		}
		return done
	})
	c := newClient(t, b, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err := c.ProduceSync(ctx, &kgo.Record{Topic: "a", Partition: 4, Value: value(0)}).FirstErr(); err != nil {
		t.Errorf("produce to a new partition: %v", err)
	}
	if r, err := admin.DeleteTopic(ctx, "a"); err != nil || r.Err != nil {
		t.Errorf("delete: %v, %v", err, r.Err)
	}
	createTopic(t, b, "a", 1, nil)
	if end := endOffset(t, b, "a", 0); end != 0 {
		t.Errorf("a topic of a deleted one's name begins at %d", end)
	}
	metadata, err := admin.BrokerMetadata(ctx)
	if err != nil || metadata.Cluster != b.ClusterID() || len(metadata.Brokers) != nodes() || nodes() == 1 && metadata.Controller != 1 {
		t.Errorf("%+v, %v", metadata, err)
	}
}

func TestGroupSharesPartitionsAndSurvivesALeaver(t *testing.T) {
	b := brokertest.Start(t, brokertest.InMemoryNetwork(), brokertest.InMemoryDisk())
	createTopic(t, b, "t", 4, nil)
	ctx := testContext(t)
	member := func() *kgo.Client {
		return newClient(t, b, kgo.ConsumerGroup("g"), kgo.ConsumeTopics("t"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
			kgo.HeartbeatInterval(50*time.Millisecond), kgo.SessionTimeout(5*time.Second), kgo.RebalanceTimeout(5*time.Second),
			kgo.DisableAutoCommit(), kgo.Balancers(kgo.RangeBalancer()))
	}
	first, second := member(), member()
	var mu sync.Mutex
	seen := map[string]int{}
	run, stop := context.WithCancel(ctx)
	var polling sync.WaitGroup
	pollAll := func(c *kgo.Client) {
		polling.Go(func() {
			for run.Err() == nil {
				f := c.PollFetches(run)
				mu.Lock()
				f.EachRecord(func(r *kgo.Record) { seen[string(r.Value)]++ })
				mu.Unlock()
				if err := c.CommitUncommittedOffsets(run); err != nil && run.Err() == nil {
					t.Logf("commit: %v", err)
				}
			}
		})
	}
	pollAll(first)
	pollAll(second)
	admin := kadm.NewClient(newClient(t, b))
	assigned := func() map[string]int {
		g, err := admin.DescribeGroups(ctx, "g")
		if err != nil || g["g"].State != "Stable" {
			return nil
		}
		parts := map[string]int{}
		for _, m := range g["g"].Members {
			a, _ := m.Assigned.AsConsumer()
			for _, topic := range a.Topics {
				parts[m.MemberID] += len(topic.Partitions)
			}
		}
		return parts
	}
	eventually(t, "two members with two partitions each", func() bool {
		return slices.Equal(slices.Collect(maps.Values(assigned())), []int{2, 2})
	})
	producer := newClient(t, b, kgo.DefaultProduceTopic("t"))
	produce := func(from, to int) {
		for i := from; i < to; i++ {
			producer.Produce(ctx, &kgo.Record{Key: value(i), Value: value(i)}, func(_ *kgo.Record, err error) {
				if err != nil {
					t.Error(err)
				}
			})
		}
		if err := producer.Flush(ctx); err != nil {
			t.Fatal(err)
		}
	}
	produce(0, 100)
	second.Close()
	eventually(t, "one member with all partitions", func() bool {
		return slices.Equal(slices.Collect(maps.Values(assigned())), []int{4})
	})
	produce(100, 200)
	eventually(t, "all records are consumed and committed", func() bool {
		lags, err := admin.Lag(ctx, "g")
		lag := lags["g"]
		if err != nil || lag.Error() != nil {
			return false
		}
		mu.Lock()
		defer mu.Unlock()
		return len(seen) == 200 && lag.Lag.Total() == 0
	})
	stop()
	polling.Wait()

	// What was committed survives a restart, and a kill.
	for _, end := range []func(){b.Stop, b.Kill} {
		end()
		b.Restart()
		var offsets kadm.OffsetResponses
		eventually(t, "a coordinator that answers", func() (answered bool) {
			var err error
			offsets, err = admin.FetchOffsets(ctx, "g")
			return err == nil
		})
		total := int64(0)
		offsets.Each(func(o kadm.OffsetResponse) { total += o.At })
		if total != 200 {
			t.Errorf("committed offsets add up to %d after a restart, want 200", total)
		}
	}
}

// TestNothingAcknowledgedIsLost stops, kills and cuts the power of a broker while
// a producer runs: what was acknowledged is there, in order, once.
func TestNothingAcknowledgedIsLost(t *testing.T) {
	for name, c := range map[string]struct {
		opts []brokertest.Option
		end  func(b *brokertest.Broker, round int)
	}{
		"stop":      {nil, func(b *brokertest.Broker, _ int) { b.Stop() }},
		"kill":      {nil, func(b *brokertest.Broker, _ int) { b.Kill() }},
		"power cut": {[]brokertest.Option{brokertest.InMemoryDisk()}, func(b *brokertest.Broker, round int) { b.PowerCut(uint64(round)) }},
	} {
		t.Run(name, func(t *testing.T) {
			b := brokertest.Start(t, c.opts...)
			createTopic(t, b, "t", 1, nil)
			producer := newClient(t, b, kgo.DefaultProduceTopic("t"), kgo.ProducerLinger(0), kgo.MaxBufferedRecords(50))
			run, stop := context.WithCancel(testContext(t))
			var mu sync.Mutex
			var acked []int
			var producing sync.WaitGroup
			producing.Go(func() {
				for i := 0; run.Err() == nil; i++ {
					producer.Produce(testContext(t), &kgo.Record{Value: value(i)}, func(_ *kgo.Record, err error) {
						mu.Lock()
						defer mu.Unlock()
						if err != nil {
							t.Errorf("record %d: %v", i, err)
						} else {
							acked = append(acked, i)
						}
					})
				}
			})
			count := func() int { mu.Lock(); defer mu.Unlock(); return len(acked) }
			for round := range 5 {
				before := count()
				eventually(t, "records are acknowledged", func() bool { return count() > before+30 })
				c.end(b, round)
				b.Restart()
			}
			stop()
			producing.Wait()
			if err := producer.Flush(testContext(t)); err != nil {
				t.Fatal(err)
			}
			records := consume(t, b, "t", count())[0]
			if len(records) != len(acked) {
				t.Fatalf("%d records for %d acknowledged ones", len(records), len(acked))
			}
			for i, r := range records {
				if !bytes.Equal(r.Value, value(i)) {
					t.Fatalf("record %d is %s", i, r.Value)
				}
			}
		})
	}
}

// TestIdempotentProducerOverCutConnections cuts connections in the middle of
// requests and answers: no record is lost and none is there twice.
func TestIdempotentProducerOverCutConnections(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			cuts := newCuts(seed, 40)
			b := brokertest.Start(t, cuts.before(t))
			createTopic(t, b, "t", 2, nil)
			producer := newClient(t, b, kgo.Dialer(new(net.Dialer).DialContext), kgo.AlwaysRetryEOF(), kgo.SeedBrokers(b.Addr()), kgo.DefaultProduceTopic("t"),
				kgo.ProducerLinger(time.Millisecond), kgo.MaxBufferedRecords(64))
			const total = 2000
			for i := range total {
				producer.Produce(testContext(t), &kgo.Record{Key: value(i), Value: value(i)}, func(_ *kgo.Record, err error) {
					if err != nil {
						t.Errorf("record %d: %v", i, err)
					}
				})
			}
			if err := producer.Flush(testContext(t)); err != nil {
				t.Fatal(err)
			}
			checkOnceAndInOrder(t, b, "t", total)
			if n := cuts.made(); n < 10 {
				t.Errorf("only %d connections were cut", n)
			}
		})
	}
}

// checkOnceAndInOrder checks that a topic holds value(0) to value(total-1), each
// once, and each partition in their order.
func checkOnceAndInOrder(t *testing.T, b *brokertest.Broker, topic string, total int) {
	t.Helper()
	var all []string
	for p, records := range consume(t, b, topic, total) {
		if end := endOffset(t, b, topic, p); end != int64(len(records)) {
			t.Errorf("partition %d ends at %d, %d records were read", p, end, len(records))
		}
		for i, r := range records {
			all = append(all, string(r.Value))
			if i > 0 && bytes.Compare(records[i-1].Value, r.Value) >= 0 {
				t.Errorf("partition %d: %s comes after %s", p, r.Value, records[i-1].Value)
			}
		}
	}
	slices.Sort(all)
	all = slices.Compact(all)
	if len(all) != total || all[0] != string(value(0)) || all[total-1] != string(value(total-1)) {
		t.Errorf("%d different records, want %d", len(all), total)
	}
}
