package gokastream_test

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lovoo/goka"
	"github.com/lovoo/goka/codec"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatlog/leat/broker/brokertest"
	"github.com/leatlog/leat/stream"
	"github.com/leatlog/leat/stream/client"
	"github.com/leatlog/leat/stream/gokastream"
	"github.com/leatlog/leat/topology"
	"github.com/leatlog/leat/topology/serde"
)

func TestHasherIsKafkas(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	var h hash.Hash32 = gokastream.Hasher()()
	for range 1000 {
		key := make([]byte, random.IntN(40))
		for i := range key {
			key[i] = byte(random.Uint32())
		}
		n := 1 + random.Int32N(50)
		h.Reset()
		h.Write(key[:len(key)/2])
		h.Write(key[len(key)/2:])
		if got, want := int32(h.Sum32())%n, client.PartitionOf(key, n); got != want {
			t.Fatalf("key %x of %d partitions: %d, want %d", key, n, got, want)
		}
	}
}

// words are counted by goka, and the counts are read by a topology of the same app.
const (
	words  goka.Stream = "words"
	counts goka.Stream = "counts"
)

func counter() *goka.GroupGraph {
	return goka.DefineGroup("counter",
		goka.Input(words, new(codec.String), func(ctx goka.Context, _ any) {
			n, _ := ctx.Value().(int64)
			ctx.SetValue(n + 1)
			ctx.Emit(counts, ctx.Key(), n+1)
		}),
		goka.Persist(new(codec.Int64)), goka.Output(counts, new(codec.Int64)))
}

// app is a topology with a guest: the guest counts words, the topology keeps the
// highest count of each.
func app(t *testing.T, b *brokertest.Broker, dir string, highest *atomic.Int64, guests ...stream.Guest) *stream.App {
	t.Helper()
	top := topology.New()
	in := topology.From(top, topology.NewTopic(string(counts), serde.String, serde.FromCodec[int64]("goka int64", new(codec.Int64))))
	in.Peek(func(_ string, n int64) {
		for old := highest.Load(); n > old && !highest.CompareAndSwap(old, n); old = highest.Load() {
		}
	})
	topology.To(in, topology.NewTopic("copied", serde.String, serde.FromCodec[int64]("goka int64", new(codec.Int64))))
	p, err := top.Build()
	if err != nil {
		t.Fatal(err)
	}
	a, err := stream.New(p, stream.Config{AppID: "host", Bootstrap: []string{b.Addr()}, Dialer: b.Dial, StateDir: dir,
		Guarantee: stream.AtLeastOnce, Guests: guests, SessionTimeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func waitFor(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.After(40 * time.Second)
	for ticker := time.Tick(10 * time.Millisecond); !condition(); {
		select {
		case <-ticker:
		case <-deadline:
			t.Fatalf("%s: it did not happen within 40 s", what)
		}
	}
}

// A group graph runs in an app, on connections that never leave the process; its
// table is in the app's stores and goes on when another app starts over them.
func TestGuestRunsAndGoesOn(t *testing.T) {
	b := brokertest.Start(t, brokertest.InMemoryNetwork())
	k, err := kgo.NewClient(kgo.SeedBrokers(b.Addr()), kgo.Dialer(b.Dial), kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	c, err := client.New(client.Config{Bootstrap: []string{b.Addr()}, Dialer: b.Dial})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	for _, topic := range []string{string(words), string(counts), "copied"} {
		if err := c.CreateTopics(t.Context(), client.NewTopic{Name: topic, Partitions: 3, Replication: -1}); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	const keys, each = 20, 50
	for run := range int64(2) {
		for n := range keys * each {
			r := &kgo.Record{Topic: string(words), Key: fmt.Appendf(nil, "w%d", n%keys), Value: []byte("x")}
			k.Produce(t.Context(), r, nil)
		}
		if err := k.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		guest := gokastream.NewGuest(counter())
		var highest atomic.Int64
		a := app(t, b, dir, &highest, guest)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- a.Run(ctx) }()
		want := (run + 1) * each
		waitFor(t, "counts", func() bool {
			select {
			case err := <-done:
				t.Fatalf("the app has ended: %v", err)
			default:
			}
			if guest.Processor() == nil || !guest.Processor().Recovered() || highest.Load() < want {
				return false
			}
			for n := range keys {
				if v, err := guest.Processor().Get(fmt.Sprintf("w%d", n)); err != nil || v != want {
					return false
				}
			}
			return true
		})
		stop()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
}

// failing is a guest that cannot run.
type failing struct{ err error }

func (f failing) Name() string                           { return "failing" }
func (f failing) Run(context.Context, stream.Host) error { return f.err }

var errGuest = errors.New("no")

func TestAppFailsWithItsGuest(t *testing.T) {
	b := brokertest.Start(t, brokertest.InMemoryNetwork())
	c, err := client.New(client.Config{Bootstrap: []string{b.Addr()}, Dialer: b.Dial})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, topic := range []string{string(counts), "copied"} {
		if err := c.CreateTopics(t.Context(), client.NewTopic{Name: topic, Partitions: 1, Replication: -1}); err != nil {
			t.Fatal(err)
		}
	}
	var highest atomic.Int64
	if err := app(t, b, t.TempDir(), &highest, failing{errGuest}).Run(t.Context()); !errors.Is(err, errGuest) || !strings.Contains(err.Error(), `guest "failing"`) {
		t.Errorf("%v", err)
	}
	if err := app(t, b, t.TempDir(), &highest, failing{}).Run(t.Context()); err == nil || !strings.Contains(err.Error(), "ended by itself") {
		t.Errorf("%v", err)
	}
}
