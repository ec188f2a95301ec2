package broker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/handler"
	"github.com/leatlog/leat/broker/internal/peer"
	"github.com/leatlog/leat/broker/internal/server"
	"github.com/leatlog/leat/broker/internal/wire"
)

// internalListenerName is the name of the listener that only nodes of the cluster
// connect to.
const internalListenerName = "INTERNAL"

// bindInternal binds the inter-node listener: where it was before, when the setting
// leaves the port open and nobody else has taken it.
func (b *Broker) bindInternal() error {
	if !b.cfg.clustered() {
		return nil
	}
	address := b.cfg.Internal
	if address == "" {
		host, _, err := splitAddress(b.cfg.Listen)
		if b.cfg.Listener != nil || err != nil {
			host = "127.0.0.1"
		}
		address = net.JoinHostPort(host, "0")
	}
	host, port, err := splitAddress(address)
	if err != nil {
		return invalid("inter.node.listener", address, err.Error())
	}
	if port == 0 {
		address = b.membership.book.keptAddress(host, b.membership.book.page().Internal)
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("inter-node listener: listen on %s: %w", address, err)
	}
	b.internal = l
	b.started("inter-node listener", func(context.Context) error {
		if b.peerListener != nil {
			return b.peerListener.Close()
		}
		return l.Close()
	})
	bound := l.Addr().String()
	_, boundPort, err := splitAddress(bound)
	if err != nil {
		return err
	}
	if isAnyHost(host) {
		host = b.advertise.host
	}
	b.internalAddress = net.JoinHostPort(host, fmt.Sprint(boundPort))
	return b.membership.book.keep(func(p *addressPage) { p.Internal = bound })
}

// startPeers opens the ways to the other nodes.
func (b *Broker) startPeers(context.Context) error {
	if !b.cfg.clustered() {
		return nil
	}
	keys, err := b.cfg.keys()
	if err != nil {
		return err
	}
	o := b.membership.outcome.Load()
	self := peer.Identity{Node: o.Node, Directory: memberName(o.Directory)}
	b.peers = peer.NewClient(peer.Config{Self: self, Address: b.membership.address, ClusterID: b.membership.clusterID, Keys: keys, Logger: b.logger})
	b.started("connections to nodes", func(context.Context) error {
		b.peers.Close()
		return nil
	})
	b.peerListener = peer.NewListener(b.internal, peer.ListenerConfig{Self: self, ClusterID: b.membership.clusterID, Keys: keys, Logger: b.logger,
		APIs:  b.internalAPIs,
		Ended: func(from peer.Identity) { b.suspicions.raise(from.Node) },
		Receive: func(from peer.Identity, message []byte) {
			b.suspicions.hear(from.Node)
			if node := b.membership.node.Load(); node != nil {
				node.Receive(message)
			}
		},
	})
	return nil
}

// internalAPIs are told to nodes that connect.
func (b *Broker) internalAPIs() []peer.API {
	var list []peer.API
	if t := b.internalTable.Load(); t != nil {
		for _, r := range t.Rows() {
			list = append(list, peer.API{Key: r.Key, Min: r.Min, Max: r.Max})
		}
	}
	return list
}

// nodeAPIs are served on the inter-node listener only, besides what clients get.
var nodeAPIs = []wire.API{
	{Key: int16(kmsg.BrokerRegistration), Max: 4},
	{Key: int16(kmsg.BrokerHeartbeat), Max: 1},
	{Key: int16(kmsg.AllocateProducerIDs), Max: 0},
}

// serveNodes serves the inter-node listener: what clients get, but decided by this
// node's controller alone, and what only nodes ask for.
func (b *Broker) serveNodes(context.Context) error {
	if !b.cfg.clustered() {
		return nil
	}
	local := &controllerClient{broker: b, local: true}
	d := b.handlerDependencies(local)
	d.Nodes = true
	h := handler.New(d)
	rows := slices.Clone(h.Table().Rows())
	own := map[int16]bool{}
	for _, a := range nodeAPIs {
		if _, served := h.Table().Lookup(a.Key); !served {
			rows, own[a.Key] = append(rows, a), true
		}
	}
	table, err := wire.NewTable(rows)
	if err != nil {
		return err
	}
	handle := func(ctx context.Context, r *wire.Request, respond wire.Responder) {
		if own[r.Key] {
			local.Decide(r.Body, func(response kmsg.Response) { respond(wire.Response{Body: response}) })
			return
		}
		h.Handle(ctx, r, respond)
	}
	s := server.New(server.Config{Table: table, Handle: handle, Logger: b.logger, Metrics: b.metrics,
		Limits: server.Limits{RequestBytes: int(b.cfg.Limits.RequestBytes), OrdinaryBytes: int(b.cfg.Limits.RequestBytes), Idle: b.cfg.Limits.ConnectionIdle}})
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.Serve(b.peerListener, internalListenerName); !errors.Is(err, server.ErrClosed) {
			b.fail(fmt.Errorf("the inter-node listener failed: %w", err))
		}
	}()
	b.internalTable.Store(table)
	b.started("server of nodes", func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, nodesDrainTimeout)
		defer cancel()
		_ = s.Shutdown(ctx) // what still waits is another node's, which asks again
		<-done
		return nil
	})
	return nil
}
