package broker_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker"
	"github.com/leatlog/leat/broker/brokertest"
	"github.com/leatlog/leat/broker/internal/record"
	"github.com/leatlog/leat/broker/internal/vfs"
)

func onDisk(fs vfs.FS) brokertest.Option {
	return brokertest.Configure(func(c *broker.Config) { c.Environment.FS, c.DataDir = fs, "data" })
}

func crashClient(t *testing.T, b *brokertest.Broker, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	c, err := kgo.NewClient(append([]kgo.Opt{kgo.AlwaysRetryEOF(), kgo.SeedBrokers(b.Addr()), kgo.Dialer(b.Dial), kgo.FetchMaxWait(100 * time.Millisecond)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func crashContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// acked is what was acknowledged: values by partition and offset.
type acked struct {
	mu     sync.Mutex
	values map[int32]map[int64]string
	count  int
}

func (a *acked) add(r *kgo.Record) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.values[r.Partition] == nil {
		a.values[r.Partition] = map[int64]string{}
	}
	a.values[r.Partition][r.Offset] = string(r.Value)
	a.count++
}

func (a *acked) copy() map[int32]map[int64]string {
	a.mu.Lock()
	defer a.mu.Unlock()
	c := map[int32]map[int64]string{}
	for p, values := range a.values {
		c[p] = map[int64]string{}
		for offset, v := range values {
			c[p][offset] = v
		}
	}
	return c
}

// readAll reads a topic from start to end through a client.
func readAll(t *testing.T, b *brokertest.Broker, topic string) map[int32]map[int64]string {
	t.Helper()
	ctx := crashContext(t)
	got := map[int32]map[int64]string{}
	admin := crashClient(t, b)
	defer admin.Close()
	ends, err := kadm.NewClient(admin).ListEndOffsets(ctx, topic)
	if err != nil || ends.Error() != nil {
		t.Fatalf("list end offsets: %v, %v", err, ends.Error())
	}
	left := 0
	from := map[int32]kgo.Offset{}
	ends.Each(func(o kadm.ListedOffset) {
		left += int(o.Offset)
		from[o.Partition] = kgo.NewOffset().At(0)
		got[o.Partition] = map[int64]string{}
	})
	c := crashClient(t, b, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: from}))
	defer c.Close()
	for left > 0 {
		fetches := c.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			got[r.Partition][r.Offset] = string(r.Value)
			left--
		})
	}
	return got
}

