package plan

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// ManifestFormat is the format of the manifests that this package writes. It grows when an
// older program would misunderstand a manifest; fields that may be ignored are added
// without.
const ManifestFormat = 1

// ErrManifest says that bytes are not a manifest, or one of a later format.
var ErrManifest = errors.New("plan: not a manifest that this program can read")

// Manifest is what a plan leaves in the cluster and how it is to be read: what decides
// whether another plan of the same app can go on with it. An app writes it as one record,
// with the app's id as the key, to the topic ManifestTopicName. It is JSON:
//
//	{"format": 1,
//	 "app": "shop",
//	 "topics":    [{"topic", "operator", "role": "source" or "sink", "key", "value", "partitions"}],
//	 "operators": [{"name", "kind", "inputs", "topic", "store", "formerly", "windows", "detail"}],
//	 "stores":    [{"name", "operator", "operator_kind", "kind", "key", "value", "window_size_ms",
//	                "retention_ms", "windows", "changelog", "partitions"}],
//	 "repartitions": [{"topic", "operator", "key", "value", "partitions"}],
//	 "retired_stores", "retired_repartitions": [as above]}
//
// Serdes are told by their names, durations in milliseconds, topics by their full names.
// Lists are ordered by what identifies their items, so that equal plans are equal bytes.
type Manifest struct {
	Format int    `json:"format"`
	App    string `json:"app"`
	// Topics are those that the app reads and writes and does not own.
	Topics    []ManifestTopic    `json:"topics"`
	Operators []ManifestOperator `json:"operators"`
	Stores    []ManifestStore    `json:"stores"`
	// Repartitions are the topics between sub-topologies.
	Repartitions []ManifestTopic `json:"repartitions"`
	// RetiredStores and RetiredRepartitions are what earlier plans of the app have left in
	// the cluster and this one does not use: a later plan that takes up the name meets it.
	RetiredStores       []ManifestStore `json:"retired_stores,omitempty"`
	RetiredRepartitions []ManifestTopic `json:"retired_repartitions,omitempty"`
}

// ManifestTopic is a topic, and how its records are encoded.
type ManifestTopic struct {
	Topic    string `json:"topic"`
	Operator string `json:"operator"`
	// Role is "source" or "sink", "" for a repartition topic.
	Role string `json:"role,omitempty"`
	// Key and Value are the names of the serdes.
	Key   string `json:"key,omitempty"`
	Value string `json:"value,omitempty"`
	// Partitions is 0 when not known: a program that is not connected does not know those
	// that follow from the topics it reads.
	Partitions int32 `json:"partitions,omitempty"`
}

// ManifestOperator is an operator.
type ManifestOperator struct {
	Name     string           `json:"name"`
	Kind     string           `json:"kind"`
	Inputs   []string         `json:"inputs,omitempty"`
	Topic    string           `json:"topic,omitempty"`
	Store    string           `json:"store,omitempty"`
	Formerly string           `json:"formerly,omitempty"`
	Windows  *ManifestWindows `json:"windows,omitempty"`
	Detail   string           `json:"detail,omitempty"`
}

// ManifestStore is a store. Its name identifies it, as it does its changelog.
type ManifestStore struct {
	Name         string           `json:"name"`
	Operator     string           `json:"operator"`
	OperatorKind string           `json:"operator_kind"`
	Kind         string           `json:"kind"` // key-value, window, session or versioned
	Key          string           `json:"key"`
	Value        string           `json:"value"`
	WindowSizeMS int64            `json:"window_size_ms,omitempty"`
	RetentionMS  int64            `json:"retention_ms,omitempty"`
	Windows      *ManifestWindows `json:"windows,omitempty"`
	// Changelog is the topic, "" for a store without one.
	Changelog  string `json:"changelog,omitempty"`
	Partitions int32  `json:"partitions,omitempty"`
}

// ManifestWindows are the windows of an operator; see Windows.
type ManifestWindows struct {
	Kind      string `json:"kind"`
	SizeMS    int64  `json:"size_ms,omitempty"`
	AdvanceMS int64  `json:"advance_ms,omitempty"`
	BeforeMS  int64  `json:"before_ms,omitempty"`
	AfterMS   int64  `json:"after_ms,omitempty"`
	GapMS     int64  `json:"gap_ms,omitempty"`
	GraceMS   int64  `json:"grace_ms"`
	OnClose   bool   `json:"on_close,omitempty"`
}

