package broker

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/rs/zerolog"

	"github.com/leatlog/leat/broker/internal/controller"
	"github.com/leatlog/leat/broker/internal/handler"
	"github.com/leatlog/leat/broker/internal/metadata"
	"github.com/leatlog/leat/broker/internal/quorum"
	"github.com/leatlog/leat/broker/internal/replica"
	"github.com/leatlog/leat/broker/internal/server"
	"github.com/leatlog/leat/broker/internal/storage"
	"github.com/leatlog/leat/broker/internal/vfs"
)

// listenerName is the name of the one listener, as Kafka names those without
// encryption.
const listenerName = "PLAINTEXT"

func (e Environment) withDefaults() Environment {
	if e.FS == nil {
		e.FS = vfs.OS{}
	}
	if e.Now == nil {
		e.Now = time.Now
	}
	if e.Random == nil {
		e.Random = rand.Reader
	}
	e.Random = &lockedReader{reader: e.Random}
	if e.Logger == nil {
		nop := zerolog.Nop()
		e.Logger = &nop
	}
	return e
}

// start starts the parts in order. What it started is stopped by Shutdown, also
// after an error.
func (b *Broker) start(ctx context.Context) error {
	for _, reason := range b.cfg.ignored {
		b.logger.Warn().Msg("setting without effect: " + reason)
	}
	if b.cfg.Flush != FlushSync {
		b.logger.Warn().Str("flush", string(b.cfg.Flush)).
			Msg("acknowledged records are not fsynced first: a crash of the machine loses some")
	}
	for _, step := range []func(context.Context) error{
		b.openListener, b.openDirectory, b.startMembership, b.startPeers, b.startReplicas, b.startCoordinators, b.startQuorum, b.startAdmin,
		b.prepareLiveness, b.serveNodes, b.register, b.serve,
	} {
		if err := step(ctx); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("start of the broker: %w", err)
		}
	}
	return nil
}

// openListener binds the clients' port, so that a port that is taken stops the start
// before anything is written. Connections wait in its backlog until the broker is
// ready.
func (b *Broker) openListener(context.Context) error {
	b.listener = b.cfg.Listener
	if b.listener == nil {
		l, err := net.Listen("tcp", b.cfg.Listen)
		if err != nil {
			return fmt.Errorf("listen on %s: %w", b.cfg.Listen, err)
		}
		b.listener = l
	}
	b.started("listener", func(context.Context) error {
		_ = b.listener.Close() // the server has closed it
		return nil
	})
	address := b.cfg.Advertise
	if address == "" {
		address = b.listener.Addr().String()
	}
	host, port, err := splitAddress(address)
	if err != nil || host == "" {
		return invalid("advertise", b.cfg.Advertise, fmt.Sprintf("the listener's address %s is none that clients can be told: set it to HOST:PORT", address))
	}
	b.advertise = advertised{host, port}
	return nil
}

func (b *Broker) openDirectory(context.Context) error {
	directory, err := storage.OpenDirectory(storage.Env{FS: b.env.FS, Now: b.env.Now, Logger: b.logger,
		Synced: b.metrics.synced, KeepFree: b.cfg.MinFree}, b.cfg.DataDir)
	if err != nil {
		return err
	}
	b.directory = directory
	b.started("data directory", func(context.Context) error { return directory.Close() })
	return nil
}

// startReplicas makes what holds partitions and groups. Both are empty until the
// broker is registered.
func (b *Broker) startReplicas(context.Context) error {
	flush := map[FlushMode]replica.FlushMode{FlushSync: replica.FlushSync, FlushInterval: replica.FlushInterval, FlushOS: replica.FlushOS}
	cleaning := b.cfg.Cleaner.Interval
	if b.cfg.Cleaner.Off {
		cleaning = -1
	}
	verify := replica.VerifyConfig{Interval: b.cfg.Verify.Interval, BytesPerSecond: b.cfg.Verify.BytesPerSecond}
	if b.cfg.Verify.Off {
		verify.Interval = -1
	}
	var others replica.Cluster
	if b.peers != nil {
		others = replicaLink{b}
	}
	manager, err := replica.NewManager(replica.Config{
		Cluster: others,
		NodeID:  b.cfg.NodeID, Directory: b.directory, Clock: replica.Clock{Now: b.env.Now}, Logger: b.logger,
		Flush: flush[b.cfg.Flush], FlushInterval: b.cfg.FlushInterval, RetentionInterval: b.cfg.Topics.RetentionCheck, CleanerInterval: cleaning,
		Cleaner:       storage.CleanerConfig{DedupeBytes: b.cfg.Cleaner.DedupeBytes, BytesPerSecond: b.cfg.Cleaner.BytesPerSecond},
		Verify:        verify,
		TopicDefaults: b.cfg.Topics.Defaults, ProducerExpiration: b.cfg.Limits.ProducerIDExpiration,
		Lag: b.cfg.Cluster.ReplicaLag, OnRole: b.roleChanged,
		// Nobody is served before there is a liveness.
		Current: func() bool { return b.liveness.current() },
	})
	if err != nil {
		return err
	}
	b.replicas = manager
	// The last appends of coordinators are settled, and so begin tasks, when replicas close:
	// parts stop in reverse.
	b.started("tasks", func(context.Context) error {
		b.tasks.wait()
		return nil
	})
	b.started("replicas", func(context.Context) error { return manager.Close() })
	return nil
}

