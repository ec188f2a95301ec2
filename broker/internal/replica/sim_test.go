package replica

import (
	"bytes"
	"container/heap"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/leatlog/leat/broker/internal/metadata"
	"github.com/leatlog/leat/broker/internal/record"
	"github.com/leatlog/leat/broker/internal/storage"
	"github.com/leatlog/leat/broker/internal/vfs"
)

// The simulation is three replicas of one partition, producers and a controller
// that obeys the rules, on one goroutine and a clock of its own, all drawn from a
// seed: messages are lost, late and cut off between any two; nodes lose their power
// at any event and come back with what their disk kept. Invariants of DESIGN.md:
//
//	I1 what was acknowledged is at its offset on every replica in the end
//	I2 what is below any high watermark never changes and is the same everywhere
//	I3 a producer's records are there once each, in order
//	I8 one broker acknowledges in a leader epoch
//
// Mistakes made on purpose are caught, most within 100 seeds: acknowledging before
// the leader's fsync (seed 48), reporting before the follower's (48), no comparison of
// the last fetched epoch (0), cutting by the high watermark (5), a pending expansion
// that does not count (29), a pending shrink that counts (10), growing the ISR below
// the epoch's start (268). Leaving out only one of the checks of current leader epochs is
// not: the comparison of the last fetched epoch stands behind them.

const simNodes = 3

// simController is node 0 of the network.
const simController = 0

type simEvent struct {
	at    time.Duration
	order int
	run   func()
}

type simEvents []simEvent

func (h simEvents) Len() int { return len(h) }
func (h simEvents) Less(i, j int) bool {
	return h[i].at < h[j].at || h[i].at == h[j].at && h[i].order < h[j].order
}
func (h simEvents) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *simEvents) Push(x any)   { *h = append(*h, x.(simEvent)) }
func (h *simEvents) Pop() any {
	old := *h
	e := old[len(old)-1]
	*h = old[:len(old)-1]
	return e
}

type sim struct {
	seed    uint64
	random  *rand.Rand
	now     time.Duration
	events  simEvents
	order   int
	trace   uint64 // of all events so far: what ran when, and what it did to the logs
	healed  bool
	blocked [simNodes + 1][simNodes + 1]bool
	nodes   [simNodes + 1]*simNode

	// The controller.
	image     *metadata.Image
	active    [simNodes + 1]bool
	nextEpoch int64

	// What is known to be acknowledged and committed.
	acked     map[int64]string // by offset
	ackedBy   map[int32]int32  // node by leader epoch
	committed map[int64][]byte // batches by base offset
	producers []*simProducer
	errs      []string
	stats     struct{ acks, crashes, truncations, elections int }
}

type simNode struct {
	s        *sim
	id       int32
	disk     *vfs.Mem
	life     int // grows with every crash
	up       bool
	epoch    int64 // of the broker
	manager  *Manager
	dir      *storage.Directory
	image    *metadata.Image
	fetching bool
	waiting  []commitRequest
	checked  int64 // what is below was compared with committed
}

type commitRequest struct {
	log  *storage.Log
	tell func(int64, error)
}

// Request makes the node its manager's committer: syncs take time, and what waits
// is served together.
func (n *simNode) Request(l *storage.Log, tell func(int64, error)) {
	n.waiting = append(n.waiting, commitRequest{l, tell})
	if len(n.waiting) > 1 {
		return
	}
	n.later(n.s.between(0, 3*time.Millisecond), func() {
		round := n.waiting
		n.waiting = nil
		for _, r := range round {
			err := r.log.Sync()
			r.tell(r.log.SyncedOffset(), err)
		}
	})
}

func (n *simNode) Close() {}

func (s *sim) between(low, high time.Duration) time.Duration {
	return low + time.Duration(s.random.Int64N(int64(high-low)))
}

func (s *sim) after(d time.Duration, run func()) {
	s.order++
	heap.Push(&s.events, simEvent{s.now + d, s.order, run})
}

