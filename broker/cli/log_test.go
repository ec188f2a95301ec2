package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatlog/leat/broker"
)

func logDumpOf(t *testing.T, args ...string) (string, error) {
	t.Helper()
	root := &cobra.Command{Use: "leat", SilenceErrors: true, SilenceUsage: true}
	root.AddCommand(LogCommand())
	var out bytes.Buffer
	root.SetOut(&out)
	root.SetArgs(append([]string{"log", "dump"}, args...))
	err := root.ExecuteContext(t.Context())
	return out.String(), err
}

// TestLogDump dumps every file of a broker's data directory, while it runs and
// after it stopped.
func TestLogDump(t *testing.T) {
	dir := t.TempDir()
	b, err := broker.Start(t.Context(), broker.Config{DataDir: dir, Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	client, err := kgo.NewClient(kgo.AlwaysRetryEOF(), kgo.SeedBrokers(b.Addr()), kgo.AllowAutoTopicCreation(), kgo.DefaultProduceTopic("greetings"))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.ProduceSync(t.Context(), &kgo.Record{Key: []byte("alice"), Value: []byte("hello")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	check := func(when string) {
		files := 0
		err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			out, err := logDumpOf(t, path)
			if err != nil {
				t.Errorf("%s: %v", when, err)
			}
			switch {
			case strings.Contains(path, "greetings-0") && strings.HasSuffix(path, ".log") && !strings.Contains(out, `key "alice"  value "hello"`):
				t.Errorf("%s: %s holds\n%s", when, path, out)
			case strings.Contains(path, "__cluster_metadata-0") && strings.HasSuffix(path, ".log") && !strings.Contains(out, `"name":"greetings"`):
				t.Errorf("%s: %s holds\n%s", when, path, out)
			}
			files++
			return nil
		})
		if err != nil || files < 5 {
			t.Errorf("%s: %d files, %v", when, files, err)
		}
	}
	check("running")
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	check("stopped")
	if _, err := logDumpOf(t, dir); err == nil || !strings.Contains(err.Error(), "is a folder") {
		t.Errorf("a folder: %v", err)
	}
	if _, err := logDumpOf(t, filepath.Join(dir, "none.log")); err == nil {
		t.Error("a missing file gives no error")
	}
}
