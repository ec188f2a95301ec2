package client

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/topology/plan"
)

// ProducerConfig bounds a producer.
type ProducerConfig struct {
	// Codec compresses the batches. Default none.
	Codec Codec
	// BatchBytes is the size, before compression, at which a batch is closed and
	// sent. It must stay below the topics' max.message.bytes. Default 512 KiB.
	BatchBytes int
	// BufferBytes is how much may wait for the brokers before Append blocks. Default
	// 32 MiB.
	BufferBytes int
	// DeliveryTimeout is how long a batch is tried before the producer fails.
	// Default 2 minutes.
	DeliveryTimeout time.Duration
	// TransactionalID makes everything that is appended part of a transaction, which
	// EndTransaction ends. A producer fences the one before it with the same id and
	// aborts what that one has left open. "" for none.
	TransactionalID string
	// TransactionTimeout is how long a transaction may be open before the cluster
	// aborts it. Default 10 s.
	TransactionTimeout time.Duration
}

// Producer writes record batches with acks=all, in order and idempotently: a
// batch that is sent again after a lost answer is in the log once. One request
// per broker is in flight, with one batch per partition, so that retries keep
// the order. With a transactional id everything is part of a transaction
// (EndTransaction).
//
// Topics, Topic, Known, Append, Send, Flush, InTransaction, SendOffsets and
// EndTransaction belong to one goroutine.
type Producer struct {
	client *Client
	cfg    ProducerConfig
	ctx    context.Context
	cancel context.CancelFunc
	wait   sync.WaitGroup
	// kgo has the connections, version the transaction protocol that they speak; 0
	// for a producer without transactions.
	kgo     *kgo.Client
	version int16

	topics map[string]*ProducerTopic // the owner's
	open   []*producerPartition      // with records in their builder; the owner's

	mu         sync.Mutex
	id         int64
	epoch      int16
	txn        transaction
	changed    *sync.Cond
	queued     map[*producerPartition]struct{} // with batches that are not acknowledged
	inFlight   map[int32]bool                  // by broker
	bytes      int                             // built and not acknowledged
	err        error                           // why the producer failed
	refreshing bool
	free       [][]byte // buffers of acknowledged batches
}

// ProducerTopic is a topic that a producer writes.
type ProducerTopic struct {
	producer   *Producer
	name       string
	partitions []*producerPartition
}

type producerPartition struct {
	topic     *ProducerTopic
	partition int32
	builder   batchBuilder
	sequence  int32 // of the next batch built
	open      bool  // in Producer.open

	// Under Producer.mu.
	id     [16]byte
	leader int32
	queue  []producerBatch
	sent   bool  // the first of queue is in flight
	paused bool  // its batch waits for the transaction before to end
	added  bool  // first protocol: it is part of the open transaction
	next   int64 // offset after the last batch acknowledged, -1 for none
}

type producerBatch struct {
	bytes   []byte
	records int32
	since   time.Time
}

