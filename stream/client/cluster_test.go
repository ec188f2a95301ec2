package client_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/brokertest"
	"github.com/leatlog/leat/stream/client"
	"github.com/leatlog/leat/topology/plan"
)

var prefixes atomic.Int64

// addresses holds the broker of each test, by the test's name.
var addresses sync.Map

// address is the cluster of a test: LEAT_TEST_KAFKA (HOST:PORT) names a running
// one, such as an Apache Kafka; without it each test has a broker of its own. A
// test with subtests must ask first.
func address(t *testing.T) string {
	t.Helper()
	if kafka := os.Getenv("LEAT_TEST_KAFKA"); kafka != "" {
		return kafka
	}
	name, _, _ := strings.Cut(t.Name(), "/")
	if a, ok := addresses.Load(name); ok {
		return a.(string)
	}
	a := brokertest.Start(t).Addr()
	addresses.Store(name, a)
	t.Cleanup(func() { addresses.Delete(name) })
	return a
}

// uniqueName returns a name that no other test uses.
func uniqueName(name string) string {
	return fmt.Sprintf("c%d-%d-%s", time.Now().UnixNano(), prefixes.Add(1), name)
}

func connect(t *testing.T, change func(*client.Config)) *client.Client {
	t.Helper()
	cfg := client.Config{Bootstrap: []string{address(t)}}
	if change != nil {
		change(&cfg)
	}
	c, err := client.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func newTopic(t *testing.T, c *client.Client, partitions int32, config map[string]string) string {
	t.Helper()
	name := uniqueName("topic")
	if err := c.CreateTopics(t.Context(), client.NewTopic{Name: name, Partitions: partitions, Replication: -1, Config: config}); err != nil {
		t.Fatal(err)
	}
	return name
}

// read reads n records of a partition from an offset; more within the same
// batches may come.
func read(t *testing.T, c *client.Client, p client.Partition, from int64, n int, cfg client.FetcherConfig) []string {
	t.Helper()
	cfg.MaxWait = 50 * time.Millisecond
	f := c.NewFetcher(cfg)
	defer f.Close()
	inbox := client.NewInbox()
	f.Add(p, from, client.ResetFail, inbox)
	var got []string
	var records client.Records
	timeout := time.After(20 * time.Second)
	for len(got) < n {
		select {
		case <-inbox.Ready():
		case <-timeout:
			t.Fatalf("%d of %d records came", len(got), n)
		}
		for _, b := range inbox.Take(nil) {
			if b.Err != nil {
				t.Fatal(b.Err)
			}
			for !b.Done() {
				records.Reset()
				if err := b.Decode(&records, 1); err != nil {
					t.Fatal(err)
				}
				for _, r := range records.Records {
					got = append(got, text(r.Offset, r.Key, r.Value, len(r.Headers)))
				}
			}
			b.Release()
		}
	}
	return got
}

func text(offset int64, key, value []byte, headers int) string {
	return fmt.Sprintf("%d %q=%q +%d", offset, key, value, headers)
}

func TestProduceAndFetch(t *testing.T) {
	address(t)
	for _, codec := range []client.Codec{client.NoCompression, client.Gzip, client.Snappy, client.LZ4, client.Zstd} {
		t.Run(codec.String(), func(t *testing.T) {
			c := connect(t, nil)
			topic := newTopic(t, c, 3, nil)
			p, err := c.NewProducer(t.Context(), client.ProducerConfig{Codec: codec, BatchBytes: 4 << 10})
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			to, err := p.Topic(t.Context(), topic)
			if err != nil {
				t.Fatal(err)
			}
			want := make([][]string, 3)
			for i := range 3000 {
				key, value := fmt.Appendf(nil, "key-%d", i%50), fmt.Appendf(nil, "the value of the record number %d", i)
				var headers []plan.Header
				if i%7 == 0 {
					headers = []plan.Header{{Key: "h", Value: []byte("v")}}
				}
				n := client.PartitionOf(key, 3)
				if err := to.Append(n, int64(i), key, value, headers); err != nil {
					t.Fatal(err)
				}
				want[n] = append(want[n], text(int64(len(want[n])), key, value, len(headers)))
			}
			if err := p.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			for n := range int32(3) {
				if got := to.NextOffset(n); got != int64(len(want[n])) {
					t.Errorf("partition %d: next offset = %d, want %d", n, got, len(want[n]))
				}
				got := read(t, c, client.Partition{Topic: topic, Partition: n}, 0, len(want[n]), client.FetcherConfig{})
				if !slices.Equal(got, want[n]) {
					t.Errorf("partition %d differs", n)
				}
				// kgo sees the same.
				if got := readWithKgo(t, topic, n, len(want[n])); !slices.Equal(got, want[n]) {
					t.Errorf("partition %d differs for kgo", n)
				}
				middle := read(t, c, client.Partition{Topic: topic, Partition: n}, 10, 5, client.FetcherConfig{})
				if middle[0] != want[n][10] {
					t.Errorf("from offset 10 came %s, want %s", middle[0], want[n][10])
				}
			}
		})
	}
}

func readWithKgo(t *testing.T, topic string, partition int32, n int) []string {
	t.Helper()
	k, err := kgo.NewClient(kgo.AlwaysRetryEOF(), kgo.SeedBrokers(address(t)), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{
		topic: {partition: kgo.NewOffset().AtStart()},
	}))
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var got []string
	for len(got) < n {
		fetches := k.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		fetches.EachRecord(func(r *kgo.Record) { got = append(got, text(r.Offset, r.Key, r.Value, len(r.Headers))) })
	}
	return got
}

