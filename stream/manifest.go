package stream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/leatlog/leat/stream/client"
	"github.com/leatlog/leat/topology/plan"
)

// PlanError says that the plan cannot go on with what the app has left in the cluster, so
// that Run has refused to start.
type PlanError struct {
	// App is the app's id.
	App string
	// Differences are all that there are, harmless ones too.
	Differences []plan.Difference
}

// Error implements error: what is incompatible, with what to do, and then the rest.
func (e *PlanError) Error() string {
	var b strings.Builder
	b.WriteString("the topology would misread what the app has left in the cluster, so the start is refused. " +
		"Do what is said below, or set Config.AcceptIncompatiblePlan to start all the same:")
	for _, incompatible := range []bool{true, false} {
		for _, d := range e.Differences {
			if (d.Class == plan.Incompatible) == incompatible {
				b.WriteString("\n\t" + d.String())
			}
		}
	}
	return b.String()
}

// maxPlanTries bounds how often an app that starts meets other plans of it that start.
const maxPlanTries = 20

// ReadManifest returns the manifest of the app that ran last under an id, nil when there is
// none: it has not run yet, or leaves nothing durable. An error wraps plan.ErrManifest when
// what is there cannot be read.
func ReadManifest(ctx context.Context, c *client.Client, app string) (*plan.Manifest, error) {
	topics, err := c.Topics(ctx, plan.ManifestTopicName(app))
	if err != nil || len(topics) == 0 {
		return nil, err
	}
	s, err := readStoredPlans(ctx, c, app, 0)
	if err != nil {
		return nil, err
	}
	return s.last()
}

// storedPlans are the manifests found in the app's topic.
type storedPlans struct {
	records [][]byte // oldest first
	end     int64
}

func readStoredPlans(ctx context.Context, c *client.Client, app string, from int64) (storedPlans, error) {
	var s storedPlans
	var err error
	p := client.Partition{Topic: plan.ManifestTopicName(app)}
	s.end, err = c.ReadToEnd(ctx, p, from, func(r *plan.Record) error {
		if string(r.Key) == app {
			s.records = append(s.records, bytes.Clone(r.Value))
		}
		return nil
	})
	return s, err
}

// last returns the latest manifest, nil for none.
func (s storedPlans) last() (*plan.Manifest, error) {
	raw := s.lastRaw()
	if raw == nil {
		return nil, nil // none, or deleted by a null value
	}
	return plan.DecodeManifest(raw)
}

func (s storedPlans) lastRaw() []byte {
	if len(s.records) == 0 {
		return nil
	}
	return s.records[len(s.records)-1]
}

// settlePlan compares the plan with the one that the app ran last, refuses to start when
// it would misread something, and writes it down unless it is the same. topicExists says
// that there may be one.
//
// The order in the topic decides between programs that start together: each looks at what
// came before its own manifest, and compares again if that is not what it knew.
func (a *App) settlePlan(ctx context.Context, topicExists bool) error {
	var found storedPlans
	var err error
	if topicExists {
		if found, err = readStoredPlans(ctx, a.client, a.cfg.AppID, 0); err != nil {
			return err
		}
	}
	if !topicExists {
		if !a.plan.Manifest(a.cfg.AppID, a.layout.Partitions).Durable() {
			return nil
		}
		if err := a.createInternal(ctx, []client.NewTopic{{
			Name: plan.ManifestTopicName(a.cfg.AppID), Partitions: 1, Replication: a.cfg.ReplicationFactor,
			Config: map[string]string{"cleanup.policy": "compact"},
		}}); err != nil {
			return err
		}
	}
	written := false
	for range maxPlanTries {
		mine, err := a.judge(ctx, found)
		if err != nil {
			if written { // theirs was first, and has to stay the last
				err = errors.Join(err, a.writeManifest(ctx, found.lastRaw()))
			}
			return err
		}
		if bytes.Equal(mine, found.lastRaw()) {
			return nil
		}
		if err := a.writeManifest(ctx, mine); err != nil {
			return err
		}
		written = true
		since, err := readStoredPlans(ctx, a.client, a.cfg.AppID, found.end)
		if err != nil {
			return err
		}
		before := 0
		for before < len(since.records) && !bytes.Equal(since.records[before], mine) {
			before++
		}
		if before == 0 {
			return nil
		}
		found = storedPlans{records: since.records[:before], end: since.end}
	}
	return fmt.Errorf("the app's plan was replaced %d times while it started: other programs start under this AppID: let one of them start first", maxPlanTries)
}

