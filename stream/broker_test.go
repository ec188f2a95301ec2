package stream_test

import (
	"os"
	"testing"

	"github.com/leatlog/leat/broker/brokertest"
	"github.com/leatlog/leat/stream"
	"github.com/leatlog/leat/stream/client"
)

// The broker dies in the middle, twice, and comes back: the app goes on, over
// in-memory connections, and loses nothing. An idempotent producer that goes on
// doubles nothing either, so the counts are exact.
func TestAppOutlivesItsBroker(t *testing.T) {
	if os.Getenv("LEAT_TEST_KAFKA") != "" {
		t.Skip("it kills its broker")
	}
	b := brokertest.Start(t, brokertest.InMemoryNetwork())
	c := &cluster{t: t, addr: b.Addr(), prefix: "t-"}
	var err error
	if c.client, err = client.New(client.Config{Bootstrap: []string{b.Addr()}, Dialer: b.Dial}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.client.Close)
	c.probe()
	in, out := c.topic("lines", 4), c.topic("counts", 4)
	app := c.start(wordCount(t, in, out), func(cfg *stream.Config) { cfg.Dialer = b.Dial })
	app.reach(stream.Running)
	r, got := c.reader(out), newCounts()
	for round := range int64(3) {
		c.produce(in, lines("wN", 500)...)
		if round < 2 {
			b.Kill()
			b.Restart()
		}
		got.reach(r, 50*(round+1), tenWords...)
	}
	app.stopped()
}
