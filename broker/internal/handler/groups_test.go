package handler

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/metadata"
	"github.com/leatlog/leat/broker/internal/wire"
)

// fakeGroups answers joins with who asks, and commits with the order in which it
// got the partitions.
type fakeGroups struct {
	Groups
	commits int
}

func (*fakeGroups) PartitionFor(group string, partitions int32) int32 {
	return int32(len(group)) % partitions
}

func (*fakeGroups) JoinGroup(r *kmsg.JoinGroupRequest, clientID, clientHost string, respond func(*kmsg.JoinGroupResponse)) {
	out := r.ResponseKind().(*kmsg.JoinGroupResponse)
	out.MemberID = clientID + clientHost
	respond(out)
}

func (g *fakeGroups) OffsetCommit(r *kmsg.OffsetCommitRequest, respond func(*kmsg.OffsetCommitResponse)) {
	g.commits++
	out := r.ResponseKind().(*kmsg.OffsetCommitResponse)
	code := int16(100)
	for _, t := range r.Topics {
		topic := kmsg.NewOffsetCommitResponseTopic()
		for _, p := range t.Partitions {
			one := kmsg.NewOffsetCommitResponseTopicPartition()
			one.Partition, one.ErrorCode = p.Partition, code
			code++
			topic.Partitions = append(topic.Partitions, one)
		}
		out.Topics = append(out.Topics, topic)
	}
	respond(out)
}

func find(c *cluster, version int16, kind int8, keys ...string) *kmsg.FindCoordinatorResponse {
	r := kmsg.NewPtrFindCoordinatorRequest()
	r.SetVersion(version)
	r.CoordinatorType, r.CoordinatorKeys = kind, keys
	if version < 4 {
		r.CoordinatorKey = keys[0]
	}
	return c.do(r).(*kmsg.FindCoordinatorResponse)
}

func TestFindCoordinatorMakesTheTopic(t *testing.T) {
	c := newCluster(t, func(d *Dependencies) { d.Groups = &fakeGroups{}; d.Config.AutoCreateTopics = false })
	find(c, 6, coordinatorTransaction, "id")
	if _, ok := c.image.Topic(metadata.OffsetsTopic); ok {
		t.Fatal("the topic was made for a transaction")
	}
	for version := int16(0); version <= 6; version++ {
		out := find(c, version, coordinatorGroup, "a group")
		one := kmsg.FindCoordinatorResponseCoordinator{ErrorCode: out.ErrorCode, NodeID: out.NodeID, Host: out.Host, Port: out.Port}
		if version >= 4 {
			one = out.Coordinators[0]
		}
		if one.ErrorCode != 0 || one.NodeID != 1 || one.Host != "127.0.0.1" || one.Port != 9092 {
			t.Errorf("version %d: %+v", version, one)
		}
	}
	topic, ok := c.image.Topic(metadata.OffsetsTopic)
	if !ok || len(topic.Partitions) != 50 || len(topic.Partitions[0].Replicas) != 1 || topic.Config["cleanup.policy"] != "compact" {
		t.Errorf("the topic is %+v", topic)
	}

	codes := func(out *kmsg.FindCoordinatorResponse) (codes []int16) {
		for _, one := range out.Coordinators {
			codes = append(codes, one.ErrorCode)
		}
		return codes
	}
	if got := codes(find(c, 4, coordinatorGroup, "a", "", "b")); !slices.Equal(got, []int16{0, kerr.InvalidGroupID.Code, 0}) {
		t.Errorf("three groups: %v", got)
	}
	if got := codes(find(c, 4, coordinatorTransaction, "a")); !slices.Equal(got, []int16{kerr.CoordinatorNotAvailable.Code}) {
		t.Errorf("transaction: %v", got)
	}
	if got := codes(find(c, 6, 2, "a")); !slices.Equal(got, []int16{kerr.InvalidRequest.Code}) {
		t.Errorf("unknown kind: %v", got)
	}
	c.conn.Listener = "NONE"
	if got := codes(find(c, 4, coordinatorGroup, "a")); !slices.Equal(got, []int16{kerr.CoordinatorNotAvailable.Code}) {
		t.Errorf("no such listener: %v", got)
	}
}

