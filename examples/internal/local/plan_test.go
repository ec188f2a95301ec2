package local

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"strings"
	"testing"

	"github.com/leatlog/leat/broker/brokertest"
	"github.com/leatlog/leat/stream"
	"github.com/leatlog/leat/stream/client"
	"github.com/leatlog/leat/topology"
	"github.com/leatlog/leat/topology/plan"
	"github.com/leatlog/leat/topology/serde"
)

func TestShowPlan(t *testing.T) {
	addr := brokertest.Start(t).Addr()
	c, err := client.New(client.Config{Bootstrap: []string{addr}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.CreateTopics(t.Context(), client.NewTopic{Name: "words", Partitions: 2, Replication: 1}); err != nil {
		t.Fatal(err)
	}
	build := func(values topology.Serde[string]) *plan.Plan {
		top := topology.New()
		topology.ToTable("latest", topology.From(top, topology.NewTopic("words", serde.String, values)))
		p, err := top.Build()
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	config := stream.Config{AppID: "words-app", Bootstrap: []string{addr}}
	show := func(p *plan.Plan, arguments ...string) (string, bool, error) {
		o := Options{Name: "words"}
		f := flag.NewFlagSet("words", flag.ContinueOnError)
		f.SetOutput(io.Discard)
		o.Flags(f)
		if err := f.Parse(arguments); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		asked, err := o.ShowPlan(t.Context(), p, config, &out)
		return out.String(), asked, err
	}
	first, second := build(serde.String), build(serde.WithName("other", serde.String))
	if out, asked, err := show(first); out != "" || asked || err != nil {
		t.Errorf("without the flag: %q, %v, %v", out, asked, err)
	}
	if out, asked, err := show(first, "--plan"); !strings.Contains(out, "has not run yet") || !asked || err != nil {
		t.Errorf("before it ran: %q, %v, %v", out, asked, err)
	}

	ctx, stop := context.WithCancel(t.Context())
	started := config
	started.OnState = func(_, to stream.State) {
		if to == stream.Running {
			stop()
		}
	}
	app, err := stream.New(first, started)
	if err != nil {
		t.Fatal(err)
	}
	if err := app.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if out, _, err := show(first, "--plan"); !strings.Contains(out, "is the one that ran last") || err != nil {
		t.Errorf("the same: %q, %v", out, err)
	}
	out, _, err := show(second, "--plan")
	if !strings.Contains(out, `incompatible  operator "latest"`) || !errors.Is(err, errIncompatiblePlan) {
		t.Errorf("another: %q, %v", out, err)
	}
	out, _, err = show(second, "--plan=json")
	var compared plan.Comparison
	if jsonErr := json.Unmarshal([]byte(out), &compared); jsonErr != nil || !errors.Is(err, errIncompatiblePlan) || compared.Class != plan.Incompatible {
		t.Errorf("another as JSON: %q, %v, %v", out, err, jsonErr)
	}
	out, _, err = show(second, "--plan=export")
	if m, decodeErr := plan.DecodeManifest([]byte(out)); err != nil || decodeErr != nil || m.App != "words-app" || m.Stores[0].Partitions != 2 {
		t.Errorf("exported: %q, %v, %v", out, err, decodeErr)
	}
	o := Options{}
	f := flag.NewFlagSet("words", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	o.Flags(f)
	if err := f.Parse([]string{"--plan=else"}); err == nil || !strings.Contains(err.Error(), "text, json or export") {
		t.Errorf("--plan=else: %v", err)
	}
}
