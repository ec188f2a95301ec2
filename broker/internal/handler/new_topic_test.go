package handler

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/controller"
	"github.com/leatlog/leat/broker/internal/metadata"
	"github.com/leatlog/leat/broker/internal/wire"
)

// addedPartitions are coordinators of transactions that take partitions.
type addedPartitions struct{ Transactions }

func (addedPartitions) AddPartitions(_ Enlisting, done func(*kerr.Error)) { done(nil) }

// What is committed for a topic that this node has not heard of waits for it: another node
// may have told the client already.
func TestCommitForATopicThatIsNew(t *testing.T) {
	var parked func()
	var wanted func(*metadata.Image) bool
	var c *cluster
	groups := &fakeGroups{}
	c = newCluster(t, func(d *Dependencies) {
		d.Groups, d.Verifier, d.Transactions = groups, &fakeVerifier{}, addedPartitions{}
		d.AwaitImage = func(want func(*metadata.Image) bool, _ time.Duration, call func(*metadata.Image)) {
			wanted, parked = want, func() { call(c.image) }
		}
	})
	alone := kmsg.NewPtrOffsetCommitRequest()
	alone.SetVersion(9)
	alone.Group = "g"
	alone.Topics = []kmsg.OffsetCommitRequestTopic{{Topic: "new", Partitions: []kmsg.OffsetCommitRequestTopicPartition{{}}}}
	if code := c.do(alone).(*kmsg.OffsetCommitResponse).Topics[0].Partitions[0].ErrorCode; code != kerr.UnknownTopicOrPartition.Code {
		t.Errorf("the only broker of a cluster waits or answers %d", code)
	}
	c.ask(func(id uint64) controller.Event {
		return controller.RegisterBroker{ID: id, Broker: 2, Incarnation: metadata.UUID{2}}
	})
	commit := kmsg.NewPtrOffsetCommitRequest()
	commit.SetVersion(9)
	commit.Group = "g"
	commit.Topics = []kmsg.OffsetCommitRequestTopic{{Topic: "new", Partitions: []kmsg.OffsetCommitRequestTopicPartition{{Partition: 1}}}}
	commitByID := kmsg.NewPtrOffsetCommitRequest()
	commitByID.SetVersion(10)
	commitByID.Group = "g"
	commitByID.Topics = []kmsg.OffsetCommitRequestTopic{{Partitions: []kmsg.OffsetCommitRequestTopicPartition{{Partition: 1}}}}
	inTransaction := kmsg.NewPtrTxnOffsetCommitRequest()
	inTransaction.SetVersion(5)
	inTransaction.TransactionalID, inTransaction.Group = "t", "g"
	inTransaction.Topics = []kmsg.TxnOffsetCommitRequestTopic{{Topic: "new", Partitions: []kmsg.TxnOffsetCommitRequestTopicPartition{{Partition: 1}}}}
	add := kmsg.NewPtrAddPartitionsToTxnRequest()
	add.SetVersion(3)
	add.TransactionalID, add.ProducerID = "t", 5
	add.Topics = []kmsg.AddPartitionsToTxnRequestTopic{{Topic: "new", Partitions: []int32{1}}}

	answers := map[string]wire.Response{}
	ask := func(name string, serve serveFunc, body kmsg.Request) func() {
		t.Helper()
		serve(c.Handler, t.Context(), &wire.Request{Body: body, Conn: &c.conn}, func(r wire.Response) { answers[name] = r })
		if _, answered := answers[name]; answered || wanted(c.image) {
			t.Errorf("%s was not parked", name)
		}
		return parked
	}
	waiting := []func(){ask("commit", offsetCommit, commit), ask("in transaction", txnOffsetCommit, inTransaction), ask("add", addPartitionsToTxn, add)}
	create := kmsg.NewPtrCreateTopicsRequest()
	create.SetVersion(7)
	create.Topics = append(create.Topics, newTopic("new", 2, 1))
	c.do(create)
	if !wanted(c.image) {
		t.Error("the new topic is not what was waited for")
	}
	topic, _ := c.image.Topic("new")
	commitByID.Topics[0].TopicID = topic.ID
	for _, p := range waiting {
		p()
	}
	offsetCommit(c.Handler, t.Context(), &wire.Request{Body: commitByID, Conn: &c.conn}, func(r wire.Response) { answers["by id"] = r })
	if !wanted(c.image) {
		t.Error("the new topic's id is not known")
	}
	parked()
	codes := map[string]int16{
		"commit":         answers["commit"].Body.(*kmsg.OffsetCommitResponse).Topics[0].Partitions[0].ErrorCode,
		"by id":          answers["by id"].Body.(*kmsg.OffsetCommitResponse).Topics[0].Partitions[0].ErrorCode,
		"in transaction": answers["in transaction"].Body.(*kmsg.TxnOffsetCommitResponse).Topics[0].Partitions[0].ErrorCode,
		"add":            answers["add"].Body.(*kmsg.AddPartitionsToTxnResponse).Topics[0].Partitions[0].ErrorCode,
	}
	for name, code := range codes {
		if code == kerr.UnknownTopicOrPartition.Code {
			t.Errorf("%s: error %d", name, code)
		}
	}
	if groups.commits != 2 { // the fake's own code is that of an unknown topic id
		t.Errorf("%d of 2 commits reached the coordinator", groups.commits)
	}
}

// ledElsewhere are partitions that others lead.
type ledElsewhere struct{ Partitions }

func (ledElsewhere) Partition(metadata.UUID, int32) (Partition, *kerr.Error) {
	return nil, kerr.NotLeaderForPartition
}

// A leader that has not heard yet of the topic waits to hear of it.
func TestOffsetsOfATopicThatIsNew(t *testing.T) {
	var parked func()
	var c *cluster
	c = newCluster(t, func(d *Dependencies) {
		d.Partitions = ledElsewhere{d.Partitions}
		d.AwaitImage = func(want func(*metadata.Image) bool, _ time.Duration, call func(*metadata.Image)) {
			if parked = func() { call(c.image) }; want(c.image) {
				parked()
			}
		}
	})
	c.ask(func(id uint64) controller.Event {
		return controller.RegisterBroker{ID: id, Broker: 2, Incarnation: metadata.UUID{2}}
	})
	answers := make(chan int16, 1)
	ask := func(topic string) {
		list := kmsg.NewPtrListOffsetsRequest()
		list.SetVersion(7)
		list.Topics = []kmsg.ListOffsetsRequestTopic{{Topic: topic, Partitions: []kmsg.ListOffsetsRequestTopicPartition{{Timestamp: -2}}}}
		listOffsets(c.Handler, t.Context(), &wire.Request{Body: list, Conn: &c.conn}, func(r wire.Response) {
			answers <- r.Body.(*kmsg.ListOffsetsResponse).Topics[0].Partitions[0].ErrorCode
		})
	}
	ask(metadata.ClusterTopic)
	<-answers // it did not wait
	ask("new")
	create := kmsg.NewPtrCreateTopicsRequest()
	create.SetVersion(7)
	create.Topics = append(create.Topics, newTopic("new", 1, 1))
	c.do(create)
	parked()
	if code := <-answers; code != kerr.NotLeaderForPartition.Code {
		t.Errorf("error %d, want that of the partition", code)
	}
}