// TestFindCoordinatorWithoutBrokersEnough answers though the topic cannot be made.
func TestFindCoordinatorWithoutBrokersEnough(t *testing.T) {
	c := newCluster(t, func(d *Dependencies) { d.Groups = &fakeGroups{}; d.Config.OffsetsReplication = 3 })
	if out := find(c, 4, coordinatorGroup, "a"); out.Coordinators[0].ErrorCode != kerr.CoordinatorNotAvailable.Code {
		t.Fatalf("answered %+v", out)
	}
}

// TestReplicationOfInternalTopics is as it is set, or else 3 where that is possible.
func TestReplicationOfInternalTopics(t *testing.T) {
	for _, test := range []struct {
		set  int16
		have int
		want int16
	}{{-1, 0, 1}, {-1, 1, 1}, {-1, 2, 2}, {-1, 3, 3}, {-1, 7, 3}, {2, 7, 2}, {5, 3, 5}} {
		c := newCluster(t, func(d *Dependencies) {
			d.Brokers = func() int { return test.have }
			d.Config.OffsetsReplication = test.set
		})
		if got := c.Handler.defaultTopic(metadata.OffsetsTopic).ReplicationFactor; got != test.want {
			t.Errorf("set to %d, %d brokers: %d replicas, want %d", test.set, test.have, got, test.want)
		}
	}
}

// TestOffsetCommitRefusesUnknownPartitions has known and unknown partitions in one
// request, a topic in two pieces among them: each gets its own answer.
func TestOffsetCommitRefusesUnknownPartitions(t *testing.T) {
	groups := &fakeGroups{}
	c := newCluster(t, func(d *Dependencies) { d.Groups = groups })
	create := kmsg.NewPtrCreateTopicsRequest()
	create.SetVersion(7)
	create.Topics = append(create.Topics, newTopic("a", 2, 1), newTopic("b", 1, 1))
	c.do(create)
	for _, test := range []struct {
		name, asked, want string
		commits           int
	}{
		{"all known", "a:0,1 b:0", "a 0=100 1=101 b 0=102", 1},
		{"some", "a:2,1,-1,0 none:0 b:0 a:1", "a 2=3 1=100 -1=3 0=101 none 0=3 b 0=102 a 1=103", 1},
		{"none", "none:0,1", "none 0=3 1=3", 0},
		{"nothing", "", "", 1},
	} {
		for _, version := range []int16{2, 9} {
			r := kmsg.NewPtrOffsetCommitRequest()
			r.SetVersion(version)
			r.Group = "g"
			for _, topic := range strings.Fields(test.asked) {
				name, numbers, _ := strings.Cut(topic, ":")
				one := kmsg.NewOffsetCommitRequestTopic()
				one.Topic = name
				for _, n := range strings.Split(numbers, ",") {
					p := kmsg.NewOffsetCommitRequestTopicPartition()
					if _, err := fmt.Sscan(n, &p.Partition); err != nil {
						t.Fatal(err)
					}
					one.Partitions = append(one.Partitions, p)
				}
				r.Topics = append(r.Topics, one)
			}
			groups.commits = 0
			var got []string
			for _, topic := range c.do(r).(*kmsg.OffsetCommitResponse).Topics {
				if topic.Topic != "" {
					got = append(got, topic.Topic)
				}
				for _, p := range topic.Partitions {
					got = append(got, fmt.Sprintf("%d=%d", p.Partition, p.ErrorCode))
				}
			}
			want := test.want
			if test.name == "all known" { // answered by the coordinator itself
				want = "0=100 1=101 0=102"
			}
			if joined := strings.Join(got, " "); joined != want || groups.commits != test.commits {
				t.Errorf("%s, version %d: %s, want %s; %d commits", test.name, version, joined, want, groups.commits)
			}
		}
	}
}

