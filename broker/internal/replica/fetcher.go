package replica

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Limits of a follower's fetch, Kafka's replica.fetch.wait.max.ms,
// replica.fetch.max.bytes and replica.fetch.response.max.bytes.
const (
	followWait           = 500 * time.Millisecond
	followPartitionBytes = 1 << 20
	followResponseBytes  = 10 << 20
	// followTimeout is how long an answer may take beyond the wait.
	followTimeout = 10 * time.Second
	// shortestPause and longestPause bound the time before a leader, or a partition of
	// it, that could not be fetched is asked again.
	shortestPause = 2 * time.Millisecond
	longestPause  = time.Second
)

// fetchLane is the connection that fetchers use.
const fetchLane = "fetch"

// fetcher copies from one leader all partitions that it leads and this broker
// follows, on one goroutine. See the package's documentation for the protocol.
type fetcher struct {
	manager *Manager
	leader  int32
	ctx     context.Context
	cancel  context.CancelFunc
	done    chan struct{}
	bell    Bell // rings when there is something to do

	mu        sync.Mutex
	parts     map[key]*followed
	changed   []*followed // to be mentioned in the next request
	forgotten []key
	epoch     int64    // of the registration that the leader was told all partitions under
	answers   []answer // that came and were not taken yet
	syncs     int      // asked for and not answered yet

	// Of the goroutine.
	sessionID    int32
	sessionEpoch int32
	number       int64 // of the last request
	failures     int
	grown        []*followed
	unsynced     []*followed
}

// followed is one partition of a fetcher.
type followed struct {
	fetcher  *fetcher
	replica  *Replica
	epoch    int32
	gone     bool
	changed  bool // it is in fetcher.changed
	session  bool // the leader's session has it
	failures int
	retry    Deadline

	// Of the goroutine.
	asked FetchPoint
	in    int64 // the request that mentioned it last
}

// follow has the right fetcher, if any, fetch the replica. The caller holds applyMu.
func (m *Manager) follow(r *Replica) {
	leader, epoch, ok := r.following()
	if !ok || m.cfg.Cluster == nil {
		m.unfollow(r, -1)
		return
	}
	m.unfollow(r, leader)
	f := m.fetchers[leader]
	if f == nil {
		f = newFetcher(m, leader)
		m.fetchers[leader] = f
	}
	f.add(r, epoch)
}

// unfollow takes the replica from all fetchers but one.
func (m *Manager) unfollow(r *Replica, but int32) {
	for leader, f := range m.fetchers {
		if leader != but {
			f.remove(key{r.topic, r.partition})
		}
	}
}

func newFetcher(m *Manager, leader int32) *fetcher {
	f := &fetcher{manager: m, leader: leader, done: make(chan struct{}), bell: m.cfg.NewBell(), parts: map[key]*followed{}}
	f.ctx, f.cancel = context.WithCancel(context.Background())
	m.cfg.Go(f.run)
	return f
}

func (f *fetcher) close() {
	f.cancel()
	f.bell.Ring()
	<-f.done
}

// add has a partition fetched under a leader epoch.
func (f *fetcher) add(r *Replica, epoch int32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	k := key{r.topic, r.partition}
	p := f.parts[k]
	if p != nil && p.replica == r && p.epoch == epoch {
		f.mark(p) // a damaged one may wait for just this change
		return
	}
	if p != nil {
		p.gone = true
	}
	f.parts[k] = &followed{fetcher: f, replica: r, epoch: epoch, session: p != nil && p.session}
	r.fetched.Store(f.parts[k])
	f.mark(f.parts[k])
}

func (f *fetcher) remove(k key) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.parts[k]
	if p == nil {
		return
	}
	delete(f.parts, k)
	p.replica.fetched.CompareAndSwap(p, nil)
	p.gone = true
	if p.session {
		f.forgotten = append(f.forgotten, k)
		f.bell.Ring()
	}
}

// mark has the partition mentioned in the next request.
func (p *followed) mark() {
	p.fetcher.mu.Lock()
	defer p.fetcher.mu.Unlock()
	p.fetcher.mark(p)
}

// mark has a partition mentioned in the next request. The caller holds mu.
func (f *fetcher) mark(p *followed) {
	if p.changed || p.gone {
		return
	}
	p.changed = true
	f.changed = append(f.changed, p)
	f.bell.Ring()
}

// markLater has it mentioned after a pause that grows with its failures.
func (f *fetcher) markLater(p *followed) {
	p.failures++
	at := f.manager.clock.Now().Add(pauseAfter(p.failures))
	f.manager.deadlines.Set(&p.retry, at, p.mark)
}

func pauseAfter(failures int) time.Duration {
	return min(shortestPause<<min(failures-1, 20), longestPause)
}

// answer is the end of one request.
type answer struct {
	number   int64
	response *kmsg.FetchResponse
	err      error
}

