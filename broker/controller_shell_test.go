package broker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/controller"
	"github.com/leatlog/leat/broker/internal/metadata"
	"github.com/leatlog/leat/broker/internal/quorum"
)

// fakeQuorum commits when it is told.
type fakeQuorum struct {
	mu      sync.Mutex
	log     *metadataLog
	offset  int64
	entries []func(error)
	sizes   []int // changes of each entry
}

func (q *fakeQuorum) ProposeAsync(_ int32, value []byte, done func(int64, error)) {
	changes, err := metadata.Decode(value)
	if err != nil {
		panic(err)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.sizes = append(q.sizes, len(changes))
	q.entries = append(q.entries, func(err error) {
		if err == nil {
			q.log.Apply(quorum.Entry{Offset: q.offset, Epoch: 1, Value: value})
			q.offset++
		}
		done(q.offset-1, err)
	})
}

// settle ends the oldest entry in flight.
func (q *fakeQuorum) settle(err error) {
	q.mu.Lock()
	if len(q.entries) != 1 {
		panic("one entry must be in flight")
	}
	f := q.entries[0]
	q.entries = q.entries[1:]
	q.mu.Unlock()
	f(err)
}

// withShell runs test with a shell whose controller leads, and a registered,
// unfenced broker 1.
func withShell(t *testing.T, test func(t *testing.T, s *controllerShell, q *fakeQuorum)) {
	synctest.Test(t, func(t *testing.T) {
		logger := zerolog.Nop()
		log := newMetadataLog(logger)
		log.onFatal = func(err error) { t.Error(err) }
		q := &fakeQuorum{log: log}
		core := controller.New(controller.Config{NodeID: 1, Partitions: 1, Replication: 1, Session: 9 * time.Second})
		s := newControllerShell(core, log, Environment{Now: time.Now, Random: bytes.NewReader(make([]byte, 1<<16)), Logger: &logger})
		s.quorum = q
		stop, done := make(chan struct{}), make(chan struct{})
		go func() { s.run(stop); close(done) }()
		listening := make(chan struct{})
		go func() { log.listen(stop, func(*metadata.Image, *metadata.Delta) {}); close(listening) }()
		s.leaderChanged(true, 1, log.Image())
		synctest.Wait()
		q.settle(nil)
		register := s.start(func(id uint64) controller.Event { return controller.RegisterBroker{ID: id, Broker: 1} })
		synctest.Wait()
		q.settle(nil)
		epoch := (<-register).Response.(controller.Registration).BrokerEpoch
		beat := s.start(func(id uint64) controller.Event {
			return controller.BrokerHeartbeat{ID: id, Broker: 1, BrokerEpoch: epoch, Offset: log.Image().Offset()}
		})
		synctest.Wait()
		q.settle(nil)
		if a := <-beat; a.Err != nil || a.Response.(controller.HeartbeatAnswer).Fenced {
			t.Fatalf("heartbeat: %+v", a)
		}
		test(t, s, q)
		close(stop)
		<-done
		<-listening
	})
}

func (s *controllerShell) start(request func(uint64) controller.Event) <-chan controller.Answer {
	answer := make(chan controller.Answer, 1)
	s.submit(request, func(a controller.Answer) { answer <- a })
	return answer
}

func create(name string, id byte) func(uint64) controller.Event {
	topic := kmsg.NewCreateTopicsRequestTopic()
	topic.Topic, topic.NumPartitions, topic.ReplicationFactor = name, 1, 1
	return func(request uint64) controller.Event {
		return controller.CreateTopics{ID: request, Topics: []kmsg.CreateTopicsRequestTopic{topic}, TopicIDs: []metadata.UUID{{id}}}
	}
}

func TestShellCommitsABurstAsOneEntry(t *testing.T) {
	withShell(t, func(t *testing.T, s *controllerShell, q *fakeQuorum) {
		first := s.start(create("first", 1))
		synctest.Wait()
		var rest []<-chan controller.Answer
		for n := range 5 {
			rest = append(rest, s.start(create(string(rune('a'+n)), byte(n+2))))
		}
		synctest.Wait()
		q.settle(nil)
		<-first
		synctest.Wait()
		if last := q.sizes[len(q.sizes)-1]; last != 10 {
			t.Errorf("the second entry has %d changes, want those of five topics", last)
		}
		for _, answer := range rest {
			select {
			case <-answer:
				t.Error("answered before the commit")
			default:
			}
		}
		q.settle(nil)
		for _, answer := range rest {
			if a := <-answer; a.Err != nil || a.Response.([]kmsg.CreateTopicsResponseTopic)[0].ErrorCode != 0 {
				t.Errorf("%+v", a)
			}
		}
		if n := s.log.Image().TopicCount(); n != 6 {
			t.Errorf("%d topics", n)
		}
	})
}

func TestShellFailsWhatWasNotCommitted(t *testing.T) {
	withShell(t, func(t *testing.T, s *controllerShell, q *fakeQuorum) {
		first := s.start(create("first", 1))
		synctest.Wait()
		second := s.start(create("second", 2))
		synctest.Wait()
		q.settle(errors.New("disk full"))
		for _, answer := range []<-chan controller.Answer{first, second} {
			if a := <-answer; a.Err != kerr.NotController {
				t.Errorf("%+v", a)
			}
		}
		synctest.Wait()
		again := s.start(create("first", 3))
		synctest.Wait()
		q.settle(nil)
		if a := <-again; a.Err != nil || a.Response.([]kmsg.CreateTopicsResponseTopic)[0].ErrorCode != 0 {
			t.Errorf("%+v", a)
		}
	})
}

func TestShellForgetsAnEntryOfAnEarlierLeadership(t *testing.T) {
	withShell(t, func(t *testing.T, s *controllerShell, q *fakeQuorum) {
		lost := s.start(create("lost", 1))
		synctest.Wait()
		s.leaderChanged(false, 2, s.log.Image())
		if a := <-lost; a.Err != kerr.NotController {
			t.Errorf("%+v", a)
		}
		s.leaderChanged(true, 3, s.log.Image())
		synctest.Wait()
		// The old entry and the new leader's first one are in flight; the old one fails late.
		q.mu.Lock()
		old := q.entries[0]
		q.entries = q.entries[1:]
		q.mu.Unlock()
		old(quorum.ErrLeadershipLost)
		synctest.Wait()
		q.settle(nil)
		synctest.Wait()
		if id, epoch := s.log.Image().Controller(); id != 1 || epoch != 3 || !s.isActive.Load() {
			t.Errorf("controller %d in epoch %d, active %v", id, epoch, s.isActive.Load())
		}
	})
}

func TestShellRefusesAfterItsEnd(t *testing.T) {
	var shell *controllerShell
	withShell(t, func(_ *testing.T, s *controllerShell, _ *fakeQuorum) { shell = s })
	if _, err := shell.call(context.Background(), create("late", 9)); err != kerr.NotController {
		t.Errorf("call after the end: %v", err)
	}
}

func TestMetadataLogStopsAtWhatItCannotRead(t *testing.T) {
	log := newMetadataLog(zerolog.Nop())
	var fatal error
	log.onFatal = func(err error) { fatal = err }
	log.Apply(quorum.Entry{Offset: 0, Value: []byte(`{"v":9,"changes":[]}`)})
	if !errors.Is(fatal, metadata.ErrVersion) {
		t.Errorf("fatal = %v", fatal)
	}
	log.Apply(quorum.Entry{Offset: 1, Value: metadata.Encode([]metadata.Change{&metadata.ClusterChange{ID: "x"}})})
	if log.Image().ClusterID() != "" {
		t.Error("an entry after the one that could not be read was applied")
	}
}

func TestMetadataLogRestoresAndListens(t *testing.T) {
	source := newMetadataLog(zerolog.Nop())
	topic := metadata.UUID{1}
	source.Apply(quorum.Entry{Offset: 4, Epoch: 2, Value: metadata.Encode([]metadata.Change{
		&metadata.TopicChange{Name: "t", ID: topic},
		&metadata.PartitionChange{Topic: topic, Replicas: []int32{1}, ISR: []int32{1}, Leader: 1}})})
	log := newMetadataLog(zerolog.Nop())
	if err := log.Restore(5, 2, source.Snapshot()); err != nil {
		t.Fatal(err)
	}
	log.Apply(quorum.Entry{Offset: 5, Epoch: 2, Value: metadata.Encode([]metadata.Change{&metadata.TopicRemovedChange{ID: topic}})})
	stop, seen := make(chan struct{}), make(chan *metadata.Delta)
	done := make(chan struct{})
	go func() {
		log.listen(stop, func(_ *metadata.Image, d *metadata.Delta) { seen <- d })
		close(done)
	}()
	if d := <-seen; len(d.TopicsCreated) != 1 || d.Offset != 4 {
		t.Errorf("%+v", d)
	}
	told := make(chan struct{})
	log.whenPublished(5, func() { close(told) })
	if log.Published().Offset() > 4 {
		t.Error("published before the listener acted")
	}
	if d := <-seen; len(d.TopicsRemoved) != 1 || d.Offset != 5 {
		t.Errorf("%+v", d)
	}
	<-told
	log.whenPublished(5, func() {})
	close(stop)
	<-done
	if log.Published().Offset() != 5 || len(log.waiters) != 0 {
		t.Errorf("published %d, %d waiters", log.Published().Offset(), len(log.waiters))
	}
	if err := log.Restore(9, 3, []byte("junk")); err == nil {
		t.Error("a damaged snapshot is restored")
	}
}

// Who waits for an image gets the first that is as wanted, or the latest after a time.
func TestMetadataLogCallsWhoWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newMetadataLog(zerolog.Nop())
		stop := make(chan struct{})
		defer close(stop)
		go log.listen(stop, func(*metadata.Image, *metadata.Delta) {})
		apply := func(offset int64, name string) {
			log.Apply(quorum.Entry{Offset: offset, Value: metadata.Encode([]metadata.Change{&metadata.TopicChange{Name: name, ID: metadata.UUID{byte(offset + 1)}}})})
		}
		knows := func(name string) func(*metadata.Image) bool {
			return func(image *metadata.Image) bool { _, ok := image.Topic(name); return ok }
		}
		calls := make(chan string, 9)
		wait := func(name string) {
			log.whenWanted(knows(name), time.Second, func(image *metadata.Image) { calls <- fmt.Sprint(name, " at ", image.Offset()) })
		}
		wait("second")
		wait("never")
		apply(0, "first")
		synctest.Wait()
		if len(calls) != 0 {
			t.Errorf("called too early: %s", <-calls)
		}
		wait("first")
		apply(1, "second")
		apply(2, "third")
		for _, want := range []string{"first at 0", "second at 1", "never at 2"} {
			if got := <-calls; got != want {
				t.Errorf("called: %s, want %s", got, want)
			}
		}
		log.mu.Lock()
		defer log.mu.Unlock()
		if len(log.watchers) != 0 {
			t.Errorf("%d still wait", len(log.watchers))
		}
	})
}
