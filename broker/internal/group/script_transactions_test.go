package group

import (
	"fmt"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/coordinator"
	"github.com/leatlog/leat/broker/internal/record"
	"github.com/leatlog/leat/broker/internal/storage"
)

// logProducer is what a memoryLog knows of a producer.
type logProducer struct {
	epoch int16
	open  bool
	ended uint32
}

var _ coordinator.TransactionalLog = (*memoryLog)(nil)

func (l *memoryLog) TransactionState(producerID int64, epoch int16) (open bool, ended uint32) {
	p := l.producers[producerID]
	return p.open && p.epoch == epoch, p.ended
}

func (l *memoryLog) AppendInTransaction(batch []byte, ended uint32, done func(error)) error {
	b := record.Batch(batch)
	p := l.producers[b.ProducerID()]
	switch {
	case l.failing != nil:
		return l.failing
	case b.ProducerEpoch() < p.epoch:
		return kerr.InvalidProducerEpoch
	case !p.open && p.ended != ended:
		return coordinator.ErrTransactionEnded
	}
	l.producers[b.ProducerID()] = logProducer{epoch: b.ProducerEpoch(), open: true, ended: p.ended}
	l.Append(batch, done)
	return nil
}

// end appends a marker, as a transaction coordinator's request does.
func (l *memoryLog) endTransaction(producerID int64, epoch int16, commit bool) {
	p := l.producers[producerID]
	l.producers[producerID] = logProducer{epoch: max(epoch, p.epoch), ended: p.ended + 1}
	b := record.Batch(storage.AppendMarker(nil, producerID, epoch, commit, 0, 0))
	b.SetBaseOffset(l.end)
	l.end = b.NextOffset()
	l.batches = append(l.batches, b)
}

// producer is a transactional producer of a script.
type producer struct {
	id    int64
	epoch int16
}

// transactions is how a script's transactions are begun and ended: in the log alone,
// or by a Kafka.
type transactions interface {
	// begin returns the producer of the transactional id, the group's offsets being part
	// of its transaction.
	begin(transactionalID, group string) producer
	end(transactionalID string, p producer, commit bool)
}

// logTransactions are transactions of a script's log.
type logTransactions struct {
	s         *script
	producers map[string]producer
}

func (t *logTransactions) begin(transactionalID, _ string) producer {
	p, ok := t.producers[transactionalID]
	if !ok {
		p = producer{id: int64(1000 + len(t.producers))}
		t.producers[transactionalID] = p
	}
	return p
}

func (t *logTransactions) end(_ string, p producer, commit bool) {
	t.s.log.endTransaction(p.id, p.epoch, commit)
	t.s.service.(*Service).CompleteTransaction(0, p.id, p.epoch, commit)
}

// begin is the command: begin NAME group=G.
func (s *script) begin(name string, a arguments) {
	s.producers[name] = s.transactions.begin(name, a.get("group", "g"))
}

// endTransaction is the command: end NAME result=commit|abort [epoch=+1].
func (s *script) endTransaction(name string, a arguments) {
	p := s.producers[name]
	p.epoch += int16(a.number("bump", 0))
	s.producers[name] = p
	s.transactions.end(name, p, a.get("result", "commit") == "commit")
}

// transactionalCommit is the command: txn-commit NAME offsets=(t-0:5) ...
func (s *script) transactionalCommit(name string, a arguments) {
	r := kmsg.NewPtrTxnOffsetCommitRequest()
	r.Version = int16(a.number("version", 4))
	p := s.producers[name]
	r.TransactionalID, r.ProducerID, r.ProducerEpoch = name, p.id, p.epoch-int16(a.number("late", 0))
	r.Group, r.MemberID, r.InstanceID, r.Generation = a.get("group", "g"), a.get("id", ""), a.optional("instance"), int32(a.number("generation", -1))
	for _, p := range a.pairs("offsets") { // t-0:5
		topic, partition := topicPartition(p[0])
		t, one := kmsg.NewTxnOffsetCommitRequestTopic(), kmsg.NewTxnOffsetCommitRequestTopicPartition()
		t.Topic, one.Partition, one.LeaderEpoch = topic, partition, 7
		number, metadata, _ := strings.Cut(p[1], "/")
		if _, err := fmt.Sscan(number, &one.Offset); err != nil {
			s.t.Fatalf("offset %q: %v", number, err)
		}
		var n int
		if _, err := fmt.Sscan(metadata, &n); err == nil {
			metadata = strings.Repeat("m", n)
		}
		one.Metadata = &metadata
		t.Partitions = append(t.Partitions, one)
		r.Topics = append(r.Topics, t)
	}
	note := s.note(name)
	enlist := func(partition int32, add bool, done func(*kerr.Error)) {
		if add {
			fmt.Fprintf(&s.out, "%s: adds partition %d\n", name, partition)
		}
		switch a.get("enlist", "") {
		case "refused":
			done(kerr.TransactionAbortable)
		case "unreachable":
			done(kerr.NetworkException)
		case "overtaken": // by the end of a transaction
			s.transactions.end(name, s.producers[name], false)
			done(nil)
		case "later":
			s.queue = append(s.queue, func() { done(nil) })
		default:
			done(nil)
		}
	}
	s.service.TxnOffsetCommit(r, enlist, func(out *kmsg.TxnOffsetCommitResponse) {
		var list []string
		for _, t := range out.Topics {
			for _, p := range t.Partitions {
				list = append(list, fmt.Sprintf("%s-%d=%s", t.Topic, p.Partition, errorName(p.ErrorCode)))
			}
		}
		note("%s", strings.Join(list, " "))
	})
}
