package group

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/coordinator"
	"github.com/leatlog/leat/broker/internal/metadata"
	"github.com/leatlog/leat/broker/internal/record"
	"github.com/leatlog/leat/broker/internal/storage"
)

// memoryLog is the log of the one partition of a script.
type memoryLog struct {
	batches []record.Batch
	end     int64
	held    []func(error)
	hold    bool
	failing error
	// unreadable keeps all back: it is not committed.
	unreadable bool
	// producers of transactions, by id
	producers map[int64]logProducer
}

func (l *memoryLog) Append(batch []byte, done func(error)) {
	if l.failing != nil {
		done(l.failing)
		return
	}
	b := record.Batch(slices.Clone(batch))
	b.SetBaseOffset(l.end)
	l.end = b.NextOffset()
	l.batches = append(l.batches, b)
	if l.hold {
		l.held = append(l.held, done)
		return
	}
	done(nil)
}

func (l *memoryLog) Read(dst []byte, offset int64, _ int) ([]byte, error) {
	for _, b := range l.batches {
		if b.BaseOffset() >= offset && !l.unreadable {
			dst = append(dst, b...)
		}
	}
	return dst, nil
}

func (l *memoryLog) Offsets() (start, end int64) { return 0, l.end }

// reporter is a *testing.T or a *rapid.T.
type reporter interface {
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// requests is a Service, or a Kafka.
type requests interface {
	JoinGroup(r *kmsg.JoinGroupRequest, clientID, clientHost string, respond func(*kmsg.JoinGroupResponse))
	SyncGroup(r *kmsg.SyncGroupRequest, respond func(*kmsg.SyncGroupResponse))
	Heartbeat(r *kmsg.HeartbeatRequest, respond func(*kmsg.HeartbeatResponse))
	LeaveGroup(r *kmsg.LeaveGroupRequest, respond func(*kmsg.LeaveGroupResponse))
	OffsetCommit(r *kmsg.OffsetCommitRequest, respond func(*kmsg.OffsetCommitResponse))
	TxnOffsetCommit(r *kmsg.TxnOffsetCommitRequest, enlist func(partition int32, add bool, done func(*kerr.Error)), respond func(*kmsg.TxnOffsetCommitResponse))
	OffsetFetch(r *kmsg.OffsetFetchRequest, respond func(*kmsg.OffsetFetchResponse))
	OffsetDelete(r *kmsg.OffsetDeleteRequest, respond func(*kmsg.OffsetDeleteResponse))
	ConsumerGroupHeartbeat(r *kmsg.ConsumerGroupHeartbeatRequest, clientID, clientHost string, respond func(*kmsg.ConsumerGroupHeartbeatResponse))
	ConsumerGroupDescribe(r *kmsg.ConsumerGroupDescribeRequest, respond func(*kmsg.ConsumerGroupDescribeResponse))
	DescribeGroups(r *kmsg.DescribeGroupsRequest, respond func(*kmsg.DescribeGroupsResponse))
	ListGroups(r *kmsg.ListGroupsRequest, respond func(*kmsg.ListGroupsResponse))
	DeleteGroups(r *kmsg.DeleteGroupsRequest, respond func(*kmsg.DeleteGroupsResponse))
}

// script runs requests against a Service over one partition, with a clock that
// it moves, and notes the answers.
type script struct {
	t       reporter
	service requests
	runtime *coordinator.Runtime
	shard   *Shard // the one in use
	log     *memoryLog
	cfg     Config
	now     time.Time
	epoch   int32
	led     bool
	queue   []func()
	timers  []*scriptTimer
	out     strings.Builder
	ids     int
	calls   int
	// deleted are topics that do not exist.
	deleted map[string]bool
	// answered counts answers by request: each must get one.
	answered map[int]int
	// transactions and producers are those of commits in transactions.
	transactions transactions
	producers    map[string]producer
	// topics is the metadata, set by setTopic; beaten is called with answered heartbeats.
	topics   *scriptTopics
	setTopic func(name string, partitions int32)
	beaten   func(*kmsg.ConsumerGroupHeartbeatRequest, *kmsg.ConsumerGroupHeartbeatResponse, map[metadata.UUID][]int32)
	// joined is called with the id that each join was answered with.
	joined func(name, id string)
}

type scriptTimer struct {
	at time.Time
	f  func()
}

func newScript(t reporter) *script {
	s := &script{t: t, log: &memoryLog{producers: map[int64]logProducer{}}, producers: map[string]producer{}, now: time.Unix(1_700_000_000, 0), cfg: DefaultConfig(), answered: map[int]int{}, deleted: map[string]bool{}}
	s.topics = newScriptTopics()
	s.setTopic = s.topics.set
	s.cfg.Topics = func() Topics { return s.topics }
	s.cfg.TopicExists = func(topic string) bool { return !s.deleted[topic] }
	s.cfg.NewID = func() string { s.ids++; return strconv.Itoa(s.ids) }
	s.runtime = coordinator.NewRuntime(coordinator.Config{
		Now: func() time.Time { return s.now },
		Go:  func(f func()) { s.queue = append(s.queue, f) },
		AfterFunc: func(d time.Duration, f func()) func() {
			timer := &scriptTimer{s.now.Add(d), f}
			s.timers = append(s.timers, timer)
			return func() { s.timers = slices.DeleteFunc(s.timers, func(x *scriptTimer) bool { return x == timer }) }
		},
		NewShard: func(int32) coordinator.Shard { s.shard = NewShard(s.cfg); return s.shard },
		Logger:   zerolog.Nop(),
	})
	s.transactions = &logTransactions{s, map[string]producer{}}
	s.service = NewService(s.runtime, s.cfg, func() int32 { return 1 })
	return s
}

// lead makes the partition led anew: its groups come from the log.
func (s *script) lead() {
	s.epoch++
	s.led = true
	s.runtime.Lead(0, s.epoch, s.log)
	s.drain()
}

func (s *script) drain() {
	for len(s.queue) > 0 {
		f := s.queue[0]
		s.queue = s.queue[1:]
		f()
	}
}

// advance moves the clock, ringing each timer at its time.
func (s *script) advance(d time.Duration) {
	end := s.now.Add(d)
	for rung := 0; ; rung++ {
		slices.SortStableFunc(s.timers, func(a, b *scriptTimer) int { return a.at.Compare(b.at) })
		if len(s.timers) == 0 || s.timers[0].at.After(end) {
			break
		}
		if rung > 100_000 {
			s.t.Fatalf("the clock rings without end")
		}
		timer := s.timers[0]
		s.timers = s.timers[1:]
		if timer.at.After(s.now) {
			s.now = timer.at
		}
		timer.f()
		s.drain()
	}
	s.now = end
}

// advanceAlive moves the clock while members beat every 3 s.
func (s *script) advanceAlive(by time.Duration, a arguments) {
	beat := func(id string) {
		r := kmsg.NewPtrHeartbeatRequest()
		r.Version, r.Group, r.MemberID, r.Generation = 4, a.get("group", "g"), id, int32(a.number("generation", 1))
		s.service.Heartbeat(r, func(out *kmsg.HeartbeatResponse) {
			if out.ErrorCode != 0 {
				fmt.Fprintf(&s.out, "%s: %s after %s\n", id, errorName(out.ErrorCode), by)
			}
		})
	}
	for alive := a.list("alive"); len(alive) > 0 && by > 3*time.Second; by -= 3 * time.Second {
		s.advance(3 * time.Second)
		for _, id := range alive {
			beat(id)
		}
	}
	s.advance(by)
}

// note returns where the answer of one more request goes.
func (s *script) note(name string) func(format string, args ...any) {
	s.calls++
	call := s.calls
	return func(format string, args ...any) {
		if s.answered[call]++; s.answered[call] > 1 {
			s.t.Errorf("%s: answered %d times", name, s.answered[call])
		}
		fmt.Fprintf(&s.out, "%s: %s\n", name, fmt.Sprintf(format, args...))
	}
}

func errorName(code int16) string {
	if code == 0 {
		return "ok"
	}
	var err *kerr.Error
	if errors.As(kerr.ErrorForCode(code), &err) {
		return err.Message
	}
	return strconv.Itoa(int(code))
}

func text(s *string) string {
	if s == nil {
		return "-"
	}
	return *s
}

// records notes what the log holds.
func (s *script) records() {
	for _, b := range s.log.batches {
		if b.IsControl() {
			commit, _, _ := storage.ParseMarker(b)
			fmt.Fprintf(&s.out, "marker of %d epoch %d: commit %v\n", b.ProducerID(), b.ProducerEpoch(), commit)
			continue
		}
		if b.IsTransactional() {
			fmt.Fprintf(&s.out, "transaction of %d epoch %d sequence %d: ", b.ProducerID(), b.ProducerEpoch(), b.BaseSequence())
		}
		err := b.Iterate(func(r *record.Record) error {
			var offset kmsg.OffsetCommitKey
			var group kmsg.GroupMetadataKey
			switch {
			case r.Key[1] <= 1 && offset.ReadFrom(r.Key) == nil:
				if r.Value == nil {
					fmt.Fprintf(&s.out, "offset %s %s-%d: tombstone\n", offset.Group, offset.Topic, offset.Partition)
					break
				}
				v := kmsg.NewOffsetCommitValue()
				err := v.ReadFrom(r.Value)
				fmt.Fprintf(&s.out, "offset %s %s-%d: v%d %d epoch %d\n", offset.Group, offset.Topic, offset.Partition, v.Version, v.Offset, v.LeaderEpoch)
				return err
			case group.ReadFrom(r.Key) == nil:
				if r.Value == nil {
					fmt.Fprintf(&s.out, "group %s: tombstone\n", group.Group)
					break
				}
				v := kmsg.NewGroupMetadataValue()
				err := v.ReadFrom(r.Value)
				fmt.Fprintf(&s.out, "group %s: v%d %s generation %d, protocol %s, leader %s\n", group.Group, v.Version, v.ProtocolType, v.Generation, text(v.Protocol), text(v.Leader))
				for _, m := range v.Members {
					fmt.Fprintf(&s.out, "  %s/%s session %d ms, rebalance %d ms: %q\n", m.MemberID, text(m.InstanceID), m.SessionTimeoutMillis, m.RebalanceTimeoutMillis, m.Assignment)
				}
				return err
			}
			return nil
		})
		if err != nil {
			s.t.Fatalf("%v", err)
		}
	}
}

// configure is the command that begins a script, if its settings are not Kafka's.
func (s *script) configure(a arguments) {
	s.cfg.InitialRebalanceDelay = a.duration("initial-delay", s.cfg.InitialRebalanceDelay.String())
	s.cfg.MaxSize = a.number("max-size", s.cfg.MaxSize)
	s.cfg.OffsetsRetention = a.duration("retention", s.cfg.OffsetsRetention.String())
	s.cfg.OffsetsRetentionCheck = a.duration("retention-check", s.cfg.OffsetsRetentionCheck.String())
}

// run runs one command: VERB [name] key=value... The name stands before what
// answers the request, whenever it comes.
func (s *script) run(d *datadriven.TestData) string {
	a := arguments{d}
	if d.Cmd == "config" {
		s.configure(a)
		return ""
	}
	if s.epoch == 0 {
		s.lead()
	}
	switch {
	case s.request(d):
	case d.Cmd == "advance":
		by, err := time.ParseDuration(d.CmdArgs[0].Key)
		if err != nil {
			s.t.Fatalf("%v", err)
		}
		s.advanceAlive(by, a)
	case d.Cmd == "delete-topic": // led or not
		s.deleted[d.CmdArgs[0].Key] = true
		s.service.(*Service).DeleteTopics([]string{d.CmdArgs[0].Key})
	case d.Cmd == "create-topic":
		delete(s.deleted, d.CmdArgs[0].Key)
	case d.Cmd == "hold":
		s.log.hold = true
	case d.Cmd == "commit-log":
		held := s.log.held
		s.log.hold, s.log.held = false, nil
		for _, done := range held {
			done(nil)
		}
	case d.Cmd == "load-slowly": // leads, but the log cannot be read to its end yet
		s.log.unreadable = true
		s.lead()
	case d.Cmd == "loaded":
		s.log.unreadable = false
		s.advance(time.Second)
	case d.Cmd == "fail":
		s.log.failing = kerr.KafkaStorageError
	case d.Cmd == "recover":
		s.log.failing = nil
	case d.Cmd == "restart":
		s.lead()
	case d.Cmd == "resign":
		s.runtime.Resign(0)
		s.led = false // the shard it had may be ahead of the log
	case d.Cmd == "records":
		s.records()
	default:
		s.t.Fatalf("unknown command %s", d.Cmd)
	}
	s.drain()
	out := s.out.String()
	s.out.Reset()
	s.checkReplay()
	return out
}

// request sends the request of a command, if it is one.
func (s *script) request(d *datadriven.TestData) bool {
	request := map[string]func(string, arguments){
		"join": s.join, "sync": s.sync, "heartbeat": s.heartbeat, "leave": s.leave, "commit": s.commit, "fetch": s.fetch,
		"describe": s.describe, "list": s.list, "delete": s.delete, "delete-offsets": s.deleteOffsets,
		"beat": s.beat, "describe-consumers": s.describeConsumers, "topic": s.topic,
		"begin": s.begin, "txn-commit": s.transactionalCommit, "end": s.endTransaction,
	}[d.Cmd]
	if request == nil {
		return false
	}
	name := d.Cmd
	if len(d.CmdArgs) > 0 && len(d.CmdArgs[0].Vals) == 0 {
		name = d.CmdArgs[0].Key
	}
	request(name, arguments{d})
	return true
}

// durable describes what of a shard must survive its loss: offsets, and the
// groups between two rebalances.
func durable(s *Shard) string {
	var b strings.Builder
	for _, id := range s.sortedIDs() {
		g := s.groups[id]
		for _, o := range s.fetch(id, nil, true) {
			fmt.Fprintf(&b, "%s %v\n", id, o)
		}
		for _, p := range g.committed() {
			for _, producer := range slices.Sorted(maps.Keys(s.transactions)) {
				if o, ok := s.transactions[producer].offsets[groupPartition{id, p}]; ok {
					fmt.Fprintf(&b, "%s %v pending of %d: %v, one of %d\n", id, p, producer, o, g.unstable[p])
				}
			}
		}
		if c := g.consumer; c != nil {
			fmt.Fprintf(&b, "%s consumer group epoch %d %d %d %v %v\n", id, c.epoch, c.assignmentEpoch, c.metadataHash, c.static, c.regexes)
			for _, id := range c.sortedIDs() {
				m := *c.members[id]
				fmt.Fprintf(&b, "  %s/%s/%s %s %s %v %q %v %s epoch %d %d %d %v %v target %v\n", id, text(m.instanceID), text(m.rackID), m.clientID, m.clientHost, m.topics, m.regex,
					m.rebalanceTimeout, text(m.assignor), m.epoch, m.previousEpoch, m.state, m.assigned, m.revoking, c.targets[id])
				if m.classic != nil {
					fmt.Fprintf(&b, "    classic %v %q\n", m.classic.sessionTimeout, m.classic.protocols)
				}
			}
			for _, p := range slices.SortedFunc(maps.Keys(c.owners), func(a, b partitionID) int {
				return cmp.Or(compareIDs(a.topic, b.topic), cmp.Compare(a.partition, b.partition))
			}) {
				fmt.Fprintf(&b, "  %v of %s\n", p, c.owners[p])
			}
		}
		if g.generation == 0 || g.state != Empty && g.state != Stable {
			continue
		}
		fmt.Fprintf(&b, "%s %s %s generation %d protocol %q leader %q\n", id, g.state, g.protocolType, g.generation, g.protocol, g.leader)
		for _, m := range g.sorted() {
			fmt.Fprintf(&b, "  %s %s %s %s %v %v %x %x\n", m.id, text(m.instanceID), m.clientID, m.clientHost, m.sessionTimeout, m.rebalanceTimeout, m.metadata(g.protocol), m.assignment)
			if (m.instanceID != nil) != (m.instanceID != nil && g.static[*m.instanceID] == m.id) {
				fmt.Fprintf(&b, "  lost its instance id\n")
			}
		}
	}
	return b.String()
}

// replayBatches replays the records of batches as a load does.
func replayBatches(t reporter, shard *Shard, batches []byte) {
	for len(batches) > 0 {
		b, rest, err := record.Parse(batches)
		if err != nil {
			t.Fatalf("%v", err)
		}
		batches = rest
		if b.IsControl() {
			commit, _, err := storage.ParseMarker(b)
			if err != nil {
				t.Fatalf("%v", err)
			}
			shard.ReplayMarker(b.ProducerID(), b.ProducerEpoch(), commit)
			continue
		}
		err = b.Iterate(func(r *record.Record) error {
			if b.IsTransactional() {
				return shard.ReplayInTransaction(coordinator.Record{Key: r.Key, Value: r.Value}, b.ProducerID(), b.ProducerEpoch())
			}
			return shard.Replay(coordinator.Record{Key: r.Key, Value: r.Value}, r.Timestamp)
		})
		if err != nil {
			t.Fatalf("%v", err)
		}
	}
}

// checkReplay loads the log into another shard and compares. A rebalance that is
// under way is not durable: of its groups only the offsets are compared.
func (s *script) checkReplay() {
	if len(s.log.held) > 0 || s.log.unreadable || s.log.failing != nil || !s.led {
		return
	}
	replayed := NewShard(s.cfg)
	buffer, _ := s.log.Read(nil, 0, 0)
	replayBatches(s.t, replayed, buffer)
	for id, g := range s.shard.groups {
		if other := replayed.groups[id]; other != nil && g.state != Empty && g.state != Stable {
			other.state = g.state
		}
	}
	if live, loaded := durable(s.shard), durable(replayed); live != loaded {
		s.t.Fatalf("the shard is\n%sand loaded from its log\n%s", live, loaded)
	}
}

// TestScripts runs the scripts in testdata/scripts. After each command, loading the log
// into another shard must give the same durable state.
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata/scripts", func(t *testing.T, path string) {
		s := newScript(t)
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			s.t = t
			return s.run(d)
		})
		s.runtime.Close()
		s.drain()
		for call := 1; call <= s.calls; call++ {
			if s.answered[call] == 0 {
				t.Errorf("request %d was never answered", call)
			}
		}
		if len(s.timers) != 0 {
			t.Errorf("%d timers left", len(s.timers))
		}
	})
}
