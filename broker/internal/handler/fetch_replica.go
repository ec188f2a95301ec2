package handler

import (
	"context"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/metadata"
	"github.com/leatlog/leat/broker/internal/storage"
	"github.com/leatlog/leat/broker/internal/wire"
)

// Fetch as a follower sends it, on the inter-node listener. It is Kafka's request
// at version 15 or newer with a session (KIP-227), and differs in this:
//
//   - The fetch offset is the end of what the follower has on disk: asking for it is
//     how it reports its synced offset. -1 says that its log is lost; the answer is
//     OFFSET_OUT_OF_RANGE with the log start to copy from.
//   - After an answer with records, a diverging epoch or an error, a partition is not
//     answered again before the follower has mentioned it again.
//   - A fetch that waits is answered as soon as the next one of its session arrives.
//
// Idle partitions cost nothing: the leader's partitions tell the session which of
// them have something, and a fetch looks at those and at what it mentions alone.
// A follower's data wakes its fetch at once, when it is written and before it is
// synced, so that leader and followers sync at the same time. News of the high
// watermark wait for the next answer, unless the fetch itself made them.

// maxFollowerSessions bounds the sessions: one per follower is needed.
const maxFollowerSessions = 1000

// followerSessions are the sessions of the followers. Safe for concurrent use.
type followerSessions struct {
	h *Handler

	mu       sync.Mutex
	sessions map[int32]*followerSession
	lastID   int32
}

// followerKey names a partition of a session.
type followerKey struct {
	topic     [16]byte
	partition int32
}

// followerSession is what the leader keeps of one follower's fetches. Locks, in
// this order: serving, a partition's, mu.
type followerSession struct {
	h           *Handler
	id          int32
	follower    int32
	brokerEpoch int64
	detach      func() bool

	serving sync.Mutex // one fetch is served at a time
	epoch   int32      // of the next fetch
	items   map[followerKey]*followerItem
	closed  bool

	mu     sync.Mutex
	dirty  []*followerItem // to be looked at
	urgent bool            // one of them has records
	parked *followerFetch
}

// followerItem is one partition of a session. All but dirty, which mu guards, is
// guarded by serving.
type followerItem struct {
	session   *followerSession
	fetch     fetchItem // as mentioned last
	awaiting  bool      // answered: nothing is said before it is mentioned again
	told      int64     // the high watermark
	partition Partition // where it is registered, nil when it is not
	tail      uint64    // tokens
	high      uint64
	dirty     bool
}

// followerFetch is one fetch under way.
type followerFetch struct {
	session *followerSession
	body    *kmsg.FetchRequest
	respond wire.Responder
	cancel  func() // of the deadline
}

// tailWaiter and highWaiter are an item as a partition's waiter.
type (
	tailWaiter followerItem
	highWaiter followerItem
)

func (w *tailWaiter) Readable(int64) { (*followerItem)(w).mark(true) }
func (w *tailWaiter) Interrupted()   { (*followerItem)(w).mark(true) }
func (w *highWaiter) Readable(int64) { (*followerItem)(w).mark(false) }
func (w *highWaiter) Interrupted()   {} // the tail's is enough

// mark has the item looked at; urgent ends the wait of the fetch that is parked.
func (i *followerItem) mark(urgent bool) {
	s := i.session
	s.mu.Lock()
	if !i.dirty {
		i.dirty = true
		s.dirty = append(s.dirty, i)
	}
	s.urgent = s.urgent || urgent
	var parked *followerFetch
	if urgent {
		parked, s.parked = s.parked, nil
	}
	s.mu.Unlock()
	if parked != nil {
		s.h.workers.submit(parked.respond, parked.finish)
	}
}

