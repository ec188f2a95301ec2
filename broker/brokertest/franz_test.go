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

// pollFailed is what tests complain about when a consumer's connection ends while it
// joins a group: kgo tells of it, and they take it as a failure.
const pollFailed = "poll got unexpected errs: [{ 0 unable to join group session: "

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
// turn, is killed and started again. KGO_TEST_CHAOS=1 has connections die as well.
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
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, binary, "-test.v", "-test.timeout", "40m", "-test.run", os.Getenv("LEAT_FRANZ_RUN"))
	c.Dir = folder
	c.Env = append(os.Environ(), "KGO_SEEDS="+address, fmt.Sprint("KGO_TEST_RF=", min(nodes(), 3)), "KGO_LOG_LEVEL=none")
	out, err := c.CombinedOutput()
	why := complaints(out)
	excused := killed && len(why) > 0 && !bytes.Contains(out, []byte("\npanic: ")) &&
		!slices.ContainsFunc(why, func(line string) bool { return !strings.Contains(line, pollFailed) })
	verdicts := testVerdict.FindAllSubmatch(out, -1)
	for _, v := range verdicts {
		t.Run(string(v[2]), func(t *testing.T) {
			switch {
			case string(v[1]) == "SKIP":
				t.Skip()
			case string(v[1]) == "FAIL" && excused:
				t.Skip("a kill broke the connection of a consumer that joined")
			case string(v[1]) == "FAIL":
				t.Fail()
			}
		})
	}
	if err != nil && !excused || len(verdicts) < 5 {
		t.Errorf("%v\n%s\n%s", err, strings.Join(why, "\n"), tail(out))
	}
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
