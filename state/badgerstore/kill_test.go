package badgerstore

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/leatlog/leat/state"
	"github.com/leatlog/leat/state/internal/statetest"
)

// The kill test runs this test binary as a child that applies a fixed changelog,
// and kills it at seeded moments.
const (
	childDir     = "LEAT_BADGERSTORE_CHILD"
	killBatch    = 25
	killKeys     = 300
	killEnd      = 1 << 40 // the child never gets there
	killsInShort = 4
)

// changelogRecord is record n of the fixed changelog; put is false for a deletion.
func changelogRecord(n int64) (key, value string, put bool) {
	random := rand.New(rand.NewPCG(uint64(n), 1))
	key = fmt.Sprintf("key-%03d", random.IntN(killKeys))
	return key, fmt.Sprintf("%d-%s", n, strings.Repeat("v", random.IntN(6000))), random.IntN(10) > 0
}

func changelogBatch(from, to int64) *state.Batch {
	b := &state.Batch{}
	for n := from; n < to; n++ {
		if key, value, put := changelogRecord(n); put {
			b.Put([]byte(key), []byte(value))
		} else {
			b.Delete([]byte(key))
		}
	}
	return b
}

// child applies the changelog from the store's position on, with a checkpoint at
// every fifth batch, and says what it is about to do.
func child(dir string) {
	b, err := New(Config{Dir: dir, MemoryBytes: 1 << 20, RestoreBytes: 1})
	exitOn(err)
	engine, err := b.Open(context.Background(), "0_0", statetest.Spec)
	exitOn(err)
	position, found := engine.Position()
	write := engine.Load
	if found {
		write = engine.Apply
	}
	fmt.Println("position", position.Offset, found)
	for n := position.Offset; n < killEnd; n += killBatch {
		fmt.Println("apply", n)
		exitOn(write(changelogBatch(n, n+killBatch)))
		if n/killBatch%5 == 4 {
			fmt.Println("checkpoint", n+killBatch)
			exitOn(engine.Checkpoint(state.Position{Offset: n + killBatch}))
			fmt.Println("checkpointed", n+killBatch)
			write = engine.Apply
		}
	}
}

func exitOn(err error) {
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
}

func TestKilledAtAnyMomentPositionIsNeverAheadOfData(t *testing.T) {
	t.Parallel()
	kills := 6
	if testing.Short() {
		kills = killsInShort
	}
	if n, err := strconv.Atoi(os.Getenv("LEAT_KILLS")); err == nil {
		kills = n
	}
	dir := t.TempDir()
	random := rand.New(rand.NewPCG(7, 7))
	var checkpointed, written int64
	for round := range kills {
		applied, done := runAndKill(t, dir, 1+random.IntN(60))
		checkpointed = max(checkpointed, done)
		b, log := open(t, dir)
		b.config.MemoryBytes = 1 << 20
		e := openStore(t, b)
		position, found := e.Position()
		if position.Offset < checkpointed || found != (checkpointed > 0) && !found {
			t.Fatalf("round %d: position %v %v, but %d was recorded: %s", round, position, found, checkpointed, log)
		}
		checkpointed = position.Offset
		written = max(written, applied+killBatch)
		checkBetween(t, e, position.Offset, written)
		if !found {
			must(t, e.Close())
			must(t, b.Close())
			continue
		}
		// Replaying the rest gives what the changelog says.
		must(t, e.Apply(changelogBatch(position.Offset, written)))
		m := statetest.Model{}
		m.Apply(changelogBatch(0, written))
		statetest.MustEqual(t, e, m)
		must(t, e.Close())
		must(t, b.Close())
	}
	if checkpointed == 0 {
		t.Error("no round got to a checkpoint")
	}
}

// checkBetween checks that the store holds, for each key, its value at position or
// one written after it and before end.
func checkBetween(t *testing.T, e state.Engine, position, end int64) {
	t.Helper()
	m := statetest.Model{}
	m.Apply(changelogBatch(0, position))
	allowed := map[string]map[string]bool{} // "" is absent
	for i := range killKeys {
		key := fmt.Sprintf("key-%03d", i)
		allowed[key] = map[string]bool{m[key]: true}
	}
	for n := position; n < end; n++ {
		key, value, put := changelogRecord(n)
		if !put {
			value = ""
		}
		allowed[key][value] = true
	}
	for key, values := range allowed {
		got, _, err := e.Get(nil, []byte(key))
		must(t, err)
		if !values[string(got)] {
			t.Fatalf("position %d: %s = %.20q, which is older than the position or made up", position, key, got)
		}
	}
}

// runAndKill starts a child on dir and kills it after it has said so many lines. It
// returns the last batch it began and the last checkpoint it finished.
func runAndKill(t *testing.T, dir string, lines int) (applied, checkpointed int64) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childDir+"="+dir)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	in := bufio.NewScanner(out)
	for n := 0; in.Scan(); n++ {
		if n == lines {
			must(t, cmd.Process.Kill())
		}
		word, rest, _ := strings.Cut(in.Text(), " ")
		number, _, _ := strings.Cut(rest, " ")
		offset, _ := strconv.ParseInt(number, 10, 64)
		switch word {
		case "apply":
			applied = offset
		case "checkpointed":
			checkpointed = offset
		case "error":
			t.Fatalf("child: %s", rest)
		}
	}
	_ = cmd.Wait() // it was killed
	return applied, checkpointed
}