// NewProducer returns a producer with an id of its own. It waits for the cluster
// to give one.
func (c *Client) NewProducer(ctx context.Context, cfg ProducerConfig) (*Producer, error) {
	if cfg.BatchBytes <= 0 {
		cfg.BatchBytes = 512 << 10
	}
	if cfg.BufferBytes <= 0 {
		cfg.BufferBytes = 32 << 20
	}
	if cfg.DeliveryTimeout <= 0 {
		cfg.DeliveryTimeout = 2 * time.Minute
	}
	if cfg.TransactionTimeout <= 0 {
		cfg.TransactionTimeout = 10 * time.Second
	}
	p := &Producer{
		client: c, cfg: cfg, kgo: c.kgo,
		topics: make(map[string]*ProducerTopic), queued: make(map[*producerPartition]struct{}),
		inFlight: make(map[int32]bool),
	}
	p.changed = sync.NewCond(&p.mu)
	if cfg.TransactionalID != "" {
		var err error
		if p.kgo, p.version, err = c.transactional(ctx); err != nil {
			return nil, err
		}
	}
	if err := p.initialise(ctx); err != nil {
		return nil, err
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p, nil
}

// initialise asks for a producer id. For a transactional id that has a
// transaction open it waits until that is aborted.
func (p *Producer) initialise(ctx context.Context) error {
	for try := 1; ; try++ {
		req := kmsg.NewPtrInitProducerIDRequest()
		req.ProducerID, req.ProducerEpoch = -1, -1
		if p.cfg.TransactionalID != "" {
			req.TransactionalID = kmsg.StringPtr(p.cfg.TransactionalID)
			req.TransactionTimeoutMillis = int32(p.cfg.TransactionTimeout.Milliseconds())
		}
		resp, err := req.RequestWith(ctx, p.kgo)
		if err != nil {
			return fmt.Errorf("client: producer id: %w", p.client.closedOr(err))
		}
		err = codeError(resp.ErrorCode)
		if err == nil {
			p.id, p.epoch = resp.ProducerID, resp.ProducerEpoch
			return nil
		}
		if !transactionRetriable(err) {
			return fmt.Errorf("client: producer id: %w", err)
		}
		if !p.client.sleep(ctx, min(backoff(try), 200*time.Millisecond)) {
			return fmt.Errorf("client: producer id: %w", errors.Join(err, ctx.Err()))
		}
	}
}

// Close ends the producer; what was not flushed is lost. It waits for the
// requests in flight.
func (p *Producer) Close() {
	p.fail(ErrClosed)
	p.cancel()
	p.wait.Wait()
}

// Topics makes topics known to the producer; it asks the cluster for those that
// are not yet.
func (p *Producer) Topics(ctx context.Context, names ...string) error {
	var missing []string
	for _, name := range names {
		if p.topics[name] == nil {
			missing = append(missing, name)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	topics, err := p.client.Topics(ctx, missing...)
	if err != nil {
		return err
	}
	for _, name := range missing {
		info, ok := topics[name]
		if !ok {
			return fmt.Errorf("client: produce to topic %q: %w: create it first", name, ErrUnknownTopic)
		}
		t := &ProducerTopic{producer: p, name: name}
		for i, state := range info.Partitions {
			t.partitions = append(t.partitions, &producerPartition{
				topic: t, partition: int32(i), id: info.ID, leader: state.Leader, next: -1,
			})
		}
		p.topics[name] = t
	}
	return nil
}

// Topic returns the topic to write to, as Topics makes it known.
func (p *Producer) Topic(ctx context.Context, name string) (*ProducerTopic, error) {
	if err := p.Topics(ctx, name); err != nil {
		return nil, err
	}
	return p.topics[name], nil
}

// Known returns a topic that Topics has made known; nil for others.
func (p *Producer) Known(name string) *ProducerTopic { return p.topics[name] }

// Partitions returns how many partitions the topic has.
func (t *ProducerTopic) Partitions() int32 { return int32(len(t.partitions)) }

// NextOffset returns the offset after the last record of this producer that the
// partition has acknowledged; -1 when there is none.
func (t *ProducerTopic) NextOffset(partition int32) int64 {
	t.producer.mu.Lock()
	defer t.producer.mu.Unlock()
	return t.partitions[partition].next
}

// Append adds a record to the open batch of a partition; everything is copied.
// timestamp is in milliseconds. A full batch is sent at once; Append waits while
// too much is on its way. The error is the producer's: it has failed.
func (t *ProducerTopic) Append(partition int32, timestamp int64, key, value []byte, headers []plan.Header) error {
	if partition < 0 || int(partition) >= len(t.partitions) {
		return fmt.Errorf("client: produce to %s-%d: %w: the topic has %d partitions", t.name, partition, ErrUnknownTopic, len(t.partitions))
	}
	pp := t.partitions[partition]
	if !pp.open {
		pp.open = true
		t.producer.open = append(t.producer.open, pp)
	}
	pp.builder.append(timestamp, key, value, headers)
	if pp.builder.size() >= t.producer.cfg.BatchBytes {
		return t.producer.seal(pp, true)
	}
	return nil
}

// AppendByKey is Append on the partition of the key.
func (t *ProducerTopic) AppendByKey(timestamp int64, key, value []byte, headers []plan.Header) error {
	return t.Append(PartitionOf(key, t.Partitions()), timestamp, key, value, headers)
}

// seal builds the open batch of a partition and queues it.
func (p *Producer) seal(pp *producerPartition, wait bool) error {
	if pp.builder.count == 0 {
		return nil
	}
	records := pp.builder.count
	batch, err := pp.builder.build(p.buffer(), p.cfg.Codec, p.cfg.TransactionalID != "")
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	stamp(batch, p.id, p.epoch, pp.sequence)
	pp.sequence = nextSequence(pp.sequence, records)
	pp.queue = append(pp.queue, producerBatch{bytes: batch, records: records, since: time.Now()})
	p.queued[pp] = struct{}{}
	p.bytes += len(batch)
	p.dispatchLocked()
	for wait && p.bytes > p.cfg.BufferBytes && p.err == nil {
		p.changed.Wait()
	}
	return p.err
}

// buffer returns memory for a batch.
func (p *Producer) buffer() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.free); n > 0 {
		b := p.free[n-1]
		p.free = p.free[:n-1]
		return b[:0]
	}
	return nil
}

// Send begins to send the open batches of partitions that have none on their
// way; those of the others grow meanwhile, so that calling it often makes no
// queue of small batches. It does not wait.
func (p *Producer) Send() error { return p.sealOpen(false) }

// sealOpen builds open batches: all, or those that can go at once.
func (p *Producer) sealOpen(all bool) error {
	var first error
	kept := p.open[:0]
	for _, pp := range p.open {
		if !all && p.isQueued(pp) {
			kept = append(kept, pp)
			continue
		}
		pp.open = false
		if err := p.seal(pp, false); err != nil && first == nil {
			first = err
		}
	}
	clear(p.open[len(kept):])
	p.open = kept
	return first
}

// isQueued says whether a partition has batches that are not acknowledged.
func (p *Producer) isQueued(pp *producerPartition) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(pp.queue) > 0
}

// Flush sends what is open and waits until everything is acknowledged. After an
// error other than ctx's the producer has failed.
func (p *Producer) Flush(ctx context.Context) error {
	if err := p.sealOpen(true); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.changed.Broadcast()
	})
	defer stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.queued) > 0 && p.err == nil && ctx.Err() == nil {
		p.changed.Wait()
	}
	if p.err != nil {
		return p.err
	}
	if len(p.queued) > 0 {
		return fmt.Errorf("client: flush: %w", ctx.Err())
	}
	return nil
}

// Abort fails the producer: calls that wait return, what was not acknowledged
// may or may not be in the log. Safe for concurrent use.
func (p *Producer) Abort() { p.fail(fmt.Errorf("%w: it was aborted", ErrProducerFailed)) }

// fail ends the producer: every call from now on returns err.
func (p *Producer) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.failLocked(err)
}

func (p *Producer) failLocked(err error) {
	if p.err == nil {
		p.err = err
	}
	p.changed.Broadcast()
}
