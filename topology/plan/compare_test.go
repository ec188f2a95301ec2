package plan_test

import (
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/leatlog/leat/topology/plan"
)

// running is a manifest that has something of everything.
func running() *plan.Manifest {
	windows := func() *plan.ManifestWindows {
		return &plan.ManifestWindows{Kind: "hopping", SizeMS: 60_000, AdvanceMS: 10_000, GraceMS: 5_000, OnClose: true}
	}
	return &plan.Manifest{
		Format: plan.ManifestFormat, App: "shop",
		Topics: []plan.ManifestTopic{
			{Topic: "orders", Operator: "orders", Role: "source", Key: "string", Value: "json(main.Order)", Partitions: 4},
			{Topic: "totals", Operator: "totals-out", Role: "sink", Key: "string", Value: "int64", Partitions: 4},
		},
		Operators: []plan.ManifestOperator{
			{Name: "by-user", Kind: "group-by", Inputs: []string{"orders"}},
			{Name: "by-user.repartition", Kind: "repartition", Inputs: []string{"by-user"}, Topic: "by-user"},
			{Name: "big", Kind: "filter", Inputs: []string{"orders"}},
			{Name: "joined", Kind: "join-streams", Store: "joined"},
			{Name: "orders", Kind: "from", Topic: "orders"},
			{Name: "rate", Kind: "aggregate", Store: "rate", Windows: windows()},
			{Name: "totals", Kind: "count", Store: "totals"},
			{Name: "totals-out", Kind: "to", Topic: "totals"},
		},
		Stores: []plan.ManifestStore{
			{Name: "joined", Operator: "joined", OperatorKind: "join-streams", Kind: "window", Key: "string", Value: "joined(string,string)",
				WindowSizeMS: 500, RetentionMS: 3000, Windows: &plan.ManifestWindows{Kind: "join", BeforeMS: 1000, AfterMS: 1000}, Changelog: "shop-joined-changelog", Partitions: 4},
			{Name: "rate", Operator: "rate", OperatorKind: "aggregate", Kind: "window", Key: "string", Value: "json(main.Rate)",
				WindowSizeMS: 60_000, RetentionMS: 65_000, Windows: windows(), Changelog: "shop-rate-changelog", Partitions: 4},
			{Name: "totals", Operator: "totals", OperatorKind: "count", Kind: "key-value", Key: "string", Value: "int64",
				Changelog: "shop-totals-changelog", Partitions: 4},
		},
		Repartitions: []plan.ManifestTopic{{Topic: "shop-by-user-repartition", Operator: "by-user", Key: "string", Value: "json(main.Order)", Partitions: 4}},
	}
}

