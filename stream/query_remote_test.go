package stream_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/leatlog/leat/stream"
	"github.com/leatlog/leat/topology/plan"
)

func listening(cfg *stream.Config) { cfg.QueryListen = "127.0.0.1:0" }

// Each of two processes answers for both; when one ends, the other has everything.
func TestQueriesOfTwoProcesses(t *testing.T) {
	c := newCluster(t)
	in := c.topic("lines", 4)
	q := newQueried(t, in)
	ctx := t.Context()
	first := c.start(q.plan, listening)
	first.reach(stream.Running)
	second := c.start(q.plan, listening)
	second.reach(stream.Running)
	c.produce(in, lines("wN", 1000)...)

	var want []string
	for _, w := range tenWords {
		want = append(want, w+":100")
	}
	apps := []*running{first, second}
	for _, app := range apps {
		counts := must(stream.Query(app.App, q.counts))(t)
		lists(t, counts.All(ctx), plain, want...)
		for _, w := range tenWords {
			eventually(t, func() error {
				n, found, err := counts.Get(ctx, w, stream.MaxStaleness(time.Minute))
				if err == nil && (!found || n != 100) {
					t.Fatalf("%s is %d, %v", w, n, found)
				}
				return err
			})
		}
		var here []string
		elsewhere := 0
		for p := range int32(4) { // two are here
			rows, err := list(counts.All(ctx, stream.InPartition(p), stream.Here()), plain)
			var not *stream.NotOwnerError
			if errors.As(err, &not) && errors.Is(err, stream.ErrNotOwner) && strings.HasPrefix(not.Address, "127.0.0.1:") {
				elsewhere++
			} else if err != nil {
				t.Error(err)
			}
			here = append(here, rows...)
		}
		if elsewhere != 2 || len(here) == len(want) {
			t.Errorf("%d partitions are elsewhere, and %q here", elsewhere, here)
		}
		// A bound of staleness is the owner's to keep.
		if _, err := list(counts.All(ctx, stream.MaxStaleness(time.Nanosecond)), plain); !errors.Is(err, stream.ErrStale) {
			t.Errorf("stale: %v", err)
		}
		windows := must(stream.QueryWindows(app.App, q.windows))(t)
		lists(t, windows.Fetch(ctx, "w3", time.Unix(0, 0), time.Unix(60, 0)), inWindow, "w3@0-60:100")
	}

	first.stopped()
	counts := must(stream.Query(second.App, q.counts))(t)
	lists(t, counts.All(ctx), plain, want...)
	lists(t, counts.All(ctx, stream.Here()), plain, want...)
}

// The endpoint sends on to the owner, over HTTP as any client speaks it, and tells the
// health.
func TestQueryEndpoint(t *testing.T) {
	c := newCluster(t)
	in := c.topic("lines", 2)
	q := newQueried(t, in)
	var addresses [2]string
	var apps [2]*running
	for i := range apps {
		apps[i] = c.start(q.plan, listening)
		apps[i].reach(stream.Running)
		addresses[i] = apps[i].QueryAddress()
	}
	c.produce(in, lines("wN", 20)...)
	rows := 0
	eventually(t, func() error {
		rows = 0
		for p := range 2 {
			status, body := post(t, addresses[0], "/rows", map[string]any{
				"App": c.prefix + "app", "Store": "counts", "Task": plan.TaskID{SubTopology: 1, Partition: int32(p)}, "Limit": 100,
			})
			var page struct{ Rows []json.RawMessage }
			if err := json.Unmarshal(body, &page); err != nil || status != http.StatusOK {
				return fmt.Errorf("partition %d: %d %s", p, status, body)
			}
			rows += len(page.Rows)
		}
		if rows != 10 {
			return fmt.Errorf("%d rows", rows)
		}
		return nil
	})
	for _, c := range []struct {
		body   any
		status int
		want   string
	}{
		{map[string]any{"App": "another"}, http.StatusNotFound, "no-store"},
		{map[string]any{"App": c.prefix + "app", "Store": "counts", "Task": plan.TaskID{SubTopology: 7}}, http.StatusMisdirectedRequest, "not-owner"},
		{"nonsense", http.StatusBadRequest, "no query"},
	} {
		if status, body := post(t, addresses[0], "/rows", c.body); status != c.status || !strings.Contains(string(body), c.want) {
			t.Errorf("%v: %d %s", c.body, status, body)
		}
	}

	eventually(t, func() error {
		tasks := 0
		for _, address := range addresses {
			resp, err := http.Get("http://" + address + "/health")
			if err != nil {
				t.Fatal(err)
			}
			var h stream.Health
			err = json.NewDecoder(resp.Body).Decode(&h)
			_ = resp.Body.Close()
			if err != nil || resp.StatusCode != http.StatusOK || h.App != c.prefix+"app" {
				t.Fatalf("%s: %+v, %v", resp.Status, h, err)
			}
			for _, task := range h.Tasks {
				if h.State != stream.Running || !task.Running || task.Lag != 0 || len(task.Inputs) != 1 || task.AsOf.IsZero() {
					return fmt.Errorf("%s has %+v", h.State, task)
				}
				tasks++
			}
		}
		if tasks != 4 {
			return fmt.Errorf("%d tasks", tasks)
		}
		return nil
	})
	apps[0].stopped()
	if _, err := http.Get("http://" + addresses[0] + "/health"); err == nil {
		t.Error("the endpoint is open after the stop")
	}
}

func post(t *testing.T, address, path string, body any) (int, []byte) {
	t.Helper()
	encoded := must(json.Marshal(body))(t)
	resp := must(http.Post("http://"+address+path, "application/json", bytes.NewReader(encoded)))(t)
	defer func() { _ = resp.Body.Close() }()
	return resp.StatusCode, must(io.ReadAll(resp.Body))(t)
}

func TestQueryConfiguration(t *testing.T) {
	q := newQueried(t, "in")
	for _, c := range []struct{ listen, advertise, want string }{
		{"here", "", "QueryListen is \"here\": use HOST:PORT"},
		{":0", "", "say in QueryAdvertise"},
		{"0.0.0.0:80", "", "say in QueryAdvertise"},
		{"", "host:80", "QueryListen is empty"},
		{":80", "host", "QueryAdvertise is \"host\""},
		{":80", "host:80", ""},
		{"host:80", "", ""},
	} {
		_, err := stream.New(q.plan, stream.Config{AppID: "a", Bootstrap: []string{"b:1"}, QueryListen: c.listen, QueryAdvertise: c.advertise})
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
