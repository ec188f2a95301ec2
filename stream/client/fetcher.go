package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Reset says what a fetcher does when the log does not hold the offset it asks
// for.
type Reset int8

// The policies.
const (
	// ResetFail hands ErrOffsetOutOfRange to the reader.
	ResetFail Reset = iota
	// ResetEarliest goes on at the oldest record.
	ResetEarliest
	// ResetLatest goes on at the next record.
	ResetLatest
)

// FetcherConfig bounds a fetcher.
type FetcherConfig struct {
	// MaxWait is how long a broker may hold a fetch that finds nothing. A partition
	// that is added may wait as long for its first fetch. Default 250 ms.
	MaxWait time.Duration
	// MaxBytes bounds one answer, PartitionBytes a partition's part of it. A larger
	// batch comes alone. Defaults 16 MiB and 1 MiB.
	MaxBytes, PartitionBytes int32
	// BufferBytes is how much of a partition may wait, fetched and not released,
	// before it is not fetched on. Default 2 MiB.
	BufferBytes int
	// ReadCommitted leaves out the records of open and aborted transactions.
	ReadCommitted bool
}

// unknownTopicPatience is how long a partition that the cluster does not know is
// asked for again before its reader is told.
const unknownTopicPatience = 30 * time.Second

// Fetcher reads partitions: one fetch at a time per broker, for all the
// partitions that the broker leads and the reader has room for. Safe for
// concurrent use.
type Fetcher struct {
	client *Client
	cfg    FetcherConfig
	ctx    context.Context
	cancel context.CancelFunc
	wait   sync.WaitGroup

	mu         sync.Mutex
	partitions map[Partition]*fetchPartition
	brokers    map[int32]*brokerFetcher
	refreshing bool
	closed     bool
}

// What fetchPartition.leader is when it is not a broker.
const (
	noLeader     int32 = -1 // to be looked for
	movingOffset int32 = -2 // not fetched until the offset to go on at is known
)

// fetchPartition is a partition that is read.
type fetchPartition struct {
	fetcher *Fetcher
	name    Partition
	inbox   *Inbox
	reset   Reset

	// Under Fetcher.mu.
	id       [16]byte
	offset   int64 // next to fetch
	leader   int32 // noLeader, movingOffset or a broker
	epoch    int32
	buffered int   // bytes fetched and not released
	reported int64 // high watermark at which the reader was told that it caught up; -1 none
	// seenEnd is the end of the log, when a fetch that was sent at seenAt was answered.
	seenEnd int64
	seenAt  time.Time
	removed bool
	since   time.Time
	tries   int
}

// NewFetcher returns a fetcher that reads nothing yet.
func (c *Client) NewFetcher(cfg FetcherConfig) *Fetcher {
	if cfg.MaxWait <= 0 {
		cfg.MaxWait = 250 * time.Millisecond
	}
	if cfg.MaxBytes <= 0 {
		cfg.MaxBytes = 16 << 20
	}
	if cfg.PartitionBytes <= 0 {
		cfg.PartitionBytes = 1 << 20
	}
	if cfg.BufferBytes <= 0 {
		cfg.BufferBytes = 2 << 20
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &Fetcher{
		client: c, cfg: cfg, ctx: ctx, cancel: cancel,
		partitions: make(map[Partition]*fetchPartition), brokers: make(map[int32]*brokerFetcher),
	}
}

// Add begins to read a partition at offset into inbox. It replaces an earlier
// Add of the same partition.
func (f *Fetcher) Add(p Partition, offset int64, reset Reset, inbox *Inbox) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return
	}
	if old, ok := f.partitions[p]; ok {
		old.removed = true
	}
	f.partitions[p] = &fetchPartition{
		fetcher: f, name: p, inbox: inbox, reset: reset, offset: offset, leader: noLeader, epoch: -1, reported: -1,
	}
	f.refreshLocked()
}

// Remove stops reading a partition. What was fetched before may still be in the
// inbox; nothing is put there after Remove has returned.
func (f *Fetcher) Remove(p Partition) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fp, ok := f.partitions[p]; ok {
		fp.removed = true
		delete(f.partitions, p)
	}
}