// ManifestTopicName returns the name of the compacted topic that holds an app's manifest.
func ManifestTopicName(app string) string { return app + "-plan" }

// Manifest describes what the plan leaves behind when app runs it. partitions has the
// counts of its topics by full name, and may be nil: then only the counts that operators
// ask for are known.
func (p *Plan) Manifest(app string, partitions map[string]int32) *Manifest {
	m := &Manifest{
		Format: ManifestFormat, App: app, Topics: []ManifestTopic{}, Operators: []ManifestOperator{},
		Stores: []ManifestStore{}, Repartitions: []ManifestTopic{},
	}
	for i := range p.SubTopologies {
		s := &p.SubTopologies[i]
		for _, source := range s.Sources {
			m.addTopic(source.Topic, source.Operator, "source", partitions)
		}
		for _, sink := range s.Sinks {
			m.addTopic(sink.Topic, sink.Operator, "sink", partitions)
		}
		m.addOperators(s)
		m.addStores(s, partitions)
	}
	slices.SortStableFunc(m.Topics, func(a, b ManifestTopic) int {
		return strings.Compare(a.Topic+" "+a.Role, b.Topic+" "+b.Role)
	})
	slices.SortStableFunc(m.Operators, func(a, b ManifestOperator) int { return strings.Compare(a.Name, b.Name) })
	m.sortOwn()
	return m
}

func (m *Manifest) addTopic(t Topic, operator, role string, partitions map[string]int32) {
	topic := ManifestTopic{Topic: t.FullName(m.App), Operator: operator, Role: role, Key: t.KeyFormat, Value: t.ValueFormat, Partitions: t.Partitions}
	if n := partitions[topic.Topic]; n > 0 {
		topic.Partitions = n
	}
	list := &m.Topics
	if t.Internal {
		list, topic.Role = &m.Repartitions, ""
		topic.Operator = strings.TrimSuffix(operator, repartitionSuffix)
	}
	same := func(other ManifestTopic) bool { return other.Topic == topic.Topic && other.Role == topic.Role }
	if !slices.ContainsFunc(*list, same) {
		*list = append(*list, topic)
	}
}

// repartitionSuffix is what the compiler appends to a grouping's name for the repartition
// that it inserts behind.
const repartitionSuffix = ".repartition"

func (m *Manifest) addOperators(s *SubTopology) {
	for _, o := range s.Operators {
		if slices.ContainsFunc(m.Operators, func(other ManifestOperator) bool { return other.Name == o.Name }) {
			continue // a repartition is in the sub-topology that writes it and in the one that reads it
		}
		m.Operators = append(m.Operators, ManifestOperator{
			Name: o.Name, Kind: o.Kind, Inputs: o.Inputs, Topic: o.Topic, Store: o.Store, Formerly: o.Formerly,
			Windows: o.Windows.manifest(), Detail: o.Detail,
		})
	}
}

func (m *Manifest) addStores(s *SubTopology, partitions map[string]int32) {
	var tasks int32
	for _, source := range s.Sources {
		tasks = max(tasks, partitions[source.FullName(m.App)])
	}
	for _, spec := range s.Stores {
		store := ManifestStore{
			Name: spec.Name, Kind: spec.Kind.String(), Key: spec.KeyFormat, Value: spec.ValueFormat,
			WindowSizeMS: spec.WindowSize.Milliseconds(), RetentionMS: spec.Retention.Milliseconds(), Partitions: tasks,
		}
		if !spec.NoChangelog {
			store.Changelog = ChangelogTopic(m.App, spec.Name)
		}
		for _, o := range s.Operators {
			if o.Store == spec.Name {
				store.Operator, store.OperatorKind, store.Windows = o.Name, o.Kind, o.Windows.manifest()
			}
		}
		m.Stores = append(m.Stores, store)
	}
}

func (m *Manifest) sortOwn() {
	stores := func(a, b ManifestStore) int { return strings.Compare(a.Name, b.Name) }
	topics := func(a, b ManifestTopic) int { return strings.Compare(a.Topic, b.Topic) }
	slices.SortStableFunc(m.Stores, stores)
	slices.SortStableFunc(m.RetiredStores, stores)
	slices.SortStableFunc(m.Repartitions, topics)
	slices.SortStableFunc(m.RetiredRepartitions, topics)
}

// Durable tells whether the plan leaves anything in the cluster that a later one could
// misread.
func (m *Manifest) Durable() bool { return len(m.Stores) > 0 || len(m.Repartitions) > 0 }

