package client

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// shortWait is how long a fetch is held while partitions with a full buffer
// wait to come back into the request: a long poll would keep them out.
const shortWait = 5 * time.Millisecond

// brokerFetcher long-polls one broker.
type brokerFetcher struct {
	fetcher *Fetcher
	id      int32
	wake    chan struct{}
	turn    int // which partition leads the request, so that none starves
	tries   int // failed requests in a row
}

func (b *brokerFetcher) signal() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// run fetches until the fetcher closes.
func (b *brokerFetcher) run() {
	f := b.fetcher
	defer f.wait.Done()
	for f.ctx.Err() == nil {
		req, asked := b.next()
		if len(asked) == 0 {
			select {
			case <-b.wake:
			case <-f.ctx.Done():
			}
			continue
		}
		sent := time.Now()
		resp, err := f.client.request(f.ctx, b.id, req)
		if errors.Is(err, ErrClosed) {
			return
		}
		if err != nil {
			b.failed(asked, err)
			continue
		}
		b.answered(asked, resp.(*kmsg.FetchResponse), sent)
	}
}

// next makes the request for the partitions that have room.
func (b *brokerFetcher) next() (*kmsg.FetchRequest, map[Partition]*fetchPartition) {
	f := b.fetcher
	f.mu.Lock()
	defer f.mu.Unlock()
	var ready []*fetchPartition
	full := false
	for _, p := range f.partitions {
		switch {
		case p.leader != b.id:
		case p.buffered >= f.cfg.BufferBytes:
			full = true
		default:
			ready = append(ready, p)
		}
	}
	if len(ready) == 0 {
		return nil, nil
	}
	slices.SortFunc(ready, func(x, y *fetchPartition) int {
		if c := strings.Compare(x.name.Topic, y.name.Topic); c != 0 {
			return c
		}
		return int(x.name.Partition) - int(y.name.Partition)
	})
	b.turn++
	k := b.turn % len(ready)
	ready = append(ready[k:len(ready):len(ready)], ready[:k]...)

	req := kmsg.NewPtrFetchRequest()
	req.MinBytes = 1
	req.MaxBytes = f.cfg.MaxBytes
	req.MaxWaitMillis = int32(f.cfg.MaxWait.Milliseconds())
	if full {
		req.MaxWaitMillis = int32(min(f.cfg.MaxWait, shortWait).Milliseconds())
	}
	req.SessionEpoch = -1
	if f.cfg.ReadCommitted {
		req.IsolationLevel = 1
	}
	asked := make(map[Partition]*fetchPartition, len(ready))
	at := make(map[string]int, 4)
	for _, p := range ready {
		i, ok := at[p.name.Topic]
		if !ok {
			t := kmsg.NewFetchRequestTopic()
			t.Topic, t.TopicID = p.name.Topic, p.id
			i = len(req.Topics)
			at[p.name.Topic] = i
			req.Topics = append(req.Topics, t)
		}
		rp := kmsg.NewFetchRequestTopicPartition()
		rp.Partition, rp.FetchOffset = p.name.Partition, p.offset
		rp.CurrentLeaderEpoch = p.epoch
		rp.PartitionMaxBytes = f.cfg.PartitionBytes
		req.Topics[i].Partitions = append(req.Topics[i].Partitions, rp)
		asked[p.name] = p
	}
	return req, asked
}

