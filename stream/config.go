package stream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/leatlog/leat/state"
	"github.com/leatlog/leat/stream/client"
	"github.com/leatlog/leat/stream/internal/assign"
)

// Guarantee says how often the effects of a record can be seen after failures.
type Guarantee uint8

// The guarantees.
const (
	// ExactlyOnce commits output, changelogs and offsets in one transaction for each
	// worker and commit: readers of committed records see the effect of every record
	// once, whatever fails. The cluster must serve transactions.
	ExactlyOnce Guarantee = iota
	// AtLeastOnce loses nothing; after a failure some records are processed again
	// and their output comes twice.
	AtLeastOnce
)

// String returns the name as a word.
func (g Guarantee) String() string {
	switch g {
	case ExactlyOnce:
		return "exactly-once"
	case AtLeastOnce:
		return "at-least-once"
	}
	return fmt.Sprintf("Guarantee(%d)", uint8(g))
}

// Clock tells the time.
type Clock interface{ Now() time.Time }

// Config says how an App runs. AppID and Bootstrap are required.
type Config struct {
	// AppID names the app: its consumer group, and the prefix of its internal
	// topics. Letters, digits, '.', '_' and '-'.
	AppID string
	// Bootstrap is the addresses, HOST:PORT, of one or more brokers.
	Bootstrap []string
	// Dialer opens connections; nil uses TCP. An embedded broker has one.
	Dialer func(ctx context.Context, network, address string) (net.Conn, error)
	// InstanceID makes this process a static member of the group (KIP-345): a restart
	// within SessionTimeout moves no task. "" for none. At most one process may run
	// under an id; letters, digits, '.', '_' and '-'.
	InstanceID string

	// QueryListen is the HOST:PORT at which this process answers queries of its stores for
	// the others of the app (see Query), and tells its Health, over HTTP without encryption
	// or passwords: use a network of your own. Port 0 takes any. "" answers none: then the
	// others get an ErrNotOwner for the keys of this process.
	QueryListen string
	// QueryAdvertise is the HOST:PORT that the others are told, where they reach
	// QueryListen. Default the address that is listened on; required when that is every
	// address of the machine.
	QueryAdvertise string

	// StateDir is where stores are kept; one process may use it at a time. "" keeps
	// every store in memory: each start restores from the changelogs.
	StateDir string
	// Stores opens the stores instead of StateDir. The App does not close it.
	Stores state.Backend
	// StandbyReplicas is how many warm copies there are of the state of each task, in other
	// processes of the app: when a process is lost, its tasks go on where their copies are,
	// without a rebuild. Fewer when there are not as many processes. The processes should
	// have the same value: the group's leader goes by its own. Default 0, at most 16.
	StandbyReplicas int
	// AcceptableRecoveryLag is how many changelog offsets a process may have to restore of
	// a task's state to count as caught up: tasks move to such processes at once, to
	// others when they have warmed up. Default 10,000.
	AcceptableRecoveryLag int64
	// MaxWarmupReplicas is how many copies of state warm up at a time, in all processes
	// together, for tasks that are to move. Default 2.
	MaxWarmupReplicas int
	// CacheBytes bounds the write-back caches of all operators together. Default
	// 64 MiB.
	CacheBytes int64

	// Guarantee is ExactlyOnce unless set to AtLeastOnce.
	Guarantee Guarantee
	// TransactionTimeout is how long a commit interval and its commit may take before
	// the cluster aborts the transaction, with ExactlyOnce. The tasks of a process
	// that died wait as long for their new owners, at most. Default 10 s.
	TransactionTimeout time.Duration
	// CommitInterval is the time between commits, and with it the time until cached
	// updates come out. Default 100 ms.
	CommitInterval time.Duration
	// CheckpointInterval is the time between checkpoints of the stores on disk: what
	// a start after a crash has to restore at most. Default 30 s.
	CheckpointInterval time.Duration
	// Workers is the number of goroutines that run tasks. Default the number of
	// processors.
	Workers int
	// Compression of output, repartition and changelog topics. Default LZ4.
	Compression client.Codec
	// NoCompression turns compression off.
	NoCompression bool
	// ReplicationFactor of internal topics. Default the cluster's.
	ReplicationFactor int16
	// SessionTimeout is how long the group waits for a silent member before its tasks
	// go to others. Default 10 s.
	SessionTimeout time.Duration
	// IdleTimeout is how long an empty partition holds back the others of its task,
	// while it may have more to come. Default 1 s.
	IdleTimeout time.Duration
	// StopTimeout bounds the last commit when Run's context ends. Default 30 s.
	StopTimeout time.Duration
	// BufferBytes is how much of each source partition is fetched ahead. Default
	// 2 MiB.
	BufferBytes int

	// AcceptIncompatiblePlan starts the App though its plan would misread what an earlier
	// plan of it has left in the cluster, which is a PlanError otherwise: what differs is
	// logged, and state is read as it is. Internal topics with another number of partitions
	// than the plan needs stop the start nevertheless.
	AcceptIncompatiblePlan bool

	// Guests run as long as the App does, on its addresses, dialer and stores.
	Guests []Guest

	// Logger gets what is worth telling. The zero value is silent.
	Logger zerolog.Logger
	// Metrics registers the App's metrics; nil registers none.
	Metrics prometheus.Registerer
	// Clock is the wall clock of operators and commits. Default the system's.
	Clock Clock

	// OnState is called at each change of the App's state, OnRestore while stores are
	// restored, OnError for each error, whether the App recovers from it or fails.
	// They are called one at a time and must return soon.
	OnState   func(from, to State)
	OnRestore func(RestoreProgress)
	OnError   func(error)
}

