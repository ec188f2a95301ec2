package brokertest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatlog/leat/broker/brokertest"
)

// testTimeout bounds what a test waits for.
const testTimeout = 30 * time.Second

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	t.Cleanup(cancel)
	return ctx
}

// newClient returns a kgo client of the broker that tries again fast, closed
// with the test.
func newClient(t *testing.T, b *brokertest.Broker, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	opts = append([]kgo.Opt{
		kgo.AlwaysRetryEOF(), kgo.SeedBrokers(b.Addr()), kgo.Dialer(b.Dial),
		kgo.RetryBackoffFn(func(int) time.Duration { return 10 * time.Millisecond }),
		kgo.MetadataMinAge(10 * time.Millisecond), kgo.FetchMaxWait(500 * time.Millisecond),
	}, opts...)
	c, err := kgo.NewClient(opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func createTopic(t *testing.T, b *brokertest.Broker, name string, partitions int32, config map[string]*string) {
	t.Helper()
	admin := kadm.NewClient(newClient(t, b))
	r, err := admin.CreateTopic(testContext(t), partitions, 1, config, name)
	if err != nil || r.Err != nil {
		t.Fatalf("create topic %s: %v, %v", name, err, r.Err)
	}
}

// consume reads n records from a topic's start, by partition.
func consume(t *testing.T, b *brokertest.Broker, topic string, n int) map[int32][]*kgo.Record {
	t.Helper()
	c := newClient(t, b, kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	defer c.Close()
	return poll(t, c, n)
}

func poll(t *testing.T, c *kgo.Client, n int) map[int32][]*kgo.Record {
	t.Helper()
	ctx := testContext(t)
	got, count := map[int32][]*kgo.Record{}, 0
	for count < n {
		fetches := c.PollFetches(ctx)
		if ctx.Err() != nil {
			t.Fatalf("%d of %d records after %v", count, n, testTimeout)
		}
		fetches.EachError(func(topic string, p int32, err error) { t.Logf("fetch %s-%d: %v", topic, p, err) })
		fetches.EachRecord(func(r *kgo.Record) {
			got[r.Partition] = append(got[r.Partition], r)
			count++
		})
	}
	return got
}

// endOffset returns the end of a partition.
func endOffset(t *testing.T, b *brokertest.Broker, topic string, partition int32) int64 {
	t.Helper()
	ends, err := kadm.NewClient(newClient(t, b)).ListEndOffsets(testContext(t), topic)
	if err != nil {
		t.Fatal(err)
	}
	o, _ := ends.Lookup(topic, partition)
	if o.Err != nil {
		t.Fatal(o.Err)
	}
	return o.Offset
}

// eventually waits until what is true.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	deadline := time.Now().Add(testTimeout)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", testTimeout, what)
		}
		<-tick.C
	}
}

func value(n int) []byte { return fmt.Appendf(nil, "record %06d", n) }

// cutter is a proxy before a broker that cuts its first connections after a number
// of bytes drawn from a seed, in the middle of requests and of answers.
type cutter struct {
	listener net.Listener
	target   string
	wait     sync.WaitGroup

	mu     sync.Mutex
	random *rand.Rand
	left   int // connections that are still to be cut
	cut    int
	conns  map[net.Conn]bool
	closed bool
}

func newCutter(t *testing.T, seed uint64, cuts int) *cutter {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cutter{listener: l, random: rand.New(rand.NewPCG(seed, 1)), left: cuts, conns: map[net.Conn]bool{}}
	t.Cleanup(c.close)
	return c
}

func (c *cutter) addr() string { return c.listener.Addr().String() }

func (c *cutter) cuts() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cut
}

// forward begins to forward to the broker.
func (c *cutter) forward(target string) {
	c.target = target
	c.wait.Go(func() {
		for {
			client, err := c.listener.Accept()
			if err != nil {
				return
			}
			c.wait.Go(func() { c.serve(client) })
		}
	})
}

func (c *cutter) serve(client net.Conn) {
	broker, err := net.Dial("tcp", c.target)
	if err != nil {
		client.Close()
		return
	}
	// What is counted down to the cut: bytes to the broker or from it.
	budget, toBroker := int64(1)<<60, true
	c.mu.Lock()
	if c.left > 0 {
		c.left--
		toBroker = c.random.IntN(2) == 0
		budget = 100 + c.random.Int64N(6000)
		if !toBroker {
			budget = 300 + c.random.Int64N(700) // answers are small
		}
	}
	if c.closed {
		c.mu.Unlock()
		client.Close()
		broker.Close()
		return
	}
	c.conns[client], c.conns[broker] = true, true
	c.mu.Unlock()
	closeBoth := func() {
		client.Close()
		broker.Close()
	}
	move := func(to, from net.Conn, limited bool) {
		defer closeBoth()
		var n int64
		var err error
		if limited {
			n, err = io.CopyN(to, from, budget)
		} else {
			_, err = io.Copy(to, from)
		}
		if limited && n == budget && !errors.Is(err, io.EOF) {
			c.mu.Lock()
			c.cut++
			c.mu.Unlock()
		}
	}
	var both sync.WaitGroup
	both.Go(func() { move(broker, client, toBroker) })
	both.Go(func() { move(client, broker, !toBroker) })
	both.Wait()
	c.mu.Lock()
	delete(c.conns, client)
	delete(c.conns, broker)
	c.mu.Unlock()
}

func (c *cutter) close() {
	c.listener.Close()
	c.mu.Lock()
	c.closed = true
	for conn := range c.conns {
		conn.Close()
	}
	c.mu.Unlock()
	c.wait.Wait()
}
