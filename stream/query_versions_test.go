package stream_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/leatlog/leat/stream"
	"github.com/leatlog/leat/topology"
	"github.com/leatlog/leat/topology/plan"
	"github.com/leatlog/leat/topology/serde"
)

// versioned is a topology with a versioned table, what is made of it, and one that is not.
type versioned struct {
	plan         *plan.Plan
	table, upper *topology.Table[string, string]
	plain        *topology.Table[string, string]
}

func newVersioned(t *testing.T, in string) *versioned {
	t.Helper()
	top := topology.New()
	s := topology.From(top, topology.NewTopic(in, serde.String, serde.String))
	v := &versioned{table: topology.ToVersionedTable("versions", s, 100*time.Second), plain: topology.ToTable("latest", s)}
	v.upper = topology.MapTable(v.table.Filter(func(_, v string) bool { return v != "two" }), func(_, v string) string { return strings.ToUpper(v) })
	v.plan = must(top.Build())(t)
	return v
}

func valueFrom(second int64, key, value string) plan.Record {
	r := plan.Record{Timestamp: second * 1000, Key: []byte(key)}
	if value != "-" {
		r.Value = []byte(value)
	}
	return r
}

func span(v topology.Version[string]) string {
	text := fmt.Sprint(v.Value, " ", v.From.Unix(), "-")
	if !v.To.IsZero() {
		text += fmt.Sprint(v.To.Unix())
	}
	return text
}

// Each of two processes tells what was, and until when, of keys that are here and there.
func TestQueriesOfVersions(t *testing.T) {
	c := newCluster(t)
	in := c.topic("in", 4)
	q := newVersioned(t, in)
	ctx := t.Context()
	apps := make([]*running, 2)
	for i := range apps {
		apps[i] = c.start(q.plan, listening)
		apps[i].reach(stream.Running)
	}
	var all []plan.Record
	keys := []string{"a", "b", "c", "d", "e", "f"} // on all partitions
	for _, key := range keys {
		all = append(all, valueFrom(100, key, "one"), valueFrom(150, key, "three"), valueFrom(120, key, "two"), valueFrom(140, key, "-"))
	}
	c.produce(in, all...)
	for _, app := range apps {
		versions := must(stream.QueryVersions(app.App, q.table))(t)
		upper := must(stream.QueryVersions(app.App, q.upper))(t)
		for _, key := range keys {
			eventually(t, func() error { // a task may move yet
				return errors.Join(
					between(ctx, versions, key, 0, 1000, "one 100-120, two 120-140, three 150-"),
					between(ctx, versions, key, 0, 99, ""), between(ctx, versions, key, 100, 100, "one 100-120"),
					between(ctx, versions, key, 119, 120, "one 100-120, two 120-140"), between(ctx, versions, key, 140, 149, ""),
					between(ctx, versions, key, 145, 150, "three 150-"), between(ctx, versions, key, 150, 145, ""),
					asOf(ctx, versions, key, map[int64]string{-5: "", 99: "", 100: "one 100-120", 119: "one 100-120",
						139: "two 120-140", 140: "", 150: "three 150-", 9999: "three 150-", latest: "three 150-"}),
					asOf(ctx, upper, key, map[int64]string{100: "ONE 100-120", 120: "", 150: "THREE 150-"}),
				)
			})
			if _, _, err := versions.GetAsOf(ctx, key, time.Unix(100, 0), stream.MaxStaleness(time.Nanosecond)); !errors.Is(err, stream.ErrStale) {
				t.Errorf("stale: %v", err)
			}
		}
	}
	// Time goes on: what ended before the history is not told, swept or not.
	for _, key := range keys {
		c.produce(in, valueFrom(160, key, "-"), valueFrom(230, key, "-"))
	}
	versions := must(stream.QueryVersions(apps[0].App, q.table))(t)
	for _, key := range keys {
		eventually(t, func() error {
			return errors.Join(between(ctx, versions, key, 0, 1000, "two 120-140, three 150-160"), between(ctx, versions, key, 0, 129, ""),
				asOf(ctx, versions, key, map[int64]string{110: "", 125: "", 130: "two 120-140", 159: "three 150-160", 160: "", 1000: "", latest: ""}))
		})
	}
}

// latest is no time.
const latest = -1000

func asOf(ctx context.Context, versions *stream.VersionView[string, string], key string, want map[int64]string) error {
	for at, want := range want {
		got := ""
		v, found, err := versions.GetAsOf(ctx, key, time.Unix(at, 0))
		if at == latest {
			v, found, err = versions.Get(ctx, key)
		}
		if found {
			got = span(v)
		}
		if err != nil || got != want {
			return fmt.Errorf("%s as of %d is %q, %w, want %q", key, at, got, err, want)
		}
	}
	return nil
}

// between compares what a key was from one second to another, in both orders.
func between(ctx context.Context, versions *stream.VersionView[string, string], key string, from, to int64, want string) error {
	for _, opts := range [][]stream.QueryOption{nil, {stream.Reverse()}} {
		var all []string
		for v, err := range versions.Versions(ctx, key, time.Unix(from, 0), time.Unix(to, 0), opts...) {
			if err != nil {
				return err
			}
			all = append(all, span(v))
		}
		if opts != nil {
			slices.Reverse(all)
		}
		if got := strings.Join(all, ", "); got != want {
			return fmt.Errorf("%s from %d to %d had %q, want %q", key, from, to, got, want)
		}
	}
	return nil
}

// Each kind of store has its function, which the others name.
func TestQueriesNameTheRightFunction(t *testing.T) {
	q, plain := newVersioned(t, "in"), newQueried(t, "lines")
	app := must(stream.New(q.plan, stream.Config{AppID: "idle", Bootstrap: []string{"nobody:1"}}))(t)
	other := must(stream.New(plain.plan, stream.Config{AppID: "idle", Bootstrap: []string{"nobody:1"}}))(t)
	_, asTable := stream.Query(app, q.table)
	_, asVersions := stream.QueryVersions(app, q.plain)
	_, windows := stream.QueryVersions(other, plain.windows)
	for err, want := range map[error]string{
		asTable:    `store "versions" is a versioned store: use QueryVersions`,
		asVersions: `store "latest" is a key-value store: use Query`,
		windows:    `store "per-minute" is a window store: use QueryWindows`,
	} {
		if err == nil || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	versions := must(stream.QueryVersions(app, q.table))(t)
	if _, _, err := versions.Get(t.Context(), "a"); err != stream.ErrNotRunning {
		t.Errorf("before Run: %v", err)
	}
	for _, err := range versions.Versions(t.Context(), "a", time.Unix(0, 0), time.Unix(1, 0)) {
		if err != stream.ErrNotRunning {
			t.Errorf("before Run: %v", err)
		}
	}
}
