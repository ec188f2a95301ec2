package quorum

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/leatlog/leat/broker/internal/record"
	"github.com/leatlog/leat/broker/internal/vfs"
)

const (
	checkpointSuffix = ".checkpoint"
	temporarySuffix  = ".tmp"
	// keptCheckpoints is how many checkpoints stay on disk: the newest, and the one
	// before it in case the newest turns out to be damaged.
	keptCheckpoints = 2
)

// checkpoint is a snapshot on disk. It covers every index up to and including
// index.
type checkpoint struct {
	index, term uint64
	voters      *raftpb.ConfState
	state       []byte
}

func (c *checkpoint) name() string {
	return fmt.Sprintf("%020d-%010d%s", c.index, c.term, checkpointSuffix)
}

func (c *checkpoint) snapshot() *raftpb.Snapshot {
	return &raftpb.Snapshot{
		Data:     c.state,
		Metadata: &raftpb.SnapshotMetadata{Index: &c.index, Term: &c.term, ConfState: c.voters},
	}
}

func checkpointOf(s *raftpb.Snapshot) *checkpoint {
	m := s.GetMetadata()
	return &checkpoint{index: m.GetIndex(), term: m.GetTerm(), voters: raftpb.EnsureConfState(m.GetConfState()), state: s.GetData()}
}

// encode lays the checkpoint out as two batches: the voters, then the state.
func (c *checkpoint) encode() ([]byte, error) {
	voters, err := proto.Marshal(c.voters)
	if err != nil {
		return nil, fmt.Errorf("quorum: encode voters: %w", err)
	}
	first := record.Batch(newControlBatch(controlConfState, voters))
	second := record.Batch(newEntryBatch(c.state, 0))
	for i, b := range []record.Batch{first, second} {
		b.SetBaseOffset(int64(i))
		b.SetLeaderEpoch(int32(c.term))
	}
	return append(first, second...), nil
}

// decodeCheckpoint reads what encode wrote; name carries index and term.
func decodeCheckpoint(name string, data []byte) (*checkpoint, error) {
	c := &checkpoint{voters: &raftpb.ConfState{}}
	if _, err := fmt.Sscanf(name, "%020d-%010d"+checkpointSuffix, &c.index, &c.term); err != nil {
		return nil, fmt.Errorf("quorum: checkpoint name %q: %w", name, err)
	}
	first, rest, err := record.Parse(data)
	if err != nil {
		return nil, fmt.Errorf("quorum: checkpoint %s: %w", name, err)
	}
	second, rest, err := record.Parse(rest)
	if err != nil {
		return nil, fmt.Errorf("quorum: checkpoint %s: %w", name, err)
	}
	if err := errors.Join(first.Validate(), second.Validate()); err != nil {
		return nil, fmt.Errorf("quorum: checkpoint %s: %w", name, err)
	}
	kind, voters, err := controlOf(first)
	if err != nil || kind != controlConfState || len(rest) != 0 || second.IsControl() {
		return nil, fmt.Errorf("quorum: checkpoint %s: %w", name, errors.Join(errBadEntry, err))
	}
	if err := proto.Unmarshal(voters, c.voters); err != nil {
		return nil, fmt.Errorf("quorum: checkpoint %s: voters: %w", name, err)
	}
	c.state, _, err = valueOf(second)
	return c, err
}

// writeCheckpoint makes c durable.
func writeCheckpoint(disk vfs.FS, dir string, c *checkpoint) error {
	data, err := c.encode()
	if err != nil {
		return err
	}
	return replaceFile(disk, dir, c.name(), data)
}

// replaceFile writes a file so that after a crash it has the old or the new
// content, whole.
func replaceFile(disk vfs.FS, dir, name string, data []byte) (err error) {
	temporary := path.Join(dir, name+temporarySuffix)
	if err := disk.Remove(temporary); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("quorum: replace %s: %w", name, err)
	}
	f, err := disk.Create(temporary)
	if err != nil {
		return fmt.Errorf("quorum: replace %s: %w", name, err)
	}
	_, err = f.WriteAt(data, 0)
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = disk.Rename(temporary, path.Join(dir, name))
	}
	if err == nil {
		err = disk.SyncDir(dir)
	}
	if err != nil {
		return fmt.Errorf("quorum: replace %s: %w", name, err)
	}
	return nil
}

func readFile(disk vfs.FS, name string) ([]byte, error) {
	f, err := disk.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	data := make([]byte, size)
	if n, err := f.ReadAt(data, 0); n < len(data) {
		return nil, err
	}
	return data, nil
}

// checkpointNames lists the checkpoints in dir, oldest first, and removes what
// an interrupted write left.
func checkpointNames(disk vfs.FS, dir string) ([]string, error) {
	names, err := disk.List(dir)
	if err != nil {
		return nil, fmt.Errorf("quorum: list %s: %w", dir, err)
	}
	var found []string
	for _, name := range names {
		switch {
		case strings.HasSuffix(name, temporarySuffix):
			if err := disk.Remove(path.Join(dir, name)); err != nil {
				return nil, fmt.Errorf("quorum: remove interrupted write: %w", err)
			}
		case strings.HasSuffix(name, checkpointSuffix):
			found = append(found, name) // List sorts, and the names are zero-padded.
		}
	}
	return found, nil
}

// newestCheckpoint returns the newest checkpoint that reads well, nil when there
// is none at all. damaged are the newer ones that do not.
func newestCheckpoint(disk vfs.FS, dir string) (c *checkpoint, damaged []error, err error) {
	names, err := checkpointNames(disk, dir)
	if err != nil {
		return nil, nil, err
	}
	for i := len(names) - 1; i >= 0; i-- {
		data, err := readFile(disk, path.Join(dir, names[i]))
		if err == nil {
			c, err = decodeCheckpoint(names[i], data)
		}
		if err == nil {
			return c, damaged, nil
		}
		damaged = append(damaged, err)
	}
	if len(damaged) > 0 {
		return nil, nil, fmt.Errorf("quorum: every checkpoint in %s is damaged; restore the directory from another controller: %w", dir, errors.Join(damaged...))
	}
	return nil, nil, nil
}

// pruneCheckpoints removes all but the newest checkpoints and returns the index
// of the oldest that stays.
func pruneCheckpoints(disk vfs.FS, dir string) (oldest uint64, err error) {
	names, err := checkpointNames(disk, dir)
	if err != nil {
		return 0, err
	}
	for len(names) > keptCheckpoints {
		if err := disk.Remove(path.Join(dir, names[0])); err != nil {
			return 0, fmt.Errorf("quorum: remove old checkpoint: %w", err)
		}
		names = names[1:]
	}
	if len(names) > 0 {
		_, err = fmt.Sscanf(names[0], "%020d-", &oldest)
	}
	return oldest, err
}
