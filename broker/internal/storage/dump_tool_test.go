package storage

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/leatlog/leat/broker/internal/record"
	"github.com/leatlog/leat/broker/internal/vfs"
)

// complaint is what DumpLogSegments writes about files that it does not like.
var complaint = regexp.MustCompile(`(?i)mismatch|out of order|exception|corrupt|invalid|unable|error|not found|consecutive|bytes after`)

// dumpSegments runs Apache Kafka's DumpLogSegments, whose jars lie in the folder
// that LEAT_TEST_KAFKA_LIB names.
func dumpSegments(t *testing.T, files []string, options ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	args := append([]string{"-cp", filepath.Join(os.Getenv("LEAT_TEST_KAFKA_LIB"), "*"), "-Dorg.slf4j.simpleLogger.defaultLogLevel=error",
		"kafka.tools.DumpLogSegments", "--files", strings.Join(files, ",")}, options...)
	out, err := exec.CommandContext(ctx, "java", args...).CombinedOutput()
	return string(out), err
}

// preallocated is how the tool ends on the zeros after the last batch of a live
// segment, which Apache Kafka's own have with preallocate=true.
const preallocated = "Found record size 0 smaller than minimum record overhead"

// fillForDump appends what makes use of every file: codecs, producers, committed
// and aborted transactions, over several segments.
func fillForDump(t *testing.T, l *Log) {
	t.Helper()
	for i := range 60 {
		b := record.NewBuilder(record.Codec(i % 5))
		id := int64(i % 3)
		b.SetProducer(id, 0, int32(i/3*4))
		if id > 0 {
			b.SetTransactional()
		}
		for n := range 4 {
			b.Append(epochStart.UnixMilli()+int64(i), fmt.Appendf(nil, "key-%d", n), []byte(strings.Repeat("value ", 20)), []record.Header{{Key: "header", Value: []byte("h")}})
		}
		mustAppend(t, l, b.Build(nil))
		if id > 0 {
			mustAppend(t, l, marker(id, 0, 1, uint16(id-1)))
		}
	}
}

// TestKafkaReadsOurFiles has Kafka's own tool read closed and live logs.
func TestKafkaReadsOurFiles(t *testing.T) {
	if os.Getenv("LEAT_TEST_KAFKA_LIB") == "" {
		t.Skip("LEAT_TEST_KAFKA_LIB names no folder with the jars of Apache Kafka's tools")
	}
	cfg := smallConfig()
	for _, live := range []bool{false, true} {
		root := t.TempDir()
		env := testEnv(vfs.OS{})
		l, err := Open(env, path.Join(root, "topic-0"), cfg)
		if err != nil {
			t.Fatal(err)
		}
		fillForDump(t, l)
		if err := l.Sync(); err != nil {
			t.Fatal(err)
		}
		end := l.EndOffset()
		if !live {
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
		}
		files := map[string][]string{}
		entries, err := os.ReadDir(l.Dir())
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			suffix := path.Ext(e.Name())
			files[suffix] = append(files[suffix], path.Join(l.Dir(), e.Name()))
		}
		for _, suffix := range []string{logSuffix, indexSuffix, timesSuffix, abortedSuffix, snapshotSuffix} {
			if len(files[suffix]) < 3 {
				t.Fatalf("live %v: only %d files of %s", live, len(files[suffix]), suffix)
			}
		}
		out, err := dumpSegments(t, files[logSuffix], "--deep-iteration", "--print-data-log")
		if live {
			if err == nil || strings.Count(out, preallocated) != 1 || !strings.Contains(out, preallocated+" (14) in file "+l.active().file.name()) {
				t.Fatalf("%v\n%.3000s", err, out)
			}
			out, err = out[:strings.LastIndex(out, "Exception in")], nil
		}
		if n := strings.Count(out, "| offset: "); n != int(end) || err != nil {
			t.Errorf("live %v: the tool sees %d records of %d, %v", live, n, end, err)
		}
		if bad := complaint.FindAllString(out, -1); len(bad) > 0 {
			t.Errorf("live %v: %v\n%.3000s", live, bad, out)
		}
		for _, run := range []struct{ suffix, option string }{{indexSuffix, "--index-sanity-check"}, {indexSuffix, "--verify-index-only"},
			{timesSuffix, "--index-sanity-check"}, {timesSuffix, "--verify-index-only"}, {abortedSuffix, "--deep-iteration"}, {snapshotSuffix, "--deep-iteration"}} {
			out, err := dumpSegments(t, files[run.suffix], run.option)
			if bad := complaint.FindAllString(out, -1); len(bad) > 0 || err != nil || strings.Count(out, "Dumping") != len(files[run.suffix]) {
				t.Errorf("live %v: %s %s: %v, %v\n%.3000s", live, run.suffix, run.option, bad, err, out)
			}
		}
	}
}