func TestCompare(t *testing.T) {
	store := func(i int, change func(*plan.ManifestStore)) func(old, new *plan.Manifest) {
		return func(_, new *plan.Manifest) { change(&new.Stores[i]) }
	}
	const joined, rate, totals = 0, 1, 2
	for _, test := range []struct {
		name   string
		change func(old, new *plan.Manifest)
		// want are the classes, each with a part of the line.
		want []string
	}{
		{"nothing", func(_, _ *plan.Manifest) {}, nil},
		{"key serde", store(totals, func(s *plan.ManifestStore) { s.Key = "int64" }),
			[]string{`incompatible: operator "totals": store "totals": the serde of its keys was string and is int64: if only the type's name has changed, give the serde its old one with serde.WithName; otherwise give the new one another name, or stop the app, delete topic shop-totals-changelog`}},
		{"value serde", store(totals, func(s *plan.ManifestStore) { s.Value = "string" }), []string{`incompatible: operator "totals": store "totals": the serde of its values`}},
		{"store kind", store(totals, func(s *plan.ManifestStore) { s.Kind = "window" }), []string{`incompatible: operator "totals": store "totals": its kind was key-value and is window`}},
		{"versioned now", store(totals, func(s *plan.ManifestStore) {
			s.Kind, s.OperatorKind, s.RetentionMS = "versioned", "to-versioned-table", 60_000
		}), []string{`incompatible: operator "totals": store "totals": the kind of its operator was count and is to-versioned-table`,
			`incompatible: operator "totals": store "totals": its kind was key-value and is versioned`}},
		{"longer history", func(old, new *plan.Manifest) {
			old.Stores[totals].Kind, old.Stores[totals].RetentionMS = "versioned", 60_000
			new.Stores[totals].Kind, new.Stores[totals].RetentionMS = "versioned", 90_000
		}, []string{`safe: operator "totals": store "totals": the history was 60000 ms and is 90000 ms: versions that were older than it was are gone`}},
		{"shorter history", func(old, new *plan.Manifest) {
			old.Stores[totals].Kind, old.Stores[totals].RetentionMS = "versioned", 60_000
			new.Stores[totals].Kind, new.Stores[totals].RetentionMS = "versioned", 30_000
		}, []string{`safe: operator "totals": store "totals": the history was 60000 ms and is 30000 ms`}},
		{"operator kind of the same layout", store(totals, func(s *plan.ManifestStore) { s.OperatorKind = "aggregate" }), []string{`safe: operator "totals": store "totals": the kind of its operator`}},
		{"operator kind of another layout", store(totals, func(s *plan.ManifestStore) { s.OperatorKind = "suppress" }), []string{`incompatible: operator "totals": store "totals": the kind of its operator`}},
		{"partitions", store(totals, func(s *plan.ManifestStore) { s.Partitions = 8 }), []string{`incompatible: operator "totals": store "totals": the number of its partitions was 4 and is 8`}},
		{"partitions not known", store(totals, func(s *plan.ManifestStore) { s.Partitions = 0 }), nil},
		{"no changelog any more", store(totals, func(s *plan.ManifestStore) { s.Changelog = "" }), []string{`incompatible: operator "totals": store "totals": its changelog was shop-totals-changelog and is none`}},
		{"window size", store(rate, func(s *plan.ManifestStore) { s.Windows.SizeMS, s.WindowSizeMS = 30_000, 30_000 }),
			[]string{`incompatible: operator "rate": store "rate": its windows was hopping 1m0s every 10s and is hopping 30s every 10s`}},
		{"window advance", store(rate, func(s *plan.ManifestStore) { s.Windows.AdvanceMS = 60_000 }), []string{`incompatible: operator "rate": store "rate": its windows`}},
		{"window kind", store(rate, func(s *plan.ManifestStore) { s.Windows = &plan.ManifestWindows{Kind: "session", GapMS: 1000} }),
			[]string{"incompatible: ", "safe: ", "safe: "}},
		{"session gap", func(old, new *plan.Manifest) {
			old.Stores[rate].Windows = &plan.ManifestWindows{Kind: "session", GapMS: 1000}
			new.Stores[rate].Windows = &plan.ManifestWindows{Kind: "session", GapMS: 2000}
		}, []string{`incompatible: operator "rate": store "rate": its windows was session gap 1s and is session gap 2s`}},
		{"no windows any more", store(rate, func(s *plan.ManifestStore) { s.Windows = nil }), []string{"incompatible: "}},
		{"grace on close", store(rate, func(s *plan.ManifestStore) { s.Windows.GraceMS = 0 }), []string{`incompatible: operator "rate": store "rate": the grace was 5000 ms and is 0 ms`}},
		{"grace on update", func(old, new *plan.Manifest) {
			old.Stores[rate].Windows.OnClose, new.Stores[rate].Windows.OnClose, new.Stores[rate].Windows.GraceMS = false, false, 0
		}, []string{`safe: operator "rate": store "rate": the grace`}},
		{"emission", store(rate, func(s *plan.ManifestStore) { s.Windows.OnClose = false }), []string{`safe: operator "rate": store "rate": emission on close was true and is false`}},
		{"longer retention", store(rate, func(s *plan.ManifestStore) { s.RetentionMS++ }), []string{`safe: operator "rate": store "rate": the retention was 65000 ms and is 65001 ms: set retention.ms of topic shop-rate-changelog`}},
		{"shorter retention", store(rate, func(s *plan.ManifestStore) { s.RetentionMS-- }), []string{`safe: operator "rate": store "rate": the retention`}},
		{"join windows", store(joined, func(s *plan.ManifestStore) { s.Windows.AfterMS = 2000 }), []string{`safe: operator "joined": store "joined": its windows was join from 1s before to 1s after and is join from 1s before to 2s after`}},
		{"join windows with other rows", store(joined, func(s *plan.ManifestStore) { s.WindowSizeMS = 750 }), []string{`incompatible: operator "joined": store "joined": the time that a row of it spans`}},
		{"left join windows", func(old, new *plan.Manifest) {
			old.Stores[joined].Windows.OnClose, new.Stores[joined].Windows.OnClose, new.Stores[joined].Windows.AfterMS = true, true, 2000
		}, []string{`incompatible: operator "joined": store "joined": its windows`}},
		{"renamed with Formerly", func(_, new *plan.Manifest) {
			new.Stores[totals].Operator, new.Operators[6].Name, new.Operators[6].Formerly = "sums", "sums", "totals"
			new.Repartitions[0].Operator, new.Operators[0].Name, new.Operators[1].Name = "by-customer", "by-customer", "by-customer.repartition"
		}, []string{`safe: operator "sums": store "totals": the operator's name was totals and is sums`,
			`safe: operator "by-customer": repartition topic shop-by-user-repartition: the operator's name was by-user and is by-customer`}},
		{"renamed without", func(_, new *plan.Manifest) {
			new.Stores[totals].Name, new.Stores[totals].Operator, new.Stores[totals].Changelog, new.Operators[6].Name = "sums", "sums", "shop-sums-changelog", "sums"
		}, []string{`new: operator "sums": store "sums" is new`, `orphaned: operator "totals": store "totals" is not used any more: if the operator was renamed, give it Formerly("totals"); otherwise delete topic shop-totals-changelog`}},
		{"second store of a foreign-key join gone", func(old, _ *plan.Manifest) {
			old.Stores = append(old.Stores, plan.ManifestStore{Name: "x-subscriptions", Operator: "x.subscribers", OperatorKind: "subscribers", Changelog: "shop-x-subscriptions-changelog"})
		}, []string{`orphaned: operator "x.subscribers": store "x-subscriptions" is not used any more: if the operator was renamed, give it Formerly("x");`}},
		{"a store is back", func(old, _ *plan.Manifest) { old.RetiredStores, old.Stores = old.Stores[totals:], old.Stores[:totals] },
			[]string{`new: operator "totals": store "totals" is back: it goes on with what an earlier plan left in it`}},
		{"a store is back and is another", func(old, new *plan.Manifest) {
			old.RetiredStores, old.Stores, new.Stores[totals].Value = old.Stores[totals:], old.Stores[:totals], "string"
		}, []string{`incompatible: operator "totals": store "totals": the serde of its values`}},
		{"repartition serdes", func(_, new *plan.Manifest) { new.Repartitions[0].Key, new.Repartitions[0].Value = "int64", "bytes" },
			[]string{`incompatible: operator "by-user": repartition topic shop-by-user-repartition: the serde of its keys was string and is int64`, "incompatible: "}},
		{"repartition partitions", func(_, new *plan.Manifest) { new.Repartitions[0].Partitions = 5 },
			[]string{`incompatible: operator "by-user": repartition topic shop-by-user-repartition: the number of its partitions was 4 and is 5`}},
		{"a repartition less", func(_, new *plan.Manifest) { new.Repartitions, new.Operators = nil, new.Operators[2:] },
			[]string{`orphaned: operator "by-user": repartition topic shop-by-user-repartition is not used any more`}},
		{"a repartition more", func(old, _ *plan.Manifest) { old.Repartitions, old.Operators = nil, old.Operators[2:] },
			[]string{`new: operator "by-user": repartition topic shop-by-user-repartition is new`}},
		{"a repartition is back and is another", func(old, new *plan.Manifest) {
			old.RetiredRepartitions, old.Repartitions, new.Repartitions[0].Value = old.Repartitions, nil, "bytes"
		}, []string{`incompatible: operator "by-user": repartition topic`}},
		{"a topic less", func(_, new *plan.Manifest) { new.Topics, new.Operators = new.Topics[:1], new.Operators[:7] },
			[]string{`safe: operator "totals-out": topic totals is no longer written`}},
		{"a topic more", func(old, _ *plan.Manifest) {
			old.Topics, old.Operators = old.Topics[1:], slices.Delete(old.Operators, 4, 5)
		},
			[]string{`new: operator "orders": topic orders is now read`}},
		{"a topic's serde and partitions", func(_, new *plan.Manifest) { new.Topics[0].Value, new.Topics[0].Partitions = "bytes", 8 },
			[]string{`safe: operator "orders": topic orders: the serde of its values`, `safe: operator "orders": topic orders: the number of its partitions was 4 and is 8`}},
		{"a filter more", func(old, _ *plan.Manifest) { old.Operators = slices.Delete(old.Operators, 2, 3) }, []string{`new: operator "big": this filter is new; it leaves nothing durable`}},
		{"a filter less", func(_, new *plan.Manifest) { new.Operators = slices.Delete(new.Operators, 2, 3) }, []string{`safe: operator "big": this filter is gone`}},
		{"another operator of the name", func(_, new *plan.Manifest) { new.Operators[2].Kind = "peek" }, []string{`safe: operator "big": it was a filter and is a peek`}},
	} {
		t.Run(test.name, func(t *testing.T) {
			old, new := running(), running()
			test.change(old, new)
			got := plan.Compare(old, new)
			for i := range max(len(got), len(test.want)) {
				switch {
				case i >= len(got):
					t.Errorf("missing %s", test.want[i])
				case i >= len(test.want):
					t.Errorf("too much: %s", got[i])
				case !strings.HasPrefix(got[i].String(), test.want[i]):
					t.Errorf("got  %s\nwant %s", got[i], test.want[i])
				}
			}
			if again := plan.Compare(old, new); !reflect.DeepEqual(got, again) {
				t.Errorf("compared again: %v", again)
			}
		})
	}
}

