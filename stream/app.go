package stream

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/leatlog/leat/state"
	"github.com/leatlog/leat/state/badgerstore"
	"github.com/leatlog/leat/state/memstore"
	"github.com/leatlog/leat/stream/client"
	"github.com/leatlog/leat/stream/internal/assign"
	"github.com/leatlog/leat/topology/plan"
)

// ErrRunAgain says that Run was called twice: an App runs once.
var ErrRunAgain = errors.New("stream: the app has run already: make a new one")

// App runs a topology. Make it with New and call Run once; the other methods are
// safe for concurrent use.
type App struct {
	plan    *plan.Plan
	cfg     Config
	log     zerolog.Logger
	status  status
	metrics *metrics
	ran     atomic.Bool

	// Set by connect, before the workers and the group start.
	client  *client.Client
	layout  *assign.Layout
	fetcher *client.Fetcher
	group   *client.Group
	disk    state.Backend // stores that survive; nil keeps all in memory
	memory  state.Backend
	workers []*worker
	process string // names this process in transactional ids
	// failpoint is called at each step of a commit, by tests.
	failpoint func(step string)
	// repartition are the internal topics whose processed records are deleted.
	repartition map[string]bool

	// queries answers interactive queries while the App runs, nil otherwise.
	queries atomic.Pointer[queries]
	// queryServer is the query endpoint, nil when there is none; queryAddress is what the
	// others are told of it.
	queryServer  *queryServer
	queryAddress string

	globals  *globals // nil when the plan has none
	standbys *standbys
	paused   atomic.Bool
	fatal    chan error
	stopping atomic.Bool

	mu    sync.Mutex
	owned map[plan.TaskID]int // tasks of this process, and their worker
}

// New returns an App for a plan (see topology.Topology.Build). It reports every
// mistake in cfg; it does not connect yet.
func New(p *plan.Plan, cfg Config) (*App, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if p == nil || len(p.SubTopologies) == 0 {
		return nil, errors.New("stream: the plan is empty: the topology reads no topic")
	}
	m, err := newMetrics(cfg.Metrics, cfg.AppID)
	if err != nil {
		return nil, err
	}
	return &App{
		plan: p, cfg: cfg, log: cfg.Logger.With().Str("app", cfg.AppID).Logger(), metrics: m,
		status: status{onState: cfg.OnState, onError: cfg.OnError},
		fatal:  make(chan error, 1), owned: make(map[plan.TaskID]int),
		repartition: make(map[string]bool), failpoint: func(string) {},
	}, nil
}

// Run runs the App until ctx ends; then it commits, leaves the group and returns
// nil. An error says why the App had to stop: what was not committed will be
// processed again.
func (a *App) Run(ctx context.Context) error {
	if !a.ran.CompareAndSwap(false, true) {
		return ErrRunAgain
	}
	err := a.run(ctx)
	if err != nil && errors.Is(err, context.Canceled) && ctx.Err() != nil {
		err = nil // stopped while it was still starting
	}
	a.metrics.unregister()
	if err != nil {
		err = fmt.Errorf("stream: app %q: %w", a.cfg.AppID, err)
		a.status.report(err)
		a.status.set(Failed)
		a.log.Error().Err(err).Msg("the app has failed")
		return err
	}
	a.status.set(Stopped)
	a.log.Info().Msg("the app has stopped")
	return nil
}

func (a *App) run(ctx context.Context) (err error) {
	a.status.set(Rebalancing)
	defer func() { err = errors.Join(err, a.disconnect()) }()
	if err := a.connect(ctx); err != nil {
		return err
	}
	defer a.startGuests()()
	var wait sync.WaitGroup
	for _, w := range a.workers {
		wait.Go(w.run)
	}
	groupCtx, leave := context.WithCancel(context.Background())
	defer leave()
	membership := make(chan error, 1)
	go func() { membership <- a.group.Run(groupCtx) }()
	purgeCtx, stopPurge := context.WithCancel(context.Background())
	wait.Go(func() { a.purge(purgeCtx) })

	left := false
	select {
	case <-ctx.Done():
	case err = <-a.fatal:
	case err = <-membership:
		left = true
	}
	a.status.set(Stopping)
	a.stopping.Store(true)
	stopPurge()
	// The membership goes on while the workers commit for the last time.
	for _, w := range a.workers {
		w.stop()
	}
	wait.Wait()
	for _, w := range a.workers {
		err = errors.Join(err, w.stopError)
	}
	leave()
	if !left {
		<-membership
	}
	a.leaveGroup()
	return err
}

