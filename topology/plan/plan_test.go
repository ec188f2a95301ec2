package plan_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/leatlog/leat/topology/plan"
)

func TestNames(t *testing.T) {
	for want, got := range map[string]string{
		"orders":                              plan.Topic{Name: "orders"}.FullName("app"),
		"app-by-user-repartition":             plan.Topic{Name: "by-user", Internal: true}.FullName("app"),
		"app-counts-changelog":                plan.ChangelogTopic("app", "counts"),
		"3_12":                                plan.TaskID{SubTopology: 3, Partition: 12}.String(),
		"by-user (repartition, 6 partitions)": plan.Topic{Name: "by-user", Internal: true, Partitions: 6}.String(),
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestOperatorError(t *testing.T) {
	cause := errors.New("cause")
	err := error(&plan.OperatorError{Operator: "parse", Topic: "orders", Partition: 2, Offset: 7, Err: cause})
	if got, want := err.Error(), `topology: operator "parse" failed on the record at orders-2@7: cause`; got != want || !errors.Is(err, cause) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// What a user function or name brings along must not end a label.
func TestMermaidEscapes(t *testing.T) {
	p := &plan.Plan{SubTopologies: []plan.SubTopology{{
		Operators: []plan.Operator{{Name: "in", Kind: "from", Detail: `a "b" <c> #d & e`}},
		Sources:   []plan.Source{{Topic: plan.Topic{Name: "orders"}, Operator: "in"}},
	}}}
	if want := `s0o0["from<br/>in<br/>a #quot;b#quot; #lt;c#gt; #35;d #amp; e"]`; !strings.Contains(p.Mermaid(), want) {
		t.Errorf("got\n%s\nwithout %s", p.Mermaid(), want)
	}
}

func TestJSONHasNoNulls(t *testing.T) {
	for name, p := range map[string]*plan.Plan{
		"empty":         {},
		"sub-topology":  {SubTopologies: []plan.SubTopology{{}}},
		"with operator": {SubTopologies: []plan.SubTopology{{Operators: []plan.Operator{{Name: "in", Kind: "from"}}}}},
	} {
		if text, err := json.Marshal(p); err != nil || strings.Contains(string(text), "null") {
			t.Errorf("%s: %s, error %v", name, text, err)
		}
	}
}
