package replica

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"go.uber.org/goleak"

	"github.com/leatlog/leat/broker/internal/metadata"
	"github.com/leatlog/leat/broker/internal/vfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestAcknowledgedSurvivesCrash crashes the disk at every operation of a
// workload: what was acknowledged before is there, in its place.
func TestAcknowledgedSurvivesCrash(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 7))
	mem := vfs.NewMem()
	var acked atomic.Int64
	type clone struct {
		fs    *vfs.Mem
		acked int64
	}
	var clones []clone
	recording := false
	fs := vfs.NewFaulty(mem, func(o vfs.Operation) error {
		if o.Mutates() && recording {
			clones = append(clones, clone{mem.Crash(random), acked.Load()})
		}
		return nil
	})
	w := newWorld(t, fs, nil, nil)
	w.create("orders", 1)
	w.apply(set("orders", "segment.bytes", "1048576"))
	recording = true
	for i := range 60 {
		if got, want := w.append("orders", 0, fmt.Sprint(i)), fmt.Sprintf("%d ok", i); got != want {
			t.Fatalf("append %d: %s", i, got)
		}
		acked.Store(int64(i + 1))
	}
	recording = false
	w.close()
	if len(clones) < 100 {
		t.Fatalf("only %d crashes", len(clones))
	}
	for i, c := range clones {
		again := newWorld(t, c.fs, w.image, nil)
		got := again.replica("orders", 0).values(t)
		n := int64(len(strings.Fields(got)))
		if want := numbers(n); n < c.acked || got != want {
			t.Fatalf("crash %d: %d records were acknowledged, found %q", i, c.acked, got)
		}
		again.crash()
		again.directory.Close()
	}
}

func numbers(n int64) string {
	var list []string
	for i := range n {
		list = append(list, fmt.Sprint(i))
	}
	return strings.Join(list, " ")
}

func set(topic, key, value string) *metadata.ConfigChange {
	return &metadata.ConfigChange{Resource: metadata.TopicResource, Name: topic, Key: key, Value: &value}
}

func TestManagerFollowsMetadata(t *testing.T) {
	mem := vfs.NewMem()
	w := newWorld(t, mem, nil, nil)
	w.create("orders", 2)
	if got := w.append("orders", 1, "a"); got != "0 ok" {
		t.Fatalf("append: %s", got)
	}
	// The leadership goes and comes back.
	w.apply(led("orders", 1, 2, 1, 1))
	if got := w.append("orders", 1, "b"); got != "-1 NOT_LEADER_FOR_PARTITION" {
		t.Errorf("append to a follower: %s", got)
	}
	w.apply(led("orders", 1, 1, 2, 2))
	if got := w.append("orders", 1, "c"); got != "1 ok" {
		t.Errorf("append in the new epoch: %s", got)
	}
	if epoch, end, err := w.replica("orders", 1).EpochEnd(2, 1); epoch != 0 || end != 1 || err != nil {
		t.Errorf("epoch 1 ends as %d at %d (%v), want 0 at 1", epoch, end, err)
	}
	// min.insync.replicas is followed: the other replica is not in sync.
	w.apply(set("orders", "min.insync.replicas", "2"))
	if got := w.append("orders", 1, "d"); got != "-1 NOT_ENOUGH_REPLICAS" {
		t.Errorf("append with too few in sync: %s", got)
	}
	w.apply(set("orders", "min.insync.replicas", "1"), set("orders", "max.message.bytes", "100"))
	if got := w.append("orders", 1, strings.Repeat("x", 100)); got != "-1 MESSAGE_TOO_LARGE" {
		t.Errorf("append of too much: %s", got)
	}
	w.apply(&metadata.TopicRemovedChange{ID: topicID("orders")})
	if _, err := w.manager.Replica(topicID("orders"), 1); err != kerr.UnknownTopicOrPartition {
		t.Errorf("deleted partition: %v", err)
	}
	// A topic of the same name starts from nothing.
	w.apply(&metadata.TopicChange{Name: "orders", ID: topicID("other")}, led("other", 0, 1, 0, 0))
	r, err := w.manager.Replica(topicID("other"), 0)
	if err != nil || r.Log().EndOffset() != 0 {
		t.Errorf("topic made anew: %v", err)
	}
	want := "orders-0 leader 0, orders-1 leader 0, orders-1 follower 1, orders-1 leader 2, orders-0 offline 0, orders-1 offline 2, orders-0 leader 0"
	if got := strings.Join(w.roles, ", "); got != want {
		t.Errorf("roles:\n got %s\nwant %s", got, want)
	}
	w.close()
	if names, _ := mem.List("data"); slices.Contains(names, "orders-1") {
		t.Errorf("left on disk: %v", names)
	}
}

