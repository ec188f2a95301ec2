package brokertest_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// buildTests copies a module that this one uses, whose tests may write to its folder, and
// compiles the tests of one of its packages, with their own versions of libraries.
func buildTests(t *testing.T, module, pkg string, flags ...string) (folder, binary string) {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	if err != nil {
		t.Fatal(err)
	}
	folder = filepath.Join(t.TempDir(), "module")
	if err := os.CopyFS(folder, os.DirFS(strings.TrimSpace(string(out)))); err != nil {
		t.Fatal(err)
	}
	folder = filepath.Join(folder, filepath.FromSlash(pkg))
	binary = filepath.Join(t.TempDir(), "package.test")
	c := exec.Command("go", append(append([]string{"test", "-c", "-o", binary}, flags...), ".")...)
	c.Dir = folder
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("build the tests of %s: %v\n%s", module, err, out)
	}
	return folder, binary
}

// tail is the end of what a test writes.
func tail(out []byte) []byte { return out[max(0, len(out)-8000):] }
