// Package handler answers requests: one file per API, each headed by its versions
// and the KIPs it implements; table.go says which are served.
//
// A handler runs on the goroutine that reads the connection and must not block: what
// has to wait keeps the Responder and answers later. It sees the cluster through
// the immutable metadata.Image and acts through the interfaces of Dependencies,
// which package broker fills in.
package handler

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/leatlog/leat/broker/internal/metadata"
	"github.com/leatlog/leat/broker/internal/wire"
)

// Dependencies are what the handlers need of the broker. All functions are safe
// for concurrent use.
type Dependencies struct {
	NodeID int32
	// InterNode is the name of the listener that other nodes alone can reach; only
	// there a fetch is taken for a follower's. Empty: no follower is served.
	InterNode string
	Image     func() *metadata.Image // as applied on this node
	// AwaitImage calls back with an image that is as wanted, perhaps at once, or with the
	// latest when there has been none for so long. Neither function may block.
	AwaitImage func(wanted func(*metadata.Image) bool, atMost time.Duration, call func(*metadata.Image))
	Controller Controller
	Partitions Partitions
	Groups     Groups
	// Transactions and Verifier are the coordinators of transactions: of this node, and
	// wherever they are.
	Transactions Transactions
	Verifier     TransactionVerifier
	// ProducerIDs may be shared with others who hand them out; nil: the handler's own.
	ProducerIDs *ProducerIDs
	// Nodes says that the handler serves the listener of the cluster's nodes: also what
	// only nodes may ask. Its Controller is then that of this node alone, since the
	// other nodes look for the active one themselves.
	Nodes bool
	// LogDirs describes the directories that hold the logs.
	LogDirs func() []LogDir
	// Brokers counts the brokers of the cluster, those about to register included.
	Brokers func() int
	Now     func() time.Time
	// Go runs f on a goroutine of its own; nil: the go statement.
	Go     func(f func())
	Logger zerolog.Logger
	Config Config
}

// Config are the settings that handlers follow, by Kafka's broker configurations.
type Config struct {
	AutoCreateTopics   bool  // auto.create.topics.enable
	DeleteTopics       bool  // delete.topic.enable
	OffsetsPartitions  int32 // offsets.topic.num.partitions
	OffsetsReplication int16 // offsets.topic.replication.factor; -1: 3, or as many as there are brokers
	// TransactionsPartitions and TransactionsReplication are transaction.state.log.num.partitions
	// and transaction.state.log.replication.factor; -1 as above.
	TransactionsPartitions  int32
	TransactionsReplication int16
	TransactionsMinISR      int16 // transaction.state.log.min.isr
	FetchMaxBytes           int32 // fetch.max.bytes
	RackAware               bool  // replica.selector.class is that of racks
	FetchSessions           int   // max.incremental.fetch.session.cache.slots
	// TopicDefaults are the topic configurations set for the whole broker, by the
	// topic configuration's name.
	TopicDefaults map[string]string
	// Broker lists the broker's settings as DescribeConfigs shows them, by name.
	Broker []BrokerSetting
}

// BrokerSetting is one setting of the broker.
type BrokerSetting struct {
	Name, Value, Default, Doc string
	Type                      metadata.ConfigType
}

// Handler answers requests. Safe for concurrent use.
type Handler struct {
	Dependencies
	table     *wire.Table
	serve     []serveFunc // by API key
	sessions  *fetchSessions
	followers followerSessions
	workers   workers
	creating  creating
	verifying verifying
	cached    atomic.Pointer[cachedMetadata]
}

// New returns a handler.
func New(d Dependencies) *Handler {
	h := &Handler{Dependencies: d, workers: workers{limit: 4, start: d.Go, logger: d.Logger},
		sessions: newFetchSessions(d.Config.FetchSessions, maxFetchSessionPartitions)}
	h.followers.h = h
	if h.ProducerIDs == nil {
		h.ProducerIDs = new(ProducerIDs)
	}
	served := apis
	if d.Nodes {
		served = append(slices.Clone(apis), nodeAPIs...)
	}
	rows := make([]wire.API, len(served))
	for i, a := range served {
		rows[i] = wire.API{Key: a.key, Min: a.min, Max: a.max}
		if a.key == wire.ProduceKey {
			rows[i].Advertised = new(int16) // KIP-896; see apis
		}
		for len(h.serve) <= int(a.key) {
			h.serve = append(h.serve, nil)
		}
		h.serve[a.key] = a.serve
	}
	table, err := wire.NewTable(rows)
	if err != nil {
		panic(fmt.Sprintf("handler: table of APIs: %v", err)) // a mistake of apis, seen by every test
	}
	h.table = table
	return h
}

// Table returns the APIs that are served, for the server to decode by.
func (h *Handler) Table() *wire.Table { return h.table }

// Handle answers a request that was decoded by Table. ctx ends with the
// connection. respond is called exactly once, perhaps later and on another
// goroutine.
func (h *Handler) Handle(ctx context.Context, request *wire.Request, respond wire.Responder) {
	h.serve[request.Key](h, ctx, request, respond)
}
