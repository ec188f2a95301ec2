package controller

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/leatlog/leat/broker/internal/metadata"
	"github.com/leatlog/leat/broker/internal/mutant"
)

// Config configures a Controller. All fields but Imbalance and Spread are required.
type Config struct {
	NodeID        int32
	Partitions    int32             // of a topic created with -1 partitions (num.partitions)
	Replication   int16             // of a topic created with -1 replicas (default.replication.factor)
	Session       time.Duration     // the silence after which a broker is fenced
	TopicDefaults map[string]string // defaults of topic configurations, by their names
	Imbalance     Imbalance
	Spread        Spread
}

// Imbalance says when leaders are moved back to the first replicas.
type Imbalance struct {
	Check   time.Duration // the time between two looks (leader.imbalance.check.interval.seconds); zero: never
	Percent int32         // of a broker's partitions that others may lead (leader.imbalance.per.broker.percentage)
}

// producerIDBlock is the number of producer ids a broker gets at a time, as in Kafka.
const producerIDBlock = 1000

// maxChanges bounds one proposal, so that it fits into an entry of the metadata
// log. What one request may ask for stays below it and so is atomic; the partitions
// of a broker that comes or goes may take several.
const maxChanges = 20_000

// Controller is the active or standby controller of this node. It is not safe for
// concurrent use.
type Controller struct {
	cfg       Config
	active    bool
	epoch     int32
	clusterID metadata.UUID   // of the cluster, should it have none yet
	image     *metadata.Image // speculative: committed and proposed
	proposed  uint64          // the last proposal's id
	settled   uint64          // the last proposal that is committed or given up
	waiting   []waiting       // by proposal
	sessions  map[int32]*session
	balanced  time.Time // when leaders were last looked at
	spread    spreading
	last      time.Time // of the last step
	// defaults of topic configurations in defaultsOf, see topicDefaults
	defaults   map[string]string
	defaultsOf *metadata.Image
	out        *Effects
}

// waiting is an answer that is given when a proposal is committed.
type waiting struct {
	proposal uint64
	answer   Answer
	commit   func(image *metadata.Image) // soft state that follows the commit; may be nil
}

// session is what the active controller knows of a broker's liveness.
type session struct {
	epoch      int64
	deadline   time.Time
	heard      bool      // from the broker itself, in this leadership
	last       time.Time // when it was heard last
	registered int64     // the metadata offset that covers its registration; -1 until it is committed
	shutdown   int64     // the one that covers its controlled shutdown; -1 until it is committed
}

// New returns a controller that is not active.
func New(cfg Config) *Controller {
	return &Controller{cfg: cfg, sessions: map[int32]*session{}}
}

// Active says that this node is the active controller.
func (c *Controller) Active() bool { return c.active }

// Step takes an event that happened at now and returns what to do about it. Times
// must not go back. The Effects are the caller's.
func (c *Controller) Step(now time.Time, event Event) Effects {
	var out Effects
	c.out = &out
	c.wake(now)
	switch e := event.(type) {
	case BecameLeader:
		c.becameLeader(now, e)
	case Resigned:
		c.resigned()
	case Committed:
		c.committed(e)
	case Failed:
		c.fail(now, e)
	case Tick:
		c.expire(now)
		c.rebalance(now)
		c.spreadReplicas(now)
	case BrokerGone:
		c.brokerGone(e)
	default:
		c.request(now, event)
	}
	c.out = nil
	return out
}

func (c *Controller) request(now time.Time, event Event) {
	var id uint64
	var decide func()
	switch e := event.(type) {
	case CreateTopics:
		id, decide = e.ID, func() { c.createTopics(e) }
	case DeleteTopics:
		id, decide = e.ID, func() { c.deleteTopics(e) }
	case CreatePartitions:
		id, decide = e.ID, func() { c.createPartitions(e) }
	case IncrementalAlterConfigs:
		id, decide = e.ID, func() { c.incrementalAlterConfigs(e) }
	case AlterConfigs:
		id, decide = e.ID, func() { c.alterConfigs(e) }
	case RegisterBroker:
		id, decide = e.ID, func() { c.registerBroker(now, e) }
	case BrokerHeartbeat:
		id, decide = e.ID, func() { c.heartbeat(now, e) }
	case AllocateProducerIDs:
		id, decide = e.ID, func() { c.allocateProducerIDs(e) }
	case UnregisterBroker:
		id, decide = e.ID, func() { c.unregisterBroker(e) }
	case AlterPartition:
		id, decide = e.ID, func() { c.alterPartition(e) }
	case Refused:
		c.refuse(e.ID, e.Err)
		return
	case ElectLeaders:
		id, decide = e.ID, func() { c.electLeaders(e) }
	case AlterPartitionReassignments:
		id, decide = e.ID, func() { c.alterReassignments(e) }
	case UpdateFeatures:
		id, decide = e.ID, func() { c.updateFeatures(e) }
	default:
		panic(fmt.Sprintf("controller: event of type %T", event))
	}
	if !c.active {
		c.refuse(id, kerr.NotController)
		return
	}
	decide()
}

