package stream_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"

	"github.com/leatlog/leat/state"
	"github.com/leatlog/leat/stream"
)

// killPoint is a place at which a victim kills itself. None of them is known to
// the code under test but those of a commit: the others are seen from outside,
// on the connections and at the stores.
type killPoint struct {
	name string
	// often is how many times it is passed at most before it kills: what happens
	// once in a process would not be reached otherwise.
	often int
	// request is the Kafka request that it is in, by its key; half says that only
	// half of it is sent, otherwise all of it is and nobody hears the answer.
	request int16
	half    bool
}

const noRequest = -1

// Requests of a transaction, by their keys in the protocol.
const (
	produceRequest = 0
	initRequest    = 22
	endRequest     = 26
	offsetsRequest = 28
)

// Points at the stores.
const (
	beforeApply     = "before a store applies"
	afterApply      = "after one store of many has applied"
	beforeSync      = "before a store is synced"
	syncedOnly      = "between the sync and the checkpoint file"
	afterCheckpoint = "after one checkpoint of many"
)

// killPoints are in the order of a commit, then those of a start.
var killPoints = []killPoint{
	{"before produce", 30, noRequest, false},
	{"half of a produce request", 40, produceRequest, true},
	{"a produce request without its answer", 40, produceRequest, false},
	{"after produce", 30, noRequest, false},
	{"half of the offsets", 30, offsetsRequest, true},
	{"the offsets without their answer", 30, offsetsRequest, false},
	{"after offsets", 30, noRequest, false},
	{"half of the end", 30, endRequest, true},
	{"the end without its answer", 30, endRequest, false},
	{"after end", 30, noRequest, false},
	{"before store apply", 30, noRequest, false},
	{beforeApply, 40, noRequest, false},
	{afterApply, 40, noRequest, false},
	{"before checkpoint", 30, noRequest, false},
	{beforeSync, 8, noRequest, false},
	{syncedOnly, 8, noRequest, false},
	{afterCheckpoint, 8, noRequest, false},
	{"after checkpoint", 30, noRequest, false},
	{"the fencing of its predecessor", 2, initRequest, false},
}

func pointNamed(name string) killPoint {
	for _, p := range killPoints {
		if p.name == name {
			return p
		}
	}
	return killPoint{request: noRequest}
}

// assassin kills the process it is in, once, or stops it.
type assassin struct {
	victim victim
	point  killPoint
	passed atomic.Int64
	pipe   atomic.Pointer[string] // the one that was laid, nil for none
}

// at is called at each point that is reached.
func (a *assassin) at(step string) {
	if step == a.victim.Step && a.passed.Add(1) == int64(a.victim.Nth) {
		a.kill()
	}
}

func (a *assassin) kill() {
	if a.victim.Stops {
		_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
		return // it was woken
	}
	if path := a.pipe.Load(); path != nil {
		_ = os.Remove(*path) // or the next process would wait at it
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // the signal is on its way
}

// arm has the app pass the assassin at every point.
func (a *assassin) arm(cfg *stream.Config, stores func() state.Backend) {
	a.point = pointNamed(a.victim.Step)
	if a.point.request != noRequest {
		cfg.Dialer = a.dial
	}
	switch a.point.name {
	case beforeApply, afterApply, beforeSync, afterCheckpoint, syncedOnly:
		cfg.Stores, cfg.StateDir = watchedBackend{stores(), a}, ""
	}
}

func (a *assassin) dial(ctx context.Context, network, address string) (net.Conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, network, address)
	return watchedConn{c, a}, err
}

// watchedConn sees the requests that the client sends, each by one Write.
type watchedConn struct {
	net.Conn
	assassin *assassin
}

func (c watchedConn) Write(b []byte) (int, error) {
	// | length (4) | key (2) | ...
	if len(b) < 6 || int16(b[4])<<8|int16(b[5]) != c.assassin.point.request {
		return c.Conn.Write(b)
	}
	a := c.assassin
	if a.passed.Add(1) != int64(a.victim.Nth) {
		return c.Conn.Write(b)
	}
	if a.point.half && a.victim.Stops {
		a.kill()
		return c.Conn.Write(b)
	}
	sent := b
	if a.point.half {
		sent = b[:len(b)/2]
	}
	_, err := c.Conn.Write(sent)
	a.kill()
	return len(b), err // it was stopped, and has sent it all
}

// watchedBackend and watchedEngine see what is done to the stores.
type watchedBackend struct {
	state.Backend
	assassin *assassin
}

func (b watchedBackend) Open(ctx context.Context, task string, spec state.Spec) (state.Engine, error) {
	e, err := b.Backend.Open(ctx, task, spec)
	if err != nil {
		return nil, err
	}
	return watchedEngine{e, b.assassin, filepath.Join(b.assassin.victim.Dir, task, spec.Name, "checkpoint.new")}, nil
}

type watchedEngine struct {
	state.Engine
	assassin *assassin
	file     string // its checkpoint until it has its name
}

func (e watchedEngine) Apply(b *state.Batch) error {
	e.assassin.at(beforeApply)
	err := e.Engine.Apply(b)
	e.assassin.at(afterApply)
	return err
}

func (e watchedEngine) Checkpoint(p state.Position) error {
	e.assassin.at(beforeSync)
	if e.assassin.point.name == syncedOnly {
		e.assassin.atCheckpointFile(e.file)
	}
	err := e.Engine.Checkpoint(p)
	e.assassin.at(afterCheckpoint)
	return err
}

// atCheckpointFile lays a pipe where a store is about to write its checkpoint
// file: when it opens it the store has synced its database, and has no checkpoint yet.
func (a *assassin) atCheckpointFile(path string) {
	if a.passed.Add(1) != int64(a.victim.Nth) {
		return
	}
	_ = os.Remove(path) // what a kill at any moment has left
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		panic(err)
	}
	a.pipe.Store(&path)
	go func() {
		f, err := os.Open(path) // waits for the writer
		if err != nil {
			panic(err)
		}
		defer f.Close()
		a.kill()
	}()
}
