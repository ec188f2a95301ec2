package brokertest_test

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/brokertest"
)

// Offsets are committed and fetched by the ids of topics (KIP-848): those of a topic that
// does not exist, or no more, are told apart from those of a partition that does not.
func TestOffsetsByTopicID(t *testing.T) {
	b := brokertest.Start(t)
	a := admin(t, b.Addr())
	ids := map[string][16]byte{}
	for _, name := range []string{"kept", "deleted"} {
		created, err := a.CreateTopic(t.Context(), 2, 1, nil, name)
		if err != nil {
			t.Fatal(err)
		}
		ids[name] = created.ID
	}
	client := newClient(t, b, kgo.ConsumerGroup("unused"))
	coordinator := -1
	waitFor(t, "the coordinator", func() bool { // whose topic is created now
		found := a.FindGroupCoordinators(t.Context(), "g")["g"]
		coordinator = int(found.NodeID)
		return found.Err == nil
	})
	commit := func(id [16]byte, partition int32) int16 {
		t.Helper()
		request := kmsg.NewPtrOffsetCommitRequest()
		request.Group, request.Generation = "g", -1
		topic := kmsg.NewOffsetCommitRequestTopic()
		topic.TopicID = id
		p := kmsg.NewOffsetCommitRequestTopicPartition()
		p.Partition, p.Offset = partition, 7
		topic.Partitions = append(topic.Partitions, p)
		request.Topics = append(request.Topics, topic)
		request.SetVersion(10)
		answer, err := client.Broker(coordinator).Request(t.Context(), request)
		if err != nil {
			t.Fatal(err)
		}
		got := answer.(*kmsg.OffsetCommitResponse)
		if got.Version != 10 || len(got.Topics) != 1 || got.Topics[0].TopicID != id || len(got.Topics[0].Partitions) != 1 {
			t.Fatalf("%+v", got)
		}
		return got.Topics[0].Partitions[0].ErrorCode
	}
	for _, c := range []struct {
		id        [16]byte
		partition int32
		want      int16
	}{{ids["kept"], 1, 0}, {ids["deleted"], 0, 0}, {ids["kept"], 2, kerr.UnknownTopicOrPartition.Code}, {[16]byte{1}, 0, kerr.UnknownTopicID.Code}} {
		code := commit(c.id, c.partition)
		waitFor(t, "the coordinator", func() bool {
			retry, _ := kerr.ErrorForCode(code).(*kerr.Error)
			if retry == nil || !retry.Retriable || code == c.want {
				return true
			}
			code = commit(c.id, c.partition)
			return false
		})
		if code != c.want {
			t.Errorf("commit of %x-%d: %v, want %v", c.id, c.partition, kerr.ErrorForCode(code), kerr.ErrorForCode(c.want))
		}
	}
	fetch := func(topics []kmsg.OffsetFetchRequestGroupTopic) map[[16]byte]kmsg.OffsetFetchResponseGroupTopicPartition {
		t.Helper()
		request := kmsg.NewPtrOffsetFetchRequest()
		group := kmsg.NewOffsetFetchRequestGroup()
		group.Group, group.Topics = "g", topics
		request.Groups = append(request.Groups, group)
		request.SetVersion(10)
		answer, err := client.Broker(coordinator).Request(t.Context(), request)
		if err != nil {
			t.Fatal(err)
		}
		found := map[[16]byte]kmsg.OffsetFetchResponseGroupTopicPartition{}
		for _, topic := range answer.(*kmsg.OffsetFetchResponse).Groups[0].Topics {
			found[topic.TopicID] = topic.Partitions[0]
		}
		return found
	}
	var asked []kmsg.OffsetFetchRequestGroupTopic
	for id, partition := range map[[16]byte]int32{ids["kept"]: 1, ids["deleted"]: 0, {1}: 0} {
		topic := kmsg.NewOffsetFetchRequestGroupTopic()
		topic.TopicID, topic.Partitions = id, []int32{partition}
		asked = append(asked, topic)
	}
	got := fetch(asked)
	if got[ids["kept"]].Offset != 7 || got[ids["deleted"]].Offset != 7 || got[[16]byte{1}].ErrorCode != kerr.UnknownTopicID.Code || len(got) != 3 {
		t.Errorf("fetched %+v", got)
	}
	if deleted, err := a.DeleteTopic(t.Context(), "deleted"); err != nil || deleted.Err != nil {
		t.Fatal(err, deleted.Err)
	}
	if got := fetch(nil); len(got) != 1 || got[ids["kept"]].Offset != 7 || got[ids["kept"]].Partition != 1 {
		t.Errorf("all: %+v", got)
	}
}

// A marker that comes late, when the producer's next transaction is open in the epoch that
// the marker has, must not end it (KIP-1228). One of the first protocol has the epoch of
// the records it ends.
func TestLateMarkerEndsNothing(t *testing.T) {
	b := brokertest.Start(t)
	a := admin(t, b.Addr())
	if _, err := a.CreateTopic(t.Context(), 1, 1, nil, "t"); err != nil {
		t.Fatal(err)
	}
	client := transactional(t, []string{b.Addr()}, "app")
	transact(t, client, "t", kgo.TryCommit, "first")
	if err := client.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := client.ProduceSync(t.Context(), &kgo.Record{Topic: "t", Value: []byte("second")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	var set kadm.TopicsSet
	set.Add("t", 0)
	open := func() kadm.DescribedProducer {
		t.Helper()
		found, err := a.DescribeProducers(t.Context(), set)
		if list := found.SortedProducers(); err == nil && len(list) == 1 {
			return list[0]
		}
		t.Fatalf("producers %+v, %v", found, err)
		return kadm.DescribedProducer{}
	}
	shown := metadataAt(t, b.Addr())("t")
	if len(shown) != 1 || len(shown[0].Partitions) != 1 {
		t.Fatalf("%+v", shown)
	}
	leader := shown[0].Partitions[0].Leader
	producer := open()
	if producer.CurrentTxnStartOffset < 0 {
		t.Fatalf("no open transaction: %+v", producer)
	}
	end := func(version int8) int16 {
		t.Helper()
		m := kmsg.NewWriteTxnMarkersRequestMarker()
		m.ProducerID, m.ProducerEpoch, m.Committed, m.CoordinatorEpoch, m.TransactionVersion = producer.ProducerID, int16(producer.ProducerEpoch), true, 100, version
		m.Topics = append(m.Topics, kmsg.WriteTxnMarkersRequestMarkerTopic{Topic: "t", Partitions: []int32{0}})
		request := kmsg.NewPtrWriteTxnMarkersRequest()
		request.Markers = append(request.Markers, m)
		request.SetVersion(2)
		answer, err := newClient(t, b).Broker(int(leader)).Request(t.Context(), request)
		if err != nil {
			t.Fatal(err)
		}
		return answer.(*kmsg.WriteTxnMarkersResponse).Markers[0].Topics[0].Partitions[0].ErrorCode
	}
	if code := end(2); code != kerr.InvalidProducerEpoch.Code || open().CurrentTxnStartOffset < 0 {
		t.Errorf("a late marker: %v, %+v", kerr.ErrorForCode(code), open())
	}
	if code := end(1); code != 0 || open().CurrentTxnStartOffset >= 0 {
		t.Errorf("a marker of the first protocol: %v, %+v", kerr.ErrorForCode(code), open())
	}
}
