package brokertest_test

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatlog/leat/broker/brokertest"
)

const (
	checkerTopic      = "t"
	checkerPartitions = 3
)

// TestTransactionChecker has transactional and plain producers write, and readers of
// committed and of all records read, while the broker is killed or loses power at
// random moments and starts again. Then: no record of an aborted transaction was read
// as committed, no acknowledged record is lost, no transaction is torn, nothing is there
// twice, and nothing stays open (invariants I1 to I5). LEAT_TXN_ROUNDS is how often the
// broker dies, LEAT_TXN_SEED chooses the moments.
func TestTransactionChecker(t *testing.T) {
	rounds, seed := envNumber(t, "LEAT_TXN_ROUNDS", 6), uint64(envNumber(t, "LEAT_TXN_SEED", 1))
	c := newTransactionChecker(t, seed)
	for i, id := range []string{"V1", "V2-a", "V2-b"} {
		var opts []kgo.Opt
		if id == "V1" {
			opts = protocols()["V1"]
		}
		random := rand.New(rand.NewPCG(seed, uint64(i)+1))
		c.producers.Go(func() { c.transact(id, random, opts) })
	}
	c.producers.Go(func() { c.producePlain(rand.New(rand.NewPCG(seed, 100))) })
	committed, all := c.read(kgo.ReadCommitted()), c.read(kgo.ReadUncommitted())
	random := rand.New(rand.NewPCG(seed, 200))
	for round := range rounds {
		c.awaitSteps(t, 5+random.IntN(60), round)
		if random.IntN(2) == 0 {
			c.broker.Kill()
		} else {
			c.broker.PowerCut(random.Uint64())
		}
		c.broker.Restart()
	}
	close(c.stop)
	c.producers.Wait()
	c.finish(t)
	c.check(t, committed, all)
}

func envNumber(t *testing.T, name string, otherwise int) int {
	t.Helper()
	text, ok := os.LookupEnv(name)
	if !ok {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("%s=%q: must be 1 or more", name, text)
	}
	return n
}

// place is where a record is.
type place struct {
	partition int32
	offset    int64
}

// checkedTransaction is a transaction and what its producer was told.
type checkedTransaction struct {
	values          []string
	commit          bool // asked to be committed: whatever was answered, it may be
	committed, told bool // told how it ended, and that it is committed
}

// transactionChecker knows what producers were told.
type transactionChecker struct {
	broker    *brokertest.Broker
	ctx       context.Context
	producers sync.WaitGroup
	stop      chan struct{}
	steps     chan struct{} // one of each thing that a producer has done
	client    func(opts ...kgo.Opt) *kgo.Client

	mu           sync.Mutex
	transactions []*checkedTransaction
	plain        map[string]place // acknowledged records of no transaction
	abandoned    int
}

func newTransactionChecker(t *testing.T, seed uint64) *transactionChecker {
	t.Helper()
	b := brokertest.Start(t, brokertest.InMemoryDisk(), brokertest.Set("transaction.state.log.num.partitions", "4"))
	segment := "65536"
	createTopic(t, b, checkerTopic, checkerPartitions, map[string]*string{"segment.bytes": &segment})
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	c := &transactionChecker{broker: b, ctx: ctx, stop: make(chan struct{}), steps: make(chan struct{}), plain: map[string]place{}}
	c.client = func(opts ...kgo.Opt) *kgo.Client {
		client, err := kgo.NewClient(append([]kgo.Opt{kgo.AlwaysRetryEOF(), kgo.SeedBrokers(b.Addr()), kgo.RecordPartitioner(kgo.ManualPartitioner()),
			kgo.RetryBackoffFn(func(int) time.Duration { return 5 * time.Millisecond }), kgo.MetadataMinAge(10 * time.Millisecond),
			kgo.FetchMaxWait(20 * time.Millisecond), kgo.TransactionTimeout(time.Minute)}, opts...)...)
		if err != nil {
			panic(err) // options that cannot be
		}
		return client
	}
	t.Logf("LEAT_TXN_SEED=%d", seed)
	return c
}

