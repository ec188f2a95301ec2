package quorum

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/leatlog/leat/broker/internal/record"
	"github.com/leatlog/leat/broker/internal/vfs"
)

// listMachine is a state machine whose state is the list of applied values.
type listMachine struct {
	values      []string
	leader      int32
	epoch       int32
	leaderCalls int
}

func (s *listMachine) Apply(e Entry) { s.values = append(s.values, string(e.Value)) }

func (s *listMachine) Snapshot() []byte {
	data, err := json.Marshal(s.values)
	if err != nil {
		panic(err)
	}
	return data
}

func (s *listMachine) Restore(_ int64, _ int32, snapshot []byte) error {
	s.values = nil
	if len(snapshot) == 0 {
		return nil
	}
	return json.Unmarshal(snapshot, &s.values)
}

func (s *listMachine) LeaderChanged(leader, epoch int32) {
	s.leader, s.epoch = leader, epoch
	s.leaderCalls++
}

func testConfig(disk vfs.FS, node int32, machine StateMachine) Config {
	return Config{
		NodeID: node, Dir: "quorum", FS: disk, StateMachine: machine,
		Now: func() time.Time { return time.UnixMilli(1_700_000_000_000) },
	}
}

func openSingle(t *testing.T, disk vfs.FS, snapshotEntries int) (*Member, *listMachine) {
	t.Helper()
	machine := &listMachine{}
	cfg := testConfig(disk, 0, machine)
	cfg.SnapshotEntries = snapshotEntries
	m, err := OpenMember(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Process(); err != nil {
		t.Fatal(err)
	}
	return m, machine
}

// propose proposes a value and expects it committed.
func propose(t *testing.T, m *Member, value string) int64 {
	t.Helper()
	offset, err := tryPropose(m, value)
	if err != nil {
		t.Fatalf("propose %q: %v", value, err)
	}
	return offset
}

func tryPropose(m *Member, value string) (offset int64, err error) {
	err = errors.New("not answered")
	m.Propose(AnyEpoch, []byte(value), func(o int64, e error) { offset, err = o, e })
	if processErr := m.Process(); processErr != nil {
		return -1, processErr
	}
	return offset, err
}

func values(n int) []string {
	var list []string
	for i := range n {
		list = append(list, fmt.Sprintf("value-%d", i))
	}
	return list
}

func TestSingleVoterLeadsAtOnceAndRemembers(t *testing.T) {
	for _, snapshotEntries := range []int{3, 10, 1000} {
		t.Run(fmt.Sprint("checkpoint every ", snapshotEntries), func(t *testing.T) {
			disk := vfs.NewMem()
			want := values(40)
			last := int64(-1)
			for round := range 4 {
				m, machine := openSingle(t, disk, snapshotEntries)
				if leader, _ := m.Leader(); leader != 0 || machine.leader != 0 {
					t.Fatalf("leader is %d, the machine was told %d", leader, machine.leader)
				}
				if !slices.Equal(machine.values, want[:round*10]) {
					t.Fatalf("start %d has %v", round, machine.values)
				}
				for _, v := range want[round*10 : round*10+10] {
					offset := propose(t, m, v)
					if offset <= last {
						t.Fatalf("offset %d after %d", offset, last)
					}
					last = offset
				}
				if err := m.Close(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func TestMetadataTopicCanBeRead(t *testing.T) {
	n, err := Start(testConfig(vfs.NewMem(), 0, &listMachine{}), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	for _, v := range values(5) {
		if _, err := n.Propose(t.Context(), AnyEpoch, []byte(v)); err != nil {
			t.Fatal(err)
		}
	}
	start, end := n.Offsets()
	slice, err := n.Slice(start, 1<<20, true)
	if err != nil {
		t.Fatal(err)
	}
	defer slice.Release()
	data, err := slice.AppendTo(nil)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	next := start
	for len(data) > 0 {
		var b record.Batch
		if b, data, err = record.Parse(data); err != nil {
			t.Fatal(err)
		}
		if err := b.Validate(); err != nil || b.BaseOffset() != next {
			t.Fatalf("batch at %d, expected %d: %v", b.BaseOffset(), next, err)
		}
		next++
		if !b.IsControl() {
			value, _, err := valueOf(b)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, string(value))
		}
	}
	if !slices.Equal(got, values(5)) || next != end {
		t.Fatalf("read %v up to %d of %d", got, next, end)
	}
}

func TestValueTooLargeIsRefused(t *testing.T) {
	machine := &listMachine{}
	cfg := testConfig(vfs.NewMem(), 0, machine)
	cfg.MaxEntryBytes = 100
	m, err := OpenMember(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := m.Process(); err != nil {
		t.Fatal(err)
	}
	if _, err := tryPropose(m, string(make([]byte, 101))); !errors.Is(err, ErrTooLarge) {
		t.Fatalf("got %v", err)
	}
	propose(t, m, string(make([]byte, 100)))
}

// A proposal that was decided in an epoch is committed in that epoch or not at all.
func TestProposalOfAnotherEpochIsRefused(t *testing.T) {
	m, machine := openSingle(t, vfs.NewMem(), 1000)
	defer m.Close()
	_, epoch := m.Leader()
	for _, e := range []int32{epoch - 1, epoch + 1} {
		var err error
		m.Propose(e, []byte("stale"), func(_ int64, e error) { err = e })
		if processErr := m.Process(); processErr != nil || !errors.Is(err, ErrNotLeader) {
			t.Errorf("epoch %d, now %d: %v, %v", e, epoch, err, processErr)
		}
	}
	err := errors.New("not answered")
	m.Propose(epoch, []byte("fresh"), func(_ int64, e error) { err = e })
	if processErr := m.Process(); processErr != nil || err != nil || !slices.Equal(machine.values, []string{"fresh"}) {
		t.Errorf("%v, %v, %v", err, processErr, machine.values)
	}
}

func TestDamagedStateStopsTheStart(t *testing.T) {
	disk := vfs.NewMem()
	m, _ := openSingle(t, disk, 1000)
	propose(t, m, "a")
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := disk.OpenReadWrite("quorum/" + stateFile)
	if err != nil {
		t.Fatal(err)
	}
	data, err := readFile(disk, "quorum/"+stateFile)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.Index(data, '1') // a digit of version, term or vote
	if _, err := f.WriteAt([]byte{'3'}, int64(i)); err != nil {
		t.Fatal(err)
	}
	if m, err := OpenMember(testConfig(disk, 0, &listMachine{})); err == nil {
		m.Close()
		t.Fatal("a damaged vote was accepted")
	}
}

// A flipped bit anywhere in the metadata log stops the start: a controller that
// forgot or misread a committed entry would decide anew what was decided.
func TestDamagedLogStopsTheStart(t *testing.T) {
	disk := vfs.NewMem()
	m, _ := openSingle(t, disk, 1000)
	for _, v := range values(4) {
		propose(t, m, v)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("quorum/%s-0/%020d.log", Topic, 1)
	info, err := disk.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	for at := range info.Size() {
		damaged := disk.Crash(nil) // a copy: everything is synced
		f, err := damaged.OpenReadWrite(name)
		if err != nil {
			t.Fatal(err)
		}
		one := make([]byte, 1)
		if _, err := f.ReadAt(one, at); err != nil && err != io.EOF {
			t.Fatal(err)
		}
		one[0] ^= 0x40
		if _, err := f.WriteAt(one, at); err != nil {
			t.Fatal(err)
		}
		if m, err := OpenMember(testConfig(damaged, 0, &listMachine{})); err == nil {
			m.Close()
			t.Errorf("byte %d of %d is wrong and was accepted", at, info.Size())
		}
	}
}

func TestNodeAnswersEveryProposal(t *testing.T) {
	machine := &listMachine{}
	n, err := Start(testConfig(vfs.NewMem(), 3, machine), nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	answers := make(chan error, 200)
	for i := range 100 {
		n.ProposeAsync(AnyEpoch, []byte(fmt.Sprint(i)), func(_ int64, err error) { answers <- err })
	}
	if _, err := n.Propose(ctx, AnyEpoch, []byte("last")); err != nil {
		t.Fatal(err)
	}
	if start, end := n.Offsets(); start != 1 || end < 102 {
		t.Fatalf("offsets %d to %d", start, end)
	}
	go func() {
		for i := range 100 {
			n.ProposeAsync(AnyEpoch, []byte(fmt.Sprint(i)), func(_ int64, err error) { answers <- err })
		}
	}()
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	for range 200 {
		select {
		case err := <-answers:
			if err != nil && !errors.Is(err, ErrClosed) {
				t.Fatal(err)
			}
		case <-ctx.Done():
			t.Fatal("a proposal was never answered")
		}
	}
	if _, err := n.Propose(ctx, AnyEpoch, []byte("late")); !errors.Is(err, ErrClosed) {
		t.Fatalf("got %v", err)
	}
	if machine.values[100] != "last" {
		t.Fatalf("order lost: %v", machine.values[:101])
	}
}
