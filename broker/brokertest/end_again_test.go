package brokertest_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/brokertest"
)

// rawProducer is a transactional producer that is nothing but its requests.
type rawProducer struct {
	*wireConn
	id       string
	producer int64
	epoch    int16
}

// versionsOfEnd are the versions of EndTxn, AddPartitionsToTxn and InitProducerId in
// the two protocols.
var versionsOfEnd = map[string][3]int16{"V1": {4, 3, 4}, "V2": {5, 4, 5}}

func (p *rawProducer) do(r kmsg.Request, version int16) kmsg.Response {
	p.t.Helper()
	response, err := p.request(r, version)
	if err != nil {
		p.t.Fatal(err)
	}
	return response
}

func codeName(code int16) string {
	if code == 0 {
		return "ok"
	}
	return kerr.TypedErrorForCode(code).Message
}

func (p *rawProducer) init(version int16) string {
	r := kmsg.NewPtrInitProducerIDRequest()
	r.TransactionalID, r.TransactionTimeoutMillis, r.ProducerID, r.ProducerEpoch = &p.id, 60_000, -1, -1
	out := p.do(r, version).(*kmsg.InitProducerIDResponse)
	if out.ErrorCode == 0 {
		p.producer, p.epoch = out.ProducerID, out.ProducerEpoch
	}
	return codeName(out.ErrorCode)
}

// add adds partition 0 of a topic, as a client with the first protocol, as a broker
// does with the second.
func (p *rawProducer) add(topic string, epoch, version int16) string {
	r := kmsg.NewPtrAddPartitionsToTxnRequest()
	if version < 4 {
		t := kmsg.NewAddPartitionsToTxnRequestTopic()
		t.Topic, t.Partitions = topic, []int32{0}
		r.TransactionalID, r.ProducerID, r.ProducerEpoch, r.Topics = p.id, p.producer, epoch, append(r.Topics, t)
		return codeName(p.do(r, version).(*kmsg.AddPartitionsToTxnResponse).Topics[0].Partitions[0].ErrorCode)
	}
	t := kmsg.NewAddPartitionsToTxnRequestTransactionTopic()
	t.Topic, t.Partitions = topic, []int32{0}
	txn := kmsg.NewAddPartitionsToTxnRequestTransaction()
	txn.TransactionalID, txn.ProducerID, txn.ProducerEpoch, txn.Topics = p.id, p.producer, epoch, append(txn.Topics, t)
	r.Transactions = append(r.Transactions, txn)
	return codeName(p.do(r, version).(*kmsg.AddPartitionsToTxnResponse).Transactions[0].Topics[0].Partitions[0].ErrorCode)
}

// end returns the error, or the epoch from now on compared with that of the producer.
func (p *rawProducer) end(commit bool, epoch, version int16) string {
	r := kmsg.NewPtrEndTxnRequest()
	r.TransactionalID, r.ProducerID, r.ProducerEpoch, r.Commit = p.id, p.producer, epoch, commit
	out := p.do(r, version).(*kmsg.EndTxnResponse)
	if out.ErrorCode != 0 || version < 5 {
		return codeName(out.ErrorCode)
	}
	return fmt.Sprintf("epoch+%d", out.ProducerEpoch-p.epoch)
}

// coordinatorAddress is that of the node which has the transactions of an id.
func coordinatorAddress(t *testing.T, client *kgo.Client, id string) (address string) {
	t.Helper()
	eventually(t, "there is a coordinator", func() bool {
		r := kadm.NewClient(client).FindTxnCoordinators(testContext(t), id)[id]
		address = net.JoinHostPort(r.Host, fmt.Sprint(r.Port))
		return r.Err == nil && r.Name == id
	})
	return address
}

// finally repeats a request until the transaction before has ended; first is its first answer.
func finally(t *testing.T, ask func() string) (first, last string) {
	t.Helper()
	eventually(t, "the transaction before ends", func() bool {
		if last = ask(); first == "" {
			first = last
		}
		return last != kerr.ConcurrentTransactions.Message
	})
	return first, last
}

