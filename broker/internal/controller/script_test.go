package controller

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/metadata"
)

// world is a shell for scripts: it commits when told.
type world struct {
	t         testing.TB
	c         *Controller
	now       time.Time
	committed *metadata.Image
	offset    int64
	queue     []Proposal
	ids       uint64
	out       strings.Builder
	quiet     bool // do not write out what happens
	spread    Spread
	imbalance Imbalance
}

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func newWorld(t testing.TB) *world {
	w := &world{t: t, now: start, committed: metadata.Empty(), offset: -1}
	w.restart()
	return w
}

func (w *world) restart() {
	w.c = New(Config{NodeID: 1, Partitions: 1, Replication: 1, Session: 9 * time.Second, Imbalance: w.imbalance, Spread: w.spread})
	w.queue = nil
}

// uuid returns ids in a fixed order.
func (w *world) uuid() metadata.UUID {
	w.ids++
	var u metadata.UUID
	binary.BigEndian.PutUint64(u[8:], w.ids)
	return u
}

func (w *world) step(e Event) Effects {
	fx := w.c.Step(w.now, e)
	w.queue = append(w.queue, fx.Proposals...)
	if w.quiet {
		return fx
	}
	for _, p := range fx.Proposals {
		fmt.Fprintf(&w.out, "propose %d\n", p.ID)
		for n, c := range p.Changes {
			if n == 12 {
				fmt.Fprintf(&w.out, "  and %d more\n", len(p.Changes)-n)
				break
			}
			line := string(metadata.Encode([]metadata.Change{c}))
			line = strings.TrimSuffix(strings.TrimPrefix(line, `{"v":1,"changes":[`), "]}")
			line = strings.NewReplacer(`"`, "", "AAAAAAAAAAAAAAAAAAAA", "~").Replace(line)
			fmt.Fprintf(&w.out, "  %s\n", line)
		}
	}
	for _, a := range fx.Answers {
		fmt.Fprintf(&w.out, "answer %d: %s\n", a.ID, describe(a))
	}
	for _, n := range fx.Notices {
		fmt.Fprintf(&w.out, "notice %T %+v\n", n, n)
	}
	return fx
}

func describe(a Answer) string {
	if a.Err != nil {
		return a.Err.Message
	}
	item := func(name string, code int16, message *string) string {
		s := name + " ok"
		if code != 0 {
			s = name + " " + kerr.TypedErrorForCode(code).Message
		}
		if message != nil {
			s += " (" + *message + ")"
		}
		return s
	}
	var items []string
	switch r := a.Response.(type) {
	case []kmsg.CreateTopicsResponseTopic:
		for _, t := range r {
			s := item(t.Topic, t.ErrorCode, t.ErrorMessage)
			if t.ErrorCode == 0 {
				s += fmt.Sprintf(" %dx%d", t.NumPartitions, t.ReplicationFactor)
			}
			items = append(items, s)
		}
	case []kmsg.DeleteTopicsResponseTopic:
		for _, t := range r {
			name := "by id"
			if t.Topic != nil {
				name = *t.Topic
			}
			items = append(items, item(name, t.ErrorCode, t.ErrorMessage))
		}
	case []kmsg.CreatePartitionsResponseTopic:
		for _, t := range r {
			items = append(items, item(t.Topic, t.ErrorCode, t.ErrorMessage))
		}
	case []kmsg.IncrementalAlterConfigsResponseResource:
		for _, t := range r {
			items = append(items, item(t.ResourceName, t.ErrorCode, t.ErrorMessage))
		}
	case []kmsg.AlterConfigsResponseResource:
		for _, t := range r {
			items = append(items, item(t.ResourceName, t.ErrorCode, t.ErrorMessage))
		}
	case []kmsg.ElectLeadersResponseTopic:
		for _, t := range r {
			for _, p := range t.Partitions {
				items = append(items, item(fmt.Sprintf("%s-%d", t.Topic, p.Partition), p.ErrorCode, p.ErrorMessage))
			}
		}
	case []kmsg.AlterPartitionAssignmentsResponseTopic:
		for _, t := range r {
			for _, p := range t.Partitions {
				items = append(items, item(fmt.Sprintf("%s-%d", t.Topic, p.Partition), p.ErrorCode, p.ErrorMessage))
			}
		}
	case FeaturesUpdated:
		if r.Err == nil {
			return "ok"
		}
		return r.Err.Message + " (" + r.Message + ")"
	case []kmsg.AlterPartitionResponseTopic:
		for _, t := range r {
			for _, p := range t.Partitions {
				s := item(strconv.Itoa(int(p.Partition)), p.ErrorCode, nil)
				if p.ErrorCode == 0 {
					s += fmt.Sprintf(" leader %d isr %v leader epoch %d partition epoch %d", p.LeaderID, p.ISR, p.LeaderEpoch, p.PartitionEpoch)
				}
				items = append(items, s)
			}
		}
	default:
		return fmt.Sprintf("%+v", r)
	}
	return strings.Join(items, "; ")
}

