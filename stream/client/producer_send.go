package client

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// maxFreeBuffers bounds the batch buffers a producer keeps.
const maxFreeBuffers = 64

// dispatchLocked sends, to every broker without a request in flight, the first
// batch of each partition it leads.
func (p *Producer) dispatchLocked() {
	if p.err != nil {
		return
	}
	var byBroker map[int32][]*producerPartition
	for pp := range p.queued {
		switch {
		case pp.sent || pp.paused || len(pp.queue) == 0:
		case pp.leader < 0:
			p.refreshLocked()
		case !p.inFlight[pp.leader]:
			if byBroker == nil {
				byBroker = make(map[int32][]*producerPartition, 1)
			}
			byBroker[pp.leader] = append(byBroker[pp.leader], pp)
		}
	}
	for broker, partitions := range byBroker {
		req := p.requestLocked(partitions)
		p.inFlight[broker] = true
		p.wait.Add(1)
		go p.send(broker, req, partitions)
	}
}

// maxRequestBytes keeps a request well below the brokers' limit, 100 MB.
const maxRequestBytes = 16 << 20

// requestLocked makes a request of the first batches of partitions.
func (p *Producer) requestLocked(partitions []*producerPartition) *kmsg.ProduceRequest {
	req := kmsg.NewPtrProduceRequest()
	req.Acks = -1
	req.TimeoutMillis = 30_000
	if p.cfg.TransactionalID != "" {
		req.TransactionID = &p.cfg.TransactionalID
		p.txn.begun = true
	}
	index := make(map[*ProducerTopic]int, 4)
	bytes := 0
	for _, pp := range partitions {
		if bytes > maxRequestBytes {
			break // the rest goes with the next request
		}
		i, ok := index[pp.topic]
		if !ok {
			i = len(req.Topics)
			index[pp.topic] = i
			t := kmsg.NewProduceRequestTopic()
			t.Topic, t.TopicID = pp.topic.name, pp.id
			req.Topics = append(req.Topics, t)
		}
		rp := kmsg.NewProduceRequestTopicPartition()
		rp.Partition, rp.Records = pp.partition, pp.queue[0].bytes
		req.Topics[i].Partitions = append(req.Topics[i].Partitions, rp)
		pp.sent = true
		bytes += len(rp.Records)
	}
	return req
}

// send issues one request and handles what comes back.
func (p *Producer) send(broker int32, req *kmsg.ProduceRequest, partitions []*producerPartition) {
	defer p.wait.Done()
	if p.version == 1 {
		if err := p.addPartitions(partitions); err != nil {
			p.fail(err)
			return
		}
	}
	resp, err := p.client.requestWith(p.ctx, p.kgo, broker, req)
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.inFlight, broker)
	if err != nil {
		// The request may still be read by the connection: its buffers are not used
		// again, they go to the garbage collector when the batches are acknowledged.
		p.lostLocked(partitions, err)
	} else {
		p.answeredLocked(partitions, resp.(*kmsg.ProduceResponse))
	}
	p.dispatchLocked()
	p.changed.Broadcast()
}

// lostLocked handles a request whose fate is not known: its batches are sent
// again, with the same sequences, to the leaders of then.
func (p *Producer) lostLocked(partitions []*producerPartition, err error) {
	if errors.Is(err, ErrClosed) || p.ctx.Err() != nil {
		p.failLocked(ErrClosed)
		return
	}
	p.client.log.Debug().Err(err).Msg("produce request failed; trying again")
	for _, pp := range partitions {
		if pp.sent {
			pp.queue[0].bytes = slices.Clone(pp.queue[0].bytes)
			p.retryLocked(pp, err)
		}
	}
}

// retryLocked lets the first batch of a partition go again once its leader is
// known.
func (p *Producer) retryLocked(pp *producerPartition, err error) {
	pp.sent, pp.leader = false, -1
	if waited := time.Since(pp.queue[0].since); waited > p.cfg.DeliveryTimeout {
		p.failLocked(fmt.Errorf("%w: a batch for %s-%d was not acknowledged within %v: %w", ErrProducerFailed,
			pp.topic.name, pp.partition, p.cfg.DeliveryTimeout, err))
	}
}

func (p *Producer) answeredLocked(partitions []*producerPartition, resp *kmsg.ProduceResponse) {
	type key struct {
		topic     string
		partition int32
	}
	answers := make(map[key]*kmsg.ProduceResponseTopicPartition, len(partitions))
	for i := range resp.Topics {
		rt := &resp.Topics[i]
		name := p.client.metadata.name(rt.Topic, rt.TopicID)
		for j := range rt.Partitions {
			answers[key{name, rt.Partitions[j].Partition}] = &rt.Partitions[j]
		}
	}
	for _, pp := range partitions {
		if !pp.sent {
			continue // did not fit into the request
		}
		rp, ok := answers[key{pp.topic.name, pp.partition}]
		if !ok {
			p.retryLocked(pp, errors.New("the broker's answer left the partition out"))
			continue
		}
		p.answerLocked(pp, rp)
	}
}