// Succeed takes over, as retired, what old has and m does not use.
func (m *Manifest) Succeed(old *Manifest) {
	for _, s := range slices.Concat(old.Stores, old.RetiredStores) {
		if find(m.Stores, s.Name) == nil && find(m.RetiredStores, s.Name) == nil {
			m.RetiredStores = append(m.RetiredStores, s)
		}
	}
	for _, t := range slices.Concat(old.Repartitions, old.RetiredRepartitions) {
		if find(m.Repartitions, t.Topic) == nil && find(m.RetiredRepartitions, t.Topic) == nil {
			m.RetiredRepartitions = append(m.RetiredRepartitions, t)
		}
	}
	m.sortOwn()
}

// Forget removes the stores and repartitions whose topics exist says are gone: deleting
// them is how a user begins anew.
func (m *Manifest) Forget(exists func(topic string) bool) {
	gone := func(s ManifestStore) bool { return s.Changelog != "" && !exists(s.Changelog) }
	goneTopic := func(t ManifestTopic) bool { return !exists(t.Topic) }
	m.Stores = slices.DeleteFunc(m.Stores, gone)
	m.RetiredStores = slices.DeleteFunc(m.RetiredStores, gone)
	m.Repartitions = slices.DeleteFunc(m.Repartitions, goneTopic)
	m.RetiredRepartitions = slices.DeleteFunc(m.RetiredRepartitions, goneTopic)
}

// OwnTopics are the internal topics that the manifest knows, retired ones included,
// ordered.
func (m *Manifest) OwnTopics() []string {
	var names []string
	for _, s := range slices.Concat(m.Stores, m.RetiredStores) {
		if s.Changelog != "" {
			names = append(names, s.Changelog)
		}
	}
	for _, t := range slices.Concat(m.Repartitions, m.RetiredRepartitions) {
		names = append(names, t.Topic)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Encode returns the manifest as JSON on one line; equal manifests give equal bytes.
func (m *Manifest) Encode() ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(m); err != nil {
		return nil, fmt.Errorf("plan: encode the manifest of app %q: %w", m.App, err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// DecodeManifest reads what Encode wrote. Every error wraps ErrManifest.
func DecodeManifest(data []byte) (*Manifest, error) {
	m := &Manifest{}
	if err := json.Unmarshal(data, m); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrManifest, err)
	}
	if m.Format < 1 || m.Format > ManifestFormat {
		return nil, fmt.Errorf("%w: its format is %d, known are 1 to %d: use the version of Leat that wrote it, or a later one", ErrManifest, m.Format, ManifestFormat)
	}
	if m.App == "" {
		return nil, fmt.Errorf("%w: it names no app", ErrManifest)
	}
	return m, nil
}

// named is what Compare matches items by.
type named interface{ name() string }

func (s ManifestStore) name() string    { return s.Name }
func (t ManifestTopic) name() string    { return t.Topic }
func (o ManifestOperator) name() string { return o.Name }

// find returns the item with this name, nil when there is none.
func find[T named](list []T, name string) *T {
	for i := range list {
		if list[i].name() == name {
			return &list[i]
		}
	}
	return nil
}

// manifest returns w for a manifest, nil for nil.
func (w *Windows) manifest() *ManifestWindows {
	if w == nil {
		return nil
	}
	return &ManifestWindows{
		Kind: w.Kind, SizeMS: w.Size.Milliseconds(), AdvanceMS: w.Advance.Milliseconds(), GapMS: w.Gap.Milliseconds(),
		BeforeMS: w.Before.Milliseconds(), AfterMS: w.After.Milliseconds(), GraceMS: w.Grace.Milliseconds(), OnClose: w.OnClose,
	}
}

// String describes the windows, as in "hopping 1m0s every 10s".
func (w *ManifestWindows) String() string {
	if w == nil {
		return "no windows"
	}
	text := func(ms int64) string { return (time.Duration(ms) * time.Millisecond).String() }
	switch {
	case w.Kind == "join":
		return "join from " + text(w.BeforeMS) + " before to " + text(w.AfterMS) + " after"
	case w.GapMS != 0:
		return w.Kind + " gap " + text(w.GapMS)
	case w.AdvanceMS != 0 && w.AdvanceMS != w.SizeMS:
		return w.Kind + " " + text(w.SizeMS) + " every " + text(w.AdvanceMS)
	}
	return w.Kind + " " + text(w.SizeMS)
}