// leaveGroup hands the tasks to the others at once.
func (a *App) leaveGroup() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := a.group.Leave(ctx); err != nil {
		a.log.Warn().Err(err).Msg("leaving the group failed; it will notice by the session timeout")
	}
}

// fail stops the App with err; the first counts.
func (a *App) fail(err error) {
	select {
	case a.fatal <- err:
	default:
	}
}

// connect reaches the cluster, makes the internal topics and opens what the
// workers need.
func (a *App) connect(ctx context.Context) error {
	c, err := a.newClient()
	if err != nil {
		return err
	}
	a.client = c
	if err := c.Ping(ctx); err != nil {
		return err
	}
	if err := a.checkTransactions(ctx); err != nil {
		return err
	}
	if err := a.prepareTopics(ctx); err != nil {
		return err
	}
	if err := a.openBackends(); err != nil {
		return err
	}
	if err := a.openGlobals(ctx); err != nil {
		return err
	}
	if a.process, err = a.processID(); err != nil {
		return err
	}
	// Whatever the guarantee, what others have aborted is not input, and changelogs
	// may hold aborted records of a time when it was another.
	a.fetcher = c.NewFetcher(client.FetcherConfig{BufferBytes: a.cfg.BufferBytes, ReadCommitted: true})
	a.standbys = newStandbys(a)
	if err := a.listenForQueries(); err != nil {
		return err
	}
	a.queries.Store(newQueries(a))
	a.group = a.newGroup()
	for i := range a.cfg.Workers {
		w, err := newWorker(ctx, a, i)
		if err != nil {
			return err
		}
		a.mu.Lock()
		a.workers = append(a.workers, w)
		a.mu.Unlock()
	}
	return nil
}

func (a *App) newClient() (*client.Client, error) {
	return client.New(client.Config{Bootstrap: a.cfg.Bootstrap, ClientID: a.cfg.AppID, Dialer: a.cfg.Dialer, Logger: a.log})
}

// checkTransactions refuses to start when the cluster cannot give the guarantee.
func (a *App) checkTransactions(ctx context.Context) error {
	if a.cfg.Guarantee != ExactlyOnce {
		return nil
	}
	version, err := a.client.TransactionVersion(ctx)
	if errors.Is(err, client.ErrNoTransactions) {
		return fmt.Errorf("Config.Guarantee is ExactlyOnce, which needs transactions: %w at %v: set Guarantee to AtLeastOnce, or use a cluster that has them",
			err, a.cfg.Bootstrap)
	}
	a.log.Info().Int16("transaction_version", version).Msg("commits are transactions")
	return err
}

func (a *App) openBackends() error {
	a.memory = memstore.New()
	switch {
	case a.cfg.Stores != nil:
		a.disk = a.cfg.Stores
	case a.cfg.StateDir != "":
		disk, err := badgerstore.New(badgerstore.Config{Dir: a.cfg.StateDir, Logger: a.log})
		if err != nil {
			return err
		}
		a.disk = disk
	default:
		a.disk = a.memory
	}
	return nil
}

// backend returns where a store lives.
func (a *App) backend(spec state.Spec) state.Backend {
	if spec.InMemory {
		return a.memory
	}
	return a.disk
}

// disconnect closes everything that connect has opened; workers and group have
// ended.
func (a *App) disconnect() error {
	if q := a.queries.Swap(nil); q != nil {
		q.client.CloseIdleConnections()
	}
	if a.queryServer != nil {
		a.queryServer.close()
	}
	var failed []error
	for _, w := range a.workers {
		w.abandon()
		w.producer.Close()
	}
	if a.standbys != nil {
		a.standbys.close()
	}
	if a.fetcher != nil {
		a.fetcher.Close()
	}
	if a.disk != nil && a.cfg.Stores == nil && a.disk != a.memory {
		failed = append(failed, a.disk.Close())
	}
	if a.globals != nil {
		failed = append(failed, a.globals.close())
	}
	if a.memory != nil {
		failed = append(failed, a.memory.Close())
	}
	if a.client != nil {
		a.client.Close()
	}
	return errors.Join(failed...)
}
