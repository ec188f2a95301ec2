package brokertest_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/leatlog/leat/broker/brokertest"
)

// protocols are the two that clients end transactions by: with and without KIP-890.
func protocols() map[string][]kgo.Opt {
	return map[string][]kgo.Opt{"V1": {kgo.MaxVersions(kversion.V3_9_0())}, "V2": nil}
}

func transactional(t *testing.T, addrs []string, id string, more ...kgo.Opt) *kgo.Client {
	t.Helper()
	c, err := kgo.NewClient(append([]kgo.Opt{kgo.AlwaysRetryEOF(), kgo.SeedBrokers(addrs...), kgo.TransactionalID(id), kgo.TransactionTimeout(30 * time.Second),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.MetadataMinAge(10 * time.Millisecond), kgo.RetryBackoffFn(func(int) time.Duration { return 10 * time.Millisecond })}, more...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// transact produces values to partitions 0, 1, 2... of a topic in one transaction.
func transact(t *testing.T, c *kgo.Client, topic string, end kgo.TransactionEndTry, values ...string) {
	t.Helper()
	if err := c.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	for i, v := range values {
		if err := c.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Partition: int32(i % 3), Value: []byte(v)}).FirstErr(); err != nil {
			t.Fatalf("produce %s: %v", v, err)
		}
	}
	if err := c.EndTransaction(t.Context(), end); err != nil {
		t.Fatalf("end of the transaction of %v: %v", values, err)
	}
}

// valuesOf reads until so many values are there, in order of values.
func valuesOf(t *testing.T, addrs []string, topic string, level kgo.IsolationLevel, want int) []string {
	t.Helper()
	c, err := kgo.NewClient(kgo.AlwaysRetryEOF(), kgo.SeedBrokers(addrs...), kgo.ConsumeTopics(topic), kgo.FetchIsolationLevel(level), kgo.FetchMaxWait(50*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var values []string
	for len(values) < want && ctx.Err() == nil {
		c.PollFetches(ctx).EachRecord(func(r *kgo.Record) { values = append(values, string(r.Value)) })
	}
	slices.Sort(values)
	return values
}

// What is committed is seen, what is aborted is not, whatever protocol clients speak.
func TestTransactions(t *testing.T) {
	for name, opts := range protocols() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := brokertest.Start(t)
			addrs := []string{b.Addr()}
			if _, err := admin(t, b.Addr()).CreateTopic(t.Context(), 3, -1, nil, "t"); err != nil {
				t.Fatal(err)
			}
			c := transactional(t, addrs, "app", opts...)
			transact(t, c, "t", kgo.TryCommit, "a", "b", "c")
			transact(t, c, "t", kgo.TryAbort, "x", "y")
			transact(t, c, "t", kgo.TryCommit, "d")
			transact(t, c, "t", kgo.TryAbort)
			transact(t, c, "t", kgo.TryCommit, "e", "f")
			if got := valuesOf(t, addrs, "t", kgo.ReadCommitted(), 6); !slices.Equal(got, []string{"a", "b", "c", "d", "e", "f"}) {
				t.Errorf("committed: %v", got)
			}
			if got := valuesOf(t, addrs, "t", kgo.ReadUncommitted(), 8); !slices.Equal(got, []string{"a", "b", "c", "d", "e", "f", "x", "y"}) {
				t.Errorf("all: %v", got)
			}
			b.Restart()
			addrs = []string{b.Addr()}
			if got := valuesOf(t, addrs, "t", kgo.ReadCommitted(), 6); !slices.Equal(got, []string{"a", "b", "c", "d", "e", "f"}) {
				t.Errorf("committed, after a restart: %v", got)
			}
			transact(t, transactional(t, addrs, "app", opts...), "t", kgo.TryCommit, "g")
			if got := valuesOf(t, addrs, "t", kgo.ReadCommitted(), 7); len(got) != 7 {
				t.Errorf("committed, with one more: %v", got)
			}
		})
	}
}

// A second producer of the same id aborts what the first left open and fences it.
func TestZombiesAreFenced(t *testing.T) {
	for name, opts := range protocols() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := brokertest.Start(t)
			addrs := []string{b.Addr()}
			if _, err := admin(t, b.Addr()).CreateTopic(t.Context(), 3, -1, nil, "t"); err != nil {
				t.Fatal(err)
			}
			zombie := transactional(t, addrs, "app", opts...)
			if err := zombie.BeginTransaction(); err != nil {
				t.Fatal(err)
			}
			if err := zombie.ProduceSync(t.Context(), &kgo.Record{Topic: "t", Value: []byte("lost")}).FirstErr(); err != nil {
				t.Fatal(err)
			}
			next := transactional(t, addrs, "app", opts...)
			transact(t, next, "t", kgo.TryCommit, "kept")
			err := zombie.ProduceSync(t.Context(), &kgo.Record{Topic: "t", Value: []byte("late")}).FirstErr()
			if err == nil {
				err = zombie.EndTransaction(t.Context(), kgo.TryCommit)
			}
			if !errors.Is(err, kerr.InvalidProducerEpoch) && !errors.Is(err, kerr.ProducerFenced) {
				t.Errorf("the zombie was told %v", err)
			}
			transact(t, next, "t", kgo.TryCommit, "kept too")
			if got := valuesOf(t, addrs, "t", kgo.ReadCommitted(), 2); !slices.Equal(got, []string{"kept", "kept too"}) {
				t.Errorf("committed: %v", got)
			}
		})
	}
}