// step tells that a producer has done something, unless nobody waits for it.
func (c *transactionChecker) step() {
	select {
	case c.steps <- struct{}{}:
	case <-c.stop:
	}
}

func (c *transactionChecker) stopped() bool {
	select {
	case <-c.stop:
		return true
	default:
		return false
	}
}

// awaitSteps waits until producers have done so much.
func (c *transactionChecker) awaitSteps(t *testing.T, n, round int) {
	t.Helper()
	stuck := time.NewTimer(2 * testTimeout)
	defer stuck.Stop()
	for i := range n {
		select {
		case <-c.steps:
		case <-stuck.C:
			t.Fatalf("round %d: nothing goes on after %d of %d steps", round, i, n)
		}
	}
}

// transact runs transactions of one transactional id until the end, with another
// client after each that failed.
func (c *transactionChecker) transact(id string, random *rand.Rand, opts []kgo.Opt) {
	var client *kgo.Client
	for n := 0; !c.stopped(); n++ {
		if client == nil {
			client = c.client(append(slices.Clone(opts), kgo.TransactionalID(id))...)
		}
		if random.IntN(20) == 0 {
			c.abandon(random, opts)
		}
		one := c.begin(fmt.Sprintf("%s/%d", id, n), random, false)
		if !c.carryOut(client, one, random) {
			client.Close()
			client = nil
		}
	}
	if client != nil {
		client.Close()
	}
}

// begin notes a transaction that is about to be.
func (c *transactionChecker) begin(name string, random *rand.Rand, abandoned bool) *checkedTransaction {
	one := &checkedTransaction{}
	for i := range 1 + random.IntN(6) {
		one.values = append(one.values, fmt.Sprintf("%s/%d", name, i))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.transactions = append(c.transactions, one)
	if abandoned {
		c.abandoned++
	}
	return one
}

// carryOut runs a transaction, and says whether its client can go on: it produced all,
// and learned how the transaction ended.
func (c *transactionChecker) carryOut(client *kgo.Client, one *checkedTransaction, random *rand.Rand) bool {
	commit := random.IntN(3) > 0
	failed := c.produce(client, one.values, random)
	if failed != nil {
		commit = false
	}
	c.step()
	c.mu.Lock()
	one.commit = commit
	c.mu.Unlock()
	ended := make(chan error, 1)
	go func() { ended <- client.EndTransaction(c.ctx, kgo.TransactionEndTry(commit)) }()
	c.step() // the broker may die while it ends the transaction
	err := <-ended
	if err == nil {
		c.mu.Lock()
		one.told, one.committed = true, commit
		c.mu.Unlock()
	}
	c.step()
	return err == nil && failed == nil
}

// produce begins a transaction and sends its values to any partitions.
func (c *transactionChecker) produce(client *kgo.Client, values []string, random *rand.Rand) error {
	if err := client.BeginTransaction(); err != nil {
		return err
	}
	var records []*kgo.Record
	for _, v := range values {
		records = append(records, &kgo.Record{Topic: checkerTopic, Partition: random.Int32N(checkerPartitions), Value: []byte(v)})
	}
	half := random.IntN(len(records))
	if half > 0 {
		if err := client.ProduceSync(c.ctx, records[:half]...).FirstErr(); err != nil {
			return err
		}
		c.step()
	}
	return client.ProduceSync(c.ctx, records[half:]...).FirstErr()
}

// abandon begins a transaction that its producer never ends: the timeout does.
func (c *transactionChecker) abandon(random *rand.Rand, opts []kgo.Opt) {
	c.mu.Lock()
	id := fmt.Sprint("abandoned-", len(c.transactions))
	c.mu.Unlock()
	client := c.client(append(slices.Clone(opts), kgo.TransactionalID(id), kgo.TransactionTimeout(300*time.Millisecond))...)
	defer client.Close()
	one := c.begin(id, random, true)
	_ = c.produce(client, one.values, random) // whatever it is told, nobody may see them
	c.step()
}

// producePlain produces records of no transaction until the end.
func (c *transactionChecker) producePlain(random *rand.Rand) {
	client := c.client()
	defer client.Close()
	for n := 0; !c.stopped(); n++ {
		r := &kgo.Record{Topic: checkerTopic, Partition: random.Int32N(checkerPartitions), Value: fmt.Appendf(nil, "plain/%d/0", n)}
		if client.ProduceSync(c.ctx, r).FirstErr() == nil {
			c.mu.Lock()
			c.plain[string(r.Value)] = place{r.Partition, r.Offset}
			c.mu.Unlock()
		}
		c.step()
	}
}

// reader reads the topic, over deaths of the broker.
type reader struct {
	client *kgo.Client

	mu     sync.Mutex
	seen   map[place]string
	next   [checkerPartitions]int64
	faults []string
}

// read begins to read the topic from its start.
func (c *transactionChecker) read(level kgo.IsolationLevel) *reader {
	from := map[int32]kgo.Offset{}
	for p := range int32(checkerPartitions) {
		from[p] = kgo.NewOffset().At(0)
	}
	r := &reader{seen: map[place]string{}, client: c.client(kgo.FetchIsolationLevel(level),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{checkerTopic: from}))}
	go func() {
		for {
			fetches := r.client.PollFetches(c.ctx)
			if c.ctx.Err() != nil || fetches.IsClientClosed() {
				return
			}
			r.take(fetches)
		}
	}()
	return r
}

