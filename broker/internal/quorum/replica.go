package quorum

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
)

// Replica is a copy of the metadata log: a node, and the data directory in which it
// has it. A node that lost its disk comes back with another directory, and so is
// another replica: what it voted for and acknowledged before does not count as its.
type Replica struct {
	Node      int32
	Directory Directory
}

func (r Replica) String() string { return fmt.Sprintf("%d-%08x", r.Node, uint32(r.Directory)) }

// Raft names members by 64 bits: those of the directory, then the node id plus one,
// since raft has no member 0.
func (r Replica) raftID() uint64 { return uint64(r.Directory)<<32 | uint64(r.Node) + 1 }

func replicaOf(raftID uint64) Replica {
	return Replica{int32(raftID&(1<<32-1)) - 1, Directory(raftID >> 32)}
}

func replicasOf(raftIDs []uint64) []Replica {
	list := make([]Replica, len(raftIDs))
	for n, id := range raftIDs {
		list[n] = replicaOf(id)
	}
	return list
}

// Directory names a data directory: a random number, drawn when it is made. 0 names
// a directory of a version that drew none.
type Directory uint32

// NewDirectory draws a name.
func NewDirectory(random io.Reader) (Directory, error) {
	for {
		var bits [4]byte
		if _, err := io.ReadFull(random, bits[:]); err != nil {
			return 0, fmt.Errorf("quorum: no randomness for a directory id: %w", err)
		}
		if d := Directory(binary.BigEndian.Uint32(bits[:])); d != 0 {
			return d, nil
		}
	}
}

// ID is the name in the form of Kafka's directory ids: its last four bytes are the
// number, the others follow from it.
func (d Directory) ID() (id [16]byte) {
	if d == 0 {
		return id
	}
	binary.BigEndian.PutUint32(id[12:], uint32(d))
	sum := sha256.Sum256(append([]byte("leat directory "), id[12:]...))
	copy(id[:12], sum[:12])
	return id
}

// DirectoryOf is the reverse of ID; false for an id that is none of this program's.
func DirectoryOf(id [16]byte) (Directory, bool) {
	d := Directory(binary.BigEndian.Uint32(id[12:]))
	return d, d.ID() == id
}