// What follows at once on the end of a transaction waits for it or is told
// CONCURRENT_TRANSACTIONS, and nothing else than what it is told later: clients take
// anything else as final. In particular a producer of the second protocol that aborts its
// next transaction, before the one it committed is over, is not fenced. The answers are
// those of Apache Kafka 4.1, to which LEAT_TEST_ORACLE=HOST:PORT puts the same requests.
func TestEndFollowsOnEnd(t *testing.T) {
	address := os.Getenv("LEAT_TEST_ORACLE")
	if address == "" {
		address = brokertest.Start(t).Addr()
	}
	client, err := kgo.NewClient(kgo.AlwaysRetryEOF(), kgo.SeedBrokers(address))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	const topic = "as-kafka-ends"
	if _, err := kadm.NewClient(client).CreateTopic(testContext(t), 1, -1, nil, topic); err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
		t.Fatal(err)
	}
	for _, c := range []struct {
		protocol, name string
		ask            func(p *rawProducer, v [3]int16) string
		want           string
	}{
		{"V2", "the same", func(p *rawProducer, v [3]int16) string { return p.end(true, p.epoch, v[0]) }, "epoch+1"},
		{"V2", "the other", func(p *rawProducer, v [3]int16) string { return p.end(false, p.epoch, v[0]) }, "INVALID_TXN_STATE"},
		{"V2", "abort of the next", func(p *rawProducer, v [3]int16) string { return p.end(false, p.epoch+1, v[0]) }, "epoch+2"},
		{"V2", "commit of the next", func(p *rawProducer, v [3]int16) string { return p.end(true, p.epoch+1, v[0]) }, "INVALID_TXN_STATE"},
		{"V2", "of another epoch", func(p *rawProducer, v [3]int16) string { return p.end(false, p.epoch+5, v[0]) }, "PRODUCER_FENCED"},
		{"V2", "records of before", func(p *rawProducer, v [3]int16) string { return p.add(topic, p.epoch, v[1]) }, "PRODUCER_FENCED"},
		{"V2", "records of the next", func(p *rawProducer, v [3]int16) string { return p.add(topic, p.epoch+1, v[1]) }, "ok"},
		{"V2", "another producer", func(p *rawProducer, v [3]int16) string { return p.init(v[2]) }, "ok"},
		{"V1", "the same", func(p *rawProducer, v [3]int16) string { return p.end(true, p.epoch, v[0]) }, "ok"},
		{"V1", "the other", func(p *rawProducer, v [3]int16) string { return p.end(false, p.epoch, v[0]) }, "INVALID_TXN_STATE"},
		{"V1", "of another epoch", func(p *rawProducer, v [3]int16) string { return p.end(false, p.epoch+5, v[0]) }, "PRODUCER_FENCED"},
		{"V1", "records of the next", func(p *rawProducer, v [3]int16) string { return p.add(topic, p.epoch, v[1]) }, "ok"},
		{"V1", "another producer", func(p *rawProducer, v [3]int16) string { return p.init(v[2]) }, "ok"},
	} {
		t.Run(c.protocol+" "+c.name, func(t *testing.T) {
			first := map[string]int{}
			for range 20 {
				id := fmt.Sprintf("ends-%d", time.Now().UnixNano())
				conn, err := net.Dial("tcp", coordinatorAddress(t, client, id))
				if err != nil {
					t.Fatal(err)
				}
				p := &rawProducer{wireConn: &wireConn{conn, t}, id: id}
				v := versionsOfEnd[c.protocol]
				eventually(t, "there is a coordinator", func() bool { return p.init(v[2]) == "ok" })
				if got := p.add(topic, p.epoch, v[1]); got != "ok" {
					t.Fatalf("add: %s", got)
				}
				if got := p.end(true, p.epoch, v[0]); got != "ok" && got != "epoch+1" {
					t.Fatalf("end: %s", got)
				}
				at, last := finally(t, func() string { return c.ask(p, v) })
				first[at]++
				if last != c.want {
					t.Errorf("finally %s, want %s", last, c.want)
				}
				conn.Close()
			}
			t.Log("first answers:", first)
			delete(first, c.want)
			delete(first, kerr.ConcurrentTransactions.Message)
			if len(first) > 0 {
				t.Errorf("first answers %v are neither %s nor CONCURRENT_TRANSACTIONS", first, c.want)
			}
		})
	}
}