// later runs on a node, unless it dies before.
func (n *simNode) later(d time.Duration, run func()) {
	life := n.life
	n.s.after(d, func() {
		if n.up && n.life == life {
			run()
		}
	})
}

// send brings a message from one node to another, or not.
func (s *sim) send(from, to int32, deliver func()) {
	if s.blocked[from][to] || !s.healed && s.random.IntN(100) < 3 {
		return
	}
	delay := s.between(100*time.Microsecond, 2*time.Millisecond)
	if !s.healed && s.random.IntN(50) == 0 {
		delay = s.between(time.Millisecond, 300*time.Millisecond)
	}
	if to == simController {
		s.after(delay, deliver)
		return
	}
	s.nodes[to].later(delay, deliver)
}

func (s *sim) fail(format string, args ...any) {
	s.errs = append(s.errs, fmt.Sprintf("seed %d at %v: ", s.seed, s.now)+fmt.Sprintf(format, args...))
}

func (s *sim) time() time.Time { return time.Unix(1000, 0).Add(s.now) }

var simTopic = topicID("sim")

func newSim(seed uint64) *sim {
	s := &sim{seed: seed, random: rand.New(rand.NewPCG(seed, 3)), acked: map[int64]string{}, ackedBy: map[int32]int32{}, committed: map[int64][]byte{}}
	minISR := strconv.Itoa(1 + s.random.IntN(2))
	var err error
	s.image, _, err = metadata.Empty().Apply(0, 0, []metadata.Change{
		&metadata.TopicChange{Name: "sim", ID: simTopic}, set("sim", "min.insync.replicas", minISR),
		&metadata.PartitionChange{Topic: simTopic, Replicas: []int32{1, 2, 3}, ISR: []int32{1, 2, 3}, Leader: 1}})
	if err != nil {
		panic(err)
	}
	for id := int32(1); id <= simNodes; id++ {
		s.nodes[id] = &simNode{s: s, id: id, disk: vfs.NewMem(), epoch: s.newEpoch()}
		s.active[id] = true
		s.nodes[id].boot()
	}
	for id := range int64(3) {
		p := &simProducer{s: s, id: id}
		s.producers = append(s.producers, p)
		s.after(s.between(0, 5*time.Millisecond), p.send)
	}
	s.after(s.between(0, 100*time.Millisecond), s.disturb)
	s.after(10*time.Millisecond, s.heartbeats)
	return s
}

func (s *sim) newEpoch() int64 {
	s.nextEpoch++
	return s.nextEpoch
}

func (s *sim) partition() *metadata.Partition {
	t, _ := s.image.TopicByID(simTopic)
	return &t.Partitions[0]
}

// boot starts a node on what its disk kept, with the controller's metadata.
func (n *simNode) boot() {
	s := n.s
	env := storage.Env{FS: n.disk, Now: s.time, Logger: zerolog.Nop()}
	var err error
	if n.dir, err = storage.OpenDirectory(env, "data"); err != nil {
		panic(err)
	}
	life := n.life
	clock := Clock{Now: s.time, AfterFunc: func(d time.Duration, f func()) func() bool {
		stopped := false
		s.after(d, func() {
			if !stopped && n.life == life {
				f()
			}
		})
		return func() bool { stopped = true; return true }
	}}
	if n.manager, err = NewManager(Config{NodeID: n.id, Directory: n.dir, Clock: clock, RetentionInterval: -1, CleanerInterval: -1, Verify: VerifyConfig{Interval: -1}, Committer: n, Lag: 150 * time.Millisecond}); err != nil {
		panic(err)
	}
	n.manager.bring = n.bring
	n.up, n.fetching, n.waiting, n.checked = true, false, nil, 0
	n.image = s.image
	if err := n.manager.Start(n.image); err != nil {
		panic(err)
	}
	n.later(0, n.fetch)
	n.later(0, n.lag)
}

func (n *simNode) replica() *Replica {
	r, err := n.manager.Replica(simTopic, 0)
	if err != nil {
		panic(err)
	}
	return r
}