// run sends a request when there is something to tell, or else when none is under
// way. The leader answers a request that waits as soon as the next one arrives, so
// that news of a follower never wait for the leader's.
func (f *fetcher) run() {
	defer close(f.done)
	outstanding := 0
	for f.ctx.Err() == nil {
		request := f.next(outstanding)
		f.syncFirst()
		if request != nil {
			outstanding++
			number := f.number
			f.manager.cfg.Go(func() { f.send(request, number) })
			continue
		}
		a, ok := f.answered()
		if !ok {
			f.bell.Wait()
			continue
		}
		outstanding--
		if err := f.take(&a); err != nil {
			f.discard(outstanding) // void with the session
			outstanding = 0
			f.restart(err)
		}
	}
	f.discard(outstanding)
}

// answered returns the first answer that was not taken yet.
func (f *fetcher) answered() (a answer, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.answers) == 0 {
		return a, false
	}
	a = f.answers[0]
	f.answers = slices.Delete(f.answers, 0, 1)
	return a, true
}

// discard waits for n answers and takes none.
func (f *fetcher) discard(n int) {
	for n > 0 {
		if _, ok := f.answered(); ok {
			n--
		} else {
			f.bell.Wait()
		}
	}
}

func (f *fetcher) send(request *kmsg.FetchRequest, number int64) {
	ctx, cancel := context.WithTimeout(f.ctx, followWait+followTimeout)
	defer cancel()
	response, err := f.manager.cfg.Cluster.Request(ctx, f.leader, fetchLane, request)
	fetched, ok := response.(*kmsg.FetchResponse)
	if err == nil && !ok {
		err = errors.New("replica: the answer to a fetch is none")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answers = append(f.answers, answer{number, fetched, err})
	f.bell.Ring()
}

// next returns the request to send now, nil for none.
func (f *fetcher) next(outstanding int) *kmsg.FetchRequest {
	f.mu.Lock()
	defer f.mu.Unlock()
	epoch := f.renew()
	if outstanding > 1 || len(f.changed)+len(f.forgotten) == 0 && (outstanding > 0 || f.sessionID == 0 || len(f.parts) == 0) {
		return nil
	}
	if outstanding > 0 && f.sessionID == 0 {
		return nil // the session is being made
	}
	request := kmsg.NewPtrFetchRequest()
	request.ReplicaState.ID, request.ReplicaState.Epoch = f.manager.cfg.NodeID, epoch
	request.MaxWaitMillis, request.MinBytes, request.MaxBytes = int32(followWait/time.Millisecond), 1, followResponseBytes
	request.SessionID, request.SessionEpoch = f.sessionID, f.sessionEpoch
	f.number++
	slices.SortFunc(f.changed, func(a, b *followed) int {
		return cmp.Or(bytes.Compare(a.replica.topic[:], b.replica.topic[:]), cmp.Compare(a.replica.partition, b.replica.partition))
	})
	for _, p := range f.changed {
		p.changed = false
		if p.gone {
			continue
		}
		if wait := f.throttled(p); wait > 0 {
			f.holdBack(p, wait)
			continue
		}
		if !p.replica.durable() {
			// It led, or followed another, a moment ago: what it has is not on disk yet.
			f.unsynced = append(f.unsynced, p)
			continue
		}
		p.session = true
		p.asked, p.in = p.replica.FetchPoint(p.epoch), f.number
		q := kmsg.NewFetchRequestTopicPartition()
		q.Partition, q.CurrentLeaderEpoch, q.FetchOffset = p.replica.partition, p.epoch, p.asked.Offset
		q.LastFetchedEpoch, q.LogStartOffset, q.PartitionMaxBytes = p.asked.LastEpoch, p.asked.LogStart, followPartitionBytes
		if n := len(request.Topics); n == 0 || request.Topics[n-1].TopicID != p.replica.topic {
			t := kmsg.NewFetchRequestTopic()
			t.TopicID = p.replica.topic
			request.Topics = append(request.Topics, t)
		}
		t := &request.Topics[len(request.Topics)-1]
		t.Partitions = append(t.Partitions, q)
	}
	clear(f.changed)
	f.changed = f.changed[:0]
	if f.sessionID != 0 {
		f.forget(request)
		f.sessionEpoch = nextSessionEpoch(f.sessionEpoch)
	}
	f.forgotten = f.forgotten[:0]
	if f.sessionID == 0 && len(request.Topics) == 0 {
		return nil
	}
	return request
}

// throttled returns how long a partition must not be fetched yet (KIP-73).
func (f *fetcher) throttled(p *followed) time.Duration {
	if !p.replica.throttledFollower.Load() || !p.replica.catchesUp() {
		return 0
	}
	return f.manager.following.wait(f.manager.clock.Now())
}

// holdBack has a partition mentioned again after a time, and not fetched until then. The
// caller holds mu.
func (f *fetcher) holdBack(p *followed, wait time.Duration) {
	if p.session {
		p.session = false
		f.forgotten = append(f.forgotten, key{p.replica.topic, p.replica.partition})
	}
	f.manager.deadlines.Set(&p.retry, f.manager.clock.Now().Add(wait), func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.mark(p)
	})
}