// judge compares the plan with the latest one found and returns what is to be written: the
// same bytes when nothing differs.
func (a *App) judge(ctx context.Context, found storedPlans) ([]byte, error) {
	mine := a.plan.Manifest(a.cfg.AppID, a.layout.Partitions)
	old, err := found.last()
	if err != nil {
		if !a.cfg.AcceptIncompatiblePlan {
			return nil, fmt.Errorf("the plan in topic %q: %w; set Config.AcceptIncompatiblePlan to start all the same",
				plan.ManifestTopicName(a.cfg.AppID), err)
		}
		a.log.Warn().Err(err).Msg("the plan that the app ran last cannot be read; starting all the same")
	}
	if old == nil {
		return mine.Encode()
	}
	differences := plan.Compare(old, mine)
	if len(differences) > 0 {
		// What was deleted on purpose cannot be misread.
		exists, err := a.existing(ctx, old, differences)
		if err != nil {
			return nil, err
		}
		old.Forget(exists)
		differences = plan.Compare(old, mine)
	}
	refused := false
	for _, d := range differences {
		log := a.log.Info()
		switch d.Class {
		case plan.Orphaned:
			log = a.log.Warn()
		case plan.Incompatible:
			log = a.log.Warn()
			refused = !a.cfg.AcceptIncompatiblePlan
		}
		log.Str("class", string(d.Class)).Str("operator", d.Operator).Strs("topics", d.Topics).Str("do", d.Do).
			Msg("the plan has changed: " + d.What)
	}
	if refused {
		return nil, &PlanError{App: a.cfg.AppID, Differences: differences}
	}
	mine.Succeed(old)
	return mine.Encode()
}

// existing tells which of the app's topics there are. A broker may not know yet of a topic
// that has just been made, so one whose absence would turn a refusal into a start is asked
// for once more by creating it.
func (a *App) existing(ctx context.Context, old *plan.Manifest, differences []plan.Difference) (func(string) bool, error) {
	names := old.OwnTopics()
	if len(names) == 0 {
		return func(string) bool { return false }, nil
	}
	topics, err := a.client.Topics(ctx, names...)
	if err != nil {
		return nil, err
	}
	there := make(map[string]bool, len(topics))
	for name := range topics {
		there[name] = true
	}
	wanted := a.internalTopics()
	for _, d := range differences {
		for _, name := range d.Topics {
			if d.Class != plan.Incompatible || there[name] {
				continue
			}
			for _, t := range wanted {
				if t.Name != name {
					continue
				}
				switch err := a.client.CreateTopics(ctx, t); {
				case errors.Is(err, client.ErrTopicExists):
					there[name] = true
				case err != nil:
					return nil, err
				}
			}
		}
	}
	return func(topic string) bool { return there[topic] }, nil
}

// writeManifest appends to the app's topic.
func (a *App) writeManifest(ctx context.Context, manifest []byte) error {
	producer, err := a.client.NewProducer(ctx, client.ProducerConfig{Codec: a.cfg.Compression})
	if err != nil {
		return err
	}
	defer producer.Close()
	topic, err := producer.Topic(ctx, plan.ManifestTopicName(a.cfg.AppID))
	if err != nil {
		return err
	}
	if err := topic.Append(0, a.cfg.Clock.Now().UnixMilli(), []byte(a.cfg.AppID), manifest, nil); err != nil {
		return err
	}
	if err := producer.Flush(ctx); err != nil {
		return fmt.Errorf("write the plan to topic %q: %w", plan.ManifestTopicName(a.cfg.AppID), err)
	}
	return nil
}

// ComparePlan compares a plan with the one that the app of cfg ran last, as a start would,
// and changes nothing. The topics that the plan reads and writes must be there.
func ComparePlan(ctx context.Context, p *plan.Plan, cfg Config) (*plan.Comparison, error) {
	cfg.Metrics = nil
	a, err := New(p, cfg)
	if err != nil {
		return nil, err
	}
	if a.client, err = a.newClient(); err != nil {
		return nil, err
	}
	defer a.client.Close()
	if err := a.client.Ping(ctx); err != nil {
		return nil, fmt.Errorf("stream: app %q: %w", cfg.AppID, err)
	}
	if _, err := a.layOut(ctx); err != nil {
		return nil, fmt.Errorf("stream: app %q: %w", cfg.AppID, err)
	}
	running, err := ReadManifest(ctx, a.client, cfg.AppID)
	if err != nil {
		return nil, fmt.Errorf("stream: app %q: %w", cfg.AppID, err)
	}
	return plan.NewComparison(running, a.plan.Manifest(cfg.AppID, a.layout.Partitions)), nil
}