// crash cuts the node's power.
func (n *simNode) crash() {
	n.s.stats.crashes++
	kept := n.disk.Crash(n.s.random)
	n.up = false
	n.life++
	n.manager.deadlines.Close()
	n.manager.alterer.close()
	n.disk = kept
	n.s.after(n.s.between(5*time.Millisecond, 400*time.Millisecond), n.register)
}

// register asks the controller in: a new registration is not in sync, unless it
// is all there is.
func (n *simNode) register() {
	s := n.s
	if s.blocked[n.id][simController] {
		s.after(20*time.Millisecond, n.register)
		return
	}
	n.epoch = s.newEpoch()
	s.fence(n.id)
	s.unfence(n.id)
	n.boot()
}

func (s *sim) commit(change *metadata.PartitionChange) {
	change.PartitionEpoch++
	image, _, err := s.image.Apply(s.image.Offset()+1, 0, []metadata.Change{change})
	if err != nil {
		panic(err)
	}
	s.image = image
	for id := int32(1); id <= simNodes; id++ {
		s.publish(id)
	}
}

// publish brings the latest metadata to a node, some day.
func (s *sim) publish(id int32) {
	n := s.nodes[id]
	if s.blocked[simController][id] || !n.up {
		return
	}
	n.later(s.between(0, 8*time.Millisecond), func() {
		if s.blocked[simController][id] || n.image == s.image {
			return
		}
		before := n.image
		n.image = s.image
		n.manager.Apply(n.image, metadata.Diff(before, n.image))
	})
}

func (s *sim) elect(change *metadata.PartitionChange) {
	change.LeaderEpoch++
	change.Leader = -1
	s.stats.elections++
	for _, id := range change.Replicas {
		if s.active[id] && slices.Contains(change.ISR, id) {
			change.Leader = id
			return
		}
	}
}

func (s *sim) fence(id int32) {
	s.active[id] = false
	p := s.partition()
	change := p.Change(simTopic)
	if slices.Contains(p.ISR, id) && len(p.ISR) > 1 {
		change.ISR = slices.DeleteFunc(slices.Clone(p.ISR), func(x int32) bool { return x == id })
	}
	if p.Leader == id {
		s.elect(change)
	}
	if p.Leader == id || len(change.ISR) != len(p.ISR) {
		s.commit(change)
	}
}

func (s *sim) unfence(id int32) {
	s.active[id] = true
	if p := s.partition(); p.Leader < 0 && slices.Contains(p.ISR, id) {
		change := p.Change(simTopic)
		s.elect(change)
		s.commit(change)
	}
	s.publish(id)
}

// heartbeats fences who has been cut off, and takes back who is heard again.
func (s *sim) heartbeats() {
	for id := int32(1); id <= simNodes; id++ {
		heard := s.nodes[id].up && !s.blocked[id][simController]
		switch {
		case s.active[id] && !heard && s.random.IntN(10) == 0:
			s.fence(id)
		case !s.active[id] && heard:
			s.unfence(id)
		}
		s.publish(id)
	}
	s.after(10*time.Millisecond, s.heartbeats)
}

// bring brings a proposal to the controller and its answer back; without one, again.
func (n *simNode) bring(r *Replica, p *Proposal) {
	s, answered := n.s, false
	epoch := n.epoch
	isr := make([]int32, len(p.ISR))
	stale := false
	for i, m := range p.ISR {
		isr[i] = m.ID
	}
	s.send(n.id, simController, func() {
		now := s.partition()
		answer := Alteration{LeaderEpoch: now.LeaderEpoch}
		for _, m := range p.ISR {
			stale = stale || !s.active[m.ID] || m.BrokerEpoch >= 0 && m.BrokerEpoch != s.nodes[m.ID].epoch
		}
		switch {
		case epoch != n.epoch || p.LeaderEpoch != now.LeaderEpoch:
			answer.Err = kerr.FencedLeaderEpoch
		case p.PartitionEpoch != now.PartitionEpoch:
			answer.Err = kerr.InvalidUpdateVersion
		case stale:
			answer.Err = kerr.IneligibleReplica
		default:
			change := now.Change(simTopic)
			change.ISR = isr
			s.commit(change)
			answer.PartitionEpoch, answer.ISR = change.PartitionEpoch, isr
		}
		s.send(simController, n.id, func() {
			if answered = true; r.altered(p, answer) {
				n.bring(r, p)
			}
		})
	})
	n.later(s.between(50*time.Millisecond, 100*time.Millisecond), func() {
		if !answered && r.altered(p, Alteration{Err: kerr.RequestTimedOut}) {
			n.bring(r, p)
		}
	})
}

