package quorum

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/leatlog/leat/broker/internal/vfs"
)

// TestCrashAtEveryOperation runs proposals, checkpoints and a restart, takes a
// crash clone before every single operation that changes the disk, and starts
// from each: what was answered is there, in order, and the quorum goes on.
func TestCrashAtEveryOperation(t *testing.T) {
	type crash struct {
		disk     *vfs.Mem
		answered int
		before   string
	}
	var crashes []crash
	random := rand.New(rand.NewPCG(7, 7))
	disk := vfs.NewMem()
	answered := 0
	watched := vfs.NewFaulty(disk, func(o vfs.Operation) error {
		if o.Mutates() {
			what := fmt.Sprint(o.Kind, " ", o.Path)
			crashes = append(crashes, crash{disk.Crash(nil), answered, what}, crash{disk.Crash(random), answered, what}, crash{disk.Crash(random), answered, what})
		}
		return nil
	})
	want := values(30)
	for answered < len(want) {
		m, _ := openSingle(t, watched, 7)
		for range 15 {
			propose(t, m, want[answered])
			answered++
		}
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if len(crashes) < 100 {
		t.Fatalf("only %d crashes; the test shows nothing", len(crashes))
	}
	for i, c := range crashes {
		machine := &listMachine{}
		m, err := OpenMember(testConfig(c.disk, 0, machine))
		if err != nil {
			t.Fatalf("crash %d before %s: %v", i, c.before, err)
		}
		if err := m.Process(); err != nil {
			t.Fatalf("crash %d before %s: %v", i, c.before, err)
		}
		if len(machine.values) < c.answered {
			t.Fatalf("crash %d before %s: %d values were answered, %d are there", i, c.before, c.answered, len(machine.values))
		}
		for j, v := range machine.values {
			if v != want[j] {
				t.Fatalf("crash %d before %s: value %d is %q", i, c.before, j, v)
			}
		}
		propose(t, m, "after")
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// FuzzDecode gives the decoders of what is on disk anything: they never panic,
// and what they accept they write again alike.
func FuzzDecode(f *testing.F) {
	c := &checkpoint{index: 5, term: 2, voters: testVoters(), state: []byte("state")}
	data, err := c.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"version":1,"term":3,"vote":1,"checksum":1}`))
	f.Add(newEntryBatch([]byte("value"), 1))
	f.Add(newControlBatch(controlVoterChange, []byte{1, 2, 3}))
	f.Fuzz(func(t *testing.T, data []byte) {
		if c, err := decodeCheckpoint(fmt.Sprintf("%020d-%010d.checkpoint", 5, 2), data); err == nil && c == nil {
			t.Fatal("no checkpoint and no error")
		}
		if v, err := decodeVotes(data); err == nil && v.Checksum != v.sum() {
			t.Fatal("a bad checksum was accepted")
		}
		batch, _, err := recordParse(data)
		if err != nil || batch.Validate() != nil {
			return
		}
		e, err := entryOf(batch)
		if err != nil {
			return
		}
		again, err := entryOf(batchOf(e))
		if err != nil || again.GetIndex() != e.GetIndex() || again.GetTerm() != e.GetTerm() || again.GetType() != e.GetType() {
			t.Fatalf("entry %v became %v, %v", e, again, err)
		}
	})
}
