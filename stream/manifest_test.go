package stream_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/leatlog/leat/stream"
	"github.com/leatlog/leat/stream/client"
	"github.com/leatlog/leat/topology"
	"github.com/leatlog/leat/topology/plan"
	"github.com/leatlog/leat/topology/serde"
)

// counting counts words through a repartition topic, under names that a test may change.
type counting struct {
	in, out     string
	group       string
	groupWas    []topology.RepartitionOption
	store       string
	storeOption []topology.AggregateOption
	values      topology.Serde[int64]
	// more is another topic to be read, by a sub-topology of its own, "" for none.
	more string
}

func (c counting) plan(t *testing.T) *plan.Plan {
	t.Helper()
	if c.group == "" {
		c.group = "by-word"
	}
	if c.store == "" {
		c.store = "counts"
	}
	if c.values == nil {
		c.values = serde.Int64
	}
	top := topology.New()
	if c.more != "" {
		topology.ToTable("more", topology.From(top, topology.NewTopic(c.more, serde.String, serde.String), topology.Named("more-lines")))
	}
	words := topology.From(top, topology.NewTopic(c.in, serde.String, serde.String), topology.Named("lines"))
	byWord := topology.GroupBy(c.group, words, serde.String, func(v string) string { return v }, c.groupWas...)
	counts := topology.Aggregate(c.store, byWord, c.values, func(n int64, _ string) int64 { return n + 1 }, c.storeOption...)
	topology.To(counts.Stream(), topology.NewTopic(c.out, serde.String, c.values), topology.Named("results"))
	p, err := top.Build()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// manifests returns what the app has written to its topic.
func (c *cluster) manifests() []string {
	c.t.Helper()
	var found []string
	_, err := c.client.ReadToEnd(c.t.Context(), client.Partition{Topic: plan.ManifestTopicName(c.prefix + "app")}, 0, func(r *plan.Record) error {
		if string(r.Key) != c.prefix+"app" {
			c.t.Errorf("a record with the key %q", r.Key)
		}
		found = append(found, string(r.Value))
		return nil
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return found
}

// deleted deletes a topic and waits until the cluster does not show it any more.
func (c *cluster) deleted(topic string) {
	c.t.Helper()
	if err := c.client.DeleteTopics(c.t.Context(), topic); err != nil {
		c.t.Fatal(err)
	}
	for timeout := time.After(30 * time.Second); ; {
		topics, err := c.client.Topics(c.t.Context(), topic)
		if err != nil {
			c.t.Fatal(err)
		}
		if len(topics) == 0 {
			return
		}
		select {
		case <-timeout:
			c.t.Fatalf("topic %s is still there", topic)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func words(n int) (records []plan.Record) {
	for range n {
		for _, w := range tenWords {
			records = append(records, plan.Record{Timestamp: 1, Key: []byte("k"), Value: []byte(w)})
		}
	}
	return records
}

// What was counted under the former names is found after the operators were renamed: in the
// store on disk, and in the changelog.
func TestRenamedOperatorsKeepTheirState(t *testing.T) {
	c := newCluster(t)
	before := counting{in: c.topic("words", 2), out: c.topic("out", 2)}
	after := before
	after.group, after.groupWas = "by-term", []topology.RepartitionOption{topology.Formerly("by-word")}
	after.store, after.storeOption = "terms", []topology.AggregateOption{topology.Formerly("counts")}
	dir, r, got := t.TempDir(), c.reader(before.out), newCounts()
	for round, start := range []struct {
		plan     *plan.Plan
		stateDir string
	}{{before.plan(t), dir}, {after.plan(t), dir}, {after.plan(t), t.TempDir()}} {
		app := c.start(start.plan, func(cfg *stream.Config) { cfg.StateDir = start.stateDir })
		c.produce(before.in, words(10)...)
		got.reach(r, int64(10*(round+1)), tenWords...)
		app.stopped()
	}
	topics, err := c.client.Topics(t.Context(), c.prefix+"app-terms-changelog", c.prefix+"app-by-term-repartition")
	if err != nil || len(topics) > 0 {
		t.Errorf("topics of the new names: %v, error %v", topics, err)
	}
	if written := c.manifests(); len(written) != 2 {
		t.Errorf("three starts of two plans wrote %d manifests", len(written))
	}
}

// A start that would misread a store is refused with everything that differs; it goes
// through when told so, and when what would be misread was deleted.
func TestStartThatWouldMisreadState(t *testing.T) {
	c := newCluster(t)
	first := counting{in: c.topic("words", 2), out: c.topic("out", 2)}
	app := c.start(first.plan(t), nil)
	app.reach(stream.Running)
	app.stopped()

	other := first
	other.values, other.group = serde.WithName("other", serde.Int64), "by-term"
	compared, err := stream.ComparePlan(t.Context(), other.plan(t), stream.Config{AppID: c.prefix + "app", Bootstrap: []string{c.addr}})
	if err != nil || compared.Class != plan.Incompatible || len(compared.Differences) < 3 || compared.Running == nil {
		t.Errorf("compared: %+v, error %v", compared, err)
	}
	refused := c.start(other.plan(t), nil)
	var misread *stream.PlanError
	if err := refused.wait(); !errors.As(err, &misread) {
		t.Fatalf("Run returned %v", err)
	} else {
		for _, want := range []string{
			`incompatible: operator "counts": store "counts": the serde of its values was int64 and is other`,
			`new: operator "by-term": repartition topic ` + c.prefix + "app-by-term-repartition is new",
			`orphaned: operator "by-word": repartition topic ` + c.prefix + "app-by-word-repartition",
			"AcceptIncompatiblePlan", "serde.WithName",
		} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("the error lacks %q:\n%v", want, err)
			}
		}
	}
	if topics, err := c.client.Topics(t.Context(), c.prefix+"app-by-term-repartition"); err != nil || len(topics) > 0 {
		t.Errorf("the refused start has made %v, error %v", topics, err)
	}
	if written := c.manifests(); len(written) != 1 {
		t.Errorf("%d manifests", len(written))
	}

	var log syncBuffer
	app = c.start(other.plan(t), func(cfg *stream.Config) {
		cfg.AcceptIncompatiblePlan, cfg.Logger = true, zerolog.New(&log)
	})
	app.reach(stream.Running)
	app.stopped()
	if want := `"topics":["` + c.prefix + `app-by-word-repartition"]`; !strings.Contains(log.String(), want) || !strings.Contains(log.String(), `"class":"orphaned"`) {
		t.Errorf("no warning names the orphaned topic:\n%s", log.String())
	}
	if err := c.start(first.plan(t), nil).wait(); !errors.As(err, &misread) {
		t.Errorf("the first plan again: %v", err)
	}
	c.deleted(c.prefix + "app-counts-changelog")
	app = c.start(first.plan(t), nil)
	app.reach(stream.Running)
	app.stopped()
}

// Processes with the same plan that start together write it, at most, once each, and every
// start after that writes nothing.
func TestStartsTogether(t *testing.T) {
	c := newCluster(t)
	p := counting{in: c.topic("words", 2), out: c.topic("out", 2)}.plan(t)
	apps := []*running{c.start(p, nil), c.start(p, nil), c.start(p, nil)}
	for _, app := range apps {
		app.reach(stream.Running)
	}
	for _, app := range apps {
		app.stopped()
	}
	written := c.manifests()
	for _, m := range written {
		if m != written[0] {
			t.Errorf("the plans differ:\n%s\n%s", m, written[0])
		}
	}
	app := c.start(p, nil)
	app.reach(stream.Running)
	app.stopped()
	if again := c.manifests(); len(written) == 0 || len(written) > len(apps) || len(again) != len(written) {
		t.Errorf("%d manifests, and then %d", len(written), len(again))
	}
	configs, err := c.client.TopicConfig(t.Context(), plan.ManifestTopicName(c.prefix+"app"))
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range configs {
		if entry.Name == "cleanup.policy" && entry.Value != "compact" {
			t.Errorf("%+v", entry)
		}
	}
}

// In a rolling upgrade processes share the tasks when these are the same in both programs;
// otherwise the new ones wait until the old ones have left. Nothing is counted twice.
func TestRollingUpgrade(t *testing.T) {
	c := newCluster(t)
	counted := counting{in: c.topic("words", 2), out: c.topic("out", 2)}
	more := c.topic("more", 2)
	old := c.start(counted.plan(t), nil)
	old.reach(stream.Running)
	r, got := c.reader(counted.out), newCounts()
	c.produce(counted.in, words(10)...)
	got.reach(r, 10, tenWords...)

	renamed := counted
	renamed.store, renamed.storeOption = "terms", []topology.AggregateOption{topology.Formerly("counts")}
	same := c.start(renamed.plan(t), nil)
	same.reach(stream.Running)
	c.produce(counted.in, words(10)...)
	got.reach(r, 20, tenWords...)
	same.stopped()

	waits := make(chan error, 1) // that the broker was slow may be told as well
	counted.more = more
	other := c.start(counted.plan(t), func(cfg *stream.Config) {
		cfg.OnError = func(err error) {
			if strings.Contains(err.Error(), "another topology") {
				select {
				case waits <- err:
				default:
				}
			}
		}
	})
	select {
	case <-waits:
	case err := <-other.done:
		t.Fatalf("the other program ended: %v", err)
	case <-time.After(40 * time.Second):
		t.Fatal("the other program does not say that it waits")
	}
	c.produce(counted.in, words(10)...)
	got.reach(r, 30, tenWords...) // the old one goes on
	if other.State() == stream.Running {
		t.Error("both run")
	}
	old.stopped()
	other.reach(stream.Running)
	c.produce(counted.in, words(10)...)
	got.reach(r, 40, tenWords...)
	other.stopped()
}

// meddling calls meddle when the App looks at the clock, which it does first for the time
// of its manifest.
type meddling struct {
	once   *sync.Once
	meddle func()
}

func (m meddling) Now() time.Time {
	m.once.Do(m.meddle)
	return time.Now()
}

// Of two programs that start together the one whose plan is in the topic first counts: the
// other compares itself with it though it was not there when it looked.
func TestPlanThatWasFaster(t *testing.T) {
	for name, compatible := range map[string]bool{"compatible": true, "incompatible": false} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t)
			mine := counting{in: c.topic("words", 2), out: c.topic("out", 2)}
			theirs := mine
			if compatible {
				theirs.store = "others"
			} else {
				theirs.values = serde.WithName("other", serde.Int64)
			}
			faster := func() {
				app := c.start(theirs.plan(t), nil)
				app.reach(stream.Running)
				app.stopped()
			}
			app := c.start(mine.plan(t), func(cfg *stream.Config) { cfg.Clock = meddling{new(sync.Once), faster} })
			if compatible {
				app.reach(stream.Running)
				app.stopped()
			} else if err := app.wait(); !errors.As(err, new(*stream.PlanError)) {
				t.Fatalf("Run returned %v", err)
			}
			written := c.manifests()
			last, err := plan.DecodeManifest([]byte(written[len(written)-1]))
			if err != nil {
				t.Fatal(err)
			}
			switch {
			case compatible && (len(last.RetiredStores) != 1 || last.RetiredStores[0].Name != "others" || last.Stores[0].Name != "counts"):
				t.Errorf("the last manifest is\n%v", last)
			case !compatible && last.Stores[0].Value != "other":
				t.Errorf("the refused plan stayed:\n%v", last)
			}
		})
	}
}