func (n *simNode) lag() {
	n.manager.checkLag()
	n.later(30*time.Millisecond, n.lag)
}

// fetch is one turn of a fetcher with one partition.
func (n *simNode) fetch() {
	s, r := n.s, n.replica()
	leader, epoch, ok := r.following()
	next := func(d time.Duration) { n.later(d, n.fetch) }
	if !ok {
		next(5 * time.Millisecond)
		return
	}
	if !r.durable() {
		r.syncFollowed(func() { next(0) })
		return
	}
	point, brokerEpoch, answered := r.FetchPoint(epoch), n.epoch, false
	s.send(n.id, leader, func() {
		result := s.nodes[leader].replica().ReadFollower(ReadRequest{Offset: point.Offset, MaxBytes: 300, AtLeastOne: true,
			CurrentLeaderEpoch: epoch, LastFetchedEpoch: point.LastEpoch}, n.id, brokerEpoch)
		answer := Followed{Err: result.Err, HighWatermark: result.HighWatermark, LogStart: result.LogStart,
			DivergingEpoch: result.DivergingEpoch, DivergingEnd: result.DivergingEnd}
		if result.Slice.Size > 0 {
			answer.Records, _ = result.Slice.AppendTo(nil)
			result.Slice.Release()
		}
		s.send(leader, n.id, func() {
			if answered {
				return
			}
			answered = true
			if answer.DivergingEpoch >= 0 {
				s.stats.truncations++
			}
			switch r.Follow(point, &answer) {
			case FollowGrew:
				r.syncFollowed(func() { next(0) })
			case FollowMoved:
				next(0)
			default:
				next(s.between(time.Millisecond, 4*time.Millisecond))
			}
		})
	})
	n.later(60*time.Millisecond, func() {
		if !answered {
			answered = true
			next(0)
		}
	})
}

// simProducer sends one batch at a time and repeats it until it is acknowledged.
type simProducer struct {
	s        *sim
	id       int64
	sequence int32
	try      int
}

func (p *simProducer) value() string { return fmt.Sprintf("%d:%d", p.id, p.sequence) }

func (p *simProducer) send() {
	s := p.s
	if s.healed && p.sequence > 0 && p.try == 0 {
		return
	}
	p.try++
	try, value := p.try, p.value()
	// Any broker that takes itself for the leader will do: fenced ones must refuse.
	node := s.nodes[1+s.random.IntN(simNodes)]
	again := func(d time.Duration) {
		s.after(d, func() {
			if p.try == try {
				p.send()
			}
		})
	}
	if !node.up {
		again(s.between(0, 5*time.Millisecond))
		return
	}
	r := node.replica()
	_, epoch := r.Leader()
	b := record.NewBuilder(record.CodecNone)
	b.SetProducer(p.id, 0, p.sequence)
	b.Append(s.time().UnixMilli(), nil, []byte(p.value()), nil)
	sink := simSink(func(err *kerr.Error, offset int64) {
		if err == nil {
			s.acknowledge(node.id, epoch, offset, value)
		}
		if p.try != try || p.value() != value {
			return // a try that was given up
		}
		if err != nil {
			again(s.between(0, 8*time.Millisecond))
			return
		}
		p.sequence++
		p.try = 0
		s.after(s.between(0, 10*time.Millisecond), p.send)
	})
	r.Append(b.Build(nil), -1, s.time().Add(100*time.Millisecond), 0, sink)
	again(150 * time.Millisecond)
}

type simSink func(*kerr.Error, int64)

