package client_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/leatlog/leat/stream/client"
)

// transactional skips a test on a cluster that has no transactions.
func transactional(t *testing.T, c *client.Client) {
	t.Helper()
	switch _, err := c.TransactionVersion(t.Context()); {
	case errors.Is(err, client.ErrNoTransactions):
		t.Skip(err)
	case err != nil:
		t.Fatal(err)
	}
}

func newTransactional(t *testing.T, c *client.Client, id, topic string) (*client.Producer, *client.ProducerTopic) {
	t.Helper()
	p, err := c.NewProducer(t.Context(), client.ProducerConfig{TransactionalID: id})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	to, err := p.Topic(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	return p, to
}

func appendAll(t *testing.T, to *client.ProducerTopic, values ...string) {
	t.Helper()
	for _, v := range values {
		if err := to.Append(0, 1, nil, []byte(v), nil); err != nil {
			t.Fatal(err)
		}
	}
}

// valuesOf reads the values of committed records: n of them, and what comes with
// the last.
func valuesOf(t *testing.T, c *client.Client, p client.Partition, n int) []string {
	t.Helper()
	var out []string
	for _, line := range read(t, c, p, 0, n, client.FetcherConfig{ReadCommitted: true}) {
		_, value, _ := strings.Cut(line, "=")
		out = append(out, strings.Trim(strings.Fields(value)[0], `"`))
	}
	return out
}

// Transactions in a row, every third aborted, over two partitions: a reader of
// committed records sees the others, whole and in order.
func TestTransactionsCommitAndAbort(t *testing.T) {
	c := connect(t, nil)
	transactional(t, c)
	topic := newTopic(t, c, 2, nil)
	p, to := newTransactional(t, c, uniqueName("txn"), topic)
	var want []string
	for i := range 12 {
		for j := range 3 {
			for partition := range int32(2) {
				if err := to.Append(partition, int64(i), nil, fmt.Appendf(nil, "%d.%d", i, j), nil); err != nil {
					t.Fatal(err)
				}
			}
			if i%3 != 2 {
				want = append(want, fmt.Sprintf("%d.%d", i, j))
			}
			if err := p.Send(); err != nil {
				t.Fatal(err)
			}
		}
		if err := p.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if !p.InTransaction() {
			t.Fatal("no transaction after a flush")
		}
		if err := p.EndTransaction(t.Context(), i%3 != 2); err != nil {
			t.Fatal(err)
		}
		if p.InTransaction() {
			t.Fatal("in a transaction after its end")
		}
	}
	for partition := range int32(2) {
		got := valuesOf(t, c, client.Partition{Topic: topic, Partition: partition}, len(want))
		if !slices.Equal(got, want) {
			t.Errorf("partition %d holds %q, want %q", partition, got, want)
		}
	}
}

// A producer takes over a transactional id: what the one before has left open is
// aborted at once, and it cannot go on.
func TestTransactionalIDFences(t *testing.T) {
	c := connect(t, nil)
	transactional(t, c)
	topic := newTopic(t, c, 1, nil)
	id := uniqueName("txn")
	first, toFirst := newTransactional(t, c, id, topic)
	appendAll(t, toFirst, "lost")
	if err := first.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	second, toSecond := newTransactional(t, c, id, topic)
	appendAll(t, toSecond, "kept")
	if err := errors.Join(second.Flush(t.Context()), second.EndTransaction(t.Context(), true)); err != nil {
		t.Fatal(err)
	}
	if err := first.EndTransaction(t.Context(), true); !errors.Is(err, client.ErrProducerFailed) {
		t.Errorf("the fenced producer commits: %v", err)
	}
	got := valuesOf(t, c, client.Partition{Topic: topic}, 1)
	if !slices.Equal(got, []string{"kept"}) {
		t.Errorf("committed: %q", got)
	}
}

// Offsets count with the transaction, and only for a member of the group.
func TestTransactionHoldsOffsets(t *testing.T) {
	c := connect(t, nil)
	transactional(t, c)
	topic := newTopic(t, c, 1, nil)
	group := uniqueName("group")
	at := client.Partition{Topic: topic}
	p, to := newTransactional(t, c, uniqueName("txn"), topic)
	member := join(t, group)
	member.expect(t, "1 of 1")
	for _, round := range []struct {
		offset int64
		commit bool
		want   int64
	}{{5, true, 5}, {9, false, 5}, {7, true, 7}} {
		appendAll(t, to, "x")
		err := errors.Join(
			p.Flush(t.Context()),
			p.SendOffsets(t.Context(), member.Group, map[client.Partition]client.Offset{at: {Offset: round.offset, LeaderEpoch: -1, Metadata: "note"}}),
			p.EndTransaction(t.Context(), round.commit),
		)
		if err != nil {
			t.Fatal(err)
		}
		committed, err := c.CommittedOffsets(t.Context(), group, []client.Partition{at})
		if err != nil || committed[at].Offset != round.want || committed[at].Metadata != "note" {
			t.Fatalf("committed %v, %v, want %d", committed, err, round.want)
		}
	}
	if err := member.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	err := p.SendOffsets(t.Context(), member.Group, map[client.Partition]client.Offset{at: {Offset: 8}})
	if !errors.Is(err, client.ErrFenced) {
		t.Errorf("one that has left commits: %v", err)
	}
}