type systemClock struct{}

func (systemClock) Now() time.Time { return time.Now() }

// withDefaults fills in the defaults.
func (c Config) withDefaults() Config {
	if c.CacheBytes == 0 {
		c.CacheBytes = 64 << 20
	}
	if c.AcceptableRecoveryLag == 0 {
		c.AcceptableRecoveryLag = 10_000
	}
	if c.MaxWarmupReplicas == 0 {
		c.MaxWarmupReplicas = 2
	}
	if c.CommitInterval == 0 {
		c.CommitInterval = 100 * time.Millisecond
	}
	if c.TransactionTimeout == 0 {
		c.TransactionTimeout = 10 * time.Second
	}
	if c.CheckpointInterval == 0 {
		c.CheckpointInterval = 30 * time.Second
	}
	if c.Workers == 0 {
		c.Workers = runtime.GOMAXPROCS(0)
	}
	if c.Compression == client.NoCompression && !c.NoCompression {
		c.Compression = client.LZ4
	}
	if c.ReplicationFactor == 0 {
		c.ReplicationFactor = -1
	}
	if c.SessionTimeout == 0 {
		c.SessionTimeout = 10 * time.Second
	}
	if c.IdleTimeout == 0 {
		c.IdleTimeout = time.Second
	}
	if c.StopTimeout == 0 {
		c.StopTimeout = 30 * time.Second
	}
	if c.BufferBytes == 0 {
		c.BufferBytes = 2 << 20
	}
	if c.Clock == nil {
		c.Clock = systemClock{}
	}
	return c
}

