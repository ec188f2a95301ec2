package quorum

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"path"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/leatlog/leat/broker/internal/vfs"
)

const stateFile = "quorum-state"

// votes is the content of quorum-state: what raft must never forget. Term and
// vote are raft's; the checksum covers both, since a flipped bit here could make
// a node vote twice in a term.
type votes struct {
	Version  int    `json:"version"`
	Term     uint64 `json:"term"`
	Vote     uint64 `json:"vote"`
	Checksum uint32 `json:"checksum"`
}

func (v votes) sum() uint32 {
	text := fmt.Sprintf("%d %d %d", v.Version, v.Term, v.Vote)
	return crc32.Checksum([]byte(text), crc32.MakeTable(crc32.Castagnoli))
}

func writeVotes(disk vfs.FS, dir string, term, vote uint64) error {
	v := votes{Version: 1, Term: term, Vote: vote}
	v.Checksum = v.sum()
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("quorum: encode %s: %w", stateFile, err)
	}
	return replaceFile(disk, dir, stateFile, append(data, '\n'))
}

// readVotes returns the stored term and vote; found is false on the first start.
func readVotes(disk vfs.FS, dir string) (state *raftpb.HardState, found bool, err error) {
	data, err := readFile(disk, path.Join(dir, stateFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("quorum: read %s: %w", stateFile, err)
	}
	v, err := decodeVotes(data)
	if err != nil {
		return nil, false, fmt.Errorf("quorum: %s: %w", path.Join(dir, stateFile), err)
	}
	commit := uint64(0)
	return &raftpb.HardState{Term: &v.Term, Vote: &v.Vote, Commit: &commit}, true, nil
}

func decodeVotes(data []byte) (votes, error) {
	var v votes
	if err := json.Unmarshal(data, &v); err != nil {
		return v, fmt.Errorf("damaged; remove this controller and add it again: %w", err)
	}
	if v.Version != 1 {
		return v, fmt.Errorf("version %d is not known; this node reads version 1", v.Version)
	}
	if v.Checksum != v.sum() {
		return v, fmt.Errorf("damaged: checksum %08x, computed %08x; remove this controller and add it again", v.Checksum, v.sum())
	}
	return v, nil
}
