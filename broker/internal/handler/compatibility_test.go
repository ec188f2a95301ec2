package handler

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/leatlog/leat/broker/internal/wire"
)

// TestCompatibilityTable says that the table of docs/compatibility.md is that of
// the code. With LEAT_UPDATE_DOCS=1 it writes it.
func TestCompatibilityTable(t *testing.T) {
	const name, begin, end = "../../../docs/compatibility.md", "<!-- table -->\n", "<!-- end of table -->"
	content, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(content), begin)
	table, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no table between %q and %q", name, begin, end)
	}
	want := compatibilityTable(newCluster(t, nil).Table())
	if table == want {
		return
	}
	if os.Getenv("LEAT_UPDATE_DOCS") == "" {
		t.Fatalf("%s does not tell what is served; run LEAT_UPDATE_DOCS=1 go test ./broker/internal/handler -run Compatibility\ngot:\n%s\nwant:\n%s", name, table, want)
	}
	if err := os.WriteFile(name, []byte(before+begin+want+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

// compatibilityTable lists the APIs that Kafka 4.2 tells clients of.
func compatibilityTable(served *wire.Table) string {
	var b strings.Builder
	b.WriteString("\n| key | API | served | Kafka 4.2's highest |\n|---|---|---|---|\n")
	kafka := kversion.V4_2_0()
	for key := int16(0); key <= kmsg.MaxKey; key++ {
		highest, known := kafka.LookupMaxKeyVersion(key)
		row, ok := served.Lookup(key)
		if !known && !ok {
			continue
		}
		versions := "no"
		if ok {
			versions = fmt.Sprintf("%d to %d", row.Min, row.Max)
		}
		fmt.Fprintf(&b, "| %d | %s | %s | %d |\n", key, wire.Name(key), versions, highest)
	}
	b.WriteString("\n")
	return b.String()
}
