package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// concurrentWait is how long to wait when the coordinator still ends the
// transaction before: its markers take a few milliseconds.
const concurrentWait = 5 * time.Millisecond

// transaction is what a transactional producer knows of its open transaction.
// Under Producer.mu.
type transaction struct {
	begun  bool // something was sent in it
	groups bool // first protocol: the group's offsets are part of it
	ending bool // the end was asked for and is not answered
}

// InTransaction says whether the producer has begun a transaction that is not
// ended: records were appended or offsets sent. It belongs to the owner's
// goroutine.
func (p *Producer) InTransaction() bool {
	if p.cfg.TransactionalID == "" {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.txn.begun || len(p.open) > 0 || len(p.queued) > 0
}

// SendOffsets makes offsets of the group part of the transaction: they count
// when it commits. They are sent as this member of the group: ErrFenced says
// that it is no longer one (KIP-447), ErrProducerFailed that the transaction
// cannot go on. It may run beside Flush.
func (p *Producer) SendOffsets(ctx context.Context, g *Group, offsets map[Partition]Offset) error {
	if len(offsets) == 0 {
		return nil
	}
	for try := 1; ; try++ {
		member, generation, err := g.current(ctx)
		if err != nil {
			return err
		}
		err = p.sendOffsetsOnce(ctx, g, member, generation, offsets)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, kerr.RebalanceInProgress):
			g.awaitChange(ctx, generation)
		case errors.Is(err, kerr.IllegalGeneration):
			if !g.awaitChange(ctx, generation) && try > 3 {
				return fmt.Errorf("%w: %w", ErrFenced, err)
			}
		case errors.Is(err, kerr.UnknownMemberID), errors.Is(err, kerr.FencedInstanceID):
			return fmt.Errorf("%w: %w", ErrFenced, err)
		case ctx.Err() != nil:
			return fmt.Errorf("%w: offsets of group %q: %w", ErrProducerFailed, g.cfg.Group, ctx.Err())
		case !transactionRetriable(err):
			return p.broken(fmt.Errorf("%w: offsets of group %q: %w", ErrProducerFailed, g.cfg.Group, err))
		}
		if err := p.retryTransaction(ctx, err, try); err != nil {
			return err
		}
	}
}

func (p *Producer) sendOffsetsOnce(ctx context.Context, g *Group, member string, generation int32, offsets map[Partition]Offset) error {
	p.mu.Lock()
	if p.err != nil {
		defer p.mu.Unlock()
		return p.err
	}
	p.txn.begun = true
	id, epoch := p.id, p.epoch
	addGroup := p.version < 2 && !p.txn.groups
	p.mu.Unlock()
	if addGroup {
		add := kmsg.NewPtrAddOffsetsToTxnRequest()
		add.TransactionalID, add.ProducerID, add.ProducerEpoch, add.Group = p.cfg.TransactionalID, id, epoch, g.cfg.Group
		resp, err := add.RequestWith(ctx, p.kgo)
		if err != nil {
			return p.client.closedOr(err)
		}
		if err := codeError(resp.ErrorCode); err != nil {
			return err
		}
		p.mu.Lock()
		p.txn.groups = true
		p.mu.Unlock()
	}
	req := kmsg.NewPtrTxnOffsetCommitRequest()
	req.TransactionalID, req.ProducerID, req.ProducerEpoch = p.cfg.TransactionalID, id, epoch
	req.Group, req.MemberID, req.Generation, req.InstanceID = g.cfg.Group, member, generation, g.instance()
	topics := make(map[string]struct{})
	partitions := make([]Partition, 0, len(offsets))
	for at := range offsets {
		partitions = append(partitions, at)
		topics[at.Topic] = struct{}{}
	}
	if err := p.client.ensure(ctx, topics); err != nil { // for the ids
		return err
	}
	slices.SortFunc(partitions, comparePartitions)
	for _, at := range partitions {
		if n := len(req.Topics); n == 0 || req.Topics[n-1].Topic != at.Topic {
			t := kmsg.NewTxnOffsetCommitRequestTopic()
			t.Topic, t.TopicID = at.Topic, p.client.metadata.id(at.Topic)
			req.Topics = append(req.Topics, t)
		}
		t := &req.Topics[len(req.Topics)-1]
		rp := kmsg.NewTxnOffsetCommitRequestTopicPartition()
		o := offsets[at]
		rp.Partition, rp.Offset, rp.LeaderEpoch, rp.Metadata = at.Partition, o.Offset, o.LeaderEpoch, kmsg.StringPtr(o.Metadata)
		t.Partitions = append(t.Partitions, rp)
	}
	resp, err := req.RequestWith(ctx, p.kgo)
	if err != nil {
		return p.client.closedOr(err)
	}
	for i := range resp.Topics {
		for j := range resp.Topics[i].Partitions {
			if err := codeError(resp.Topics[i].Partitions[j].ErrorCode); err != nil {
				return err
			}
		}
	}
	return nil
}

