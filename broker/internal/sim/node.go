package sim

import (
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"slices"
	"time"

	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/controller"
	"github.com/leatlog/leat/broker/internal/handler"
	"github.com/leatlog/leat/broker/internal/metadata"
	"github.com/leatlog/leat/broker/internal/quorum"
	"github.com/leatlog/leat/broker/internal/replica"
	"github.com/leatlog/leat/broker/internal/storage"
	"github.com/leatlog/leat/broker/internal/vfs"
	"github.com/leatlog/leat/broker/internal/wire"
)

// Times of a node, those of the broker's defaults but for the session, which is short
// so that an hour has many elections.
const (
	tick              = 50 * time.Millisecond
	session           = 1500 * time.Millisecond
	heartbeat         = 400 * time.Millisecond
	settleDelay       = 5 * time.Millisecond
	controllerPause   = 20 * time.Millisecond
	controllerTimeout = 30 * time.Second
	attemptTimeout    = 2 * time.Second
	replicaLag        = 2 * time.Second
)

const (
	clientListener   = "PLAINTEXT"
	internalListener = "INTERNAL"
)

// node is one node of the cluster: a disk, and while it is up a process on it.
type node struct {
	c          *Cluster
	id         int32
	replica    quorum.Replica
	directory  metadata.UUID
	disk       *vfs.Mem
	previous   int64 // the epoch of the last registration, which the node keeps on its disk
	sick       bool  // its disk fails to do what fails says, once in failsOften times
	fails      []vfs.Kind
	failsOften int
	failed     bool // and has done so since the process was started
	full       bool // there is no room on it but for quota
	quota      vfs.Quota
	*process   // nil while it is down
}

// process is one start of a node.
type process struct {
	node    *node
	life    *life
	dir     *storage.Directory
	manager *replica.Manager
	member  *quorum.Member
	shell   *controllerShell
	log     *metadataLog
	epoch   int64 // of the registration, -1 without one

	clients, nodes *endpoint
	ids            handler.ProducerIDs

	inbox   []func() // for the member
	waiting bool     // the member runs soon
	syncs   []commitRequest
	syncing bool
	checked map[checkedKey]int64 // what is below was compared
}

// endpoint is a listener: what it serves and how.
type endpoint struct {
	table  *wire.Table
	handle func(r *wire.Request, respond wire.Responder)
	conn   map[place]*wire.Conn
}

func (n *node) alive() *life {
	if n.process == nil {
		return nil
	}
	return n.life
}

// boot starts a process on what the disk holds.
func (n *node) boot() error {
	c := n.c
	n.sick, n.failed = false, false // who starts it sees to that
	p := &process{node: n, life: c.s.newLife(), epoch: -1, checked: map[checkedKey]int64{}}
	nop := c.logger(n.id)
	env := storage.Env{FS: vfs.NewFaulty(n.disk, n.operate), Now: c.s.time, Logger: nop, Go: p.life.Go,
		Sleep: func(d time.Duration, _ <-chan struct{}) { c.s.sleep(d) }}
	var err error
	if p.dir, err = storage.OpenDirectory(env, "data"); err != nil {
		return err
	}
	clock := replica.Clock{Now: c.s.time, AfterFunc: p.life.AfterFunc, Sleep: p.life.Sleep}
	if p.manager, err = replica.NewManager(replica.Config{NodeID: n.id, Directory: p.dir, Clock: clock, Logger: nop,
		RetentionInterval: -1, CleanerInterval: -1, Verify: replica.VerifyConfig{Interval: -1}, Cluster: peers{p}, Lag: replicaLag, Go: p.life.Go,
		NewBell: func() replica.Bell { return &bell{s: c.s} }, Committer: p}); err != nil {
		return err
	}
	p.log = &metadataLog{p: p, image: metadata.Empty(), published: metadata.Empty()}
	p.shell = newControllerShell(p, controller.New(controller.Config{NodeID: n.id, Partitions: 1, Replication: 3, Session: session,
		Imbalance: controller.Imbalance{Check: 20 * time.Second, Percent: 0}}))
	if p.member, err = quorum.OpenMember(quorum.Config{NodeID: n.id, Directory: n.replica.Directory, Voters: c.voters, Dir: "data/quorum",
		FS: n.disk, Now: c.s.time, StateMachine: p.log, Transport: p, Logger: nop, SnapshotEntries: 60, KeepEntries: 20}); err != nil {
		return err
	}
	p.serveBoth(nop)
	n.process = p
	p.life.after(0, p.ticks)
	p.run(func() {})
	p.life.Go(p.register)
	return nil
}

