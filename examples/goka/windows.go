package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/lovoo/goka/codec"
	"github.com/rs/zerolog"

	"github.com/leatlog/leat/examples/goka/clicks"
	"github.com/leatlog/leat/stream/client"
	"github.com/leatlog/leat/topology"
	"github.com/leatlog/leat/topology/serde"
)

// window is what goka has not: the clicks of each user in so much time.
const window = 5 * time.Second

var (
	// totalsTopic is goka's output, read with goka's codec.
	totalsTopic = topology.NewTopic(string(clicks.Totals), serde.String, serde.FromCodec[int64]("goka int64", new(codec.Int64)))
	// windowsTopic has the clicks of each user in each window.
	windowsTopic = topology.NewTopic("clicks-per-window", serde.Windowed(serde.String, window), serde.Int64)
)

// perWindow counts the totals that goka emits, one for each click, in windows:
//
//	click-totals ── group by key ── 5 s, on close ──> clicks-per-window
func perWindow(out io.Writer) *topology.Topology {
	t := topology.New()
	windows := topology.From(t, totalsTopic).GroupByKey().Window(topology.Tumbling(window).Grace(time.Second))
	closed := topology.Count("clicks-per-window", windows, topology.OnWindowClose()).Stream()
	topology.To(closed.Peek(func(key topology.WindowedKey[string], n int64) {
		fmt.Fprintf(out, "Leat's windows: %s clicked %d times in %d s from %s\n", key.Key, n, window/time.Second, key.StartTime().Format(time.TimeOnly))
	}), windowsTopic)
	return t
}

// createOutput makes the topic of the windows unless it is there.
func createOutput(ctx context.Context, bootstrap []string) error {
	c, err := client.New(client.Config{Bootstrap: bootstrap, ClientID: "goka-example", Logger: zerolog.Nop()})
	if err != nil {
		return err
	}
	defer c.Close()
	err = c.CreateTopics(ctx, client.NewTopic{Name: windowsTopic.Name, Partitions: clicks.Partitions, Replication: -1})
	if errors.Is(err, client.ErrTopicExists) {
		return nil
	}
	return err
}
