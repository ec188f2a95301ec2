package brokertest_test

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/brokertest"
)

// TestPendingOffsetsOutliveThePower cuts the power while a transaction has offsets
// pending, and again after it ended: they are neither lost nor told too early, with
// clients of both versions of the transaction protocol.
func TestPendingOffsetsOutliveThePower(t *testing.T) {
	for version, name := range map[int16]string{4: "V1", 5: "V2"} {
		for _, commit := range []bool{true, false} {
			t.Run(name+map[bool]string{true: "Commit", false: "Abort"}[commit], func(t *testing.T) { pendingOffsets(t, version, commit) })
		}
	}
}

func pendingOffsets(t *testing.T, version int16, commit bool) {
	b := brokertest.Start(t, brokertest.InMemoryDisk())
	createTopic(t, b, "in", 1, nil)
	client := newClient(t, b)
	id := "app"
	start := kmsg.NewPtrInitProducerIDRequest()
	start.TransactionalID, start.TransactionTimeoutMillis = &id, 60_000
	started := ask[*kmsg.InitProducerIDResponse](t, client, start)
	if started.ErrorCode != 0 {
		t.Fatal(kerr.ErrorForCode(started.ErrorCode))
	}
	if version < 5 {
		add := kmsg.NewPtrAddOffsetsToTxnRequest()
		add.Version = 3
		add.TransactionalID, add.Group, add.ProducerID, add.ProducerEpoch = id, "g", started.ProducerID, started.ProducerEpoch
		eventually(t, "there is a topic for the offsets of the first group", func() bool {
			return ask[*kmsg.AddOffsetsToTxnResponse](t, client, add).ErrorCode == 0
		})
	} else if offset, code := stableOffset(t, client); offset != -1 || code != 0 {
		t.Fatalf("to begin with: offset %d, %v", offset, kerr.ErrorForCode(code))
	}
	offsets := kmsg.NewPtrTxnOffsetCommitRequest()
	offsets.TransactionalID, offsets.Group, offsets.ProducerID, offsets.ProducerEpoch = id, "g", started.ProducerID, started.ProducerEpoch
	offsets.Topics = []kmsg.TxnOffsetCommitRequestTopic{{Topic: "in", Partitions: []kmsg.TxnOffsetCommitRequestTopicPartition{{Offset: 7, LeaderEpoch: -1}}}}
	eventually(t, "the offsets are taken", func() bool {
		out, ok := askVersion[*kmsg.TxnOffsetCommitResponse](t, client, offsets, version)
		return ok && out.Topics[0].Partitions[0].ErrorCode == 0
	})
	b.PowerCut(1)
	b.Restart()
	if offset, code := stableOffset(t, client); code != kerr.UnstableOffsetCommit.Code {
		t.Fatalf("after the power was cut: offset %d, %v", offset, kerr.ErrorForCode(code))
	}
	end := kmsg.NewPtrEndTxnRequest()
	end.TransactionalID, end.ProducerID, end.ProducerEpoch, end.Commit = id, started.ProducerID, started.ProducerEpoch, commit
	eventually(t, "the transaction's coordinator is loaded and ends it", func() bool {
		out, ok := askVersion[*kmsg.EndTxnResponse](t, client, end, version)
		return ok && out.ErrorCode == 0
	})
	want := map[bool]int64{true: 7, false: -1}[commit]
	stable := func() bool {
		offset, code := stableOffset(t, client)
		if code == 0 && offset != want {
			t.Fatalf("offset %d, want %d", offset, want)
		}
		return code == 0
	}
	eventually(t, "the transaction has ended", stable)
	b.PowerCut(2)
	b.Restart()
	eventually(t, "it has ended after the power was cut", stable)
}

// stableOffset asks for the group's stable offset.
func stableOffset(t *testing.T, client *kgo.Client) (offset int64, code int16) {
	fetch := kmsg.NewPtrOffsetFetchRequest()
	fetch.RequireStable = true
	fetch.Groups = []kmsg.OffsetFetchRequestGroup{{Group: "g", MemberEpoch: -1, Topics: []kmsg.OffsetFetchRequestGroupTopic{{Topic: "in", Partitions: []int32{0}}}}}
	eventually(t, "the group is loaded", func() bool {
		r, err := client.Request(testContext(t), fetch)
		if err != nil {
			return false // its coordinator is not there yet
		}
		g := r.(*kmsg.OffsetFetchResponse).Groups[0]
		if g.ErrorCode != 0 || len(g.Topics) == 0 || g.Topics[0].Partitions[0].ErrorCode == kerr.UnknownTopicID.Code {
			return false // nor does it know the topic
		}
		offset, code = g.Topics[0].Partitions[0].Offset, g.Topics[0].Partitions[0].ErrorCode
		return true
	})
	return offset, code
}

func ask[R kmsg.Response](t *testing.T, client *kgo.Client, r kmsg.Request) R {
	t.Helper()
	out, err := client.Request(testContext(t), r)
	if err != nil {
		t.Fatal(err)
	}
	return out.(R)
}

// askVersion asks the coordinator once, in a version that the client would not choose; the
// connection may have ended with the broker.
func askVersion[R kmsg.Response](t *testing.T, client *kgo.Client, r kmsg.Request, version int16) (response R, ok bool) {
	r.SetVersion(version)
	a := kadm.NewClient(client)
	coordinator := a.FindTxnCoordinators(testContext(t), "app")["app"]
	if _, ofGroup := r.(*kmsg.TxnOffsetCommitRequest); ofGroup {
		coordinator = a.FindGroupCoordinators(testContext(t), "g")["g"]
	}
	if coordinator.Err != nil {
		return response, false
	}
	out, err := client.Broker(int(coordinator.NodeID)).Request(testContext(t), r)
	if err != nil {
		return response, false
	}
	return out.(R), true
}