func (p *process) serveBoth(logger zerolog.Logger) {
	d := handler.Dependencies{NodeID: p.node.id, InterNode: internalListener, Image: func() *metadata.Image { return p.log.published },
		Now: p.node.c.s.time, Go: p.life.Go, Logger: logger, Partitions: partitions{p.manager}, ProducerIDs: &p.ids,
		Brokers: func() int { return len(p.log.published.Brokers()) },
		LogDirs: func() []handler.LogDir { return nil },
		Config:  handler.Config{DeleteTopics: true, OffsetsPartitions: 2, OffsetsReplication: 3, TransactionsPartitions: 2, TransactionsReplication: 3, TransactionsMinISR: 2}}
	d.Controller = &controllerClient{p: p}
	h := handler.New(d)
	p.clients = &endpoint{table: h.Table(), conn: map[place]*wire.Conn{}, handle: func(r *wire.Request, respond wire.Responder) { h.Handle(never, r, respond) }}
	d.Controller, d.Nodes = &controllerClient{p: p, local: true}, true
	internal := handler.New(d)
	rows := slices.Clone(internal.Table().Rows())
	own := map[int16]bool{}
	for _, key := range []kmsg.Key{kmsg.BrokerRegistration, kmsg.BrokerHeartbeat, kmsg.AllocateProducerIDs} {
		own[int16(key)] = true
		rows = append(rows, wire.API{Key: int16(key), Max: kmsg.RequestForKey(int16(key)).MaxVersion()})
	}
	table, err := wire.NewTable(rows)
	if err != nil {
		panic(err)
	}
	p.nodes = &endpoint{table: table, conn: map[place]*wire.Conn{}, handle: func(r *wire.Request, respond wire.Responder) {
		if own[r.Key] {
			d.Controller.Decide(r.Body, func(response kmsg.Response) { respond(wire.Response{Body: response}) })
			return
		}
		internal.Handle(never, r, respond)
	}}
}

// serve implements server.
func (n *node) serve(from place, frame []byte, internal bool, reply func([]byte)) {
	p := n.process
	e := p.clients
	listener := clientListener
	if internal {
		e, listener = p.nodes, internalListener
	}
	request, err := e.table.Decode(frame)
	if err != nil {
		n.c.fail("I10: node %d cannot read a request: %v", n.id, err)
		return
	}
	if e.conn[from] == nil {
		peer := int32(-1)
		if internal {
			peer = from
		}
		e.conn[from] = &wire.Conn{ID: uint64(from), RemoteAddr: &net.TCPAddr{}, Listener: listener, Peer: peer, Principal: "User:ANONYMOUS"}
	}
	request.Conn = e.conn[from]
	n.c.s.note("request", int64(from), int64(n.id), int64(request.Key), int64(len(frame)))
	answered := false
	e.handle(request, func(r wire.Response) {
		if answered || p.life.dead {
			return
		}
		answered = true
		defer func() {
			if r.Release != nil {
				r.Release()
			}
		}()
		if r.Empty() {
			return
		}
		n.c.answered(n, request, &r)
		data, err := encodeResponse(request, &r)
		if err != nil {
			n.c.fail("I10: node %d cannot answer %s: %v", n.id, kmsg.NameForKey(request.Key), err)
			return
		}
		h := fnv.New64a()
		_, _ = h.Write(data)
		n.c.s.note("answer", int64(n.id), int64(request.Key), int64(h.Sum64()))
		// What is under way is out of the process: it arrives even if that dies.
		n.c.s.after(0, func() { reply(data) })
	})
}

// kill ends the process. With power its disk loses what was not synced, or else only
// the process is gone.
func (n *node) kill(power bool) {
	p := n.process
	if p == nil {
		return
	}
	n.process = nil
	p.life.kill()
	if power {
		n.disk = n.disk.Crash(n.c.s.random)
	} else {
		n.disk = n.disk.Kill()
	}
}

