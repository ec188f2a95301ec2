package cli

import (
	"encoding/json"
	"errors"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/leatlog/leat/stream/client"
)

// openTransaction begins a transaction with a record in each of some partitions.
func (l *leat) openTransaction(id, topic string, partitions ...int32) *client.Producer {
	l.t.Helper()
	c, err := client.New(client.Config{Bootstrap: []string{l.addr}})
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(c.Close)
	p, err := c.NewProducer(l.t.Context(), client.ProducerConfig{TransactionalID: id, TransactionTimeout: 10 * time.Minute})
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(p.Close)
	to, err := p.Topic(l.t.Context(), topic)
	if err != nil {
		l.t.Fatal(err)
	}
	for _, partition := range partitions {
		if err := to.Append(partition, 1, nil, []byte("open"), nil); err != nil {
			l.t.Fatal(err)
		}
	}
	if err := p.Flush(l.t.Context()); err != nil {
		l.t.Fatal(err)
	}
	return p
}

// read runs a command with --json and decodes what it writes.
func read[T any](l *leat, args ...string) T {
	l.t.Helper()
	var v T
	out := l.run("", append(args, "--json")...)
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		l.t.Fatalf("leat %s: %v in %s", strings.Join(args, " "), err, out)
	}
	return v
}

func TestShowTransactions(t *testing.T) {
	l := newLeat(t)
	topic, open, ended := name("t"), name("open"), name("ended")
	l.run("", "topic", "create", topic, "--partitions", "3", "--replication-factor", "1")
	if err := l.openTransaction(ended, topic, 1).EndTransaction(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	// The end is answered when it is decided, and complete when its markers are written.
	deadline := time.Now().Add(time.Minute)
	for state := ""; state != "CompleteCommit"; time.Sleep(10 * time.Millisecond) {
		if state = read[txnDescriptionJSON](l, "txn", "describe", ended).State; time.Now().After(deadline) {
			t.Fatalf("the transaction stays in %s", state)
		}
	}
	before := time.Now()
	l.openTransaction(open, topic, 0, 2)

	ids := func(args ...string) (ids []string) {
		for _, v := range read[[]txnJSON](l, append([]string{"txn", "list"}, args...)...) {
			if v.ID == open || v.ID == ended {
				ids = append(ids, v.ID)
			}
		}
		return ids
	}
	if got := ids(); !slices.Equal(got, []string{ended, open}) && !slices.Equal(got, []string{open, ended}) {
		t.Errorf("list: %v", got)
	}
	if got := ids("--state", "Ongoing"); !slices.Equal(got, []string{open}) {
		t.Errorf("ongoing: %v", got)
	}
	if got := ids("--open-for", "1h"); got != nil {
		t.Errorf("open for an hour: %v", got)
	}
	d := read[txnDescriptionJSON](l, "txn", "describe", open)
	if want := []string{topic + "-0", topic + "-2"}; d.ID != open || d.State != "Ongoing" || d.Timeout != 600_000 || !slices.Equal(d.Partitions, want) {
		t.Errorf("describe: %+v", d)
	}
	if d.Started == nil || *d.Started < before.Add(-time.Minute).UnixMilli() || d.OpenFor == nil {
		t.Errorf("describe: started %v, open for %v", d.Started, d.OpenFor)
	}
	if got := ids("--producer-id", strconv.FormatInt(d.ProducerID, 10)); !slices.Equal(got, []string{open}) {
		t.Errorf("producer %d: %v", d.ProducerID, got)
	}
	producers := read[[]producerJSON](l, "txn", "describe", "--topic", topic+":1,2")
	if len(producers) != 2 || producers[0].Partition != 1 || producers[0].Start != nil || producers[1].ProducerID != d.ProducerID ||
		producers[1].Start == nil || *producers[1].Start != 0 {
		t.Errorf("producers: %+v", producers)
	}
	for _, c := range []struct{ want, args string }{
		{open + ` +Ongoing`, "txn list"}, {`state +Ongoing`, "txn describe " + open},
		{`open for +-`, "txn describe " + ended}, {`offset 0`, "txn describe --topic " + topic},
	} {
		if out := l.run("", strings.Fields(c.args)...); !regexp.MustCompile(c.want).MatchString(out) {
			t.Errorf("leat %s: want %q in\n%s", c.args, c.want, out)
		}
	}
}

func TestAbortTransactions(t *testing.T) {
	l := newLeat(t)
	topic, id := name("t"), name("open")
	l.run("", "topic", "create", topic, "--partitions", "2", "--replication-factor", "1")
	l.run("first\n", "produce", topic, "--partition", "0")
	l.openTransaction(id, topic, 0, 1)
	d := read[txnDescriptionJSON](l, "txn", "describe", id)
	producer := strconv.FormatInt(d.ProducerID, 10)
	hangs := []string{"txn", "abort", "--topic", topic, "--partition"}

	if _, err := l.try(t.Context(), "", append(hangs, "0", "--start-offset", "1")...); err == nil || !strings.Contains(err.Error(), "leat txn abort "+id) {
		t.Errorf("a transaction that does not hang: %v", err)
	}
	if out := l.run("", append(hangs, "0", "--start-offset", "1", "--force")...); !strings.Contains(out, "aborted the transaction of producer "+producer) {
		t.Errorf("says %q", out)
	}
	for _, v := range read[[]producerJSON](l, "txn", "describe", "--topic", topic) {
		if open := v.Start != nil; v.ProducerID == d.ProducerID && open != (v.Partition == 1) {
			t.Errorf("after the abort in partition 0: %+v", v)
		}
	}
	read[map[string]producerJSON](l, append(hangs, "1", "--producer-id", producer, "--force")...)

	p := l.openTransaction(id, topic, 0, 1) // it has aborted what was left
	if out := l.run("", "txn", "abort", id); !strings.Contains(out, "fenced") {
		t.Errorf("says %q", out)
	}
	if d := read[txnDescriptionJSON](l, "txn", "describe", id); d.State != "Empty" || len(d.Partitions) != 0 || d.Timeout != 600_000 {
		t.Errorf("after the abort: %+v", d)
	}
	if err := p.EndTransaction(t.Context(), true); !errors.Is(err, client.ErrProducerFailed) {
		t.Errorf("the fenced producer commits: %v", err)
	}
	read[map[string]string](l, "txn", "abort", id)
	out := l.run("", "consume", topic, "--partition", "0", "--from", "start", "--until-end", "--format", `%s\n`, "--read-committed")
	if out != "first\n" {
		t.Errorf("committed records: %q", out)
	}
}

func TestMistakesWithTransactionsAreExplained(t *testing.T) {
	l := newLeat(t)
	topic := name("t")
	l.run("", "topic", "create", topic, "--partitions", "2", "--replication-factor", "1")
	for _, c := range []struct{ want, args string }{
		{"`leat txn list` shows", "txn describe nothing-here"},
		{"`leat txn list` shows", "txn abort nothing-here"},
		{"`leat topic list` shows", "txn describe --topic nothing-here"},
		{"`leat topic list` shows", "txn abort --topic nothing-here --partition 0 --start-offset 0"},
		{"use Empty, Ongoing", "txn list --state Open"},
		{"not both", "txn describe"},
		{"not both", "txn describe a --topic b"},
		{"not both", "txn abort a --topic b"},
		{"`leat txn list` shows", "txn abort"},
		{"--partition is missing", "txn abort --topic " + topic},
		{"either --start-offset or --producer-id", "txn abort --partition 0 --topic " + topic},
		{"partitions 0 to 1", "txn abort --partition 2 --start-offset 0 --topic " + topic},
		{"starts at offset 7", "txn abort --partition 1 --start-offset 7 --topic " + topic},
		{"is of producer 7", "txn abort --partition 1 --producer-id 7 --topic " + topic},
	} {
		if out, err := l.try(t.Context(), "", strings.Fields(c.args)...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("leat %s: %v, want %q in it; output %q", c.args, err, c.want, out)
		}
	}
}