// TestStrayLogsAreKept: a log whose topic the metadata does not know stays.
func TestStrayLogsAreKept(t *testing.T) {
	mem := vfs.NewMem()
	w := newWorld(t, mem, nil, nil)
	w.create("orders", 1)
	w.append("orders", 0, "a")
	w.close()
	newWorld(t, mem, nil, nil).close() // the metadata was lost
	again := newWorld(t, mem, w.image, nil)
	if got := again.replica("orders", 0).values(t); got != "a" {
		t.Errorf("after a start without metadata: %q", got)
	}
	again.close()
}

// TestDamageFencesOnePartition damages one log between two starts.
func TestDamageFencesOnePartition(t *testing.T) {
	mem := vfs.NewMem()
	w := newWorld(t, mem, nil, nil)
	w.create("bad", 1)
	w.create("good", 1)
	for i := range 5 {
		w.append("bad", 0, fmt.Sprint(i))
		w.append("good", 0, fmt.Sprint(i))
	}
	w.crash() // so that the next start reads the log
	w.directory.Close()
	if err := mem.Remove("data/.kafka_cleanshutdown"); err != nil {
		t.Fatal(err)
	}
	f, err := mem.OpenReadWrite("data/bad-0/00000000000000000000.log")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, 4); err != nil {
		t.Fatal(err)
	}
	f.Close()
	again := newWorld(t, mem, w.image, nil)
	defer again.directory.Close() // reports the damage
	defer again.crash()
	if got := again.append("good", 0, "5"); got != "5 ok" {
		t.Errorf("append to the healthy log: %s", got)
	}
	r := again.replica("bad", 0)
	if got := again.append("bad", 0, "5"); got != "-1 KAFKA_STORAGE_ERROR" || r.Failure() == nil {
		t.Errorf("append to the damaged log: %s, %v", got, r.Failure())
	}
	if err := r.Read(ReadRequest{CurrentLeaderEpoch: -1, LastFetchedEpoch: -1}).Err; err != kerr.KafkaStorageError {
		t.Errorf("read of the damaged log: %v", err)
	}
}

// TestFailedSyncFencesTheDirectory: nothing un-synced is acknowledged, and no
// replica of that disk takes writes any more.
func TestFailedSyncFencesTheDirectory(t *testing.T) {
	var fail atomic.Bool
	fs := vfs.NewFaulty(vfs.NewMem(), func(o vfs.Operation) error {
		if fail.Load() && (o.Kind == vfs.KindSync || o.Kind == vfs.KindSyncAll) {
			return errors.New("input/output error")
		}
		return nil
	})
	w := newWorld(t, fs, nil, nil)
	w.create("orders", 2)
	if got := w.append("orders", 0, "a"); got != "0 ok" {
		t.Fatal(got)
	}
	fail.Store(true)
	if got := w.append("orders", 0, "b"); got != "-1 KAFKA_STORAGE_ERROR" {
		t.Errorf("append whose sync failed: %s", got)
	}
	fail.Store(false)
	for p := range int32(2) {
		if got := w.append("orders", p, "c"); got != "-1 KAFKA_STORAGE_ERROR" {
			t.Errorf("append to partition %d afterwards: %s", p, got)
		}
	}
	w.crash()
	w.directory.Close()
}