// commit commits n proposals as one entry.
func (w *world) commit(n int) {
	var last uint64
	for _, p := range w.queue[:n] {
		image, _, err := w.committed.Apply(w.offset+1, 1, p.Changes)
		if err != nil {
			w.t.Fatal(err)
		}
		w.committed, last = image, p.ID
	}
	w.offset++
	w.queue = w.queue[n:]
	w.step(Committed{Proposal: last, Image: w.committed})
}

func number(d *datadriven.TestData, key string, otherwise int) int {
	for _, a := range d.CmdArgs {
		if a.Key == key {
			n, err := strconv.Atoi(a.Vals[0])
			if err != nil {
				panic(err)
			}
			return n
		}
	}
	return otherwise
}

func word(d *datadriven.TestData, key string) string {
	for _, a := range d.CmdArgs {
		if a.Key == key {
			return a.Vals[0]
		}
	}
	return ""
}

// alterPartition: each line is "topic partition isr", like "t 0 1,2", then perhaps
// "leader-epoch=N", "partition-epoch=N", "broker-epoch=N" (of the members); those of
// the committed image otherwise.
func (w *world) alterPartition(d *datadriven.TestData, id uint64, broker int32) {
	e := AlterPartition{ID: id, Broker: broker, BrokerEpoch: -2}
	if b, ok := w.committed.Broker(broker); ok {
		e.BrokerEpoch = b.Epoch
	}
	e.BrokerEpoch = int64(number(d, "epoch", int(e.BrokerEpoch)))
	for line := range strings.Lines(d.Input) {
		words := strings.Fields(line)
		t := kmsg.NewAlterPartitionRequestTopic()
		p := kmsg.NewAlterPartitionRequestTopicPartition()
		n, _ := strconv.Atoi(words[1])
		p.Partition = int32(n)
		topic, ok := w.committed.Topic(words[0])
		if ok {
			t.TopicID = topic.ID
			if n < len(topic.Partitions) {
				p.LeaderEpoch, p.PartitionEpoch = topic.Partitions[n].LeaderEpoch, topic.Partitions[n].PartitionEpoch
			}
		}
		memberEpoch := int64(-2)
		for _, word := range words[3:] {
			key, value, _ := strings.Cut(word, "=")
			n, _ := strconv.Atoi(value)
			switch key {
			case "leader-epoch":
				p.LeaderEpoch = int32(n)
			case "partition-epoch":
				p.PartitionEpoch = int32(n)
			case "broker-epoch":
				memberEpoch = int64(n)
			}
		}
		for _, id := range metadata.SplitList(strings.TrimPrefix(words[2], "-")) { // "-" is nobody
			n, _ := strconv.Atoi(id)
			m := kmsg.NewAlterPartitionRequestTopicPartitionNewEpochISR()
			m.BrokerID = int32(n)
			if b, ok := w.committed.Broker(m.BrokerID); ok {
				m.BrokerEpoch = b.Epoch
			}
			if memberEpoch > -2 {
				m.BrokerEpoch = memberEpoch
			}
			p.NewEpochISR = append(p.NewEpochISR, m)
		}
		t.Partitions = append(t.Partitions, p)
		e.Topics = append(e.Topics, t)
	}
	w.step(e)
}

// elect: each line is a topic and its partitions, "t 0,1"; no line means all.
func (w *world) elect(d *datadriven.TestData, id uint64) {
	e := ElectLeaders{ID: id}
	if d.HasArg("unclean") {
		e.Type = 1
	}
	for line := range strings.Lines(d.Input) {
		words := strings.Fields(line)
		e.Topics = append(e.Topics, kmsg.ElectLeadersRequestTopic{Topic: words[0], Partitions: ids(words[1])})
	}
	w.step(e)
}

