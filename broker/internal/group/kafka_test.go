package group

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestAsKafka runs scripts whose answers are those of Apache Kafka 4.1: with
// LEAT_TEST_ORACLE=HOST:PORT it is run against the Kafka there (which needs
// group.initial.rebalance.delay.ms=0), where it takes a minute, and with
// -rewrite written anew from its answers. Ids are told by who got them: "a.2" is
// the second that requests named a were answered with. Lists and lines are sorted.
func TestAsKafka(t *testing.T) {
	for _, path := range []string{"testdata/as-kafka", "testdata/as-kafka-transactions", "testdata/as-kafka-consumer", "testdata/as-kafka-migration"} {
		t.Run(path, func(t *testing.T) { runAsKafka(t, path) })
	}
}

func runAsKafka(t *testing.T, path string) {
	s := newScript(t)
	s.cfg.InitialRebalanceDelay = 0
	s.cfg.NewID = func() string { s.ids++; return fmt.Sprintf("%036d", s.ids) }
	labels := map[string]string{} // id to label
	ids := map[string]string{}    // label to id
	given := map[string]int{}
	s.joined = func(name, id string) {
		if labels[id] == "" {
			given[name]++
			label := fmt.Sprintf("%s.%d", name, given[name])
			labels[id], ids[label] = label, id
		}
	}
	run := s.run
	if address := os.Getenv("LEAT_TEST_ORACLE"); address != "" {
		run = kafkaAt(t, s, address).run
	}
	label := regexp.MustCompile(`\b[a-z0-9]+\.[0-9]+\b`)
	unknown := regexp.MustCompile(`-[0-9a-f-]{36}\b`) // an id that was not told yet
	datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
		for i := range d.CmdArgs {
			for j, v := range d.CmdArgs[i].Vals {
				d.CmdArgs[i].Vals[j] = label.ReplaceAllStringFunc(v, func(l string) string {
					if id, ok := ids[l]; ok {
						return id
					}
					return l
				})
			}
		}
		lines := strings.SplitAfter(run(d), "\n")
		for i := range lines {
			for id, l := range labels {
				lines[i] = strings.ReplaceAll(lines[i], id, l)
			}
			lines[i] = sortLists(unknown.ReplaceAllString(lines[i], "-?"))
		}
		slices.Sort(lines)
		return strings.Join(lines, "")
	})
	if s.runtime != nil {
		s.runtime.Close()
	}
}

// sortLists sorts the words between brackets.
func sortLists(line string) string {
	from, to := strings.Index(line, "["), strings.LastIndex(line, "]")
	if from < 0 || to < from {
		return line
	}
	words := strings.Fields(line[from+1 : to])
	slices.Sort(words)
	return line[:from+1] + strings.Join(words, " ") + line[to:]
}

// kafka is a Kafka that answers requests. Each has a connection of its own, as
// it may be parked.
type kafka struct {
	t       *testing.T
	script  *script
	address string

	mu     sync.Mutex // held while answers are noted
	parked int
}

// kafkaAt readies a Kafka: no groups of former runs, the topics made.
func kafkaAt(t *testing.T, s *script, address string) *kafka {
	k := &kafka{t: t, script: s, address: address}
	s.service, s.runtime, s.transactions, s.setTopic = k, nil, k, k.setTopic
	topics := kmsg.NewPtrCreateTopicsRequest()
	topics.Version, topics.TimeoutMillis = 5, 10_000
	for _, name := range []string{"as-kafka-t", "as-kafka-u"} {
		topic := kmsg.NewCreateTopicsRequestTopic()
		topic.Topic, topic.NumPartitions, topic.ReplicationFactor = name, 2, 1
		topics.Topics = append(topics.Topics, topic)
	}
	k.ask(topics, "test")
	for deadline := time.Now().Add(time.Minute); ; {
		find := kmsg.NewPtrFindCoordinatorRequest()
		find.CoordinatorKey = "as-kafka-1"
		found := k.ask(find, "test").(*kmsg.FindCoordinatorResponse).ErrorCode == 0
		remove := kmsg.NewPtrDeleteGroupsRequest()
		remove.Version, remove.Groups = 2, []string{"as-kafka-1", "as-kafka-2", "as-kafka-3", "as-kafka-4", "as-kafka-5", "as-kafka-6", "as-kafka-7", "as-kafka-8", "as-kafka-9"}
		for _, g := range k.ask(remove, "test").(*kmsg.DeleteGroupsResponse).Groups {
			found = found && (g.ErrorCode == 0 || errorName(g.ErrorCode) == "GROUP_ID_NOT_FOUND")
		}
		if found {
			return k
		}
		if time.Now().After(deadline) {
			t.Fatal("the groups of a former run do not go away")
		}
		time.Sleep(time.Second)
	}
}