func TestFullDiskRefusesUntilThereIsSpace(t *testing.T) {
	var quota vfs.Quota
	quota.Set(1 << 30)
	w := newWorld(t, vfs.NewFaulty(vfs.NewMem(), quota.Before), nil, nil)
	w.create("orders", 1)
	w.append("orders", 0, "a")
	quota.Set(0)
	if got := w.append("orders", 0, "b"); got != "-1 KAFKA_STORAGE_ERROR" {
		t.Errorf("append on a full disk: %s", got)
	}
	quota.Set(1 << 30)
	if got := w.append("orders", 0, "c"); got != "1 ok" {
		t.Errorf("append when there is space again: %s", got)
	}
	if got := w.replica("orders", 0).values(t); got != "a c" {
		t.Errorf("records: %q", got)
	}
	w.close()
}

// A log that cannot be made, since the disk is full, is made when there is room: no restart
// is needed.
func TestLogIsOpenedWhenThereIsSpace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var quota vfs.Quota
		quota.Set(1 << 30)
		w := newWorld(t, vfs.NewFaulty(vfs.NewMem(), quota.Before), nil, nil)
		quota.Set(0)
		w.create("orders", 2)
		w.create("gone", 1)
		if got := w.append("orders", 0, "a"); got != "-1 KAFKA_STORAGE_ERROR" {
			t.Errorf("append without a log: %s", got)
		}
		time.Sleep(10 * time.Second)
		if err := w.replica("orders", 1).Failure(); !errors.Is(err, vfs.ErrNoSpace) {
			t.Errorf("the replica fails with %v", err)
		}
		w.apply(&metadata.TopicRemovedChange{ID: topicID("gone")})
		quota.Set(1 << 30)
		time.Sleep(reopenMost)
		for p := range int32(2) {
			if got := w.append("orders", p, "b"); got != "0 ok" {
				t.Errorf("append when there is space: %s", got)
			}
			if r := w.replica("orders", p); r.Role() != Leader || r.Failure() != nil {
				t.Errorf("the replica is %v, %v", r.Role(), r.Failure())
			}
		}
		if n := len(w.manager.unopened); n != 0 {
			t.Errorf("%d logs are still to be opened", n)
		}
		w.close()
	})
}

// TestSlowSync: appends wait for the sync, time out, and are there in the end; a
// reader sees them only when they are durable. One sync serves many appends.
func TestSlowSync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{}, 100)
		var slow atomic.Bool
		var syncs atomic.Int64
		fs := vfs.NewFaulty(vfs.NewMem(), func(o vfs.Operation) error {
			if slow.Load() && o.Kind == vfs.KindSync {
				syncs.Add(1)
				<-gate
			}
			return nil
		})
		w := newWorld(t, fs, nil, nil)
		w.create("orders", 1)
		slow.Store(true)
		r, o := w.replica("orders", 0), newOutcomes()
		for i := range 50 {
			r.Append(batch(fmt.Sprint(i)), -1, time.Now().Add(time.Duration(i+1)*time.Second), i, o)
		}
		r.Append(batch("50"), 1, time.Time{}, 50, o)
		if got := o.get(50); got != "50 ok" {
			t.Errorf("acks=1 must not wait for the sync: %q", got)
		}
		if got := r.values(t); got != "" {
			t.Errorf("readable before it is durable: %q", got)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		for i := range 50 {
			if got, late := o.get(i), i < 10; late != (got == "-1 REQUEST_TIMED_OUT") {
				t.Errorf("append %d after 10 s: %q", i, got)
			}
		}
		gate <- struct{}{}
		gate <- struct{}{}
		synctest.Wait()
		for i := 10; i < 50; i++ {
			if got := o.get(i); got != fmt.Sprintf("%d ok", i) {
				t.Errorf("append %d: %q", i, got)
			}
		}
		if got := r.values(t); got != numbers(51) {
			t.Errorf("records: %q", got)
		}
		if n := syncs.Load(); n > 2 {
			t.Errorf("%d syncs for 51 appends", n)
		}
		if n := w.manager.deadlines.Len(); n > 1 {
			t.Errorf("%d deadlines for one replica", n)
		}
		slow.Store(false)
		w.close()
	})
}