// failed handles a request that got no answer: the broker may be gone, so its
// partitions look for their leader again.
func (b *brokerFetcher) failed(asked map[Partition]*fetchPartition, err error) {
	f := b.fetcher
	if f.ctx.Err() != nil {
		return
	}
	b.tries++
	f.client.log.Debug().Err(err).Int32("broker", b.id).Msg("fetch failed; looking for the leaders again")
	if !f.client.sleep(f.ctx, backoff(b.tries)) {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range asked {
		p.leader = noLeader
	}
	f.refreshLocked()
}

// answered hands out what came.
func (b *brokerFetcher) answered(asked map[Partition]*fetchPartition, resp *kmsg.FetchResponse, sent time.Time) {
	f := b.fetcher
	if err := codeError(resp.ErrorCode); err != nil {
		b.failed(asked, err)
		return
	}
	b.tries = 0
	retry := false
	var outOfRange []*fetchPartition
	f.mu.Lock()
	for i := range resp.Topics {
		rt := &resp.Topics[i]
		name := f.client.metadata.name(rt.Topic, rt.TopicID)
		for j := range rt.Partitions {
			rp := &rt.Partitions[j]
			p, ok := asked[Partition{name, rp.Partition}]
			if !ok || p.removed {
				continue
			}
			switch {
			case rp.ErrorCode == 0:
				p.tries = 0
				p.acceptLocked(rp, f.cfg.ReadCommitted, sent)
			case rp.ErrorCode == kerr.OffsetOutOfRange.Code && p.reset != ResetFail:
				outOfRange = append(outOfRange, p)
				p.leader = movingOffset
			case staleMetadata(rp.ErrorCode):
				p.leader, retry = noLeader, true
			case rp.ErrorCode == kerr.CorruptMessage.Code && p.tries < 3, rp.ErrorCode == kerr.UnknownServerError.Code && p.tries < 3:
				p.tries++
				p.leader, retry = noLeader, true
			default:
				p.failLocked(codeError(rp.ErrorCode))
			}
		}
	}
	f.mu.Unlock()
	if len(outOfRange) > 0 {
		b.resetOffsets(outOfRange)
	}
	if retry {
		f.client.sleep(f.ctx, backoff(1))
		f.mu.Lock()
		f.refreshLocked()
		f.mu.Unlock()
	}
}

// acceptLocked takes the whole batches of an answer and moves the offset.
func (p *fetchPartition) acceptLocked(rp *kmsg.FetchResponseTopicPartition, committed bool, sent time.Time) {
	end := rp.HighWatermark
	if committed {
		end = rp.LastStableOffset
	}
	p.seenEnd, p.seenAt = end, sent
	raw, next, err := wholeBatches(rp.RecordBatches, p.offset)
	if err != nil && len(raw) == 0 {
		p.failLocked(err)
		return
	}
	if len(raw) > 0 {
		d := &Fetched{HighWatermark: end, raw: raw, from: p.offset, next: next, size: len(raw)}
		if committed && len(rp.AbortedTransactions) > 0 {
			d.aborted = rp.AbortedTransactions
			slices.SortFunc(d.aborted, func(x, y kmsg.FetchResponseTopicPartitionAbortedTransaction) int {
				return int(max(-1, min(1, x.FirstOffset-y.FirstOffset)))
			})
		}
		p.offset = next
		if next >= end {
			p.reported = end
		}
		p.deliverLocked(d)
		return
	}
	if p.offset >= end && p.reported != end { // caught up: the reader may wait for other partitions no longer
		p.reported = end
		p.deliverLocked(&Fetched{HighWatermark: end, next: p.offset, from: p.offset})
	}
}

// resetOffsets moves partitions whose offset is not in the log.
func (b *brokerFetcher) resetOffsets(partitions []*fetchPartition) {
	f := b.fetcher
	for _, p := range partitions {
		at := EarliestOffset
		if p.reset == ResetLatest {
			at = LatestOffset
		}
		ctx, cancel := context.WithTimeout(f.ctx, f.client.cfg.RetryTimeout)
		offset, err := f.client.ListOffset(ctx, p.name, at)
		cancel()
		f.mu.Lock()
		p.leader = noLeader
		switch {
		case f.ctx.Err() != nil:
		case err != nil:
			f.client.log.Warn().Err(err).Stringer("partition", p.name).Msg("fetch: finding the offset to go on at failed; trying again")
		default:
			f.client.log.Warn().Stringer("partition", p.name).Int64("offset", p.offset).Int64("new_offset", offset).
				Msg("fetch: the log does not hold the offset; going on at another")
			p.offset, p.reported = offset, -1
		}
		f.refreshLocked()
		f.mu.Unlock()
	}
}
