package handler

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Bounds of the session cache: Kafka's max.incremental.fetch.session.cache.slots,
// the partitions of all sessions (some 200 bytes each), and the time for which a
// session is safe from being replaced.
const (
	maxFetchSessions          = 1000
	maxFetchSessionPartitions = 500_000
	minFetchSessionLife       = 2 * time.Minute
)

// finalEpoch closes a session or says that none is wanted; initialEpoch asks for
// a new one (KIP-227).
const (
	initialEpoch int32 = 0
	finalEpoch   int32 = -1
)

func nextFetchEpoch(epoch int32) int32 {
	switch {
	case epoch < 0:
		return finalEpoch
	case epoch == 1<<31-1:
		return 1
	}
	return epoch + 1
}

// fetchKey names a partition the way the client does: by topic name up to
// version 12 of Fetch, by topic id from 13 on.
type fetchKey struct {
	name      string
	id        [16]byte
	partition int32
}

// fetchItem is one partition of a fetch: what is asked and what was found.
type fetchItem struct {
	fetchKey
	offset             int64
	maxBytes           int32
	currentLeaderEpoch int32
	lastFetchedEpoch   int32

	cached    *cachedPartition // of the session, nil without one
	partition Partition        // nil when it is not found
	leaderID  int32
	committed bool // who asks reads committed records only
	follower  bool // who asks is one: with an error it is told LogStart, too
	result    ReadResult
	records   []byte // what was read of result.Slice, nil when it is sent from the file
}

// cachedPartition is a partition of a session: the last request for it and what
// was last answered.
type cachedPartition struct {
	fetchItem     // the request half; cached, partition and result stay unset
	highWatermark int64
	logStart      int64
	prev, next    *cachedPartition
}

// answer says whether an incremental response must mention the partition, and
// remembers what it will have said.
func (c *cachedPartition) answer(r *ReadResult) bool {
	if r.Err != nil || r.DivergingEpoch >= 0 {
		c.highWatermark = -1 // the next good answer is news
		return true
	}
	news := r.Slice.Size > 0 || r.Preferred != 0 || c.highWatermark != r.HighWatermark || c.logStart != r.LogStart
	c.highWatermark, c.logStart = r.HighWatermark, r.LogStart
	return news
}

// fetchSession is what KIP-227 keeps between the fetches of one client. Its
// partitions form a ring around root; those that gave data move to its end, so
// that all have their turn when the response is full.
type fetchSession struct {
	id       int32
	byID     bool // the client names topics by id
	created  time.Time
	lastUsed time.Time    // guarded by fetchSessions.mu
	size     atomic.Int32 // partitions; changed under both locks

	mu         sync.Mutex
	epoch      int32
	root       cachedPartition
	partitions map[fetchKey]*cachedPartition
}

func (s *fetchSession) add(item *fetchItem) *cachedPartition {
	c := s.partitions[item.fetchKey]
	if c == nil {
		c = &cachedPartition{highWatermark: -1, logStart: -1}
		s.partitions[item.fetchKey] = c
		s.link(c)
	}
	c.fetchItem = fetchItem{fetchKey: item.fetchKey, offset: item.offset, maxBytes: item.maxBytes,
		currentLeaderEpoch: item.currentLeaderEpoch, lastFetchedEpoch: item.lastFetchedEpoch}
	return c
}

// link puts c at the end of the ring.
func (s *fetchSession) link(c *cachedPartition) {
	c.prev, c.next = s.root.prev, &s.root
	c.prev.next, s.root.prev = c, c
}

func unlink(c *cachedPartition) {
	c.prev.next, c.next.prev = c.next, c.prev
	c.prev, c.next = nil, nil
}

func (s *fetchSession) remove(key fetchKey) {
	if c := s.partitions[key]; c != nil {
		delete(s.partitions, key)
		unlink(c)
	}
}

// items appends the session's partitions in the order of their turn.
func (s *fetchSession) items(dst []fetchItem) []fetchItem {
	for c := s.root.next; c != &s.root; c = c.next {
		dst = append(dst, c.fetchItem)
		dst[len(dst)-1].cached = c
	}
	return dst
}