// validate reports everything that is wrong, one line each.
func (c Config) validate() error {
	var wrong []error
	complain := func(format string, arguments ...any) {
		wrong = append(wrong, fmt.Errorf("stream: Config."+format, arguments...))
	}
	if c.AppID == "" {
		complain("AppID is empty: name the app")
	} else if i := strings.IndexFunc(c.AppID, notInTopicName); i >= 0 {
		complain("AppID is %q: use letters, digits, '.', '_' and '-'", c.AppID)
	} else if len(c.AppID) > 80 {
		complain("AppID has %d bytes: use at most 80, it leads the names of topics", len(c.AppID))
	}
	if strings.IndexFunc(c.InstanceID, notInTopicName) >= 0 || len(c.InstanceID) > 64 {
		complain("InstanceID is %q: use at most 64 letters, digits, '.', '_' and '-'", c.InstanceID)
	}
	if len(c.Bootstrap) == 0 {
		complain("Bootstrap is empty: give HOST:PORT of at least one broker")
	}
	if c.Guarantee > AtLeastOnce {
		complain("Guarantee is %d: use ExactlyOnce (0) or AtLeastOnce (1)", c.Guarantee)
	}
	if c.Guarantee == ExactlyOnce && c.TransactionTimeout < 2*c.CommitInterval {
		complain("TransactionTimeout is %v: use at least twice CommitInterval, %v: a transaction is open that long", c.TransactionTimeout, c.CommitInterval)
	}
	for _, d := range []struct {
		name  string
		value time.Duration
		least time.Duration
	}{
		{"CommitInterval", c.CommitInterval, time.Millisecond}, {"CheckpointInterval", c.CheckpointInterval, time.Millisecond},
		{"SessionTimeout", c.SessionTimeout, 100 * time.Millisecond}, {"IdleTimeout", c.IdleTimeout, 0}, {"StopTimeout", c.StopTimeout, time.Millisecond},
	} {
		if d.value < d.least {
			complain("%s is %v: use at least %v", d.name, d.value, d.least)
		}
	}
	if c.Workers < 1 || c.Workers > 1024 {
		complain("Workers is %d: use 1 to 1024", c.Workers)
	}
	if c.StandbyReplicas < 0 || c.StandbyReplicas > 16 {
		complain("StandbyReplicas is %d: use 0 to 16", c.StandbyReplicas)
	}
	if c.AcceptableRecoveryLag < 1 {
		complain("AcceptableRecoveryLag is %d: use 0 for the default or a positive number of offsets", c.AcceptableRecoveryLag)
	}
	if c.MaxWarmupReplicas < 1 {
		complain("MaxWarmupReplicas is %d: use 0 for the default or a positive number", c.MaxWarmupReplicas)
	}
	if c.CacheBytes < 0 {
		complain("CacheBytes is %d: use 0 for the default or a positive number", c.CacheBytes)
	}
	if c.BufferBytes < 1 {
		complain("BufferBytes is %d: use 0 for the default or a positive number", c.BufferBytes)
	}
	wrong = append(wrong, c.validateQueries()...)
	if c.Stores != nil && c.StateDir != "" {
		complain("StateDir is %q and Stores is set: set one of them", c.StateDir)
	}
	return errors.Join(wrong...)
}

func notInTopicName(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '_' || r == '-')
}

// validateQueries checks the addresses of the query endpoint.
func (c Config) validateQueries() []error {
	var wrong []error
	for _, a := range []struct{ name, address string }{{"QueryListen", c.QueryListen}, {"QueryAdvertise", c.QueryAdvertise}} {
		if a.address == "" {
			continue
		}
		if _, _, err := net.SplitHostPort(a.address); err != nil || len(a.address) > assign.MaxAddress {
			wrong = append(wrong, fmt.Errorf("stream: Config.%s is %q: use HOST:PORT", a.name, a.address))
		}
	}
	host, _, err := net.SplitHostPort(c.QueryListen)
	switch {
	case c.QueryListen == "" && c.QueryAdvertise != "":
		wrong = append(wrong, fmt.Errorf("stream: Config.QueryAdvertise is %q and QueryListen is empty: set both", c.QueryAdvertise))
	case err != nil || c.QueryAdvertise != "":
	case host == "" || net.ParseIP(host).IsUnspecified():
		wrong = append(wrong, fmt.Errorf("stream: Config.QueryListen is %q, which is every address: say in QueryAdvertise which one the others reach", c.QueryListen))
	}
	return wrong
}