func (c *Controller) becameLeader(now time.Time, e BecameLeader) {
	c.resigned()
	c.active, c.epoch, c.image = true, e.Epoch, e.Image
	c.clusterID, c.balanced, c.spread = e.ClusterID, now, spreading{looked: now}
	c.begin(now)
}

// begin says in the log what a controller says first, unless it is there, and takes
// on all brokers that are not fenced with a new session each, so that a change of
// the controller fences nobody who is alive.
func (c *Controller) begin(now time.Time) {
	for _, b := range c.image.Brokers() {
		if !b.Fenced && c.sessions[b.ID] == nil {
			c.sessions[b.ID] = &session{epoch: b.Epoch, deadline: now.Add(c.cfg.Session), registered: c.image.Offset(), shutdown: -1}
		}
	}
	var changes []metadata.Change
	if id, epoch := c.image.Controller(); id != c.cfg.NodeID || epoch != c.epoch {
		changes = append(changes, &metadata.ControllerChange{ID: c.cfg.NodeID, Epoch: c.epoch})
	}
	if c.image.ClusterID() == "" {
		changes = append(changes, &metadata.ClusterChange{ID: c.clusterID.String()})
		changes = append(changes, newClusterFeatures()...)
		changes = append(changes, c.minInSyncDefault()...)
	}
	c.propose(changes)
	c.propose(c.settle())
}

// resigned fails what waits and forgets what was speculated.
func (c *Controller) resigned() {
	c.failWaiting()
	c.active, c.image, c.settled = false, nil, c.proposed
	clear(c.sessions)
}

func (c *Controller) failWaiting() {
	for _, w := range c.waiting {
		c.refuse(w.answer.ID, kerr.NotController)
	}
	c.waiting = nil
}

func (c *Controller) fail(now time.Time, e Failed) {
	c.failWaiting()
	if !c.active {
		return
	}
	c.image, c.settled = e.Image, c.proposed
	// A registration may be among what failed; its broker tries again.
	for _, id := range slices.Sorted(maps.Keys(c.sessions)) {
		if b, ok := c.image.Broker(id); !ok || b.Epoch != c.sessions[id].epoch {
			delete(c.sessions, id)
		}
	}
	c.begin(now) // its first words, or a fence, may be among it, too
}

func (c *Controller) committed(e Committed) {
	if !c.active {
		return
	}
	c.settled = max(c.settled, e.Proposal)
	if c.settled == c.proposed {
		c.image = e.Image // the same content; lets go of the speculative copy
	}
	n := 0
	for ; n < len(c.waiting) && c.waiting[n].proposal <= e.Proposal; n++ {
		if w := c.waiting[n]; w.commit != nil {
			w.commit(e.Image)
		}
		if c.waiting[n].answer.ID != 0 {
			c.out.Answers = append(c.out.Answers, c.waiting[n].answer)
		}
	}
	c.waiting = slices.Delete(c.waiting, 0, n)
}

// note tells the shell of something that is to be logged.
func (c *Controller) note(n Notice) { c.out.Notices = append(c.out.Notices, n) }

// propose adds changes to what is to be committed and to the speculative image,
// in as many proposals as their number needs.
func (c *Controller) propose(changes []metadata.Change) {
	for part := range slices.Chunk(changes, maxChanges) {
		c.speculate(part)
		c.proposed++
		c.out.Proposals = append(c.out.Proposals, Proposal{ID: c.proposed, Changes: part})
	}
}

// speculate adds changes to the speculative image.
func (c *Controller) speculate(changes []metadata.Change) {
	image, _, err := c.image.Apply(c.image.Offset(), c.epoch, changes)
	if err != nil {
		// Changes are made from the very image they are applied to.
		panic(fmt.Sprintf("controller: own changes do not apply: %v", err))
	}
	c.image = image
}

// answerWhenCommitted answers after all that was proposed so far, also when the
// request itself proposed nothing: what it was decided on may be uncommitted.
func (c *Controller) answerWhenCommitted(id uint64, response any) {
	c.whenCommitted(waiting{answer: Answer{ID: id, Response: response}})
}

func (c *Controller) whenCommitted(w waiting) {
	w.proposal = c.proposed
	if c.settled == c.proposed || mutant.Is(mutant.ControllerAnswersBeforeCommit) {
		if w.commit != nil {
			w.commit(c.image)
		}
		c.out.Answers = append(c.out.Answers, w.answer)
		return
	}
	c.waiting = append(c.waiting, w)
}