func TestJoinGroupTellsTheHost(t *testing.T) {
	c := newCluster(t, func(d *Dependencies) { d.Groups = &fakeGroups{} })
	for _, test := range []struct {
		address net.Addr
		want    string
	}{
		{&net.TCPAddr{IP: net.IPv4(10, 1, 2, 3), Port: 5}, "/10.1.2.3"},
		{&net.TCPAddr{IP: net.ParseIP("fe80::1"), Port: 5}, "/fe80::1"},
		{&net.UnixAddr{Name: "memory"}, "/memory"},
	} {
		c.conn.RemoteAddr = test.address
		r := kmsg.NewPtrJoinGroupRequest()
		r.SetVersion(9)
		if got := c.do(r).(*kmsg.JoinGroupResponse).MemberID; !strings.HasSuffix(got, test.want) {
			t.Errorf("%v: %q", test.address, got)
		}
	}
}

func (g *fakeGroups) TxnOffsetCommit(r *kmsg.TxnOffsetCommitRequest, enlist func(int32, bool, func(*kerr.Error)), respond func(*kmsg.TxnOffsetCommitResponse)) {
	enlist(7, r.Version >= 5, func(err *kerr.Error) {
		out := r.ResponseKind().(*kmsg.TxnOffsetCommitResponse)
		for _, t := range r.Topics {
			topic := kmsg.NewTxnOffsetCommitResponseTopic()
			topic.Topic = t.Topic
			for _, p := range t.Partitions {
				one := kmsg.NewTxnOffsetCommitResponseTopicPartition()
				one.Partition, one.ErrorCode = p.Partition, errorCode(err)
				topic.Partitions = append(topic.Partitions, one)
			}
			out.Topics = append(out.Topics, topic)
		}
		respond(out)
	})
}

// fakeVerifier refuses with who asked.
type fakeVerifier struct{ asked []string }

func (v *fakeVerifier) VerifyPartition(id string, producer int64, epoch int16, topic string, partition int32, add bool, done func(*kerr.Error)) {
	v.asked = append(v.asked, fmt.Sprintf("%s %d %d %s-%d %v", id, producer, epoch, topic, partition, add))
	done(kerr.ConcurrentTransactions)
}

// TestTxnOffsetCommitAsksTheCoordinator has partitions that exist and such that do
// not; only the first concern the coordinators.
func TestTxnOffsetCommitAsksTheCoordinator(t *testing.T) {
	verifier := &fakeVerifier{}
	c := newCluster(t, func(d *Dependencies) { d.Groups, d.Verifier = &fakeGroups{}, verifier })
	create := kmsg.NewPtrCreateTopicsRequest()
	create.SetVersion(7)
	create.Topics = append(create.Topics, newTopic("a", 2, 1))
	c.do(create)
	ask := func(version int16, topics ...string) (got []int16) {
		r := kmsg.NewPtrTxnOffsetCommitRequest()
		r.SetVersion(version)
		r.TransactionalID, r.ProducerID, r.ProducerEpoch, r.Group = "t", 5, 6, "g"
		for _, name := range topics {
			one := kmsg.NewTxnOffsetCommitRequestTopic()
			one.Topic = name
			for p := range int32(3) {
				one.Partitions = append(one.Partitions, kmsg.TxnOffsetCommitRequestTopicPartition{Partition: p})
			}
			r.Topics = append(r.Topics, one)
		}
		txnOffsetCommit(c.Handler, t.Context(), &wire.Request{Body: r}, func(response wire.Response) {
			for _, topic := range response.Body.(*kmsg.TxnOffsetCommitResponse).Topics {
				for _, p := range topic.Partitions {
					got = append(got, p.ErrorCode)
				}
			}
		})
		return got
	}
	if got := ask(4, "none", "a"); !slices.Equal(got, []int16{3, 3, 3, 51, 51, 3}) {
		t.Errorf("version 4: %v", got)
	}
	if got := ask(5, "a"); !slices.Equal(got, []int16{51, 51, 3}) {
		t.Errorf("version 5: %v", got)
	}
	if got := ask(5, "none"); !slices.Equal(got, []int16{3, 3, 3}) {
		t.Errorf("a topic that is not there: %v", got)
	}
	if want := []string{"t 5 6 __consumer_offsets-7 false", "t 5 6 __consumer_offsets-7 true"}; !slices.Equal(verifier.asked, want) {
		t.Errorf("asked %q", verifier.asked)
	}
}
