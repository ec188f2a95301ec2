package broker_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/leatlog/leat/broker/brokertest"
	"github.com/leatlog/leat/broker/internal/record"
	"github.com/leatlog/leat/broker/internal/vfs"
)

// oneTransaction is what a client did in a transaction, and what it was told.
type oneTransaction struct {
	values          []string
	asked, answered bool // to end it; that it is ended
	commit          bool
}

// transactionCrash is a disk that a power loss left, and what clients knew before it.
type transactionCrash struct {
	disk         *vfs.Mem
	transactions []oneTransaction
}

// transactionCrashes takes disks while transactions run: at each first write to the
// data of a transaction and of its end, when the coordinator's record of it has to be
// durable, and at operations between.
type transactionCrashes struct {
	mem *vfs.Mem

	mu           sync.Mutex
	random       *rand.Rand
	transactions []oneTransaction
	first        bool // the next write to the topic is the first of its phase
	running      bool
	next         int // operations until the next crash
	taken        []transactionCrash
}

// before is called before each operation of the disk.
func (c *transactionCrashes) before(o vfs.Operation) error {
	if !o.Mutates() {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.running {
		return nil
	}
	data := o.Kind == vfs.KindWrite && strings.HasPrefix(path.Base(path.Dir(o.Path)), "t-") && path.Ext(o.Path) == ".log"
	if c.next--; c.next <= 0 || c.first && data {
		c.next = 1 + c.random.IntN(8)
		c.take()
	}
	if data {
		c.first = false
	}
	return nil
}

func (c *transactionCrashes) take() {
	c.taken = append(c.taken, transactionCrash{c.mem.Crash(c.random), slices.Clone(c.transactions)})
}

// note changes what the clients know.
func (c *transactionCrashes) note(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
}

// run has one client commit and abort transactions, all of them in three partitions.
func (c *transactionCrashes) run(t *testing.T, b *brokertest.Broker, opts []kgo.Opt) {
	t.Helper()
	ctx := crashContext(t)
	client := crashClient(t, b, append(opts, kgo.TransactionalID("app"), kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	admin := kadm.NewClient(crashClient(t, b))
	for i := range 4 {
		values := []string{fmt.Sprint(i, "a"), fmt.Sprint(i, "b"), fmt.Sprint(i, "c")}
		commit := i%2 == 0
		c.note(func() {
			c.transactions = append(c.transactions, oneTransaction{values: values, commit: commit})
			c.first, c.running = true, true
		})
		if err := client.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		for p, v := range values {
			if err := client.ProduceSync(ctx, &kgo.Record{Topic: "t", Partition: int32(p), Value: []byte(v)}).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
		c.note(func() { c.transactions[i].asked, c.first = true, true })
		if err := client.EndTransaction(ctx, kgo.TransactionEndTry(commit)); err != nil {
			t.Fatal(err)
		}
		c.note(func() { c.transactions[i].answered = true })
		awaitEnd(t, admin, "app")
		c.note(c.take)
	}
	c.note(func() { c.running = false })
}

// awaitEnd waits until the markers of a transactional id's last transaction are
// written, and returns how it ended.
func awaitEnd(t *testing.T, admin *kadm.Client, id string) string {
	t.Helper()
	ctx := crashContext(t)
	for {
		described, err := admin.DescribeTransactions(ctx, id)
		if state := described[id].State; err == nil && described[id].Err == nil && !strings.HasPrefix(state, "Prepare") {
			return state
		}
		if !pauseShortly(ctx) {
			t.Fatalf("transaction of %s: %+v, %v", id, described[id], err)
		}
	}
}

// pauseShortly waits between two looks, and says whether there is time for another.
func pauseShortly(ctx context.Context) bool {
	timer := time.NewTimer(2 * time.Millisecond)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// stateOnDisk reads the state of the one transactional id from the log of its
// coordinator, "" when it holds none.
func stateOnDisk(t *testing.T, disk vfs.FS) string {
	t.Helper()
	const dir = "data/__transaction_state-0"
	names, err := disk.List(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return "" // made with the first transactional id
	}
	if err != nil {
		t.Fatal(err)
	}
	state := ""
	for _, name := range names {
		if path.Ext(name) != ".log" {
			continue
		}
		for log := fileBytes(t, disk, path.Join(dir, name)); ; {
			batch, rest, err := record.Parse(log)
			if err != nil || batch.Validate() != nil {
				break // the torn tail, or what was preallocated
			}
			log = rest
			if batch.IsControl() {
				continue
			}
			if err := batch.Iterate(func(r *record.Record) error {
				var v kmsg.TxnMetadataValue
				v.Default()
				if err := v.ReadFrom(r.Value); err != nil {
					return err
				}
				state = v.State.String()
				return nil
			}); err != nil {
				t.Fatal(err)
			}
		}
	}
	return state
}

func fileBytes(t *testing.T, disk vfs.FS, name string) []byte {
	t.Helper()
	f, err := disk.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, size)
	if _, err := f.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	return b
}

// TestTransactionsCrashedAtAnyOperation loses power at operations of the disk while a
// client commits and aborts. A broker on what is left ends what was to end, the way
// that was decided, and lets the next producer go on; what the client was told is what
// readers of committed records see (invariants I1, I4 and I5).
func TestTransactionsCrashedAtAnyOperation(t *testing.T) {
	for name, opts := range map[string][]kgo.Opt{"V1": {kgo.MaxVersions(kversion.V3_9_0())}, "V2": nil} {
		t.Run(name, func(t *testing.T) {
			mem := vfs.NewMem()
			crashes := &transactionCrashes{mem: mem, random: rand.New(rand.NewPCG(7, 1)), next: 1}
			small := brokertest.Set("transaction.state.log.num.partitions", "1")
			b := brokertest.Start(t, brokertest.InMemoryNetwork(), small, onDisk(vfs.NewFaulty(mem, crashes.before)))
			segment := "65536"
			created, err := kadm.NewClient(crashClient(t, b)).CreateTopic(crashContext(t), 3, 1, map[string]*string{"segment.bytes": &segment}, "t")
			if err != nil || created.Err != nil {
				t.Fatalf("create: %v, %v", err, created.Err)
			}
			crashes.run(t, b, opts)
			b.Stop()
			seen := map[string]int{}
			for i, crash := range crashes.taken {
				state := stateOnDisk(t, crash.disk)
				seen[state]++
				checkTransactionCrash(t, fmt.Sprintf("crash %d, %s", i, state), state, crash, small, opts)
			}
			t.Logf("crashes by the state that was on disk: %v", seen)
			for _, state := range []string{"Ongoing", "PrepareCommit", "PrepareAbort", "CompleteCommit", "CompleteAbort"} {
				if seen[state] == 0 {
					t.Errorf("no crash in state %s", state)
				}
			}
		})
	}
}

// checkTransactionCrash starts a broker on a disk and compares what it makes of it with
// what the client knew.
func checkTransactionCrash(t *testing.T, what, state string, crash transactionCrash, small brokertest.Option, opts []kgo.Opt) {
	t.Helper()
	ctx := crashContext(t)
	b := brokertest.Start(t, brokertest.InMemoryNetwork(), small, onDisk(crash.disk))
	defer b.Stop()
	admin := kadm.NewClient(crashClient(t, b))
	defer admin.Close()
	if state != "" { // the id is known
		ended := awaitEnd(t, admin, "app")
		if decided, ok := strings.CutPrefix(state, "Prepare"); ok && ended != "Complete"+decided {
			t.Errorf("%s: ended as %s", what, ended)
		}
	}
	client := crashClient(t, b, append(opts, kgo.TransactionalID("app"), kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	defer client.Close()
	if err := client.BeginTransaction(); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	for p := range int32(3) {
		if err := client.ProduceSync(ctx, &kgo.Record{Topic: "t", Partition: p, Value: []byte("last")}).FirstErr(); err != nil {
			t.Fatalf("%s: produce: %v", what, err)
		}
	}
	if err := client.EndTransaction(ctx, kgo.TryCommit); err != nil {
		t.Fatalf("%s: commit: %v", what, err)
	}
	seen := committedUntilLast(t, b, 3)
	for i, one := range crash.transactions {
		n := 0
		for _, v := range one.values {
			n += seen[v]
		}
		switch whole := n == len(one.values); {
		case n != 0 && !whole:
			t.Errorf("%s: transaction %d is torn: %d of %d records", what, i, n, len(one.values))
		case one.answered && one.commit != whole, whole && !(one.asked && one.commit):
			t.Errorf("%s: transaction %d %+v: %d records seen", what, i, one, n)
		}
	}
	if state := awaitEnd(t, admin, "app"); state != "CompleteCommit" {
		t.Errorf("%s: at last %s", what, state)
	}
	checkStable(t, what, admin)
}

// committedUntilLast counts the values that a reader of committed records sees, up to
// the one that ends each partition.
func committedUntilLast(t *testing.T, b *brokertest.Broker, partitions int) map[string]int {
	t.Helper()
	ctx := crashContext(t)
	c := crashClient(t, b, kgo.ConsumeTopics("t"), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	defer c.Close()
	seen := map[string]int{}
	for seen["last"] < partitions {
		c.PollFetches(ctx).EachRecord(func(r *kgo.Record) { seen[string(r.Value)]++ })
		if ctx.Err() != nil {
			t.Fatalf("saw %v", seen)
		}
	}
	return seen
}

// checkStable says that no transaction is open: readers of committed records get to
// the end of each partition.
func checkStable(t *testing.T, what string, admin *kadm.Client) {
	t.Helper()
	ctx := crashContext(t)
	stable, err := admin.ListCommittedOffsets(ctx, "t")
	if err != nil || stable.Error() != nil {
		t.Fatalf("%s: %v, %v", what, err, stable.Error())
	}
	ends, err := admin.ListEndOffsets(ctx, "t")
	if err != nil || ends.Error() != nil {
		t.Fatalf("%s: %v, %v", what, err, ends.Error())
	}
	ends.Each(func(end kadm.ListedOffset) {
		if at, ok := stable.Lookup("t", end.Partition); !ok || at.Offset != end.Offset {
			t.Errorf("%s: partition %d is stable up to %d of %d", what, end.Partition, at.Offset, end.Offset)
		}
	})
}