// Seen returns the end of what can be read of a partition, as the last answer to a fetch
// told it, and when that fetch was sent: all that could be read then lies before the end.
// known is false before the first answer, and for a partition that is not read.
func (f *Fetcher) Seen(p Partition) (end int64, at time.Time, known bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fp, ok := f.partitions[p]
	if !ok || fp.seenAt.IsZero() {
		return 0, time.Time{}, false
	}
	return fp.seenEnd, fp.seenAt, true
}

// Close stops every fetch and waits for the goroutines.
func (f *Fetcher) Close() {
	f.mu.Lock()
	f.closed = true
	for p, fp := range f.partitions {
		fp.removed = true
		delete(f.partitions, p)
	}
	f.mu.Unlock()
	f.cancel()
	f.wait.Wait()
}

// release takes back the room of n bytes.
func (p *fetchPartition) release(n int) {
	f := p.fetcher
	f.mu.Lock()
	defer f.mu.Unlock()
	full := p.buffered >= f.cfg.BufferBytes
	p.buffered -= n
	if full && p.buffered < f.cfg.BufferBytes && !p.removed {
		f.wakeLocked(p.leader)
	}
}

// deliver hands a fetched part to the reader, unless the partition was removed.
func (p *fetchPartition) deliverLocked(d *Fetched) {
	if p.removed {
		return
	}
	d.Partition, d.owner = p.name, p
	p.buffered += d.size
	p.inbox.put(d)
}

// failLocked tells the reader that the partition cannot be read on.
func (p *fetchPartition) failLocked(err error) {
	if p.removed {
		return
	}
	p.deliverLocked(&Fetched{HighWatermark: -1, next: p.offset, Err: fmt.Errorf("client: fetch of %s at offset %d: %w", p.name, p.offset, err)})
	p.removed = true
	if p.fetcher.partitions[p.name] == p {
		delete(p.fetcher.partitions, p.name)
	}
}

// wakeLocked lets a broker's fetcher look again.
func (f *Fetcher) wakeLocked(broker int32) {
	if b, ok := f.brokers[broker]; ok {
		b.signal()
	}
}

// refreshLocked starts the search for the leaders of partitions without one.
func (f *Fetcher) refreshLocked() {
	if f.refreshing || f.closed {
		return
	}
	f.refreshing = true
	f.wait.Add(1)
	go f.refresh()
}

// refresh asks for leaders until every partition has one.
func (f *Fetcher) refresh() {
	defer f.wait.Done()
	for try := 0; ; try++ {
		if try > 0 && !f.client.sleep(f.ctx, backoff(try)) {
			return
		}
		f.mu.Lock()
		names := f.leaderlessLocked()
		if len(names) == 0 {
			f.refreshing = false
			f.mu.Unlock()
			return
		}
		f.mu.Unlock()
		topics, err := f.client.Topics(f.ctx, names...)
		if errors.Is(err, ErrClosed) || f.ctx.Err() != nil {
			return
		}
		if err != nil {
			f.client.log.Debug().Err(err).Strs("topics", names).Msg("fetch: looking for leaders failed; trying again")
			continue
		}
		f.mu.Lock()
		f.setLeadersLocked(topics)
		f.mu.Unlock()
	}
}

func (f *Fetcher) leaderlessLocked() []string {
	var names []string
	for p, fp := range f.partitions {
		if fp.leader == noLeader {
			names = append(names, p.Topic)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func (f *Fetcher) setLeadersLocked(topics map[string]*Topic) {
	now := time.Now()
	for p, fp := range f.partitions {
		if fp.leader != noLeader {
			continue
		}
		t, ok := topics[p.Topic]
		if !ok || int(p.Partition) >= len(t.Partitions) {
			if fp.since.IsZero() {
				fp.since = now
			} else if now.Sub(fp.since) > unknownTopicPatience {
				fp.failLocked(ErrUnknownTopic)
			}
			continue
		}
		state := t.Partitions[p.Partition]
		if state.Leader < 0 {
			continue
		}
		fp.id, fp.leader, fp.epoch, fp.since = t.ID, state.Leader, state.LeaderEpoch, time.Time{}
		f.brokerLocked(state.Leader).signal()
	}
}

// brokerLocked returns the loop that fetches from a broker; it starts it.
func (f *Fetcher) brokerLocked(id int32) *brokerFetcher {
	b, ok := f.brokers[id]
	if !ok {
		b = &brokerFetcher{fetcher: f, id: id, wake: make(chan struct{}, 1)}
		f.brokers[id] = b
		f.wait.Add(1)
		go b.run()
	}
	return b
}
