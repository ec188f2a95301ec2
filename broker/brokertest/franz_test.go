package brokertest_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/leatlog/leat/broker/brokertest"
)

// testVerdict is a line of `go test -v` about a test or one of its parts.
var testVerdict = regexp.MustCompile(`(?m)^ *--- (PASS|FAIL|SKIP): (\S+)`)

// testLine is a line that a test writes about itself.
var testLine = regexp.MustCompile(`(?m)^ *\S+_test\.go:\d+: .*$`)

// remarks are parts of lines that are no complaints: of what the tests took, of their
// cleaning up and of what they skip.
var remarks = []string{" completed in ", ": deleting ", ": unable to delete ", ": FAILED TESTING ", " does not support "}

// excuses are what tests complain about, and end, when a kill comes at a bad moment: kgo tells
// its user of something that it goes on after, and the tests take any error for a failure.
var excuses = []string{
	// The connection of a consumer ended while it joined a group.
	"poll got unexpected errs: [{ 0 unable to join group session: ",
	// kgo's own answer, not a broker's: a commit was under way while the coordinator was dead,
	// and meanwhile the member was told to give up partitions that are in it.
	"unable to commit: REBALANCE_IN_PROGRESS: ",
}

// complaints returns the lines that say why tests fail.
func complaints(out []byte) (lines []string) {
	for _, line := range testLine.FindAll(out, -1) {
		if text := string(line); !slices.ContainsFunc(remarks, func(r string) bool { return strings.Contains(text, r) }) {
			lines = append(lines, text)
		}
	}
	return lines
}

// TestFranz runs franz-go's own tests of kgo, unmodified, with LEAT_FRANZ=1 against a
// broker, with LEAT_FRANZ=kill against one that is killed and started again every five
// seconds, and with LEAT_FRANZ=HOST:PORT against that one. With LEAT_TEST_NODES=3 it is a
// cluster of three, topics have three replicas, and every 20 seconds one node, each in
// turn, is killed and started again. KGO_TEST_CHAOS=1 has connections die as well. Tests that a
// kill ends early, for one of the excuses, have to pass in one of two more tries.
//
// KGO_TEST_RECORDS is how many records they write, half a million by default, and
// LEAT_FRANZ_RUN a regular expression for the tests to run.
func TestFranz(t *testing.T) {
	address := os.Getenv("LEAT_FRANZ")
	if address == "" {
		t.Skip("LEAT_FRANZ is not set")
	}
	folder, binary := buildTests(t, "github.com/twmb/franz-go", "pkg/kgo")
	killed := address == "kill"
	switch {
	case address == "1":
		address = brokertest.Start(t).Addr()
	case killed && nodes() > 1:
		c := brokertest.StartCluster(t, nodes(), brokertest.Set("default.replication.factor", "3"))
		address = strings.Join(c.Addrs(), ",")
		next := -1
		again(t, 20*time.Second, func() {
			next = (next + 1) % c.Size()
			c.Kill(next)
			c.Restart(next)
		})
	case killed:
		b := brokertest.Start(t)
		address = b.Addr()
		again(t, 5*time.Second, func() {
			b.Kill()
			b.Restart()
		})
	}
	environment := append(os.Environ(), "KGO_SEEDS="+address, fmt.Sprint("KGO_TEST_RF=", min(nodes(), 3)), "KGO_LOG_LEVEL=none")
	passed, pattern := 0, os.Getenv("LEAT_FRANZ_RUN")
	for tries := 1; ; tries++ {
		out, err := runFranz(folder, binary, environment, pattern)
		excused := excusedFailures(out)
		if tries == 3 || !killed {
			excused = nil
		}
		verdicts := testVerdict.FindAllSubmatch(out, -1)
		for _, v := range verdicts {
			switch name := string(v[2]); {
			case len(excused) > 0 && string(v[1]) == "FAIL":
				t.Logf("%s ended early and runs again", name)
			default:
				t.Run(name, func(t *testing.T) {
					switch string(v[1]) {
					case "SKIP":
						t.Skip()
					case "FAIL":
						t.Fail()
					}
				})
				passed++
			}
		}
		if len(excused) == 0 {
			if err != nil || passed < 5 {
				t.Errorf("%v\n%s\n%s", err, strings.Join(complaints(out), "\n"), tail(out))
			}
			return
		}
		t.Logf("a kill came at a bad moment:\n%s", strings.Join(complaints(out), "\n"))
		pattern = "^(" + strings.Join(excused, "|") + ")$"
	}
}

// runFranz runs tests and returns what they print.
func runFranz(folder, binary string, environment []string, pattern string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, binary, "-test.v", "-test.timeout", "40m", "-test.run", pattern)
	c.Dir, c.Env = folder, environment
	return c.CombinedOutput()
}

// excusedFailures returns the tests that failed when there are excuses for all that was complained of.
func excusedFailures(out []byte) (names []string) {
	why := complaints(out)
	if len(why) == 0 || bytes.Contains(out, []byte("\npanic: ")) {
		return nil
	}
	for _, line := range why {
		if !slices.ContainsFunc(excuses, func(excuse string) bool { return strings.Contains(line, excuse) }) {
			return nil
		}
	}
	for _, v := range testVerdict.FindAllSubmatch(out, -1) {
		if name := string(v[2]); string(v[1]) == "FAIL" && !strings.Contains(name, "/") {
			names = append(names, name)
		}
	}
	return names
}

// again kills, and starts again, every so often until the test ends.
func again(t *testing.T, every time.Duration, kill func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() {
		close(done)
		<-ended
	})
	go func() {
		defer close(ended)
		tick := time.NewTicker(every)
		defer tick.Stop()
		for kills := 1; ; kills++ {
			select {
			case <-tick.C:
				kill()
			case <-done:
				t.Logf("%d kills", kills)
				return
			}
		}
	}()
}