// TestAcknowledgedSurvivesCrashAtAnyOperation crashes a broker's disk at random
// operations while clients produce. A broker started on each of the disks has all
// that was acknowledged until then, at its offset, no record twice and those of a
// producer in order (invariants I1 and I3).
func TestAcknowledgedSurvivesCrashAtAnyOperation(t *testing.T) {
	const partitions, producers, each = 3, 4, 150
	random := rand.New(rand.NewPCG(11, 5))
	mem := vfs.NewMem()
	done := &acked{values: map[int32]map[int64]string{}}
	type crash struct {
		disk  *vfs.Mem
		acked map[int32]map[int64]string
	}
	var mu sync.Mutex
	var crashes []crash
	running, next := false, 0
	disk := vfs.NewFaulty(mem, func(o vfs.Operation) error {
		if !o.Mutates() {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		if next--; running && next <= 0 && len(crashes) < 40 {
			next = 1 + random.IntN(60)
			known := done.copy() // before the crash, not after it
			crashes = append(crashes, crash{mem.Crash(random), known})
		}
		return nil
	})
	b := brokertest.Start(t, brokertest.InMemoryNetwork(), onDisk(disk))
	ctx := crashContext(t)
	segment := "65536"
	created, err := kadm.NewClient(crashClient(t, b)).CreateTopic(ctx, partitions, 1, map[string]*string{"segment.bytes": &segment}, "orders")
	if err != nil || created.Err != nil {
		t.Fatalf("create: %v, %v", err, created.Err)
	}
	mu.Lock()
	running = true
	mu.Unlock()
	var wait sync.WaitGroup
	for p := range producers {
		c := crashClient(t, b, kgo.DefaultProduceTopic("orders"), kgo.RecordPartitioner(kgo.ManualPartitioner()))
		wait.Go(func() {
			for i := range each {
				r := &kgo.Record{Partition: int32(p+i/50) % partitions, Value: fmt.Appendf(nil, "%d:%06d:%0*d", p, i, 10+i*13%900, 0)}
				if err := c.ProduceSync(ctx, r).FirstErr(); err != nil {
					t.Errorf("produce: %v", err)
					return
				}
				done.add(r)
			}
		})
	}
	wait.Wait()
	mu.Lock()
	running = false
	mu.Unlock()
	b.Stop()
	if done.count != producers*each || len(crashes) < 20 {
		t.Fatalf("%d acknowledged, %d crashes", done.count, len(crashes))
	}
	for i, c := range append(crashes, crash{mem, done.values}) {
		again := brokertest.Start(t, brokertest.InMemoryNetwork(), onDisk(c.disk))
		checkAcked(t, fmt.Sprintf("crash %d", i), readAll(t, again, "orders"), c.acked)
		again.Stop()
	}
}

func checkAcked(t *testing.T, what string, got, want map[int32]map[int64]string) {
	t.Helper()
	for p, values := range want {
		for offset, v := range values {
			if got[p][offset] != v {
				t.Fatalf("%s: partition %d, offset %d: acknowledged %.20q, found %.20q", what, p, offset, v, got[p][offset])
			}
		}
	}
	for p, values := range got {
		last := map[byte]string{} // by producer
		for offset := range int64(len(values)) {
			v, ok := values[offset]
			if !ok {
				t.Fatalf("%s: partition %d has a gap at offset %d", what, p, offset)
			}
			if before := last[v[0]]; v <= before {
				t.Fatalf("%s: partition %d, offset %d: %.20q after %.20q", what, p, offset, v, before)
			}
			last[v[0]] = v
		}
	}
}

// TestIdempotentProducerAcrossPowerCut sends a batch again after the broker lost
// power: it is known by its sequence number and not stored twice.
func TestIdempotentProducerAcrossPowerCut(t *testing.T) {
	b := brokertest.Start(t, brokertest.InMemoryNetwork(), brokertest.InMemoryDisk())
	ctx := crashContext(t)
	created, err := kadm.NewClient(crashClient(t, b)).CreateTopic(ctx, 1, 1, nil, "orders")
	if err != nil || created.Err != nil {
		t.Fatalf("create: %v, %v", err, created.Err)
	}
	c := crashClient(t, b)
	var id int64
	send := func(sequence int32, value string) (int64, error) {
		t.Helper()
		builder := record.NewBuilder(record.CodecNone)
		builder.SetProducer(id, 0, sequence)
		builder.Append(time.Now().UnixMilli(), nil, []byte(value), nil)
		r := kmsg.NewPtrProduceRequest()
		r.Acks, r.TimeoutMillis = -1, 10_000
		r.Topics = []kmsg.ProduceRequestTopic{{Topic: "orders", TopicID: created.ID,
			Partitions: []kmsg.ProduceRequestTopicPartition{{Records: builder.Build(nil)}}}}
		// The connection of before the power cut is dead, which the client notices at the first use.
		var failure error
		for range 20 {
			response, err := c.Broker(1).RetriableRequest(ctx, r)
			if err != nil {
				failure = err
				continue
			}
			p := &response.(*kmsg.ProduceResponse).Topics[0].Partitions[0]
			return p.BaseOffset, kerr.ErrorForCode(p.ErrorCode)
		}
		return -1, failure
	}
	response, err := kmsg.NewPtrInitProducerIDRequest().RequestWith(ctx, c)
	if err != nil || response.ErrorCode != 0 {
		t.Fatalf("init producer id: %v, %+v", err, response)
	}
	id = response.ProducerID
	for sequence := range int32(3) {
		if offset, err := send(sequence, fmt.Sprint(sequence)); err != nil || offset != int64(sequence) {
			t.Fatalf("sequence %d: offset %d, %v", sequence, offset, err)
		}
	}
	for cut := range 3 {
		b.PowerCut(uint64(cut))
		b.Restart()
		// A snapshot of the producers has the last batch only, as in Kafka; before there
		// is one, the log tells of all.
		known := int32(0)
		if cut > 0 {
			known = 2
		}
		for sequence := known; sequence < 3; sequence++ {
			if offset, err := send(sequence, fmt.Sprint(sequence)); err != nil || offset != int64(sequence) {
				t.Errorf("cut %d: sequence %d again: offset %d, %v", cut, sequence, offset, err)
			}
		}
		if _, err := send(7, "gap"); err != kerr.OutOfOrderSequenceNumber {
			t.Errorf("cut %d: gap in the sequence: %v", cut, err)
		}
	}
	if got := readAll(t, b, "orders")[0]; len(got) != 3 || got[0] != "0" || got[1] != "1" || got[2] != "2" {
		t.Errorf("stored: %v", got)
	}
	// The ids of before are never given again.
	again, err := kmsg.NewPtrInitProducerIDRequest().RequestWith(ctx, c)
	if err != nil || again.ErrorCode != 0 || again.ProducerID == id {
		t.Errorf("another producer: %v, %+v", err, again)
	}
}