func TestClassOf(t *testing.T) {
	of := func(classes ...plan.Class) plan.Class {
		var differences []plan.Difference
		for _, c := range classes {
			differences = append(differences, plan.Difference{Class: c})
		}
		return plan.ClassOf(differences)
	}
	for _, test := range []struct{ got, want plan.Class }{
		{of(), plan.Safe}, {of(plan.New, plan.Safe), plan.New}, {of(plan.Orphaned, plan.New), plan.Orphaned},
		{of(plan.Safe, plan.Incompatible, plan.Orphaned), plan.Incompatible},
	} {
		if test.got != test.want {
			t.Errorf("got %s, want %s", test.got, test.want)
		}
	}
}

// What a plan takes out of use stays known until its topics are deleted.
func TestSucceedAndForget(t *testing.T) {
	first, second := running(), running()
	second.Stores, second.Repartitions = second.Stores[:2], nil
	second.Succeed(first)
	third := running()
	third.Stores, third.Repartitions = third.Stores[1:2], nil
	third.Succeed(second)
	names := func(m *plan.Manifest) (names []string) {
		for _, s := range m.RetiredStores {
			names = append(names, s.Name)
		}
		for _, t := range m.RetiredRepartitions {
			names = append(names, t.Topic)
		}
		return names
	}
	if got := names(third); !slices.Equal(got, []string{"joined", "totals", "shop-by-user-repartition"}) {
		t.Errorf("retired are %q", got)
	}
	if got, want := third.OwnTopics(), first.OwnTopics(); !slices.Equal(got, want) {
		t.Errorf("topics %q, want %q", got, want)
	}
	third.Forget(func(topic string) bool { return topic == "shop-joined-changelog" })
	if got := names(third); !slices.Equal(got, []string{"joined"}) || len(third.Stores) != 0 {
		t.Errorf("retired are %q, stores %v", got, third.Stores)
	}
}

func TestManifestEncoding(t *testing.T) {
	m := running()
	encoded, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	back, err := plan.DecodeManifest(encoded)
	if err != nil || !reflect.DeepEqual(m, back) {
		t.Errorf("got %+v, %v", back, err)
	}
	for name, data := range map[string]string{
		"no JSON": "x", "no manifest": "{}", "later format": `{"format":2,"app":"shop"}`, "no app": `{"format":1}`, "null": "null",
	} {
		if _, err := plan.DecodeManifest([]byte(data)); !errors.Is(err, plan.ErrManifest) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func FuzzDecodeManifest(f *testing.F) {
	encoded, err := running().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(encoded)
	f.Add([]byte(`{"format":1,"app":"a","stores":[{"name":"x"},{"name":"x"}],"repartitions":[{}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := plan.DecodeManifest(data)
		if err != nil {
			return
		}
		other := running()
		plan.Compare(m, other)
		if worst := plan.ClassOf(plan.Compare(other, m)); worst == "" {
			t.Error("no class")
		}
		m.Succeed(other)
		if _, err := json.Marshal(m); err != nil {
			t.Error(err)
		}
	})
}