// renew has all partitions mentioned again after a new registration of this broker: a
// leader takes only what the last one fetched into the in-sync replicas, and those that
// have nothing to fetch would never say it. It returns the registration's epoch. The caller holds mu.
func (f *fetcher) renew() int64 {
	epoch := f.manager.cfg.Cluster.BrokerEpoch()
	if epoch < 0 || epoch == f.epoch {
		return epoch
	}
	f.epoch = epoch
	for _, p := range f.parts {
		f.mark(p)
	}
	return epoch
}

// syncFirst has partitions synced that could not be mentioned without that.
func (f *fetcher) syncFirst() {
	for _, p := range f.unsynced {
		p.replica.syncFollowed(func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.mark(p)
		})
	}
	clear(f.unsynced)
	f.unsynced = f.unsynced[:0]
}

func (f *fetcher) forget(request *kmsg.FetchRequest) {
	for _, k := range f.forgotten {
		if p := f.parts[k]; p != nil && p.session {
			continue // it came back
		}
		t := kmsg.NewFetchRequestForgottenTopic()
		t.TopicID, t.Partitions = k.topic, []int32{k.partition}
		request.ForgottenTopics = append(request.ForgottenTopics, t)
	}
}

func nextSessionEpoch(epoch int32) int32 {
	if epoch == 1<<31-1 {
		return 1
	}
	return epoch + 1
}

// restart begins a new session after a failure.
func (f *fetcher) restart(err error) {
	if f.ctx.Err() != nil {
		return
	}
	f.failures++
	pause := pauseAfter(f.failures)
	if f.failures == 1 || pause == longestPause {
		f.manager.logger.Debug().Err(err).Int32("leader", f.leader).Msg("fetching from a leader failed; trying again")
	}
	f.mu.Lock()
	f.sessionID, f.sessionEpoch = 0, 0
	f.forgotten = f.forgotten[:0]
	for _, p := range f.parts {
		p.session = false
		f.mark(p)
	}
	f.mu.Unlock()
	f.manager.clock.Sleep(f.ctx, pause)
}

// take takes over an answer; an error ends the session.
func (f *fetcher) take(a *answer) error {
	if a.err != nil {
		return a.err
	}
	if err := kerr.ErrorForCode(a.response.ErrorCode); err != nil {
		return err
	}
	f.failures = 0
	if f.sessionID == 0 {
		if a.response.SessionID == 0 {
			return errors.New("replica: the leader made no fetch session")
		}
		f.sessionID, f.sessionEpoch = a.response.SessionID, 1
	}
	f.grown = f.grown[:0]
	for i := range a.response.Topics {
		t := &a.response.Topics[i]
		for j := range t.Partitions {
			f.takePartition(a.number, key{t.TopicID, t.Partitions[j].Partition}, &t.Partitions[j])
		}
	}
	// One group commit makes all of it durable; only then is the leader told.
	f.mu.Lock()
	f.syncs = len(f.grown)
	f.mu.Unlock()
	for _, p := range f.grown {
		p.replica.syncFollowed(f.synced)
	}
	for f.syncing() {
		f.bell.Wait()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range f.grown {
		f.mark(p)
	}
	clear(f.grown)
	return nil
}

// synced is told of each sync that take waits for.
func (f *fetcher) synced() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.syncs--
	f.bell.Ring()
}

func (f *fetcher) syncing() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.syncs > 0
}

func (f *fetcher) takePartition(number int64, k key, t *kmsg.FetchResponseTopicPartition) {
	f.mu.Lock()
	p := f.parts[k]
	stale := p == nil || p.changed || p.in > number
	f.mu.Unlock()
	if stale {
		return
	}
	e, _ := kerr.ErrorForCode(t.ErrorCode).(*kerr.Error)
	followed := Followed{Err: e, Records: t.RecordBatches, HighWatermark: t.HighWatermark, LogStart: t.LogStartOffset,
		DivergingEpoch: t.DivergingEpoch.Epoch, DivergingEnd: t.DivergingEpoch.EndOffset}
	switch p.replica.Follow(p.asked, &followed) {
	case FollowGrew:
		p.failures = 0
		if p.replica.throttledFollower.Load() && p.replica.catchesUp() {
			f.manager.following.took(f.manager.clock.Now(), len(t.RecordBatches))
		}
		f.grown = append(f.grown, p)
	case FollowMoved:
		p.failures = 0
		f.mu.Lock()
		f.mark(p)
		f.mu.Unlock()
	case FollowBackOff, FollowStale:
		f.markLater(p)
	}
}
