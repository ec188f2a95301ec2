package sim

import (
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/record"
)

// producer is an idempotent producer. It sends one batch at a time with acks=all, and
// sends it again until it is acknowledged.
type producer struct {
	client    *client
	topics    []string
	moved     bool // its topic may have a single replica: no node can be missed
	id        int64
	sequences map[topicPartition]int32
	acked     int
	busy      bool   // a batch is under way
	goOn      bool   // it goes on after healing, too
	state     string // what it waits for
}

func (p *producer) run() {
	x := p.client
	s := x.c.s
	p.begin()
	for {
		p.busy = false
		s.sleep(s.between(time.Millisecond, 200*time.Millisecond))
		if x.c.healed && !p.goOn {
			continue
		}
		if s.chance(5) {
			p.begin() // as if it were restarted
		}
		p.busy = true
		p.produce(topicPartition{p.topics[s.random.IntN(len(p.topics))], s.random.Int32N(2)})
	}
}

// begin gets a producer id.
func (p *producer) begin() {
	x := p.client
	s := x.c.s
	p.busy, p.state = true, "a producer id"
	clear(p.sequences)
	for p.id = -1; p.id < 0; s.sleep(20 * time.Millisecond) {
		r := kmsg.NewPtrInitProducerIDRequest()
		r.SetVersion(4)
		if response, err := x.ask(x.anyNode(), r); err == nil && response.(*kmsg.InitProducerIDResponse).ErrorCode == 0 {
			p.id = response.(*kmsg.InitProducerIDResponse).ProducerID
		}
	}
	x.c.checks.producerID(p.id, x.place)
}

// produce sends a batch until it is acknowledged.
func (p *producer) produce(tp topicPartition) {
	x := p.client
	c := x.c
	b := record.NewBuilder(record.CodecNone)
	b.SetProducer(p.id, 0, p.sequences[tp])
	count := 1 + c.s.random.IntN(3)
	var values []string
	for n := range count {
		value := fmt.Sprintf("%d:%d:%s", p.id, p.sequences[tp]+int32(n), strings.Repeat("x", c.s.random.IntN(300)))
		values = append(values, value)
		b.Append(c.s.time().UnixMilli(), nil, []byte(value), nil)
	}
	batch := b.Build(nil)
	c.stats.Produced++
	for try := 0; ; try++ {
		if try > 0 {
			c.stats.ProduceRetries++
			c.s.sleep(c.s.between(time.Millisecond, 50*time.Millisecond))
		}
		leader, ok := x.leader(tp)
		if !ok {
			p.state = fmt.Sprintf("a leader of %v", tp)
			continue
		}
		p.state = fmt.Sprintf("node %d to take %v", leader, tp)
		r := kmsg.NewPtrProduceRequest()
		r.SetVersion(11)
		r.Acks, r.TimeoutMillis = -1, 1000
		q := kmsg.NewProduceRequestTopicPartition()
		q.Partition, q.Records = tp.partition, append([]byte(nil), batch...)
		t := kmsg.NewProduceRequestTopic()
		t.Topic, t.Partitions = tp.topic, append(t.Partitions, q)
		r.Topics = append(r.Topics, t)
		response, err := x.ask(leader, r)
		if err != nil {
			p.state += ": " + err.Error()
			delete(x.leaders, tp)
			continue
		}
		answer := &response.(*kmsg.ProduceResponse).Topics[0].Partitions[0]
		if answer.ErrorCode == 0 {
			c.stats.Acknowledged++
			p.acked++
			c.checks.acknowledged(tp, answer.BaseOffset, values)
			p.sequences[tp] += int32(count)
			return
		}
		failure := kerr.ErrorForCode(answer.ErrorCode)
		p.state += ": " + failure.Error()
		switch failure {
		case kerr.OutOfOrderSequenceNumber, kerr.UnknownProducerID, kerr.InvalidProducerEpoch, kerr.CorruptMessage, kerr.InvalidRecord:
			c.fail("I3: producer %d is told %v for sequence %d of %v, of which all before were acknowledged", p.id, failure, p.sequences[tp], tp)
			return
		}
		delete(x.leaders, tp)
	}
}

// consumer reads partitions and looks whether what it sees stays.
type consumer struct {
	client *client
	at     map[topicPartition]int64
}

func (x *consumer) run() {
	c := x.client.c
	x.at = map[topicPartition]int64{}
	for {
		c.s.sleep(c.s.between(time.Millisecond, 300*time.Millisecond))
		tp := topicPartition{movedTopic, c.s.random.Int32N(2)}
		if n := c.s.random.IntN(len(c.topics) + 1); n < len(c.topics) {
			tp.topic = c.topics[n]
		}
		leader, ok := x.client.leader(tp)
		if !ok {
			continue
		}
		if c.s.chance(200) {
			leader = x.client.anyNode() // followers serve consumers, too (KIP-392)
		}
		x.fetch(leader, tp)
	}
}

func (x *consumer) fetch(leader int32, tp topicPartition) {
	c := x.client.c
	r := kmsg.NewPtrFetchRequest()
	r.SetVersion(12)
	r.MaxWaitMillis, r.MinBytes, r.MaxBytes = 300, 1, 1<<16
	q := kmsg.NewFetchRequestTopicPartition()
	q.Partition, q.FetchOffset, q.PartitionMaxBytes, q.CurrentLeaderEpoch = tp.partition, x.at[tp], 1<<14, -1
	t := kmsg.NewFetchRequestTopic()
	t.Topic, t.Partitions = tp.topic, append(t.Partitions, q)
	r.Topics = append(r.Topics, t)
	response, err := x.client.ask(leader, r)
	if err != nil {
		delete(x.client.leaders, tp)
		return
	}
	for _, t := range response.(*kmsg.FetchResponse).Topics {
		for _, p := range t.Partitions {
			if p.ErrorCode != 0 {
				delete(x.client.leaders, tp)
				continue
			}
			for data := p.RecordBatches; len(data) > 0; {
				batch, rest, err := record.Parse(data)
				if err != nil {
					break // the last one may be cut short
				}
				if batch.NextOffset() > x.at[tp] {
					c.checks.committedBatch(leader, tp, batch)
					c.stats.Consumed += int(batch.Count())
					x.at[tp] = batch.NextOffset()
				}
				data = rest
			}
		}
	}
}