func TestLaxFlushModes(t *testing.T) {
	for _, mode := range []FlushMode{FlushOS, FlushInterval} {
		synctest.Test(t, func(t *testing.T) {
			var syncs atomic.Int64
			counting := false
			fs := vfs.NewFaulty(vfs.NewMem(), func(o vfs.Operation) error {
				if counting && (o.Kind == vfs.KindSync || o.Kind == vfs.KindSyncAll) {
					syncs.Add(1)
				}
				return nil
			})
			w := newWorld(t, fs, nil, func(c *Config) { c.Flush, c.FlushInterval = mode, time.Second })
			w.create("orders", 1)
			synctest.Wait()
			counting = true
			for i := range 10 {
				if got := w.append("orders", 0, fmt.Sprint(i)); got != fmt.Sprintf("%d ok", i) {
					t.Errorf("append: %s", got)
				}
			}
			if n := syncs.Load(); n != 0 {
				t.Errorf("mode %d: %d syncs before the answers", mode, n)
			}
			time.Sleep(1500 * time.Millisecond)
			synctest.Wait()
			if n := syncs.Load(); (n > 0) != (mode == FlushInterval) {
				t.Errorf("mode %d: %d syncs after the interval", mode, n)
			}
			counting = false
			w.close()
		})
	}
}

func TestRetentionRunsByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, vfs.NewMem(), nil, func(c *Config) { c.RetentionInterval = time.Minute })
		w.create("orders", 1)
		w.apply(set("orders", "retention.ms", "600000"))
		w.append("orders", 0, "old")
		r := w.replica("orders", 0)
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if got := r.values(t); got != "old" {
			t.Errorf("before its time: %q", got)
		}
		time.Sleep(7 * time.Minute)
		synctest.Wait()
		if start := r.Log().StartOffset(); start != 1 {
			t.Errorf("log start %d after the retention time, want 1", start)
		}
		if got := r.Read(ReadRequest{Offset: 0, MaxBytes: 1, CurrentLeaderEpoch: -1, LastFetchedEpoch: -1}).Err; got != kerr.OffsetOutOfRange {
			t.Errorf("read below the start: %v", got)
		}
		w.close()
	})
}

func TestListAndDelete(t *testing.T) {
	w := newWorld(t, vfs.NewMem(), nil, nil)
	w.create("orders", 1)
	r := w.replica("orders", 0)
	before := time.Now().UnixMilli()
	for i := range 4 {
		w.append("orders", 0, fmt.Sprint(i))
	}
	list := func(timestamp int64) int64 {
		t.Helper()
		l, err := r.ListOffset(timestamp, false, -1)
		if err != nil {
			t.Fatalf("list %d: %v", timestamp, err)
		}
		return l.Offset
	}
	if low, err := r.DeleteBefore(2); low != 2 || err != nil {
		t.Errorf("delete before 2: %d, %v", low, err)
	}
	if low, err := r.DeleteBefore(1); low != 2 || err != nil {
		t.Errorf("delete before 1 afterwards: %d, %v", low, err)
	}
	for _, offset := range []int64{5, -2} {
		if _, err := r.DeleteBefore(offset); err != kerr.OffsetOutOfRange {
			t.Errorf("delete before %d: %v", offset, err)
		}
	}
	for timestamp, want := range map[int64]int64{-1: 4, -2: 2, -4: 2, -5: -1, before - 1: 2, before + 3600_000: -1} {
		if got := list(timestamp); got != want {
			t.Errorf("offset for %d: %d, want %d", timestamp, got, want)
		}
	}
	if _, err := r.ListOffset(-1, false, 3); err != kerr.UnknownLeaderEpoch {
		t.Errorf("list in a future epoch: %v", err)
	}
	w.close()
}

func TestCloseAnswersWhatIsParked(t *testing.T) {
	var blocked atomic.Bool
	gate := make(chan struct{})
	fs := vfs.NewFaulty(vfs.NewMem(), func(o vfs.Operation) error {
		if blocked.Load() && o.Kind == vfs.KindSync {
			<-gate
		}
		return nil
	})
	w := newWorld(t, fs, nil, nil)
	w.create("orders", 1)
	blocked.Store(true)
	o := newOutcomes()
	w.replica("orders", 0).Append(batch("a"), -1, time.Now().Add(time.Hour), 0, o)
	go func() {
		<-o.wait
		close(gate)
	}()
	w.close()
	if got := o.get(0); got != "-1 NOT_LEADER_FOR_PARTITION" {
		t.Errorf("parked append at close: %s", got)
	}
}
