package handler

import (
	"testing"

	"github.com/leatlog/leat/broker/internal/wire"
)

// TestPanicInAWorkerClosesTheConnection: the node lives, the client is told.
func TestPanicInAWorkerClosesTheConnection(t *testing.T) {
	w := workers{limit: 1}
	answers := make(chan wire.Response, 2)
	respond := func(r wire.Response) { answers <- r }
	w.submit(respond, func() { panic("a bug") })
	if r := <-answers; !r.Close {
		t.Error("the connection stays open")
	}
	w.submit(respond, func() { respond(wire.Response{}) })
	if r := <-answers; r.Close {
		t.Error("the next request fails, too")
	}
}