// startQuorum starts the metadata log and the controller that leads it.
func (b *Broker) startQuorum(context.Context) error {
	b.shell = newControllerShell(controller.New(controller.Config{
		NodeID: b.cfg.NodeID, Partitions: b.cfg.Topics.Partitions, Replication: b.cfg.Topics.Replication,
		Session: b.cfg.Cluster.Session, TopicDefaults: b.cfg.Topics.Defaults, Imbalance: b.cfg.Cluster.imbalance(),
		Spread: b.cfg.Cluster.spread(),
	}), b.log, b.env)
	b.log.onLeader = func(leader, epoch int32, image *metadata.Image) {
		b.shell.leaderChanged(leader == b.cfg.NodeID, epoch, image)
	}
	b.suspicions.shell.Store(b.shell)
	b.shell.clusterID, b.shell.onActive = b.membership.clusterID, b.suspicions.raiseAll
	ticks := make(chan struct{})
	node, err := quorum.Start(b.quorumConfig(), ticks)
	if err != nil {
		return err
	}
	b.started("quorum", func(context.Context) error { return node.Close() })
	b.shell.quorum = node
	b.cluster = newClusterTopic(node, b.log.Published)
	b.background("metadata listener", func(stop <-chan struct{}) {
		b.log.listen(stop, func(image *metadata.Image, delta *metadata.Delta) {
			b.replicas.Apply(image, delta)
			b.forgetOffsets(delta)
			b.cluster.grown()
		})
	})
	b.background("quorum clock", ticker(b.cfg.Cluster.Tick, ticks))
	b.background("quorum watch", func(stop <-chan struct{}) {
		select {
		case <-stop:
		case <-node.Done():
			b.fail(fmt.Errorf("the metadata log failed: %w", node.Err()))
		}
	})
	b.background("controller", b.shell.run)
	b.started("requests to the controller", func(context.Context) error {
		b.asking.close()
		return nil
	})
	b.membership.node.Store(node)
	b.started("leadership of the metadata log", func(ctx context.Context) error { return b.resign(ctx, node) })
	return nil
}

// resignTimeout bounds the wait for another node to lead the metadata log.
const resignTimeout = time.Second