// fetchSessions is the bounded cache of sessions. Safe for concurrent use. Lock
// order: fetchSession.mu before fetchSessions.mu.
type fetchSessions struct {
	limit          int // sessions
	partitionLimit int // partitions of all sessions

	mu         sync.Mutex
	sessions   map[int32]*fetchSession
	partitions int
	counter    uint32
}

func newFetchSessions(limit, partitionLimit int) *fetchSessions {
	if limit == 0 {
		limit = maxFetchSessions
	}
	return &fetchSessions{limit: limit, partitionLimit: partitionLimit, sessions: map[int32]*fetchSession{}}
}

// fetchContext is how a fetch stands to a session.
type fetchContext struct {
	session     *fetchSession // nil: none, or none yet
	create      bool          // make a session with the response
	incremental bool          // leave out of the response what did not change
	epoch       int32         // what the session's epoch must still be when the response is made
	sessionID   int32         // to answer
	err         *kerr.Error   // of the whole fetch
}

// open reads the session part of a fetch and appends its partitions to items.
func (s *fetchSessions) open(r *kmsg.FetchRequest, now time.Time, items []fetchItem) (fetchContext, []fetchItem) {
	if r.Version < 7 {
		return fetchContext{}, appendFetchItems(items, r)
	}
	if r.SessionEpoch == initialEpoch || r.SessionEpoch == finalEpoch {
		// A full fetch ends the session it names.
		s.drop(r.SessionID)
		return fetchContext{create: r.SessionEpoch == initialEpoch}, appendFetchItems(items, r)
	}
	s.mu.Lock()
	session := s.sessions[r.SessionID]
	if session != nil {
		session.lastUsed = now
	}
	s.mu.Unlock()
	if session == nil {
		return fetchContext{err: kerr.FetchSessionIDNotFound}, items
	}
	session.mu.Lock()
	defer session.mu.Unlock()
	switch {
	case session.epoch != r.SessionEpoch:
		return fetchContext{err: kerr.InvalidFetchSessionEpoch}, items
	case session.byID != (r.Version >= 13):
		return fetchContext{err: kerr.FetchSessionTopicIDError}, items
	}
	session.update(r)
	if !s.resized(session) {
		return fetchContext{err: kerr.FetchSessionIDNotFound}, items
	}
	items = session.items(items)
	if len(items) == 0 {
		s.drop(session.id)
		return fetchContext{}, items
	}
	session.epoch = nextFetchEpoch(session.epoch)
	return fetchContext{session: session, incremental: true, epoch: session.epoch, sessionID: session.id}, items
}

// update takes over what an incremental fetch changes. The caller holds mu.
func (s *fetchSession) update(r *kmsg.FetchRequest) {
	added := appendFetchItems(nil, r)
	for i := range added {
		s.add(&added[i])
	}
	for i := range r.ForgottenTopics {
		t := &r.ForgottenTopics[i]
		for _, p := range t.Partitions {
			key := fetchKey{name: t.Topic, partition: p}
			if s.byID {
				key.name, key.id = "", t.TopicID
			}
			s.remove(key)
		}
	}
}

func appendFetchItems(items []fetchItem, r *kmsg.FetchRequest) []fetchItem {
	for i := range r.Topics {
		t := &r.Topics[i]
		for j := range t.Partitions {
			p := &t.Partitions[j]
			item := fetchItem{
				fetchKey: fetchKey{name: t.Topic, partition: p.Partition},
				offset:   p.FetchOffset, maxBytes: p.PartitionMaxBytes,
				currentLeaderEpoch: p.CurrentLeaderEpoch, lastFetchedEpoch: p.LastFetchedEpoch,
			}
			if r.Version >= 13 {
				item.name, item.id = "", t.TopicID
			}
			items = append(items, item)
		}
	}
	return items
}

