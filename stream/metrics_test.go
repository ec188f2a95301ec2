package stream

import (
	"os"
	"regexp"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// TestMetricsOfDocsAreRegistered: what the docs tell operators to look at has to be there.
func TestMetricsOfDocsAreRegistered(t *testing.T) {
	m, err := newMetrics(nil, "app")
	if err != nil {
		t.Fatal(err)
	}
	descriptions := make(chan *prometheus.Desc, 100)
	for _, c := range m.collectors {
		c.Describe(descriptions)
	}
	close(descriptions)
	registered := make(map[string]bool)
	named := regexp.MustCompile(`fqName: "([a-z_]+)"`)
	for d := range descriptions {
		registered[named.FindStringSubmatch(d.String())[1]] = true
	}
	for _, file := range []string{"../docs/dsl.md", "../docs/operations.md", "../docs/guarantees.md"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range regexp.MustCompile(`\bleat_stream_[a-z_]+`).FindAllString(string(text), -1) {
			if !registered[name] {
				t.Errorf("%s names %s, which no app registers: %v", file, name, registered)
			}
		}
	}
}