// reassign: each line is "topic partition replicas", or "topic partition cancel".
func (w *world) reassign(d *datadriven.TestData, id uint64) {
	e := AlterPartitionReassignments{ID: id, AllowReplicationFactorChange: !d.HasArg("same-factor")}
	for line := range strings.Lines(d.Input) {
		words := strings.Fields(line)
		p := kmsg.AlterPartitionAssignmentsRequestTopicPartition{Partition: ids(words[1])[0]}
		if words[2] != "cancel" {
			p.Replicas = ids(words[2])
		}
		e.Topics = append(e.Topics, kmsg.AlterPartitionAssignmentsRequestTopic{Topic: words[0],
			Partitions: []kmsg.AlterPartitionAssignmentsRequestTopicPartition{p}})
	}
	w.step(e)
}

func ids(list string) []int32 {
	var all []int32
	for id := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(id)
		if err != nil {
			panic(err)
		}
		all = append(all, int32(n))
	}
	return all
}

// TestScripts runs the scripts of testdata. A request's input has a line for each
// item: the topic, then key=value words.
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		w := newWorld(t)
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			w.out.Reset()
			w.command(d)
			return w.out.String()
		})
	})
}

func (w *world) command(d *datadriven.TestData) {
	id := uint64(number(d, "id", 1))
	broker := int32(number(d, "broker", 1))
	switch d.Cmd {
	case "lead":
		w.step(BecameLeader{Epoch: int32(number(d, "epoch", 1)), Image: w.committed, ClusterID: w.uuid()})
	case "resign":
		w.queue = nil
		w.step(Resigned{})
	case "restart":
		w.restart()
	case "spread":
		w.spread = Spread{Check: time.Minute, Percent: int32(number(d, "percent", 10)), AtOnce: number(d, "at-once", 2)}
		w.restart()
	case "imbalance":
		w.imbalance = Imbalance{Check: time.Minute, Percent: int32(number(d, "percent", 10))}
		w.restart()
	case "commit":
		w.commit(number(d, "n", len(w.queue)))
	case "fail":
		w.queue = nil
		w.step(Failed{Image: w.committed})
	case "after":
		w.now = w.now.Add(time.Duration(number(d, "ms", 0)) * time.Millisecond)
		w.step(Tick{})
	case "deadline":
		fmt.Fprintf(&w.out, "in %v\n", w.c.NextDeadline().Sub(w.now))
	case "register":
		w.step(RegisterBroker{ID: id, Broker: broker, Incarnation: metadata.UUID{byte(number(d, "incarnation", 1))},
			Directory: metadata.UUID{byte(number(d, "directory", 0))}, PreviousEpoch: int64(number(d, "previous", -1)), Rack: word(d, "rack")})
	case "heartbeat":
		w.step(BrokerHeartbeat{ID: id, Broker: broker, BrokerEpoch: int64(number(d, "epoch", 0)),
			Offset: int64(number(d, "offset", int(w.offset))), WantFence: d.HasArg("fence"), WantShutDown: d.HasArg("shutdown")})
	case "gone":
		w.step(BrokerGone{Broker: broker, BrokerEpoch: int64(number(d, "epoch", 0)), Since: w.now.Add(-time.Duration(number(d, "since-ms", 0)) * time.Millisecond)})
	case "unregister":
		w.step(UnregisterBroker{ID: id, Broker: broker})
	case "elect":
		w.elect(d, id)
	case "reassign":
		w.reassign(d, id)
	case "features":
		e := UpdateFeatures{ID: id, ValidateOnly: d.HasArg("validate")}
		for line := range strings.Lines(d.Input) {
			words := strings.Fields(line)
			level, _ := strconv.Atoi(words[1])
			kind, _ := strconv.Atoi(words[2])
			e.Updates = append(e.Updates, FeatureUpdate{Name: words[0], Level: int16(level), Type: int8(kind)})
		}
		w.step(e)
	case "isr":
		w.alterPartition(d, id, broker)
	case "producer-ids":
		w.step(AllocateProducerIDs{ID: id, Broker: broker, BrokerEpoch: int64(number(d, "epoch", 0))})
	case "create":
		e := CreateTopics{ID: id, ValidateOnly: d.HasArg("validate")}
		for line := range strings.Lines(d.Input) {
			e.Topics = append(e.Topics, parseTopic(line))
			e.TopicIDs = append(e.TopicIDs, w.uuid())
		}
		w.step(e)
	case "delete":
		e := DeleteTopics{ID: id}
		for line := range strings.Lines(d.Input) {
			t := kmsg.NewDeleteTopicsRequestTopic()
			name := strings.TrimSpace(line)
			if topic, ok := strings.CutPrefix(name, "id-of "); ok {
				found, _ := w.committed.Topic(topic)
				t.TopicID = found.ID
			} else if name == "unknown-id" {
				t.TopicID = [16]byte{99}
			} else {
				t.Topic = &name
			}
			e.Topics = append(e.Topics, t)
		}
		w.step(e)
	case "grow":
		e := CreatePartitions{ID: id, ValidateOnly: d.HasArg("validate")}
		for line := range strings.Lines(d.Input) {
			t := kmsg.NewCreatePartitionsRequestTopic()
			created := parseTopic(line)
			t.Topic, t.Count = created.Topic, created.NumPartitions
			for _, a := range created.ReplicaAssignment {
				t.Assignment = append(t.Assignment, kmsg.CreatePartitionsRequestTopicAssignment{Replicas: a.Replicas})
			}
			e.Topics = append(e.Topics, t)
		}
		w.step(e)
	case "alter", "replace":
		w.alter(d, id)
	default:
		w.t.Fatalf("%s: unknown command %s", d.Pos, d.Cmd)
	}
}