func (f simSink) Appended(_ int, err *kerr.Error, offset, _, _ int64) { f(err, offset) }

// acknowledge notes what a client was told.
func (s *sim) acknowledge(node, epoch int32, offset int64, value string) {
	s.stats.acks++
	if by, ok := s.ackedBy[epoch]; ok && by != node {
		s.fail("I8: brokers %d and %d acknowledge in epoch %d", by, node, epoch)
	}
	s.ackedBy[epoch] = node
	if was, ok := s.acked[offset]; ok && was != value {
		s.fail("I2: %q and %q were acknowledged at %d", was, value, offset)
	}
	s.acked[offset] = value
}

// disturb does something bad now and then.
func (s *sim) disturb() {
	if s.healed {
		return
	}
	id := 1 + s.random.Int32N(simNodes)
	n := s.nodes[id]
	switch s.random.IntN(6) {
	case 0:
		if n.up {
			n.crash()
		}
	case 1: // all at once
		if s.random.IntN(3) == 0 {
			for _, n := range s.nodes[1:] {
				if n.up {
					n.crash()
				}
			}
		}
	case 2: // cut off from everybody, or from some, in one direction or both
		for other := range int32(simNodes + 1) {
			if other != id && s.random.IntN(3) > 0 {
				s.blocked[id][other], s.blocked[other][id] = s.random.IntN(4) > 0, s.random.IntN(4) > 0
			}
		}
	case 3, 4:
		s.blocked = [simNodes + 1][simNodes + 1]bool{}
	case 5: // the leadership moves without need
		p := s.partition()
		if to := p.ISR[s.random.IntN(len(p.ISR))]; s.active[to] && to != p.Leader {
			change := p.Change(simTopic)
			change.Leader = to
			change.LeaderEpoch++
			s.commit(change)
		}
	}
	s.after(s.between(time.Millisecond, 200*time.Millisecond), s.disturb)
}

// check compares what became committed on a node with what is known.
func (s *sim) check(n *simNode) {
	if !n.up {
		return
	}
	r := n.replica()
	high := r.HighWatermark()
	if r.log == nil || high > r.log.EndOffset() {
		s.fail("the high watermark of %d is %d, beyond its log", n.id, high)
		return
	}
	for n.checked < high {
		data, err := r.log.Read(nil, n.checked, high, 1<<20, true)
		if err != nil || len(data) == 0 {
			return
		}
		for len(data) > 0 {
			batch, rest, err := record.Parse(data)
			if err != nil {
				s.fail("%v", err)
				return
			}
			if known, ok := s.committed[batch.BaseOffset()]; ok && !bytes.Equal(known, batch) {
				s.fail("I2: what is committed at %d differs on node %d", batch.BaseOffset(), n.id)
			} else if !ok {
				s.committed[batch.BaseOffset()] = bytes.Clone(batch)
			}
			n.checked, data = batch.NextOffset(), rest
		}
	}
}

func (s *sim) until(end time.Duration, done func() bool) bool {
	for s.now < end && len(s.errs) == 0 {
		e := heap.Pop(&s.events).(simEvent)
		s.now = e.at
		e.run()
		s.follow(uint64(e.at), uint64(e.order), uint64(s.order))
		for _, n := range s.nodes[1:] {
			s.check(n)
			s.follow(uint64(n.life), uint64(n.checked))
		}
		if done != nil && done() {
			return true
		}
	}
	return false
}

// finished says that all is copied and answered.
func (s *sim) finished() bool {
	p := s.partition()
	if p.Leader < 0 || len(p.ISR) < simNodes {
		return false
	}
	for _, q := range s.producers {
		if q.try != 0 {
			return false
		}
	}
	end := s.nodes[p.Leader].replica().log.EndOffset()
	for _, n := range s.nodes[1:] {
		if !n.up || n.replica().log.EndOffset() != end || n.replica().HighWatermark() != end {
			return false
		}
	}
	return true
}

