package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/leatlog/leat"

// floors is the house: a package imports only packages on lower floors. A
// package that is not listed, or stands on the wrong floor, fails the test.
var floors = []struct {
	floor    int
	packages []string
}{
	{0, []string{"broker/internal/mutant", "broker/internal/record", "broker/internal/vfs", "broker/internal/gossip", "topology/serde", "state"}},
	{1, []string{"broker/internal/wire", "broker/internal/peer", "broker/internal/storage", "broker/internal/metadata",
		"state/memstore", "state/badgerstore", "state/changelog"}},
	{2, []string{"broker/internal/quorum", "broker/internal/server", "broker/internal/handler", "broker/internal/controller",
		"broker/internal/coordinator", "broker/internal/replica", "broker/internal/auth", "topology/internal/graph", "topology/plan"}},
	{3, []string{"broker/internal/group", "broker/internal/txn", "broker/internal/share", "broker/internal/dump", "topology/internal/pass",
		"stream/internal/task", "stream/internal/assign", "stream/client"}},
	{4, []string{"topology", "broker/internal/sim"}},
	{5, []string{"broker", "stream"}},
	{6, []string{"broker/brokertest", "stream/streamtest", "stream/gokastream", "broker/cli", "stream/cli", "broker/internal/fire"}},
	{7, []string{"", "examples/...", "benchmarks/..."}},
}

// pure are the packages that decide and do nothing else: no clock, no
// randomness, no files, no sockets, no goroutines. What they need of these comes
// in as an argument.
var pure = []string{
	"broker/internal/mutant", "broker/internal/record", "broker/internal/metadata", "broker/internal/controller", "broker/internal/group",
	"broker/internal/txn", "broker/internal/share",
	"topology/serde", "topology/internal/graph", "topology/internal/pass", "topology/plan", "topology",
	"stream/internal/task", "stream/internal/assign", "state", "state/memstore", "state/changelog",
}

// banned are the imports and calls that a pure package must not have.
var bannedImports = []string{"os", "net", "net/http", "math/rand", "math/rand/v2", "crypto/rand", "syscall", "os/exec", "io/ioutil"}

var bannedCalls = map[string][]string{
	"time": {"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "NewTimer", "NewTicker", "Tick"},
}

// onlyIn names the libraries that one package alone may import. broker/internal/fire is
// excepted: it is a client of brokers that run elsewhere, and imports nothing of ours.
var onlyIn = map[string]string{
	"github.com/twmb/franz-go/pkg/kgo":  "stream/client",
	"github.com/twmb/franz-go/pkg/kadm": "stream/client",
	"github.com/dgraph-io/badger/v4":    "state/badgerstore",
	"github.com/hashicorp/memberlist":   "broker/internal/gossip",
	"go.etcd.io/raft/v3":                "broker/internal/quorum",
}

var topLevel = []string{"stream", "state", "broker", "topology", "examples", "benchmarks", "docs"}

func floorOf(pkg string) int {
	for _, f := range floors {
		for _, p := range f.packages {
			if p == pkg || strings.HasSuffix(p, "/...") && strings.HasPrefix(pkg+"/", strings.TrimSuffix(p, "...")) {
				return f.floor
			}
		}
	}
	// A package inside another's internal folder stands where its owner stands.
	if i := strings.LastIndex(pkg, "/internal/"); i > 0 {
		return floorOf(pkg[:i])
	}
	return -1
}

// sourceFile is a Go file that is not a test.
type sourceFile struct {
	name string // relative to the root, with slashes
	pkg  string // its folder
	ast  *ast.File
	set  *token.FileSet
}

func sourceFiles(t *testing.T) []sourceFile {
	t.Helper()
	var files []sourceFile
	err := filepath.WalkDir(".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && name != "." && (strings.HasPrefix(entry.Name(), ".") || entry.Name() == "testdata") {
			return filepath.SkipDir
		}
		if entry.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		set := token.NewFileSet()
		parsed, err := parser.ParseFile(set, name, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		name = filepath.ToSlash(name)
		pkg := path.Dir(name)
		if pkg == "." {
			pkg = ""
		}
		files = append(files, sourceFile{name: name, pkg: pkg, ast: parsed, set: set})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Fatal("no source files found")
	}
	return files
}

func imports(f sourceFile) []string {
	var list []string
	for _, spec := range f.ast.Imports {
		if p, err := strconv.Unquote(spec.Path.Value); err == nil {
			list = append(list, p)
		}
	}
	return list
}

func TestPackagesImportLowerFloorsOnly(t *testing.T) {
	for _, f := range sourceFiles(t) {
		own := floorOf(f.pkg)
		if own < 0 {
			t.Errorf("%s: package %q has no floor; add it to the table or move it", f.name, f.pkg)
			continue
		}
		for _, p := range imports(f) {
			if p != module && !strings.HasPrefix(p, module+"/") {
				continue
			}
			imported := strings.TrimPrefix(strings.TrimPrefix(p, module), "/")
			// A package and those inside its internal folder share a floor.
			inside := strings.HasPrefix(imported, f.pkg+"/internal/") || strings.HasPrefix(f.pkg, imported+"/internal/")
			if other := floorOf(imported); other >= own && !(inside && other == own) && own != 7 {
				t.Errorf("%s: floor %d imports %s on floor %d; only lower floors may be imported", f.name, own, imported, other)
			}
		}
	}
}

func TestLibrariesStayInTheirPackage(t *testing.T) {
	for _, f := range sourceFiles(t) {
		for _, p := range imports(f) {
			for library, owner := range onlyIn {
				if (p == library || strings.HasPrefix(p, library+"/")) && f.pkg != owner && f.pkg != "broker/internal/fire" {
					t.Errorf("%s: imports %s, which only %s may", f.name, p, owner)
				}
			}
		}
	}
}

func TestPurePackagesOnlyDecide(t *testing.T) {
	for _, f := range sourceFiles(t) {
		if !slices.Contains(pure, f.pkg) {
			continue
		}
		for _, p := range imports(f) {
			if slices.Contains(bannedImports, p) {
				t.Errorf("%s: pure package imports %s; pass in what is needed of it", f.name, p)
			}
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt:
				t.Errorf("%s: pure package starts a goroutine; leave that to its shell", f.set.Position(n.Pos()))
			case *ast.SelectorExpr:
				if base, ok := n.X.(*ast.Ident); ok && slices.Contains(bannedCalls[base.Name], n.Sel.Name) {
					t.Errorf("%s: pure package uses %s.%s; pass the time in", f.set.Position(n.Pos()), base.Name, n.Sel.Name)
				}
			}
			return true
		})
	}
}