// commitRequest asks for a sync of a log.
type commitRequest struct {
	log  *storage.Log
	tell func(int64, error)
}

// Request makes the process its manager's committer: syncs take time, and what comes
// meanwhile is served together by the next round.
func (p *process) Request(l *storage.Log, tell func(int64, error)) {
	p.syncs = append(p.syncs, commitRequest{l, tell})
	if p.syncing {
		return
	}
	p.syncing = true
	p.life.after(p.node.c.syncTime(), p.commit)
}

func (p *process) commit() {
	round := p.syncs
	p.syncs = nil
	for _, r := range round {
		err := r.log.Sync()
		r.tell(r.log.SyncedOffset(), err)
	}
	if p.syncing = len(p.syncs) > 0; p.syncing {
		p.life.after(p.node.c.syncTime(), p.commit)
	}
}

// Close implements replica.Committer.
func (p *process) Close() {}

// ticks drives raft's clock.
func (p *process) ticks() {
	p.run(p.member.Tick)
	p.life.after(tick, p.ticks)
}

// run has the member do something, soon, with all that comes until then.
func (p *process) run(f func()) {
	p.inbox = append(p.inbox, f)
	if p.waiting {
		return
	}
	p.waiting = true
	p.life.after(p.node.c.syncTime()/2, func() {
		p.waiting = false
		inbox := p.inbox
		p.inbox = nil
		for _, f := range inbox {
			f()
		}
		if err := p.member.Process(); err != nil {
			p.node.c.fail("I11: the metadata log of node %d failed: %v", p.node.id, err)
		}
	})
}

// Send implements quorum.Transport.
func (p *process) Send(to int32, message []byte) {
	c := p.node.c
	target := c.nodes[to]
	c.net.send(p.node.id, to, func(message []byte) {
		l := target.alive()
		if l == nil {
			return
		}
		l.do(func() {
			q := target.process
			q.run(func() { _ = q.member.Receive(message) }) // what it refuses it may refuse
		})
	}, message)
}

// register keeps the broker registered and alive in the eyes of the active controller.
func (p *process) register() {
	c, n := p.node.c, p.node
	incarnation, _ := metadata.NewUUID(reader{c.s})
	started, fenced := false, true
	for {
		var err error
		if p.epoch < 0 {
			var response kmsg.Response
			response, err = p.askController(controller.RegistrationRequest(&controller.RegisterBroker{Broker: n.id, Incarnation: incarnation, Directory: n.directory,
				Roles: []string{"broker", "controller"}, PreviousEpoch: n.previous, Features: metadata.FeatureRanges(),
				Listeners: []metadata.Listener{{Name: clientListener, Host: fmt.Sprintf("node%d", n.id), Port: 9092}, {Name: internalListener, Host: fmt.Sprintf("node%d", n.id), Port: 9093}}}))
			if err == nil {
				n.previous = response.(*kmsg.BrokerRegistrationResponse).BrokerEpoch
				for b, ok := p.log.published.Broker(n.id); !ok || b.Epoch < n.previous; b, ok = p.log.published.Broker(n.id) {
					c.s.park(func(wake func()) { p.log.whenPublished(p.log.published.Offset()+1, wake) })
				}
				p.epoch = n.previous
				if !started {
					started = true
					if err := p.manager.Start(p.log.published); errors.Is(err, errSick) {
						c.outside.after(0, func() { // the process ends, and is started again
							if n.process == p {
								c.stop(n, false)
							}
						})
						return
					} else if err != nil {
						c.fail("I11: node %d does not start: %v", n.id, err)
						return
					}
				}
			}
		} else {
			r := kmsg.NewPtrBrokerHeartbeatRequest()
			r.BrokerID, r.BrokerEpoch, r.CurrentMetadataOffset = n.id, p.epoch, p.log.published.Offset()
			var response kmsg.Response
			response, err = p.askController(r)
			fenced = err != nil || response.(*kmsg.BrokerHeartbeatResponse).IsFenced
			if errors.Is(err, kerr.StaleBrokerEpoch) {
				p.epoch = -1
			}
		}
		if fenced || err != nil {
			c.s.sleep(settleDelay)
		} else {
			c.s.sleep(heartbeat)
		}
	}
}