// close finishes a fetch's dealings with its session: it makes a new session if
// one is asked for and there is room, and of an incremental fetch it keeps the
// items that must be answered.
func (s *fetchSessions) close(c *fetchContext, items []fetchItem, byID bool, now time.Time) []fetchItem {
	if c.create {
		c.sessionID = s.create(items, byID, now)
		return items
	}
	if !c.incremental {
		return items
	}
	session := c.session
	session.mu.Lock()
	defer session.mu.Unlock()
	if session.epoch != c.epoch { // the client has asked again without waiting
		c.err = kerr.InvalidFetchSessionEpoch
		releaseItems(items)
		return nil
	}
	kept := items[:0]
	for i := range items {
		item := items[i]
		if !item.cached.answer(&item.result) {
			continue
		}
		if item.result.Slice.Size > 0 && item.cached.next != nil {
			unlink(item.cached)
			session.link(item.cached)
		}
		kept = append(kept, item)
	}
	return kept
}

// resized books the partitions that an update added to a session or took from it.
// A session for which there is no room is dropped: its client starts anew.
func (s *fetchSessions) resized(session *fetchSession) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sessions[session.id] != session {
		return false // replaced meanwhile
	}
	size := int32(len(session.partitions))
	s.partitions += int(size - session.size.Swap(size))
	if s.partitions > s.partitionLimit {
		s.remove(session)
		return false
	}
	return true
}

func (s *fetchSessions) drop(id int32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if session := s.sessions[id]; session != nil {
		s.remove(session)
	}
}

// remove takes a session out. The caller holds s.mu.
func (s *fetchSessions) remove(session *fetchSession) {
	delete(s.sessions, session.id)
	s.partitions -= int(session.size.Load())
}

// create makes a session of what was answered and returns its id, 0 when the
// cache is full of sessions in use.
func (s *fetchSessions) create(items []fetchItem, byID bool, now time.Time) int32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(items) == 0 || s.partitions+len(items) > s.partitionLimit || len(s.sessions) >= s.limit && !s.evict(len(items), now) {
		return 0
	}
	session := &fetchSession{id: s.newID(now), byID: byID, created: now, lastUsed: now, epoch: nextFetchEpoch(initialEpoch),
		partitions: make(map[fetchKey]*cachedPartition, len(items))}
	session.root.prev, session.root.next = &session.root, &session.root
	for i := range items {
		session.add(&items[i]).answer(&items[i].result)
	}
	session.size.Store(int32(len(session.partitions)))
	s.partitions += len(session.partitions)
	s.sessions[session.id] = session
	return session.id
}

// newID returns an unused id. Ids start from the clock and are spread, so that a
// client which holds an id of before a restart hardly ever meets another's session.
func (s *fetchSessions) newID(now time.Time) int32 {
	if s.counter == 0 {
		s.counter = uint32(now.UnixNano() >> 10)
	}
	for {
		s.counter++
		id := int32(s.counter * 2654435761 & (1<<31 - 1))
		if _, taken := s.sessions[id]; id != 0 && !taken {
			return id
		}
	}
}

// evict makes room for a session of size partitions as KIP-227 says: the one
// unused for longest goes if it is idle for two minutes, else the smallest one
// older than that which is smaller than the new one.
func (s *fetchSessions) evict(size int, now time.Time) bool {
	var idle, small *fetchSession
	for _, e := range s.sessions {
		if idle == nil || e.lastUsed.Before(idle.lastUsed) || e.lastUsed.Equal(idle.lastUsed) && e.id < idle.id {
			idle = e
		}
		if now.Sub(e.created) > minFetchSessionLife && int(e.size.Load()) < size &&
			(small == nil || int(e.size.Load()) < int(small.size.Load()) || int(e.size.Load()) == int(small.size.Load()) && e.id < small.id) {
			small = e
		}
	}
	switch {
	case idle != nil && now.Sub(idle.lastUsed) > minFetchSessionLife:
		s.remove(idle)
	case small != nil:
		s.remove(small)
	default:
		return false
	}
	return true
}
