package stream_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/leatlog/leat/broker/brokertest"
	"github.com/leatlog/leat/stream"
	"github.com/leatlog/leat/stream/client"
	"github.com/leatlog/leat/topology/plan"
)

// cluster is a broker for a test, and names that no other test uses.
type cluster struct {
	t      *testing.T
	addr   string
	client *client.Client
	prefix string
	// guarantee is what the cluster can give.
	guarantee stream.Guarantee
}

var prefixes atomic.Int64

func newCluster(t *testing.T) *cluster {
	t.Helper()
	// LEAT_TEST_KAFKA names a running cluster, such as an Apache Kafka.
	c := &cluster{t: t, addr: os.Getenv("LEAT_TEST_KAFKA")}
	if c.addr == "" {
		c.addr = brokertest.Start(t).Addr()
	}
	c.prefix = fmt.Sprintf("t%d-%d-", time.Now().UnixNano(), prefixes.Add(1))
	var err error
	if c.client, err = client.New(client.Config{Bootstrap: []string{c.addr}}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.client.Close)
	c.probe()
	return c
}

// probe looks up what the cluster can give.
func (c *cluster) probe() {
	c.t.Helper()
	switch _, err := c.client.TransactionVersion(c.t.Context()); {
	case err == nil:
		c.guarantee = stream.ExactlyOnce
	case errors.Is(err, client.ErrNoTransactions):
		c.guarantee = stream.AtLeastOnce
	default:
		c.t.Fatal(err)
	}
}

// topic creates a topic and returns its full name.
func (c *cluster) topic(name string, partitions int32) string {
	c.t.Helper()
	err := c.client.CreateTopics(c.t.Context(), client.NewTopic{Name: c.prefix + name, Partitions: partitions, Replication: -1})
	if err != nil {
		c.t.Fatal(err)
	}
	return c.prefix + name
}

// produce writes records, spread by key.
func (c *cluster) produce(topic string, records ...plan.Record) {
	c.t.Helper()
	p, err := c.client.NewProducer(c.t.Context(), client.ProducerConfig{})
	if err != nil {
		c.t.Fatal(err)
	}
	defer p.Close()
	to, err := p.Topic(c.t.Context(), topic)
	if err != nil {
		c.t.Fatal(err)
	}
	for _, r := range records {
		if err := to.AppendByKey(r.Timestamp, r.Key, r.Value, r.Headers); err != nil {
			c.t.Fatal(err)
		}
	}
	if err := p.Flush(c.t.Context()); err != nil {
		c.t.Fatal(err)
	}
}

// reader reads a topic from its beginning, over the whole test.
type reader struct {
	t       *testing.T
	fetcher *client.Fetcher
	inbox   *client.Inbox
}

func (c *cluster) reader(topic string) *reader {
	c.t.Helper()
	topics, err := c.client.Topics(c.t.Context(), topic)
	if err != nil {
		c.t.Fatal(err)
	}
	r := &reader{t: c.t, fetcher: c.client.NewFetcher(client.FetcherConfig{MaxWait: 50 * time.Millisecond, ReadCommitted: true}), inbox: client.NewInbox()}
	c.t.Cleanup(r.fetcher.Close)
	for i := range topics[topic].Partitions {
		r.fetcher.Add(client.Partition{Topic: topic, Partition: int32(i)}, 0, client.ResetFail, r.inbox)
	}
	return r
}

// until calls see with every record until it returns true.
func (r *reader) until(what string, see func(plan.Record) bool) {
	r.t.Helper()
	timeout := time.After(30 * time.Second)
	var records client.Records
	for {
		select {
		case <-r.inbox.Ready():
		case <-timeout:
			r.t.Fatalf("%s did not come", what)
		}
		enough := false
		for _, f := range r.inbox.Take(nil) {
			if f.Err != nil {
				r.t.Fatal(f.Err)
			}
			for !f.Done() {
				records.Reset()
				if err := f.Decode(&records, 1); err != nil {
					r.t.Fatal(err)
				}
				for _, rec := range records.Records {
					enough = see(rec) || enough
				}
			}
			f.Release()
		}
		if enough {
			return
		}
	}
}

// running is an App that runs in a test.
type running struct {
	*stream.App
	t      *testing.T
	stop   context.CancelFunc
	done   chan error
	states chan stream.State
	cut    atomic.Bool
	mu     sync.Mutex
	conns  []net.Conn
}

// start runs a plan until the test ends, or stop.
func (c *cluster) start(p *plan.Plan, change func(*stream.Config)) *running {
	c.t.Helper()
	r := &running{t: c.t, done: make(chan error, 1), states: make(chan stream.State, 1000)}
	cfg := stream.Config{
		AppID: c.prefix + "app", Bootstrap: []string{c.addr}, Workers: 2, CommitInterval: 20 * time.Millisecond,
		SessionTimeout: 6 * time.Second, ReplicationFactor: -1, Dialer: r.dial,
		OnState: func(_, to stream.State) { r.states <- to }, Guarantee: c.guarantee,
	}
	if os.Getenv("LEAT_TEST_LOG") != "" {
		cfg.Logger = zerolog.New(zerolog.NewTestWriter(c.t)).Level(zerolog.InfoLevel)
	}
	if change != nil {
		change(&cfg)
	}
	var err error
	if r.App, err = stream.New(p, cfg); err != nil {
		c.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	go func() { r.done <- r.Run(ctx) }()
	c.t.Cleanup(func() {
		stop()
		r.wait()
	})
	return r
}

// dial lets kill cut the connections.
func (r *running) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if r.cut.Load() {
		return nil, errors.New("cut")
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", address)
	if err == nil {
		r.mu.Lock()
		r.conns = append(r.conns, conn)
		r.mu.Unlock()
	}
	return conn, err
}

// reach waits for a state.
func (r *running) reach(want stream.State) {
	r.t.Helper()
	timeout := time.After(40 * time.Second)
	for {
		select {
		case s := <-r.states:
			if s == want {
				return
			}
		case err := <-r.done:
			r.done <- err
			r.t.Fatalf("the app ended before it was %s: %v", want, err)
		case <-timeout:
			r.t.Fatalf("the app is %s, not %s", r.State(), want)
		}
	}
}

// wait returns Run's result; it may be called again.
func (r *running) wait() error {
	err := <-r.done
	r.done <- err
	return err
}

// kill ends the app without a commit.
func (r *running) kill() {
	r.Kill(func() {
		r.cut.Store(true)
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, c := range r.conns {
			_ = c.Close()
		}
	})
}

// stopped stops the app and fails the test when that goes wrong.
func (r *running) stopped() {
	r.t.Helper()
	r.stop()
	if err := r.wait(); err != nil {
		r.t.Fatal(err)
	}
}

func lines(format string, n int) []plan.Record {
	var out []plan.Record
	for i := range n {
		out = append(out, plan.Record{Timestamp: int64(i), Key: fmt.Appendf(nil, "k%d", i), Value: []byte(strings.ReplaceAll(format, "N", fmt.Sprint(i%10)))})
	}
	return out
}