// EndTransaction commits or aborts what was appended and sent since the last
// end. Before a commit Flush must have returned without an error. It does nothing
// when nothing was sent. After an error the producer has failed and whether the
// transaction is committed is not known: the group's committed offsets tell.
func (p *Producer) EndTransaction(ctx context.Context, commit bool) error {
	p.mu.Lock()
	if p.err != nil && commit {
		defer p.mu.Unlock()
		return p.err
	}
	if !p.txn.begun {
		p.mu.Unlock()
		return nil
	}
	p.txn.ending = true
	id, epoch := p.id, p.epoch
	p.mu.Unlock()
	for try := 1; ; try++ {
		req := kmsg.NewPtrEndTxnRequest()
		req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Commit = p.cfg.TransactionalID, id, epoch, commit
		resp, err := req.RequestWith(ctx, p.kgo)
		if err == nil {
			err = codeError(resp.ErrorCode)
		} else {
			err = p.client.closedOr(err)
		}
		switch {
		case err == nil:
			p.ended(resp)
			return nil
		case !transactionRetriable(err), ctx.Err() != nil:
			return p.broken(fmt.Errorf("%w: end of the transaction: %w", ErrProducerFailed, err))
		}
		if err := p.retryTransaction(ctx, err, try); err != nil {
			return p.broken(err)
		}
	}
}

// ended begins anew. The second protocol bumps the epoch at every end, so that
// what is late from the transaction before cannot slip into the next: sequences
// begin at 0 again.
func (p *Producer) ended(resp *kmsg.EndTxnResponse) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.txn = transaction{}
	renew := p.version >= 2 && resp.ProducerID >= 0
	if renew {
		p.id, p.epoch = resp.ProducerID, resp.ProducerEpoch
	}
	for _, t := range p.topics {
		for _, pp := range t.partitions {
			pp.added = false
			if renew {
				pp.sequence = 0
			}
		}
	}
}

// retryTransaction waits before the next try of a transaction's request.
func (p *Producer) retryTransaction(ctx context.Context, err error, try int) error {
	wait := backoff(try)
	if errors.Is(err, kerr.ConcurrentTransactions) {
		wait = concurrentWait
	}
	p.client.log.Debug().Err(err).Str("transactional_id", p.cfg.TransactionalID).Msg("transaction: trying again")
	if !p.client.sleep(ctx, wait) {
		return fmt.Errorf("%w: %w", ErrProducerFailed, errors.Join(err, ctx.Err()))
	}
	return nil
}

// transactionRetriable says that the same request may succeed later.
func transactionRetriable(err error) bool {
	return isTransport(err) || errors.Is(err, kerr.ConcurrentTransactions) || kerr.IsRetriable(err)
}

// broken fails the producer and returns err.
func (p *Producer) broken(err error) error {
	p.fail(err)
	return err
}

// addPartitions makes partitions part of the transaction: the first protocol
// wants that before they are written.
func (p *Producer) addPartitions(partitions []*producerPartition) error {
	p.mu.Lock()
	var missing []*producerPartition
	for _, pp := range partitions {
		if pp.sent && !pp.added {
			missing = append(missing, pp)
		}
	}
	id, epoch := p.id, p.epoch
	p.mu.Unlock()
	if len(missing) == 0 {
		return nil
	}
	req := kmsg.NewPtrAddPartitionsToTxnRequest()
	req.TransactionalID, req.ProducerID, req.ProducerEpoch = p.cfg.TransactionalID, id, epoch
	at := make(map[string]int, 4)
	for _, pp := range missing {
		i, ok := at[pp.topic.name]
		if !ok {
			i = len(req.Topics)
			at[pp.topic.name] = i
			t := kmsg.NewAddPartitionsToTxnRequestTopic()
			t.Topic = pp.topic.name
			req.Topics = append(req.Topics, t)
		}
		req.Topics[i].Partitions = append(req.Topics[i].Partitions, pp.partition)
	}
	for try := 1; ; try++ {
		err := p.addOnce(req)
		if err == nil {
			p.mu.Lock()
			defer p.mu.Unlock()
			for _, pp := range missing {
				pp.added = true
			}
			return nil
		}
		if !transactionRetriable(err) {
			return fmt.Errorf("%w: add partitions to the transaction: %w", ErrProducerFailed, err)
		}
		if err := p.retryTransaction(p.ctx, err, try); err != nil {
			return err
		}
	}
}

func (p *Producer) addOnce(req *kmsg.AddPartitionsToTxnRequest) error {
	resp, err := req.RequestWith(p.ctx, p.kgo)
	if err != nil {
		return p.client.closedOr(err)
	}
	if err := codeError(resp.ErrorCode); err != nil {
		return err
	}
	for i := range resp.Topics {
		for j := range resp.Topics[i].Partitions {
			err := kerr.ErrorForCode(resp.Topics[i].Partitions[j].ErrorCode)
			if err != nil && !errors.Is(err, kerr.OperationNotAttempted) {
				return err
			}
		}
	}
	return nil
}
