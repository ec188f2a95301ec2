package stream

import (
	"context"
	"fmt"
	"net"
	"sync"

	"github.com/rs/zerolog"

	"github.com/leatlog/leat/state"
)

// Guest is something that runs as long as an App does and shares what it has,
// like a processor of another library (see gokastream).
type Guest interface {
	// Name is for logs and errors.
	Name() string
	// Run runs until ctx ends, which it does when the App stops; the stores stay open
	// until it has returned. An error, or an end before ctx's, stops the App.
	Run(ctx context.Context, host Host) error
}

// Host is what an App shares with a guest.
type Host struct {
	AppID     string
	Bootstrap []string
	// Dialer opens connections; nil is TCP.
	Dialer func(ctx context.Context, network, address string) (net.Conn, error)
	// Stores opens stores in the App's state directory, or in memory when it has none.
	Stores state.Backend
	// ReplicationFactor of topics to make; -1 for the cluster's.
	ReplicationFactor int16
	Logger            zerolog.Logger
}

// startGuests runs the guests, and returns what stops them and waits.
func (a *App) startGuests() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	for _, g := range a.cfg.Guests {
		wait.Go(func() {
			err := g.Run(ctx, Host{
				AppID: a.cfg.AppID, Bootstrap: a.cfg.Bootstrap, Dialer: a.cfg.Dialer, Stores: a.disk,
				ReplicationFactor: a.cfg.ReplicationFactor, Logger: a.log.With().Str("guest", g.Name()).Logger(),
			})
			switch {
			case err != nil:
				a.fail(fmt.Errorf("guest %q: %w", g.Name(), err))
			case ctx.Err() == nil:
				a.fail(fmt.Errorf("guest %q has ended by itself", g.Name()))
			}
		})
	}
	return func() {
		cancel()
		wait.Wait()
	}
}