func TestFilesAndFunctionsStaySmall(t *testing.T) {
	for _, f := range sourceFiles(t) {
		if lines := f.set.Position(f.ast.End()).Line; lines > 1000 {
			t.Errorf("%s has %d lines; split it, a file holds one thing", f.name, lines)
		}
		for _, d := range f.ast.Decls {
			function, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			lines := f.set.Position(function.End()).Line - f.set.Position(function.Pos()).Line + 1
			if lines > 90 {
				t.Errorf("%s: %s has %d lines; split it", f.set.Position(function.Pos()), function.Name.Name, lines)
			}
		}
	}
}

func TestTopLevelHoldsTheHouseOnly(t *testing.T) {
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() && !strings.HasPrefix(e.Name(), ".") && !strings.HasSuffix(e.Name(), "-data") && !slices.Contains(topLevel, e.Name()) {
			t.Errorf("folder %s does not belong to the top level: %v", e.Name(), topLevel)
		}
	}
	for _, f := range sourceFiles(t) {
		if f.pkg == "" && f.name != "main.go" {
			t.Errorf("%s: the root holds main.go alone", f.name)
		}
		if lines := f.set.Position(f.ast.End()).Line; f.name == "main.go" && lines >= 150 {
			t.Errorf("main.go has %d lines; it stays under 150", lines)
		}
	}
}

// TestDocsNameTestsThatExist: what is said to be shown by a test has to be. The tests of
// docs/compatibility.md are those of other projects.
func TestDocsNameTestsThatExist(t *testing.T) {
	declared := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark|Example)\w*)\(`)
	tests := map[string]bool{}
	err := filepath.WalkDir(".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(name, "_test.go") {
			return err
		}
		text, err := os.ReadFile(name)
		for _, m := range declared.FindAllSubmatch(text, -1) {
			tests[string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	docs, err := filepath.Glob("docs/*.md")
	if err != nil || len(docs) < 5 {
		t.Fatal(docs, err)
	}
	for _, file := range append(docs, "README.md") {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if filepath.Base(file) == "compatibility.md" {
			continue
		}
		for _, m := range regexp.MustCompile("`((?:Test|Fuzz|Benchmark)\\w+)(\\.\\.\\.)?").FindAllSubmatch(text, -1) {
			named := func(test string) bool { return len(m[2]) > 0 && strings.HasPrefix(test, string(m[1])) }
			if !tests[string(m[1])] && !slices.ContainsFunc(slices.Collect(maps.Keys(tests)), named) {
				t.Errorf("%s names %s, which is no test", file, m[1])
			}
		}
	}
}
