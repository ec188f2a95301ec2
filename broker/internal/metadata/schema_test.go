package metadata

import (
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
)

// TestSchemaIsDocumented compares docs/metadata.md with the changes that there are.
func TestSchemaIsDocumented(t *testing.T) {
	text, err := os.ReadFile("../../../docs/metadata.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if cells := strings.Split(line, "|"); len(cells) == 5 {
			rows[strings.Trim(cells[1], " `")] = cells[2]
		}
	}
	all := []Change{&ClusterChange{}, &ControllerChange{}, &BrokerChange{}, &BrokerRemovedChange{}, &BrokerFenceChange{}, &TopicChange{},
		&TopicRemovedChange{}, &PartitionChange{}, &ConfigChange{}, &ProducerIDsChange{}, &FeatureChange{}}
	for _, c := range all {
		row, found := rows[c.kind()]
		if !found {
			t.Errorf("no row tells of %s", c.kind())
			continue
		}
		fields := reflect.TypeOf(c).Elem()
		members := 0
		for i := range fields.NumField() {
			name, _, _ := strings.Cut(fields.Field(i).Tag.Get("json"), ",")
			if name == "" { // the type
				continue
			}
			members++
			if !strings.Contains(row, fmt.Sprintf("`%s`", name)) {
				t.Errorf("the row of %s does not tell of %s", c.kind(), name)
			}
		}
		if n := strings.Count(row, "`") / 2; n != members {
			t.Errorf("the row of %s tells of %d members, there are %d", c.kind(), n, members)
		}
	}
	if len(rows) != len(all)+2 { // and the table's head
		t.Errorf("%d rows, want %d", len(rows)-2, len(all))
	}
}