func TestFetchReadsWhatKgoWrites(t *testing.T) {
	c := connect(t, nil)
	topic := newTopic(t, c, 1, nil)
	k, err := kgo.NewClient(kgo.AlwaysRetryEOF(), kgo.SeedBrokers(address(t)), kgo.DefaultProduceTopic(topic), kgo.ProducerBatchCompression(kgo.ZstdCompression()))
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	var want []string
	for i := range 500 {
		r := &kgo.Record{Key: fmt.Appendf(nil, "%d", i), Value: make([]byte, i)}
		if i%3 == 0 {
			r.Key, r.Value = nil, nil
		}
		k.Produce(t.Context(), r, nil)
		want = append(want, text(int64(i), r.Key, r.Value, 0))
	}
	if err := k.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := read(t, c, client.Partition{Topic: topic}, 0, 500, client.FetcherConfig{BufferBytes: 1000, PartitionBytes: 500}); !slices.Equal(got, want) {
		t.Error("records differ")
	}
}

func TestOffsetsOutOfRange(t *testing.T) {
	c := connect(t, nil)
	topic := newTopic(t, c, 1, nil)
	part := client.Partition{Topic: topic}
	produceN(t, c, topic, 10)
	if err := c.DeleteRecords(t.Context(), map[client.Partition]int64{part: 4}); err != nil {
		t.Fatal(err)
	}
	f := c.NewFetcher(client.FetcherConfig{MaxWait: 50 * time.Millisecond})
	defer f.Close()
	inbox := client.NewInbox()
	first := func() *client.Fetched {
		for {
			select {
			case <-inbox.Ready():
			case <-time.After(20 * time.Second):
				t.Fatal("nothing came")
			}
			for _, b := range inbox.Take(nil) {
				b.Release()
				return b
			}
		}
	}
	f.Add(part, 0, client.ResetFail, inbox)
	if b := first(); !errors.Is(b.Err, client.ErrOffsetOutOfRange) {
		t.Errorf("fail: %v", b.Err)
	}
	f.Add(part, 0, client.ResetEarliest, inbox)
	if b := first(); b.Err != nil || b.End() != 10 {
		t.Errorf("earliest: %v, end %d", b.Err, b.End())
	}
	f.Add(part, 99, client.ResetLatest, inbox)
	if b := first(); b.Err != nil || b.End() != 10 || b.HighWatermark != 10 {
		t.Errorf("latest: %v, end %d", b.Err, b.End())
	}
	f.Remove(part)
	start, err := c.ListOffset(t.Context(), part, client.EarliestOffset)
	if err != nil || start != 4 {
		t.Errorf("start = %d, %v", start, err)
	}
	if _, err := c.ListOffset(t.Context(), client.Partition{Topic: uniqueName("none")}, client.LatestOffset); !errors.Is(err, client.ErrUnknownTopic) {
		t.Errorf("offset of an unknown topic: %v", err)
	}
}