// describe tells where the nodes stand.
func (s *sim) describe() (out string) {
	for _, n := range s.nodes[1:] {
		out += fmt.Sprintf("\nnode %d up=%v broker epoch=%d", n.id, n.up, n.epoch)
		if n.up {
			p := n.replica().core
			out += fmt.Sprintf(" %s leader=%d epoch=%d/%d end=%d synced=%d high=%d isr=%v proposal=%+v followers=%+v failure=%v", p.Role(), p.Leader(),
				p.LeaderEpoch(), p.PartitionEpoch(), p.end, p.synced, p.HighWatermark(), p.ISR(), p.proposal, p.followers, n.replica().failure)
		}
	}
	return out
}

// run simulates and returns what went wrong.
func (s *sim) run() []string {
	s.until(3*time.Second, nil)
	s.healed, s.blocked = true, [simNodes + 1][simNodes + 1]bool{}
	if len(s.errs) == 0 && !s.until(s.now+20*time.Second, s.finished) && len(s.errs) == 0 {
		s.fail("I9: not in sync again: %+v, active %v%s", s.partition(), s.active, s.describe())
	}
	if len(s.errs) == 0 {
		s.compare()
	}
	for _, n := range s.nodes[1:] {
		if n.up {
			n.manager.deadlines.Close()
			n.manager.alterer.close()
		}
	}
	return s.errs
}

// compare reads all replicas in the end.
func (s *sim) compare() {
	var first []byte
	for _, n := range s.nodes[1:] {
		var all []byte
		log := n.replica().log
		next := map[int64]int64{}
		for offset := int64(0); offset < log.EndOffset(); {
			data, err := log.Read(nil, offset, log.EndOffset(), 1<<20, true)
			if err != nil {
				s.fail("read: %v", err)
				return
			}
			all = append(all, data...)
			for len(data) > 0 {
				batch, rest, _ := record.Parse(data)
				value := ""
				_ = batch.Iterate(func(r *record.Record) error { value = string(r.Value); return nil })
				if want, ok := s.acked[batch.BaseOffset()]; ok && want != value {
					s.fail("I1: %q was acknowledged at %d, node %d has %q", want, batch.BaseOffset(), n.id, value)
				}
				if want := fmt.Sprintf("%d:%d", batch.ProducerID(), next[batch.ProducerID()]); value != want {
					s.fail("I3: node %d has %q at %d, want %q", n.id, value, batch.BaseOffset(), want)
					return
				}
				next[batch.ProducerID()]++
				offset, data = batch.NextOffset(), rest
			}
		}
		for offset := range s.acked {
			if offset >= log.EndOffset() {
				s.fail("I1: %q was acknowledged at %d, node %d ends at %d", s.acked[offset], offset, n.id, log.EndOffset())
			}
		}
		if first == nil {
			first = all
		} else if !bytes.Equal(first, all) {
			s.fail("I2: node %d differs", n.id)
		}
	}
}

// TestReplicationSimulation runs many seeds; LEAT_SIM_SEED runs one, LEAT_SIM_SEEDS
// that many.
func TestReplicationSimulation(t *testing.T) {
	from, count := uint64(0), uint64(150)
	if v := os.Getenv("LEAT_SIM_SEEDS"); v != "" {
		count, _ = strconv.ParseUint(v, 10, 64)
	}
	if v := os.Getenv("LEAT_SIM_SEED"); v != "" {
		from, _ = strconv.ParseUint(v, 10, 64)
		count = 1
	}
	var acks, crashes, truncations, elections int
	for seed := from; seed < from+count; seed++ {
		s := newSim(seed)
		for _, e := range s.run() {
			t.Error(e)
		}
		acks, crashes, truncations, elections = acks+s.stats.acks, crashes+s.stats.crashes, truncations+s.stats.truncations, elections+s.stats.elections
		if t.Failed() {
			return
		}
	}
	t.Logf("%d seeds: %d acknowledgements, %d crashes, %d elections, %d truncations", count, acks, crashes, elections, truncations)
	if count > 10 && (acks == 0 || crashes == 0 || truncations == 0) {
		t.Error("nothing was tested")
	}
}
