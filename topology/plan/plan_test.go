package plan_test

import (
	"errors"
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
