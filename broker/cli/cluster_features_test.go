package cli

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/leatlog/leat/broker/brokertest"
)

// TestFeaturesCommands goes back to the metadata format of the version before and forth
// again, in a cluster that keeps its topics, also when all nodes restart in between.
func TestFeaturesCommands(t *testing.T) {
	c := brokertest.StartCluster(t, 3, brokertest.InMemoryDisk())
	address := c.Addrs()[0]
	level := func(want int16) {
		t.Helper()
		for _, address := range c.Addrs() {
			waitUntil(t, "the level at every node", func() bool {
				out, err := runCluster("features", "describe", "--json", "--bootstrap", address)
				var list []feature
				if err != nil || json.Unmarshal([]byte(out), &list) != nil {
					return false
				}
				for _, x := range list {
					if x.Name == "metadata.version" {
						return x.Level == want && x.Lowest <= 26 && x.Highest >= 27
					}
				}
				return false
			})
		}
	}
	set := func(args ...string) (string, error) {
		return runCluster(append([]string{"features", "set", "--bootstrap", address}, args...)...)
	}
	level(27)
	if out, err := set("metadata.version=26"); err != nil || out != "the cluster has agreed on metadata.version=26\n" {
		t.Fatalf("%q, %v", out, err)
	}
	level(26)
	c.Stop()
	c.Restart()
	level(26)
	if out, err := set("metadata.version=27", "--json"); err != nil || !strings.Contains(out, "metadata.version=27") {
		t.Fatalf("%q, %v", out, err)
	}
	level(27)
	if out, err := runCluster("features", "describe", "--bootstrap", address); err != nil || !strings.Contains(out, "metadata.version ") {
		t.Errorf("%q, %v", out, err)
	}
	for args, want := range map[string]string{
		"metadata.version=99": "Local controller",
		"metadata.version=1":  "INVALID_UPDATE_VERSION",
		"metadata.version":    "must be FEATURE=LEVEL",
		"nonsense=1":          "does not know it",
	} {
		if _, err := set(args); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", args, err, want)
		}
	}
}