func produceN(t *testing.T, c *client.Client, topic string, n int) {
	t.Helper()
	p, err := c.NewProducer(t.Context(), client.ProducerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	to, err := p.Topic(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if err := to.Append(int32(i)%to.Partitions(), int64(i), nil, fmt.Append(nil, i), nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// cutter breaks connections after a random number of bytes, often between a
// request and its answer.
type cutter struct {
	net.Conn
	mu   sync.Mutex
	left int
}

func (c *cutter) spend(n int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.left -= n
	return c.left > 0
}

func (c *cutter) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if !c.spend(n) {
		c.Conn.Close()
		return 0, errors.New("cut")
	}
	return n, err
}

func (c *cutter) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b) // the broker gets it, the answer may not come back
	if !c.spend(n) {
		c.Conn.Close()
	}
	return n, err
}

// Connections that break in the middle of requests lose and double nothing.
func TestCutConnectionsLoseAndDoubleNothing(t *testing.T) {
	rng := rand.New(rand.NewPCG(11, 11))
	var mu sync.Mutex
	cuts := 0
	c := connect(t, func(cfg *client.Config) {
		cfg.Dialer = func(ctx context.Context, network, address string) (net.Conn, error) {
			var d net.Dialer
			conn, err := d.DialContext(ctx, network, address)
			mu.Lock()
			defer mu.Unlock()
			cuts++
			return &cutter{Conn: conn, left: 2000 + rng.IntN(60_000)}, err
		}
	})
	steady := connect(t, nil)
	topic := newTopic(t, steady, 2, nil)
	p, err := c.NewProducer(t.Context(), client.ProducerConfig{BatchBytes: 2 << 10})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	to, err := p.Topic(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	const n = 4000
	for i := range n {
		if err := to.Append(int32(i%2), int64(i), nil, fmt.Appendf(nil, "%d some more bytes to fill batches", i), nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	for part := range int32(2) {
		end, err := steady.ListOffset(t.Context(), client.Partition{Topic: topic, Partition: part}, client.LatestOffset)
		if err != nil || end != n/2 {
			t.Errorf("partition %d ends at %d, want %d (%v)", part, end, n/2, err)
		}
		got := read(t, c, client.Partition{Topic: topic, Partition: part}, 0, n/2, client.FetcherConfig{PartitionBytes: 8 << 10})
		for i, r := range got {
			var offset, number int
			if _, err := fmt.Sscanf(r, "%d \"\"=\"%d", &offset, &number); err != nil || offset != i || number != 2*i+int(part) {
				t.Fatalf("partition %d, record %d is %s", part, i, r)
			}
		}
	}
	if cuts < 5 {
		t.Errorf("only %d connections were opened: nothing was cut", cuts)
	}
}

func TestProducerErrors(t *testing.T) {
	c := connect(t, nil)
	topic := newTopic(t, c, 1, map[string]string{"max.message.bytes": "1000"})
	p, err := c.NewProducer(t.Context(), client.ProducerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if _, err := p.Topic(t.Context(), uniqueName("none")); !errors.Is(err, client.ErrUnknownTopic) {
		t.Errorf("unknown topic: %v", err)
	}
	to, err := p.Topic(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	if err := to.Append(1, 0, nil, nil, nil); !errors.Is(err, client.ErrUnknownTopic) {
		t.Errorf("unknown partition: %v", err)
	}
	if err := to.Append(0, 0, nil, make([]byte, 2000), nil); err != nil {
		t.Fatal(err)
	}
	if err := p.Flush(t.Context()); !errors.Is(err, client.ErrProducerFailed) {
		t.Errorf("too large: %v", err)
	}
	if err := to.Append(0, 0, nil, nil, nil); err == nil {
		err = p.Flush(t.Context())
		if !errors.Is(err, client.ErrProducerFailed) {
			t.Errorf("after the failure: %v", err)
		}
	}
}

// member is a member of a group that takes partitions one by one in turns.
type member struct {
	*client.Group
	assigned chan string
	end      context.CancelFunc
	done     chan error
}

func join(t *testing.T, group string) *member {
	t.Helper()
	c := connect(t, nil)
	m := &member{assigned: make(chan string, 100), done: make(chan error, 1)}
	m.Group = c.NewGroup(client.GroupConfig{
		Group: group, Protocol: "test", Topics: []string{"t"}, SessionTimeout: 6 * time.Second,
		UserData: func() []byte { return []byte("data") },
		Assign: func(_ context.Context, members []client.Member) ([]client.Assignment, error) {
			out := make([]client.Assignment, len(members))
			for i, m := range members {
				if string(m.UserData) != "data" {
					return nil, fmt.Errorf("user data of %s is %q", m.ID, m.UserData)
				}
				out[i] = client.Assignment{Member: m.ID, UserData: fmt.Appendf(nil, "%d of %d", i+1, len(members)), Partitions: map[string][]int32{"t": {int32(i)}}}
			}
			return out, nil
		},
		Assigned: func(userData []byte) (bool, error) { m.assigned <- string(userData); return false, nil },
		Lost:     func(error) { m.assigned <- "lost" },
	})
	ctx, end := context.WithCancel(context.Background())
	m.end = end
	go func() { m.done <- m.Run(ctx) }()
	t.Cleanup(func() { end(); <-m.done })
	return m
}

func (m *member) expect(t *testing.T, want ...string) {
	t.Helper()
	for {
		select {
		case got := <-m.assigned:
			if slices.Contains(want, got) {
				return
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("was not assigned %q", want)
		}
	}
}

func TestGroup(t *testing.T) {
	c := connect(t, nil)
	topic := newTopic(t, c, 2, nil)
	group := uniqueName("group")
	first := join(t, group)
	first.expect(t, "1 of 1")
	offsets := map[client.Partition]client.Offset{
		{Topic: topic, Partition: 0}: {Offset: 5, LeaderEpoch: -1, Metadata: "note"},
		{Topic: topic, Partition: 1}: {Offset: 7, LeaderEpoch: 0},
	}
	if err := first.Commit(t.Context(), offsets); err != nil {
		t.Fatal(err)
	}
	got, err := c.CommittedOffsets(t.Context(), group, slices.Collect(maps.Keys(offsets)))
	if err != nil || got[client.Partition{Topic: topic}].Metadata != "note" || got[client.Partition{Topic: topic, Partition: 1}].Offset != 7 {
		t.Errorf("committed %v, %v", got, err)
	}

	second := join(t, group)
	second.expect(t, "1 of 2", "2 of 2")
	first.expect(t, "1 of 2", "2 of 2")
	if err := second.Commit(t.Context(), map[client.Partition]client.Offset{{Topic: topic}: {Offset: 6}}); err != nil {
		t.Error(err)
	}
	d, err := c.DescribeGroup(t.Context(), group)
	if err != nil || len(d.Members) != 2 || d.State != "Stable" || len(d.Members[0].Partitions) != 1 {
		t.Errorf("group %+v, %v", d, err)
	}
	listed, err := c.Groups(t.Context())
	if err != nil || !slices.ContainsFunc(listed, func(g client.GroupInfo) bool { return g.Group == group }) {
		t.Errorf("groups %v, %v", listed, err)
	}

	first.end()
	if err := first.Leave(t.Context()); err != nil {
		t.Error(err)
	}
	second.expect(t, "1 of 1")
	if err := first.Commit(t.Context(), offsets); !errors.Is(err, client.ErrFenced) {
		t.Errorf("commit after leaving: %v", err)
	}
	if got, err := c.CommittedOffsets(t.Context(), group, nil); err != nil || len(got) != 2 || got[client.Partition{Topic: topic}].Offset != 6 {
		t.Errorf("all committed: %v, %v", got, err)
	}
	if _, err := c.DescribeGroup(t.Context(), uniqueName("none")); !errors.Is(err, client.ErrUnknownGroup) {
		t.Errorf("unknown group: %v", err)
	}
}

// TestGroupOfTheConsumerProtocol describes a group whose partitions the cluster assigns.
func TestGroupOfTheConsumerProtocol(t *testing.T) {
	c := connect(t, nil)
	topic, group := newTopic(t, c, 3, nil), uniqueName("next")
	join := kmsg.NewPtrConsumerGroupHeartbeatRequest()
	join.Group, join.MemberID, join.RebalanceTimeoutMillis = group, "m", 10_000
	join.SubscribedTopicNames, join.Topics = []string{topic}, []kmsg.ConsumerGroupHeartbeatRequestTopic{}
	broker, err := kgo.NewClient(kgo.AlwaysRetryEOF(), kgo.SeedBrokers(address(t)))
	if err != nil {
		t.Fatal(err)
	}
	defer broker.Close()
	if out, err := join.RequestWith(t.Context(), broker); err != nil || out.ErrorCode != 0 {
		t.Fatalf("joined: %+v, %v", out, err)
	}
	d, err := c.DescribeGroup(t.Context(), group)
	if err != nil || d.State != "Stable" || d.Protocol != "uniform" || len(d.Members) != 1 || d.Members[0].ID != "m" || len(d.Members[0].Partitions) != 3 {
		t.Errorf("group %+v, %v", d, err)
	}
}

func TestTopics(t *testing.T) {
	c := connect(t, nil)
	topic := newTopic(t, c, 3, map[string]string{"retention.ms": "12345"})
	if err := c.CreateTopics(t.Context(), client.NewTopic{Name: topic, Partitions: 1, Replication: -1}); !errors.Is(err, client.ErrTopicExists) {
		t.Errorf("create again: %v", err)
	}
	topics, err := c.Topics(t.Context(), topic, uniqueName("none"))
	if err != nil || len(topics) != 1 || len(topics[topic].Partitions) != 3 {
		t.Errorf("topics %v, %v", topics, err)
	}
	config, err := c.TopicConfig(t.Context(), topic)
	if err != nil || !slices.Contains(config, client.ConfigEntry{Name: "retention.ms", Value: "12345", Source: "topic"}) {
		t.Errorf("config %v, %v", config, err)
	}
	if err := c.DeleteTopics(t.Context(), topic); err != nil {
		t.Error(err)
	}
	if err := c.DeleteTopics(t.Context(), uniqueName("none")); !errors.Is(err, client.ErrUnknownTopic) {
		t.Errorf("delete an unknown topic: %v", err)
	}
}

func TestNoBroker(t *testing.T) {
	c, err := client.New(client.Config{Bootstrap: []string{"127.0.0.1:1"}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := c.Ping(ctx); err == nil {
		t.Error("a broker answers where none is")
	}
	if _, err := client.New(client.Config{Bootstrap: []string{"nowhere"}}); err == nil {
		t.Error("an address without port is taken")
	}
}