func (f *followerSessions) fetch(ctx context.Context, request *wire.Request, respond wire.Responder, body *kmsg.FetchRequest) {
	fetch := &followerFetch{body: body, respond: respond}
	s, replaced, err := f.session(ctx, body)
	for _, old := range replaced {
		f.drop(old)
	}
	if err != nil {
		fetch.answer(nil, &fetchHead{version: body.Version, err: err})
		return
	}
	fetch.session = s
	s.mu.Lock()
	before := s.parked
	s.parked = nil
	s.mu.Unlock()
	if before != nil {
		before.finish()
	}
	s.serving.Lock()
	if body.SessionEpoch != initialEpoch && body.SessionEpoch != s.epoch || s.closed {
		s.serving.Unlock()
		fetch.answer(nil, &fetchHead{version: body.Version, err: kerr.InvalidFetchSessionEpoch})
		return
	}
	s.epoch = nextFetchEpoch(body.SessionEpoch)
	s.brokerEpoch = body.ReplicaState.Epoch
	s.update(body)
	deadline := f.h.Now().Add(time.Duration(max(body.MaxWaitMillis, 0)) * time.Millisecond)
	fetch.serve(body.MaxWaitMillis > 0 && body.SessionEpoch != initialEpoch, deadline)
}

// session finds or makes the session of a fetch. A follower has one: a new one
// replaces those before, and ends with its connection.
func (f *followerSessions) session(ctx context.Context, body *kmsg.FetchRequest) (s *followerSession, replaced []*followerSession, err *kerr.Error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if body.SessionEpoch != initialEpoch {
		s = f.sessions[body.SessionID]
		if s == nil || s.follower != body.ReplicaState.ID {
			return nil, nil, kerr.FetchSessionIDNotFound
		}
		return s, nil, nil
	}
	for _, old := range f.sessions {
		if old.follower == body.ReplicaState.ID {
			replaced = append(replaced, old)
		}
	}
	if len(f.sessions) >= maxFollowerSessions {
		return nil, replaced, kerr.FetchSessionIDNotFound
	}
	if f.sessions == nil {
		f.sessions = map[int32]*followerSession{}
	}
	for f.lastID = max(f.lastID+1, 1); f.sessions[f.lastID] != nil; f.lastID = max(f.lastID+1, 1) {
	}
	s = &followerSession{h: f.h, id: f.lastID, follower: body.ReplicaState.ID, items: map[followerKey]*followerItem{}}
	f.sessions[s.id] = s
	s.detach = context.AfterFunc(ctx, func() { f.drop(s) })
	return s, replaced, nil
}

// drop ends a session.
func (f *followerSessions) drop(s *followerSession) {
	f.mu.Lock()
	delete(f.sessions, s.id)
	f.mu.Unlock()
	s.mu.Lock()
	parked := s.parked
	s.parked = nil
	s.mu.Unlock()
	if parked != nil {
		parked.finish() // its connection is gone: this frees what it holds
	}
	s.serving.Lock()
	defer s.serving.Unlock()
	s.closed = true
	s.detach()
	for key, item := range s.items {
		item.unregister()
		delete(s.items, key)
	}
}

// update takes over what a fetch mentions and forgets. The caller holds serving.
func (s *followerSession) update(body *kmsg.FetchRequest) {
	for i := range body.Topics {
		t := &body.Topics[i]
		for j := range t.Partitions {
			p := &t.Partitions[j]
			key := followerKey{t.TopicID, p.Partition}
			item := s.items[key]
			if item == nil {
				item = &followerItem{session: s, told: -1}
				s.items[key] = item
			}
			if item.fetch.currentLeaderEpoch != p.CurrentLeaderEpoch {
				item.unregister()
			}
			item.fetch = fetchItem{fetchKey: fetchKey{id: t.TopicID, partition: p.Partition}, offset: p.FetchOffset, maxBytes: p.PartitionMaxBytes,
				currentLeaderEpoch: p.CurrentLeaderEpoch, lastFetchedEpoch: p.LastFetchedEpoch, follower: true}
			item.awaiting = false
			item.told = -1 // the follower may have dropped the answer that told it
			item.mark(false)
		}
	}
	for i := range body.ForgottenTopics {
		t := &body.ForgottenTopics[i]
		for _, p := range t.Partitions {
			key := followerKey{t.TopicID, p}
			if item := s.items[key]; item != nil {
				item.unregister()
				item.awaiting = true // in case it is in dirty
				delete(s.items, key)
			}
		}
	}
}

