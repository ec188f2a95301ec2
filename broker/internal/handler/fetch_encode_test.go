package handler

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/storage"
)

// kmsgFetchResponse is what appendFetchResponse encodes, as kmsg's struct.
func kmsgFetchResponse(head *fetchHead, items []fetchItem, records [][]byte) *kmsg.FetchResponse {
	r := kmsg.NewPtrFetchResponse()
	r.Version, r.ErrorCode, r.SessionID = head.version, errorCode(head.err), head.sessionID
	for i := range items {
		item := &items[i]
		if i == 0 || item.name != items[i-1].name || item.id != items[i-1].id {
			t := kmsg.NewFetchResponseTopic()
			t.Topic, t.TopicID = item.name, item.id
			r.Topics = append(r.Topics, t)
		}
		p := kmsg.NewFetchResponseTopicPartition()
		p.Partition, p.ErrorCode = item.fetchKey.partition, errorCode(item.result.Err)
		p.HighWatermark, p.LastStableOffset, p.LogStartOffset = item.result.HighWatermark, item.result.LastStableOffset, item.result.LogStart
		p.RecordBatches = records[i]
		if item.result.Err != nil {
			p.HighWatermark, p.LastStableOffset, p.LogStartOffset = -1, -1, -1
			if head.version >= 16 && movedLeader(item.result.Err) {
				p.CurrentLeader.LeaderID, p.CurrentLeader.LeaderEpoch = item.leaderID, item.result.LeaderEpoch
			}
		} else if item.result.DivergingEpoch >= 0 {
			p.DivergingEpoch.Epoch, p.DivergingEpoch.EndOffset = item.result.DivergingEpoch, item.result.DivergingEnd
		}
		t := &r.Topics[len(r.Topics)-1]
		t.Partitions = append(t.Partitions, p)
	}
	if head.version >= 16 {
		for _, b := range head.brokers {
			broker := kmsg.NewFetchResponseBroker()
			broker.NodeID, broker.Host, broker.Port, broker.Rack = b.id, b.host, b.port, b.rack
			r.Brokers = append(r.Brokers, broker)
		}
	}
	return r
}

// assembled puts the records at their cuts.
func assembled(body []byte, cuts []int, records [][]byte) []byte {
	var out []byte
	at, cut := 0, 0
	for _, r := range records {
		if len(r) > 0 {
			out = append(append(out, body[at:cuts[cut]]...), r...)
			at = cuts[cut]
			cut++
		}
	}
	return append(out, body[at:]...)
}

func TestFetchResponseEncodesLikeKmsg(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	rack := "r1"
	errs := []*kerr.Error{nil, nil, nil, kerr.NotLeaderForPartition, kerr.OffsetOutOfRange, kerr.FencedLeaderEpoch}
	for round := range 2000 {
		head := &fetchHead{version: int16(4 + random.IntN(15)), sessionID: random.Int32()}
		if random.IntN(10) == 0 {
			head.err = kerr.FetchSessionIDNotFound
		}
		if random.IntN(4) == 0 {
			head.brokers = []endpoint{{id: 1, host: "one", port: 9092}, {id: 2, host: "two", port: 9093, rack: &rack}}
		}
		var items []fetchItem
		var records [][]byte
		for range random.IntN(6) {
			item := fetchItem{fetchKey: fetchKey{partition: random.Int32N(100)}, leaderID: random.Int32N(3)}
			if topic := random.IntN(3); head.version >= 13 {
				item.id[0] = byte(topic)
			} else {
				item.name = []string{"", "orders", string(bytes.Repeat([]byte("x"), 200))}[topic]
			}
			item.result = ReadResult{HighWatermark: random.Int64(), LastStableOffset: random.Int64(), LogStart: random.Int64(),
				LeaderEpoch: random.Int32N(9), DivergingEpoch: -1, Err: errs[random.IntN(len(errs))]}
			data := []byte{}
			switch {
			case item.result.Err != nil:
			case random.IntN(4) == 0:
				item.result.DivergingEpoch, item.result.DivergingEnd = random.Int32N(5), random.Int64N(100)
			case random.IntN(2) == 0:
				data = bytes.Repeat([]byte{byte(round)}, 1+random.IntN(300))
				item.result.Slice = storage.Slice{Size: len(data)}
			}
			items, records = append(items, item), append(records, data)
		}
		body, cuts := appendFetchResponse(nil, head, items, nil)
		want := kmsgFetchResponse(head, items, records).AppendTo(nil)
		if got := assembled(body, cuts, records); !bytes.Equal(got, want) {
			t.Fatalf("round %d, version %d:\n got %x\nwant %x", round, head.version, got, want)
		}
	}
}