// answerLocked handles the answer for one batch.
func (p *Producer) answerLocked(pp *producerPartition, rp *kmsg.ProduceResponseTopicPartition) {
	err := kerr.ErrorForCode(rp.ErrorCode)
	batch := pp.queue[0]
	switch {
	case err == nil, errors.Is(err, kerr.DuplicateSequenceNumber):
		if rp.BaseOffset >= 0 {
			pp.next = rp.BaseOffset + int64(batch.records)
		}
		pp.sent = false
		pp.queue[0] = producerBatch{}
		pp.queue = pp.queue[1:]
		p.bytes -= len(batch.bytes)
		if len(p.free) < maxFreeBuffers {
			p.free = append(p.free, batch.bytes)
		}
		if len(pp.queue) == 0 {
			pp.queue = nil
			delete(p.queued, pp)
		}
	case errors.Is(err, kerr.ConcurrentTransactions):
		p.pauseLocked(pp)
	case staleMetadata(rp.ErrorCode), kerr.IsRetriable(err):
		p.client.log.Debug().Err(err).Str("topic", pp.topic.name).Int32("partition", pp.partition).Msg("produce: trying again")
		p.retryLocked(pp, messageError(rp.ErrorCode, rp.ErrorMessage))
	case errors.Is(err, kerr.MessageTooLarge), errors.Is(err, kerr.RecordListTooLarge):
		p.failLocked(fmt.Errorf("%w: a batch of %d records and %d bytes is too large for %s-%d: raise the topic's max.message.bytes or lower the batch size: %w",
			ErrProducerFailed, batch.records, len(batch.bytes), pp.topic.name, pp.partition, err))
	default:
		p.failLocked(fmt.Errorf("%w: %s-%d: %w", ErrProducerFailed, pp.topic.name, pp.partition, messageError(rp.ErrorCode, rp.ErrorMessage)))
	}
}

// pauseLocked lets the first batch of a partition go again soon: the transaction
// before is still being ended.
func (p *Producer) pauseLocked(pp *producerPartition) {
	pp.sent, pp.paused = false, true
	if waited := time.Since(pp.queue[0].since); waited > p.cfg.DeliveryTimeout {
		p.failLocked(fmt.Errorf("%w: the transaction before was not ended within %v", ErrProducerFailed, p.cfg.DeliveryTimeout))
		return
	}
	time.AfterFunc(concurrentWait, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		pp.paused = false
		if p.ctx.Err() == nil {
			p.dispatchLocked()
		}
	})
}

// refreshLocked starts the search for the leaders of partitions without one.
func (p *Producer) refreshLocked() {
	if p.refreshing {
		return
	}
	p.refreshing = true
	p.wait.Add(1)
	go p.refresh()
}

func (p *Producer) refresh() {
	defer p.wait.Done()
	for try := 1; ; try++ {
		if !p.client.sleep(p.ctx, backoff(try)) {
			return
		}
		p.mu.Lock()
		names := p.leaderlessLocked()
		if len(names) == 0 || p.err != nil {
			p.refreshing = false
			p.mu.Unlock()
			return
		}
		p.mu.Unlock()
		topics, err := p.client.Topics(p.ctx, names...)
		if err != nil {
			p.client.log.Debug().Err(err).Strs("topics", names).Msg("produce: looking for leaders failed; trying again")
		}
		p.mu.Lock()
		p.setLeadersLocked(topics)
		p.dispatchLocked()
		p.mu.Unlock()
	}
}

func (p *Producer) leaderlessLocked() []string {
	var names []string
	for pp := range p.queued {
		if pp.leader < 0 && !pp.sent {
			names = append(names, pp.topic.name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// setLeadersLocked takes over the leaders; a batch that has waited too long for
// one fails the producer.
func (p *Producer) setLeadersLocked(topics map[string]*Topic) {
	for pp := range p.queued {
		if pp.leader >= 0 || pp.sent {
			continue
		}
		if t, ok := topics[pp.topic.name]; ok && int(pp.partition) < len(t.Partitions) && t.Partitions[pp.partition].Leader >= 0 {
			pp.id, pp.leader = t.ID, t.Partitions[pp.partition].Leader
			continue
		}
		p.retryLocked(pp, fmt.Errorf("%w, or has no leader", ErrUnknownTopic))
	}
}