// Offsets that a transaction commits are the group's when it commits, and not before.
func TestOffsetsInTransactions(t *testing.T) {
	for name, opts := range protocols() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := brokertest.Start(t)
			a := admin(t, b.Addr())
			for _, topic := range []string{"in", "out"} {
				if _, err := a.CreateTopic(t.Context(), 1, -1, nil, topic); err != nil {
					t.Fatal(err)
				}
			}
			producer, err := kgo.NewClient(kgo.AlwaysRetryEOF(), kgo.SeedBrokers(b.Addr()))
			if err != nil {
				t.Fatal(err)
			}
			defer producer.Close()
			const n = 30
			for i := range n {
				if err := producer.ProduceSync(t.Context(), &kgo.Record{Topic: "in", Value: fmt.Appendf(nil, "%02d", i)}).FirstErr(); err != nil {
					t.Fatal(err)
				}
			}
			copyAll(t, b.Addr(), n, opts)
			got := valuesOf(t, []string{b.Addr()}, "out", kgo.ReadCommitted(), n)
			if len(got) != n {
				t.Fatalf("copied: %v", got)
			}
			for i := range n {
				if got[i] != fmt.Sprintf("%02d", i) {
					t.Fatalf("copied: %v", got)
				}
			}
			// The end of a transaction is answered when it is decided; its marker may reach
			// the offsets after the records.
			waitFor(t, "the offset to be the group's", func() bool {
				offsets, err := a.FetchOffsets(t.Context(), "copy")
				o, ok := offsets.Lookup("in", 0)
				if err == nil && ok && o.At > n {
					t.Fatalf("offset %d of %d records", o.At, n)
				}
				return err == nil && ok && o.At == n
			})
		})
	}
}

// copyAll copies in to out exactly once, a few records at a time; every other
// transaction is aborted.
func copyAll(t *testing.T, addr string, n int, opts []kgo.Opt) {
	t.Helper()
	s, err := kgo.NewGroupTransactSession(append([]kgo.Opt{kgo.AlwaysRetryEOF(), kgo.SeedBrokers(addr), kgo.TransactionalID("copier"), kgo.ConsumerGroup("copy"), kgo.ConsumeTopics("in"),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchMaxWait(50 * time.Millisecond)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	for round, copied := 0, 0; copied < n; round++ {
		records := s.PollRecords(ctx, 7).Records()
		if ctx.Err() != nil {
			t.Fatalf("copied %d of %d", copied, n)
		}
		if len(records) == 0 {
			continue
		}
		if err := s.Begin(); err != nil {
			t.Fatal(err)
		}
		for _, r := range records {
			s.Produce(ctx, &kgo.Record{Topic: "out", Value: r.Value}, nil)
		}
		committed, err := s.End(ctx, kgo.TransactionEndTry(round%2 == 0))
		if err != nil {
			t.Fatal(err)
		}
		if committed {
			copied += len(records)
		}
	}
}

// A transaction that nobody ends is aborted after its time.
func TestTransactionsTimeOut(t *testing.T) {
	b := brokertest.Start(t)
	addrs := []string{b.Addr()}
	a := admin(t, b.Addr())
	if _, err := a.CreateTopic(t.Context(), 3, -1, nil, "t"); err != nil {
		t.Fatal(err)
	}
	c := transactional(t, addrs, "slow", kgo.TransactionTimeout(100*time.Millisecond))
	if err := c.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := c.ProduceSync(t.Context(), &kgo.Record{Topic: "t", Value: []byte("late")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the transaction to be aborted", func() bool {
		list, err := a.DescribeTransactions(t.Context(), "slow")
		return err == nil && list["slow"].State == "CompleteAbort"
	})
	waitFor(t, "the last stable offset to advance", func() bool {
		ends, err := a.ListCommittedOffsets(t.Context(), "t")
		end, ok := ends.Lookup("t", 0)
		return err == nil && ok && end.Offset == 2 // the record and the marker
	})
	var set kadm.TopicsSet
	set.Add("t", 0)
	producers, err := a.DescribeProducers(t.Context(), set)
	if list := producers.SortedProducers(); err != nil || len(list) != 1 || list[0].CurrentTxnStartOffset != -1 {
		t.Errorf("producers %v, %v", list, err)
	}
}
