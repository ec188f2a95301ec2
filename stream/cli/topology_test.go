package cli

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/leatlog/leat/stream/client"
	"github.com/leatlog/leat/topology/plan"
)

func TestTopologyPlan(t *testing.T) {
	l := newLeat(t)
	app := "shop-" + t.Name()
	manifest := func(value string) *plan.Manifest {
		return &plan.Manifest{Format: plan.ManifestFormat, App: app,
			Topics:       []plan.ManifestTopic{{Topic: "orders", Operator: "orders", Role: "source", Key: "string", Value: "string", Partitions: 4}},
			Repartitions: []plan.ManifestTopic{{Topic: app + "-by-user-repartition", Operator: "by-user", Key: "string", Value: "string", Partitions: 4}},
			Stores: []plan.ManifestStore{{Name: "counts", Operator: "counts", OperatorKind: "count", Kind: "key-value", Key: "string", Value: value,
				Changelog: app + "-counts-changelog", Partitions: 4}}}
	}
	file := func(m *plan.Manifest) string {
		data, err := m.Encode()
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(t.TempDir(), "plan.json")
		if err := os.WriteFile(name, data, 0o644); err != nil {
			t.Fatal(err)
		}
		return name
	}
	for _, test := range []struct {
		args []string
		want string
	}{
		{nil, "--app is missing"},
		{[]string{"--app", app}, "has no plan in the cluster"},
		{[]string{"--file", filepath.Join(t.TempDir(), "none")}, "--file"},
		{[]string{"--file", file(&plan.Manifest{Format: 7, App: app})}, "its format is 7"},
		{[]string{"--file", file(manifest("int64")), "--app", "other"}, `it is the plan of app "` + app},
	} {
		if _, err := l.try(t.Context(), "", append([]string{"topology", "plan"}, test.args...)...); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%q: error %v, want %q", test.args, err, test.want)
		}
	}
	if out := l.run("", "topology", "plan", "--file", file(manifest("int64"))); !strings.Contains(out, "has not run yet") {
		t.Errorf("compared with nothing:\n%s", out)
	}

	l.writePlan(app, manifest("int64"))
	out := l.run("", "topology", "plan", "--app", app)
	for _, want := range []string{`app "` + app + `"`, "source", "orders: string -> string; 4 partitions",
		"counts: key-value, string -> int64; count counts; " + app + "-counts-changelog; 4 partitions", "operator by-user"} {
		if !strings.Contains(out, want) {
			t.Errorf("the plan lacks %q:\n%s", want, out)
		}
	}
	var shown plan.Manifest
	if err := json.Unmarshal([]byte(l.run("", "topology", "plan", "--app", app, "--json")), &shown); err != nil || shown.Stores[0].Value != "int64" {
		t.Errorf("got %+v, error %v", shown, err)
	}
	if out := l.run("", "topology", "plan", "--file", file(manifest("int64"))); !strings.Contains(out, "is the one that ran last") {
		t.Errorf("compared with itself:\n%s", out)
	}
	var incompatible *IncompatiblePlanError
	out, err := l.try(t.Context(), "", "topology", "plan", "--file", file(manifest("string")))
	if !errors.As(err, &incompatible) || incompatible.ExitCode() != 2 ||
		!strings.Contains(out, `incompatible  operator "counts": store "counts": the serde of its values was int64 and is string`) {
		t.Errorf("error %v with\n%s", err, out)
	}
	out, err = l.try(t.Context(), "", "topology", "plan", "--json", "--file", file(manifest("string")))
	var compared plan.Comparison
	if jsonErr := json.Unmarshal([]byte(out), &compared); jsonErr != nil || err == nil || compared.Class != plan.Incompatible || len(compared.Differences) != 1 {
		t.Errorf("got %+v, errors %v and %v", compared, err, jsonErr)
	}
}

// writePlan writes what an app writes at its start.
func (l *leat) writePlan(app string, m *plan.Manifest) {
	l.t.Helper()
	data, err := m.Encode()
	if err != nil {
		l.t.Fatal(err)
	}
	c, err := client.New(client.Config{Bootstrap: []string{l.addr}})
	if err != nil {
		l.t.Fatal(err)
	}
	defer c.Close()
	topic := client.NewTopic{Name: plan.ManifestTopicName(app), Partitions: 1, Replication: 1, Config: map[string]string{"cleanup.policy": "compact"}}
	if err := c.CreateTopics(l.t.Context(), topic); err != nil {
		l.t.Fatal(err)
	}
	p, err := c.NewProducer(l.t.Context(), client.ProducerConfig{})
	if err != nil {
		l.t.Fatal(err)
	}
	defer p.Close()
	to, err := p.Topic(l.t.Context(), topic.Name)
	if err != nil {
		l.t.Fatal(err)
	}
	if err := errors.Join(to.Append(0, 1, []byte(app), data, nil), p.Flush(l.t.Context())); err != nil {
		l.t.Fatal(err)
	}
}