func (r *reader) take(fetches kgo.Fetches) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fetches.EachRecord(func(record *kgo.Record) {
		if record.Offset < r.next[record.Partition] {
			r.faults = append(r.faults, fmt.Sprintf("partition %d: offset %d after %d", record.Partition, record.Offset, r.next[record.Partition]-1))
		}
		r.next[record.Partition] = record.Offset + 1
		r.seen[place{record.Partition, record.Offset}] = string(record.Value)
	})
}

// lasts says whether the reader has seen the last record of every partition.
func (r *reader) lasts() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, v := range r.seen {
		if strings.HasPrefix(v, "last/") {
			n++
		}
	}
	return n == checkerPartitions
}

// finish ends what the producers have left open, and ends each partition with a record
// that is committed.
func (c *transactionChecker) finish(t *testing.T) {
	t.Helper()
	ctx := testContext(t)
	for _, id := range []string{"V1", "V2-a", "V2-b"} {
		client := c.client(kgo.TransactionalID(id))
		if _, _, err := client.ProducerID(ctx); err != nil {
			t.Fatalf("take %s over: %v", id, err)
		}
		client.Close()
	}
	admin := kadm.NewClient(newClient(t, c.broker))
	eventually(t, "no transaction is open", func() bool { return c.stable(ctx, admin) })
	client := c.client(kgo.TransactionalID("last"))
	defer client.Close()
	if err := client.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	for p := range int32(checkerPartitions) {
		if err := client.ProduceSync(ctx, &kgo.Record{Topic: checkerTopic, Partition: p, Value: fmt.Appendf(nil, "last/%d/0", p)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	if err := client.EndTransaction(ctx, kgo.TryCommit); err != nil {
		t.Fatal(err)
	}
}

// stable says that the last stable offset is the end of every partition.
func (c *transactionChecker) stable(ctx context.Context, admin *kadm.Client) bool {
	stable, err := admin.ListCommittedOffsets(ctx, checkerTopic)
	if err != nil {
		return false
	}
	ends, err := admin.ListEndOffsets(ctx, checkerTopic)
	if err != nil {
		return false
	}
	for p := range int32(checkerPartitions) {
		s, _ := stable.Lookup(checkerTopic, p)
		e, ok := ends.Lookup(checkerTopic, p)
		if !ok || s.Err != nil || e.Err != nil || s.Offset != e.Offset {
			return false
		}
	}
	return true
}

// check compares what readers saw with what producers were told. Readers from the
// beginning see what those saw that were there all the time.
func (c *transactionChecker) check(t *testing.T, committed, all *reader) {
	t.Helper()
	again, allAgain := c.read(kgo.ReadCommitted()), c.read(kgo.ReadUncommitted())
	readers := map[string]*reader{"committed": committed, "all": all, "committed, read again": again, "all, read again": allAgain}
	for _, name := range slices.Sorted(maps.Keys(readers)) {
		r := readers[name]
		eventually(t, "the reader of "+name+" is at the end", r.lasts)
		r.client.Close()
		for _, fault := range r.faults {
			t.Errorf("%s: %s", name, fault)
		}
	}
	if !maps.Equal(committed.seen, again.seen) || !maps.Equal(all.seen, allAgain.seen) {
		t.Errorf("readers differ: committed %d and %d records, all %d and %d", len(committed.seen), len(again.seen), len(all.seen), len(allAgain.seen))
	}
	for at, v := range committed.seen {
		if all.seen[at] != v {
			t.Errorf("%v: %q is committed, but among all is %q", at, v, all.seen[at])
		}
	}
	where := whereEach(t, "committed", committed.seen)
	whereEach(t, "all", all.seen)
	checkOrder(t, all.seen)
	for v, at := range c.plain {
		if found, ok := where[v]; !ok || found != at {
			t.Errorf("%q was acknowledged at %v; it is at %v (%t)", v, at, found, ok)
		}
	}
	c.checkTransactions(t, where)
}

func (c *transactionChecker) checkTransactions(t *testing.T, where map[string]place) {
	t.Helper()
	told, hidden := 0, 0
	for _, one := range c.transactions {
		n := 0
		for _, v := range one.values {
			if _, ok := where[v]; ok {
				n++
			}
		}
		switch whole := n == len(one.values); {
		case n > 0 && !whole:
			t.Errorf("torn: %d records of %+v are seen", n, *one)
		case one.told && one.committed && !whole:
			t.Errorf("lost: %+v", *one)
		case n > 0 && !one.commit:
			t.Errorf("aborted, and seen: %+v", *one)
		}
		if one.told {
			told++
		}
		if n == 0 {
			hidden++
		}
	}
	t.Logf("%d transactions, of %d the client knows the end, %d were abandoned, %d are not seen; %d plain records, %d committed ones",
		len(c.transactions), told, c.abandoned, hidden, len(c.plain), len(where))
	if told == 0 || hidden == 0 || len(c.plain) == 0 {
		t.Error("too little happened for this to say anything")
	}
}

// checkOrder says that the records of the plain producer are in its order.
func checkOrder(t *testing.T, seen map[place]string) {
	t.Helper()
	places := slices.SortedFunc(maps.Keys(seen), func(a, b place) int {
		return cmp.Or(cmp.Compare(a.partition, b.partition), cmp.Compare(a.offset, b.offset))
	})
	last := [checkerPartitions]int{}
	for _, at := range places {
		var n int
		if _, err := fmt.Sscanf(seen[at], "plain/%d/", &n); err != nil {
			continue // of a transaction
		}
		if n++; n <= last[at.partition] {
			t.Errorf("%v: %q after number %d", at, seen[at], last[at.partition]-1)
		}
		last[at.partition] = n
	}
}

// whereEach returns where each value is, and complains of those that are in two places.
func whereEach(t *testing.T, what string, seen map[place]string) map[string]place {
	t.Helper()
	where := map[string]place{}
	for at, v := range seen {
		if other, twice := where[v]; twice {
			t.Errorf("%s: %q is at %v and at %v", what, v, at, other)
		}
		where[v] = at
	}
	return where
}
