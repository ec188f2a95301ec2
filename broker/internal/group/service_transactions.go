package group

import (
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/coordinator"
)

// implicitAddVersion is the version of TxnOffsetCommit from which on the broker adds
// the partition of `__consumer_offsets` to the transaction; before, the client has done
// so with AddOffsetsToTxn (KIP-890).
const implicitAddVersion = 5

// abortableVersion is the version of TxnOffsetCommit from which on clients know that a
// transaction can be aborted and gone on from.
const abortableVersion = 4

// TxnOffsetCommit handles a TxnOffsetCommit request whose topics exist. The offsets
// are the group's when the transaction commits (CompleteTransaction). enlist has the
// transaction's coordinator say that a partition of `__consumer_offsets` is part of the
// transaction; with add it is made so first. done gets nil or why not.
func (s *Service) TxnOffsetCommit(r *kmsg.TxnOffsetCommitRequest, enlist func(partition int32, add bool, done func(*kerr.Error)), respond func(*kmsg.TxnOffsetCommitResponse)) {
	answer := func(err *kerr.Error, errs []*kerr.Error) { respond(txnOffsetCommitResponse(r, err, errs)) }
	if r.Group == "" {
		answer(kerr.InvalidGroupID, nil)
		return
	}
	n := s.partitions()
	if n <= 0 {
		answer(kerr.CoordinatorNotAvailable, nil)
		return
	}
	partition := PartitionFor(r.Group, n)
	open, ended, err := s.runtime.TransactionState(partition, r.ProducerID, r.ProducerEpoch)
	if err != nil {
		answer(kerr.NotCoordinator, nil)
		return
	}
	commit := transactionalCommit(r, ended)
	enlisted := func(err *kerr.Error) {
		if err == nil {
			err = s.on(partition, func(shard *Shard, now time.Time) coordinator.Result { return shard.Commit(commit, now, answer) })
		}
		if err != nil {
			answer(err, nil)
		}
	}
	if open {
		enlisted(nil) // it would not be, were the partition not part of it
		return
	}
	enlist(partition, r.Version >= implicitAddVersion, enlisted)
}

func transactionalCommit(r *kmsg.TxnOffsetCommitRequest, ended uint32) *CommitRequest {
	commit := &CommitRequest{
		GroupID: r.Group, MemberID: r.MemberID, InstanceID: r.InstanceID, Generation: r.Generation, RetentionMillis: -1,
		Transaction: &coordinator.Transaction{ProducerID: r.ProducerID, Epoch: r.ProducerEpoch, Ended: ended},
	}
	for _, t := range r.Topics {
		for _, p := range t.Partitions {
			o := PartitionOffset{TopicPartition{t.Topic, p.Partition}, Offset{Offset: p.Offset, LeaderEpoch: -1}}
			if r.Version >= 2 {
				o.LeaderEpoch = p.LeaderEpoch
			}
			if p.Metadata != nil {
				o.Metadata = *p.Metadata
			}
			commit.Offsets = append(commit.Offsets, o)
		}
	}
	return commit
}

// txnOffsetCommitResponse is the answer with one error for all, or one for each
// partition.
func txnOffsetCommitResponse(r *kmsg.TxnOffsetCommitRequest, err *kerr.Error, errs []*kerr.Error) *kmsg.TxnOffsetCommitResponse {
	if err == kerr.NetworkException {
		err = kerr.CoordinatorLoadInProgress // what clients try again for
	}
	if err == kerr.CoordinatorLoadInProgress && r.Version < 2 {
		err = kerr.CoordinatorNotAvailable // producers before 2.0 stumble over the other
	}
	if err == kerr.TransactionAbortable && r.Version < abortableVersion {
		err = kerr.InvalidTxnState
	}
	out := r.ResponseKind().(*kmsg.TxnOffsetCommitResponse)
	i := 0
	for _, t := range r.Topics {
		topic := kmsg.NewTxnOffsetCommitResponseTopic()
		topic.Topic = t.Topic
		for _, p := range t.Partitions {
			one := kmsg.NewTxnOffsetCommitResponseTopicPartition()
			one.Partition, one.ErrorCode = p.Partition, code(err)
			if err == nil {
				one.ErrorCode = code(errs[i])
			}
			i++
			topic.Partitions = append(topic.Partitions, one)
		}
		out.Topics = append(out.Topics, topic)
	}
	return out
}

// CompleteTransaction is called when a marker was appended to a partition of
// `__consumer_offsets`, before anyone is told that the transaction is over: what the
// transaction committed here becomes the groups', or is dropped. A partition that this
// node does not lead is ignored.
func (s *Service) CompleteTransaction(partition int32, producerID int64, epoch int16, commit bool) {
	s.runtime.CompleteTransaction(partition, producerID, epoch, commit)
}