// resign has another node lead the metadata log, if there is one, so that the cluster
// need not notice first that this one is gone.
func (b *Broker) resign(ctx context.Context, node *quorum.Node) error {
	if ctx.Err() != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, resignTimeout)
	defer cancel()
	begun, err := node.TransferLeadership(ctx)
	if err != nil || !begun {
		return nil // without it the others take longer, that is all
	}
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for {
		if leader, _ := b.log.Leader(); leader >= 0 && leader != b.cfg.NodeID {
			return nil
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (b *Broker) startAdmin(context.Context) error {
	if b.cfg.Admin == "" {
		return nil
	}
	admin, err := startAdmin(b.cfg.Admin, b.metrics.registry, b.healthy, b.serving)
	if err != nil {
		return err
	}
	b.admin = admin
	b.started("admin server", func(context.Context) error { return admin.close() })
	return nil
}

// prepareLiveness makes what registers the broker.
func (b *Broker) prepareLiveness(context.Context) error {
	incarnation, err := metadata.NewUUID(b.env.Random)
	if err != nil {
		return err
	}
	listeners := []metadata.Listener{{Name: listenerName, Host: b.advertise.host, Port: b.advertise.port}}
	if b.internalAddress != "" {
		host, port, err := splitAddress(b.internalAddress)
		if err != nil {
			return err
		}
		listeners = append(listeners, metadata.Listener{Name: internalListenerName, Host: host, Port: port})
	}
	b.liveness = &liveness{client: &controllerClient{broker: b}, log: b.log, logger: b.logger,
		heartbeat: b.cfg.Cluster.Heartbeat, session: b.cfg.Cluster.Session, now: b.env.Now,
		onRegistered: b.replicas.Start, unfenced: make(chan struct{}), leaving: make(chan struct{}), left: make(chan struct{}),
		onEpoch: func(epoch int64) error {
			return b.membership.book.keep(func(p *addressPage) { p.BrokerEpoch = &epoch })
		},
		register: controller.RegisterBroker{Broker: b.cfg.NodeID, Incarnation: incarnation, Rack: b.cfg.Rack, Roles: b.cfg.Roles,
			Listeners: listeners, ClusterID: b.membership.clusterID(), Directory: b.membership.outcome.Load().Directory.ID(),
			PreviousEpoch: -1, Features: metadata.FeatureRanges()}}
	if epoch := b.membership.book.page().BrokerEpoch; epoch != nil && b.cfg.Flush == FlushSync {
		b.liveness.register.PreviousEpoch = *epoch
	}
	b.liveness.epoch.Store(-1)
	return nil
}

// register registers the broker and waits until it is unfenced: then it leads its
// partitions.
func (b *Broker) register(ctx context.Context) error {
	if !slices.Contains(b.cfg.Roles, BrokerRole) {
		return nil
	}
	running, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.liveness.run(running)
	}()
	b.started("heartbeat", func(context.Context) error {
		cancel()
		<-done
		return nil
	})
	select {
	case <-b.liveness.unfenced:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("start of the broker: %w", ctx.Err())
	case <-b.failed:
		return b.err
	}
}

// serve opens the broker to clients.
func (b *Broker) serve(context.Context) error {
	h := handler.New(b.handlerDependencies(&controllerClient{broker: b}))
	l := b.cfg.Limits
	s := server.New(server.Config{Table: h.Table(), Handle: h.Handle, Logger: b.logger, Metrics: b.metrics,
		Limits: server.Limits{RequestBytes: int(l.RequestBytes), Connections: int(l.Connections), Idle: l.ConnectionIdle}})
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.Serve(b.listener, listenerName); !errors.Is(err, server.ErrClosed) {
			b.fail(fmt.Errorf("the listener failed: %w", err))
		}
	}()
	b.started("server", func(ctx context.Context) error {
		// Answers what waits in groups, so that their connections can end.
		b.coordinators.close()
		ctx, cancel := context.WithTimeout(ctx, drainTimeout)
		defer cancel()
		err := s.Shutdown(ctx)
		<-done
		if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
			b.logger.Warn().Msg("connections that still waited for an answer were cut")
			return nil
		}
		return err
	})
	b.started("leadership", func(ctx context.Context) error {
		b.leave(ctx)
		return b.resign(ctx, b.membership.node.Load()) // while this node still hears who leads next
	})
	b.ready.Store(true)
	b.logger.Info().Int32("node", b.cfg.NodeID).Str("address", b.Addr()).Str("cluster", b.ClusterID()).
		Str("flush", string(b.cfg.Flush)).Msg("broker ready")
	return nil
}

// handlerDependencies are what handlers of both listeners need.
func (b *Broker) handlerDependencies(c handler.Controller) handler.Dependencies {
	return handler.Dependencies{
		NodeID: b.cfg.NodeID, InterNode: internalListenerName, Image: b.log.Published, AwaitImage: b.log.whenWanted, Now: b.env.Now, Logger: b.logger, Controller: c,
		Partitions: partitions{b.replicas, b.cluster}, Groups: b.groups, Transactions: b.transactions, Verifier: b.transactions, ProducerIDs: &b.producerIDs, LogDirs: logDirs(b.directory, b.replicas),
		Brokers: b.brokers, Config: b.cfg.handlers(),
	}
}

// brokers counts the brokers that are registered, or will be in a moment: those that
// gossip finds in this cluster.
func (b *Broker) brokers() int {
	ids := map[int32]bool{}
	image := b.log.Published()
	for _, x := range image.Brokers() {
		ids[x.ID] = true
	}
	if g := b.membership.gossip; g != nil {
		for _, m := range g.Members() {
			if m.Broker && m.Node >= 0 && m.Cluster == image.ClusterID() {
				ids[m.Node] = true
			}
		}
	}
	return len(ids)
}

// nodesDrainTimeout is how long a stop waits for answers to other nodes.
const nodesDrainTimeout = 500 * time.Millisecond

// drainTimeout is how long a stop waits for answers that are under way.
const drainTimeout = 5 * time.Second

// handlers returns the settings that handlers follow.
func (c *Config) handlers() handler.Config {
	h := handler.Config{AutoCreateTopics: !c.Topics.NoAutoCreate, DeleteTopics: !c.Topics.NoDelete,
		OffsetsPartitions: c.Topics.OffsetsPartitions, OffsetsReplication: c.Topics.OffsetsReplication, RackAware: c.RackAware,
		TransactionsPartitions: c.Transactions.Partitions, TransactionsReplication: c.Transactions.Replication, TransactionsMinISR: c.Transactions.MinISR,
		FetchMaxBytes: c.Limits.FetchBytes, FetchSessions: int(c.Limits.FetchSessions),
		TopicDefaults: c.Topics.Defaults}
	for _, s := range c.Settings() {
		h.Broker = append(h.Broker, handler.BrokerSetting(s))
	}
	return h
}