// alter: each line is a topic, then words "key=value", "-key" (delete), "key+=item", "key-=item".
func (w *world) alter(d *datadriven.TestData, id uint64) {
	kind := kmsg.ConfigResourceTypeTopic
	if d.HasArg("of-broker") { // "all" stands for all brokers
		kind = kmsg.ConfigResourceTypeBroker
	}
	incremental, whole := IncrementalAlterConfigs{ID: id, ValidateOnly: d.HasArg("validate")}, AlterConfigs{ID: id}
	for line := range strings.Lines(d.Input) {
		words := strings.Fields(line)
		resource := words[0]
		if kind == kmsg.ConfigResourceTypeBroker && resource == "all" {
			resource = ""
		}
		r := kmsg.IncrementalAlterConfigsRequestResource{ResourceType: kind, ResourceName: resource}
		a := kmsg.AlterConfigsRequestResource{ResourceType: kind, ResourceName: resource}
		for _, word := range words[1:] {
			name, value, _ := strings.Cut(word, "=")
			op := kmsg.IncrementalAlterConfigOpSet
			switch {
			case strings.HasPrefix(name, "-"):
				name, op = name[1:], kmsg.IncrementalAlterConfigOpDelete
			case strings.HasSuffix(name, "+"):
				name, op = name[:len(name)-1], kmsg.IncrementalAlterConfigOpAppend
			case strings.HasSuffix(name, "-"):
				name, op = name[:len(name)-1], kmsg.IncrementalAlterConfigOpSubtract
			}
			r.Configs = append(r.Configs, kmsg.IncrementalAlterConfigsRequestResourceConfig{Name: name, Op: op, Value: &value})
			a.Configs = append(a.Configs, kmsg.AlterConfigsRequestResourceConfig{Name: name, Value: &value})
		}
		incremental.Resources = append(incremental.Resources, r)
		whole.Resources = append(whole.Resources, a)
	}
	if d.Cmd == "alter" {
		w.step(incremental)
	} else {
		w.step(whole)
	}
}

// parseTopic reads "name partitions=N replication=N assign=1,2/2,1 key=value".
func parseTopic(line string) kmsg.CreateTopicsRequestTopic {
	t := kmsg.NewCreateTopicsRequestTopic()
	t.NumPartitions, t.ReplicationFactor = -1, -1
	words := strings.Fields(line)
	t.Topic = strings.Trim(words[0], `"`)
	for _, word := range words[1:] {
		key, value, _ := strings.Cut(word, "=")
		n, _ := strconv.Atoi(value)
		switch key {
		case "partitions":
			t.NumPartitions = int32(n)
		case "replication":
			t.ReplicationFactor = int16(n)
		case "assign":
			for p, list := range strings.Split(value, "/") {
				a := kmsg.CreateTopicsRequestTopicReplicaAssignment{Partition: int32(p)}
				for id := range strings.SplitSeq(list, ",") {
					if n, err := strconv.Atoi(id); err == nil {
						a.Replicas = append(a.Replicas, int32(n))
					}
				}
				t.ReplicaAssignment = append(t.ReplicaAssignment, a)
			}
		default:
			t.Configs = append(t.Configs, kmsg.CreateTopicsRequestTopicConfig{Name: key, Value: &value})
		}
	}
	return t
}