// ask sends a request on a connection of its own and waits for the answer.
func (k *kafka) ask(r kmsg.Request, client string) kmsg.Response {
	conn, err := net.Dial("tcp", k.address)
	if err != nil {
		k.t.Error(err)
		return r.ResponseKind()
	}
	defer conn.Close()
	if _, err := conn.Write(kmsg.NewRequestFormatter(kmsg.FormatterClientID(client)).AppendRequest(nil, r, 1)); err != nil {
		k.t.Error(err)
	}
	head := make([]byte, 4)
	if _, err := io.ReadFull(conn, head); err != nil {
		k.t.Errorf("%T: %v", r, err)
		return r.ResponseKind()
	}
	body := make([]byte, binary.BigEndian.Uint32(head))
	if _, err := io.ReadFull(conn, body); err != nil {
		k.t.Errorf("%T: %v", r, err)
		return r.ResponseKind()
	}
	response := r.ResponseKind()
	body = body[4:]
	if response.IsFlexible() {
		body = body[1:] // the header's tags
	}
	if err := response.ReadFrom(body); err != nil {
		k.t.Errorf("%T: %v", r, err)
	}
	return response
}

// run runs a command and gives Kafka time to answer what it answers.
func (k *kafka) run(d *datadriven.TestData) string {
	if d.Cmd == "advance" {
		by, err := time.ParseDuration(d.CmdArgs[0].Key)
		if err != nil {
			k.t.Fatal(err)
		}
		time.Sleep(by)
	} else {
		k.script.epoch = 1 // nothing to lead
		k.script.request(d)
	}
	for range 10 {
		time.Sleep(50 * time.Millisecond)
		k.mu.Lock()
		parked := k.parked
		k.mu.Unlock()
		if parked == 0 {
			break
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	out := k.script.out.String()
	k.script.out.Reset()
	return out
}

func send[R kmsg.Response](k *kafka, r kmsg.Request, client string, respond func(R)) {
	k.mu.Lock()
	k.parked++
	k.mu.Unlock()
	go func() {
		response := k.ask(r, client).(R)
		k.mu.Lock()
		defer k.mu.Unlock()
		k.parked--
		respond(response)
	}()
}

func (k *kafka) JoinGroup(r *kmsg.JoinGroupRequest, client, _ string, respond func(*kmsg.JoinGroupResponse)) {
	send(k, r, client, respond)
}

func (k *kafka) SyncGroup(r *kmsg.SyncGroupRequest, respond func(*kmsg.SyncGroupResponse)) {
	send(k, r, "test", respond)
}

func (k *kafka) Heartbeat(r *kmsg.HeartbeatRequest, respond func(*kmsg.HeartbeatResponse)) {
	send(k, r, "test", respond)
}

func (k *kafka) LeaveGroup(r *kmsg.LeaveGroupRequest, respond func(*kmsg.LeaveGroupResponse)) {
	send(k, r, "test", respond)
}

func (k *kafka) OffsetCommit(r *kmsg.OffsetCommitRequest, respond func(*kmsg.OffsetCommitResponse)) {
	send(k, r, "test", respond)
}

func (k *kafka) TxnOffsetCommit(r *kmsg.TxnOffsetCommitRequest, _ func(int32, bool, func(*kerr.Error)), respond func(*kmsg.TxnOffsetCommitResponse)) {
	send(k, r, "test", respond)
}

func (k *kafka) begin(transactionalID, group string) producer {
	p, ok := k.script.producers[transactionalID]
	if !ok {
		start := kmsg.NewPtrInitProducerIDRequest()
		start.Version, start.TransactionalID, start.TransactionTimeoutMillis = 4, &transactionalID, 60_000
		k.until("a producer id", func() int16 {
			out := k.ask(start, "test").(*kmsg.InitProducerIDResponse)
			p = producer{out.ProducerID, out.ProducerEpoch}
			return out.ErrorCode
		})
	}
	add := kmsg.NewPtrAddOffsetsToTxnRequest()
	add.Version, add.TransactionalID, add.Group, add.ProducerID, add.ProducerEpoch = 3, transactionalID, group, p.id, p.epoch
	k.until("begin", func() int16 { return k.ask(add, "test").(*kmsg.AddOffsetsToTxnResponse).ErrorCode })
	return p
}

func (k *kafka) end(transactionalID string, p producer, commit bool) {
	end := kmsg.NewPtrEndTxnRequest()
	end.Version, end.TransactionalID, end.ProducerID, end.ProducerEpoch, end.Commit = 3, transactionalID, p.id, p.epoch, commit
	k.until("end", func() int16 { return k.ask(end, "test").(*kmsg.EndTxnResponse).ErrorCode })
	time.Sleep(200 * time.Millisecond) // the markers are written afterwards
}

// until asks again while the coordinator is not ready.
func (k *kafka) until(what string, ask func() int16) {
	for range 50 {
		switch err := kerr.ErrorForCode(ask()); {
		case err == nil:
			return
		case !kerr.IsRetriable(err):
			k.t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
	k.t.Fatalf("%s: not yet", what)
}

func (k *kafka) ConsumerGroupHeartbeat(r *kmsg.ConsumerGroupHeartbeatRequest, client, _ string, respond func(*kmsg.ConsumerGroupHeartbeatResponse)) {
	send(k, r, client, respond)
}

func (k *kafka) ConsumerGroupDescribe(r *kmsg.ConsumerGroupDescribeRequest, respond func(*kmsg.ConsumerGroupDescribeResponse)) {
	send(k, r, "test", respond)
}

// setTopic makes a topic of that name anew, or gives it more partitions, and waits until
// its id is known.
func (k *kafka) setTopic(name string, partitions int32) {
	topics := k.script.topics
	if _, ok := topics.partitions[name]; ok && partitions > 0 {
		grow := kmsg.NewPtrCreatePartitionsRequest()
		grow.Version, grow.TimeoutMillis = 3, 10_000
		topic := kmsg.NewCreatePartitionsRequestTopic()
		topic.Topic, topic.Count = name, partitions
		grow.Topics = append(grow.Topics, topic)
		k.ask(grow, "test")
		topics.partitions[name] = partitions
		time.Sleep(time.Second)
		return
	}
	remove := kmsg.NewPtrDeleteTopicsRequest()
	remove.Version, remove.TimeoutMillis = 6, 10_000
	one := kmsg.NewDeleteTopicsRequestTopic()
	one.Topic = &name
	remove.Topics = append(remove.Topics, one)
	k.ask(remove, "test")
	delete(topics.partitions, name)
	if partitions > 0 {
		create := kmsg.NewPtrCreateTopicsRequest()
		create.Version, create.TimeoutMillis = 7, 10_000
		topic := kmsg.NewCreateTopicsRequestTopic()
		topic.Topic, topic.NumPartitions, topic.ReplicationFactor = name, partitions, 1
		create.Topics = append(create.Topics, topic)
		k.until("topic "+name, func() int16 {
			made := k.ask(create, "test").(*kmsg.CreateTopicsResponse).Topics[0]
			topics.ids[name], topics.partitions[name] = made.TopicID, partitions
			if errorName(made.ErrorCode) == "TOPIC_ALREADY_EXISTS" {
				return kerr.UnknownTopicOrPartition.Code // it is being deleted
			}
			return made.ErrorCode
		})
	}
	time.Sleep(time.Second)
}

func (k *kafka) OffsetFetch(r *kmsg.OffsetFetchRequest, respond func(*kmsg.OffsetFetchResponse)) {
	send(k, r, "test", respond)
}

func (k *kafka) OffsetDelete(r *kmsg.OffsetDeleteRequest, respond func(*kmsg.OffsetDeleteResponse)) {
	send(k, r, "test", respond)
}

func (k *kafka) DescribeGroups(r *kmsg.DescribeGroupsRequest, respond func(*kmsg.DescribeGroupsResponse)) {
	send(k, r, "test", respond)
}

// ListGroups answers with the script's groups only.
func (k *kafka) ListGroups(r *kmsg.ListGroupsRequest, respond func(*kmsg.ListGroupsResponse)) {
	send(k, r, "test", func(out *kmsg.ListGroupsResponse) {
		out.Groups = slices.DeleteFunc(out.Groups, func(g kmsg.ListGroupsResponseGroup) bool { return !strings.HasPrefix(g.Group, "as-kafka") })
		slices.SortFunc(out.Groups, func(a, b kmsg.ListGroupsResponseGroup) int { return strings.Compare(a.Group, b.Group) })
		respond(out)
	})
}

func (k *kafka) DeleteGroups(r *kmsg.DeleteGroupsRequest, respond func(*kmsg.DeleteGroupsResponse)) {
	send(k, r, "test", respond)
}
