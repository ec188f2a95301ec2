package gokastream

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"net"
	"sync/atomic"
	"time"

	"github.com/IBM/sarama"
	"github.com/lovoo/goka"
	"github.com/rs/zerolog"

	"github.com/leatlog/leat/stream"
	"github.com/leatlog/leat/stream/client"
)

// Hasher places keys on the partitions that Kafka's Java client, franz-go and Leat
// place them on; goka's own, FNV-1a, does not. Give it to every part of a goka
// program (goka.WithHasher, goka.WithEmitterHasher, goka.WithViewHasher), or to
// none: topics that were filled with another hasher do not go together.
func Hasher() func() hash.Hash32 { return func() hash.Hash32 { return new(keyHash) } }

// keyHash is the hash of the key that was written.
type keyHash struct{ key []byte }

// Write implements io.Writer.
func (h *keyHash) Write(p []byte) (int, error) {
	h.key = append(h.key, p...)
	return len(p), nil
}

// Sum32 implements hash.Hash32, without the sign bit: goka and sarama would negate
// a negative remainder where Kafka drops the sign first.
func (h *keyHash) Sum32() uint32 { return client.KeyHash(h.key) & 0x7fffffff }

// Sum implements hash.Hash.
func (h *keyHash) Sum(b []byte) []byte {
	n := h.Sum32()
	return append(b, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
}

// Reset implements hash.Hash.
func (h *keyHash) Reset() { h.key = h.key[:0] }

// Size implements hash.Hash.
func (h *keyHash) Size() int { return 4 }

// BlockSize implements hash.Hash.
func (h *keyHash) BlockSize() int { return 1 }

// Guest runs a goka GroupGraph in an App: put it into stream.Config.Guests. It
// connects as the App does, keeps its tables in the App's stores, writes with
// acks=all and idempotently, and starts, stops and fails with the App. The keys
// are placed by Hasher; topics it makes have the App's replication factor.
type Guest struct {
	graph     *goka.GroupGraph
	options   []goka.ProcessorOption
	processor atomic.Pointer[goka.Processor]
}

var _ stream.Guest = (*Guest)(nil)

// NewGuest returns a guest for one App. The options are applied after the guest's
// own, and so can replace them.
func NewGuest(graph *goka.GroupGraph, options ...goka.ProcessorOption) *Guest {
	return &Guest{graph: graph, options: options}
}

// Name implements stream.Guest: the graph's group.
func (g *Guest) Name() string { return string(g.graph.Group()) }

// Processor returns goka's processor, to look up values in its table; nil before
// the App has connected.
func (g *Guest) Processor() *goka.Processor { return g.processor.Load() }

// errRunAgain says that a guest was given to two Apps.
var errRunAgain = errors.New("gokastream: the guest runs already: make one for each App")

// Run implements stream.Guest.
func (g *Guest) Run(ctx context.Context, host stream.Host) error {
	config := SaramaConfig(host.Dialer)
	topics := goka.NewTopicManagerConfig()
	topics.Table.Replication, topics.Stream.Replication = int(host.ReplicationFactor), int(host.ReplicationFactor)
	options := append([]goka.ProcessorOption{
		goka.WithClientID(host.AppID), goka.WithLogger(logger{host.Logger}), goka.WithHasher(Hasher()),
		goka.WithStorageBuilder(StorageBuilder(host.Stores)),
		goka.WithConsumerGroupBuilder(goka.ConsumerGroupBuilderWithConfig(config)),
		goka.WithConsumerSaramaBuilder(goka.SaramaConsumerBuilderWithConfig(config)),
		goka.WithProducerBuilder(goka.ProducerBuilderWithConfig(config)),
		goka.WithTopicManagerBuilder(goka.TopicManagerBuilderWithConfig(config, topics)),
	}, g.options...)
	p, err := goka.NewProcessor(host.Bootstrap, g.graph, options...)
	if err != nil {
		return fmt.Errorf("gokastream: %w", err)
	}
	if !g.processor.CompareAndSwap(nil, p) {
		return errRunAgain
	}
	if err := p.Run(ctx); err != nil && ctx.Err() == nil {
		return fmt.Errorf("gokastream: %w", err)
	}
	return nil
}

// SaramaConfig returns goka's configuration of sarama with what a durable log asks
// for: acks=all and idempotent writes; and a new group begins with the oldest
// message, as an App does, where goka by itself begins with the next one. dial opens connections; nil is TCP.
func SaramaConfig(dial func(ctx context.Context, network, address string) (net.Conn, error)) *sarama.Config {
	config := goka.DefaultConfig()
	config.Version = sarama.V2_8_0_0 // the first KIP-464 is in for sure: replication -1
	config.Producer.RequiredAcks = sarama.WaitForAll
	config.Producer.Idempotent = true
	config.Net.MaxOpenRequests = 1 // sarama keeps the order of idempotent writes only so
	config.Consumer.Offsets.Initial = sarama.OffsetOldest
	if dial != nil {
		config.Net.Proxy.Enable, config.Net.Proxy.Dialer = true, dialer(dial)
	}
	return config
}

// dialer has the shape that sarama asks of a proxy.
type dialer func(ctx context.Context, network, address string) (net.Conn, error)

// Dial opens a connection.
func (d dialer) Dial(network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return d(ctx, network, address)
}

// logger passes goka's messages on.
type logger struct{ log zerolog.Logger }

// Print implements goka.Logger.
func (l logger) Print(arguments ...any) { l.log.Info().Msg(fmt.Sprint(arguments...)) }

// Println implements goka.Logger.
func (l logger) Println(arguments ...any) { l.log.Info().Msg(fmt.Sprint(arguments...)) }

// Printf implements goka.Logger.
func (l logger) Printf(format string, arguments ...any) { l.log.Info().Msgf(format, arguments...) }