func (i *followerItem) unregister() {
	if i.partition != nil {
		i.partition.Unwait(i.tail)
		i.partition.Unwait(i.high)
	}
	i.partition, i.tail, i.high = nil, 0, 0
}

// serve answers with what there is, or parks the fetch until there is something.
// The caller holds serving; serve gives it back.
func (f *followerFetch) serve(wait bool, deadline time.Time) {
	s := f.session
	var items []fetchItem
	left, first := f.body.MaxBytes, true
	for {
		s.mu.Lock()
		if len(s.dirty) == 0 || left <= 0 {
			if len(items) == 0 && wait && !s.closed {
				s.urgent = false
				s.parked = f
				f.cancel = s.h.Partitions.Schedule(deadline, f.expire)
				s.mu.Unlock()
				s.serving.Unlock()
				return
			}
			s.mu.Unlock()
			break
		}
		item := s.dirty[0]
		s.dirty = s.dirty[1:]
		item.dirty = false
		s.mu.Unlock()
		if item.awaiting {
			continue
		}
		tell, full := item.look(left, first)
		if full {
			left = 0
		}
		if !tell {
			continue
		}
		if size := int32(item.fetch.result.Slice.Size); size > 0 {
			left, first = left-min(size, left), false
		}
		items = append(items, item.fetch)
		item.fetch.result.Slice = storage.Slice{} // the answer's now
	}
	s.serving.Unlock()
	f.answer(items, &fetchHead{version: f.body.Version, sessionID: s.id})
}

// look reads the item and says whether the follower is to be told, and whether
// there is more than fits what is left.
func (i *followerItem) look(left int32, first bool) (tell, full bool) {
	s, q := i.session, &i.fetch
	q.result, q.records = ReadResult{DivergingEpoch: -1}, nil
	partition, err := s.h.Partitions.Partition(metadata.UUID(q.id), q.fetchKey.partition)
	if err != nil {
		q.result.Err = err
		i.awaiting = true
		return true, false
	}
	q.result = partition.ReadFollower(ReadRequest{Offset: q.offset, MaxBytes: min(q.maxBytes, left), AtLeastOne: first,
		CurrentLeaderEpoch: q.currentLeaderEpoch, LastFetchedEpoch: q.lastFetchedEpoch}, s.follower, s.brokerEpoch)
	r := &q.result
	if r.Err != nil || r.DivergingEpoch >= 0 || r.Slice.Size > 0 {
		i.awaiting, i.told = true, r.HighWatermark
		return true, false
	}
	if r.End > q.offset {
		i.mark(true) // the next answer's
		return false, true
	}
	if i.partition == nil {
		i.partition = partition
		i.tail = partition.WaitEnd((*tailWaiter)(i), r.End, r.LeaderEpoch)
		i.high = partition.Wait((*highWaiter)(i), r.Position, r.LeaderEpoch)
	}
	news := i.told != r.HighWatermark
	i.told = r.HighWatermark
	return news, false
}

// expire is called at the deadline.
func (f *followerFetch) expire() {
	s := f.session
	s.mu.Lock()
	mine := s.parked == f
	if mine {
		s.parked = nil
	}
	s.mu.Unlock()
	if mine {
		s.h.workers.submit(f.respond, f.finish)
	}
}

// finish answers a fetch that waited, now.
func (f *followerFetch) finish() {
	f.cancel()
	f.session.serving.Lock()
	f.serve(false, time.Time{})
}

func (f *followerFetch) answer(items []fetchItem, head *fetchHead) {
	b := newFetchBuffers()
	b.readSmall(items)
	b.body, b.cuts = appendFetchResponse(b.body, head, items, b.cuts)
	b.assemble(items)
	f.respond(wire.Response{Chunks: b.chunks, Release: b.release})
}