// A manifest of a later version of Leat, or damage, is no reason to guess.
func TestManifestThatCannotBeRead(t *testing.T) {
	c := newCluster(t)
	p := counting{in: c.topic("words", 2), out: c.topic("out", 2)}.plan(t)
	app := c.prefix + "app"
	if err := c.client.CreateTopics(t.Context(), client.NewTopic{Name: plan.ManifestTopicName(app), Partitions: 1, Replication: 1}); err != nil {
		t.Fatal(err)
	}
	c.produce(plan.ManifestTopicName(app), plan.Record{Timestamp: 1, Key: []byte(app), Value: []byte(`{"format":99,"app":"x"}`)})
	if err := c.start(p, nil).wait(); !errors.Is(err, plan.ErrManifest) || !strings.Contains(err.Error(), "AcceptIncompatiblePlan") {
		t.Errorf("Run returned %v", err)
	}
	accepted := c.start(p, func(cfg *stream.Config) { cfg.AcceptIncompatiblePlan = true })
	accepted.reach(stream.Running)
	accepted.stopped()
	if m, err := stream.ReadManifest(t.Context(), c.client, app); err != nil || m == nil || len(m.Stores) != 1 {
		t.Errorf("got %v, error %v", m, err)
	}
	if m, err := stream.ReadManifest(t.Context(), c.client, "nobody"); err != nil || m != nil {
		t.Errorf("the manifest of an app that never ran: %v, error %v", m, err)
	}
}

// An app that leaves nothing durable makes no topic for its plan.
func TestStatelessAppHasNoManifest(t *testing.T) {
	c := newCluster(t)
	in, out := c.topic("in", 1), c.topic("out", 1)
	top := topology.New()
	text := func(name string) topology.Topic[string, string] {
		return topology.NewTopic(name, serde.String, serde.String)
	}
	topology.To(topology.From(top, text(in)), text(out))
	p, err := top.Build()
	if err != nil {
		t.Fatal(err)
	}
	app := c.start(p, nil)
	app.reach(stream.Running)
	app.stopped()
	if topics, err := c.client.Topics(context.Background(), plan.ManifestTopicName(c.prefix+"app")); err != nil || len(topics) > 0 {
		t.Errorf("topics %v, error %v", topics, err)
	}
}

// syncBuffer is a bytes.Buffer for several goroutines.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
