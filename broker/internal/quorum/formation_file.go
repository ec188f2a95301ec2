package quorum

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"path"
	"slices"

	"github.com/leatlog/leat/broker/internal/vfs"
)

// sum covers all but the checksum itself.
func (r formationRecord) sum() uint32 {
	r.Checksum = 0
	data, err := json.Marshal(r)
	if err != nil {
		panic(err) // plain data
	}
	return crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli))
}

func writeFormation(disk vfs.FS, dir string, r *formationRecord) error {
	r.Version = 1
	r.Checksum = r.sum()
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("quorum: encode %s: %w", formationFile, err)
	}
	return replaceFile(disk, dir, formationFile, append(data, '\n'))
}

// readFormation returns the record; found is false on the first start.
func readFormation(disk vfs.FS, dir string) (r formationRecord, found bool, err error) {
	data, err := readFile(disk, path.Join(dir, formationFile))
	if errors.Is(err, fs.ErrNotExist) {
		return r, false, nil
	}
	if err != nil {
		return r, false, fmt.Errorf("quorum: read %s: %w", formationFile, err)
	}
	if err := json.Unmarshal(data, &r); err != nil {
		return r, false, fmt.Errorf("quorum: %s is damaged: remove the quorum directory and join the cluster again: %w", path.Join(dir, formationFile), err)
	}
	if r.Version != 1 || r.Checksum != r.sum() {
		return r, false, fmt.Errorf("quorum: %s: version %d with checksum %08x, computed %08x: it is damaged, or of a newer program; remove the quorum directory and join the cluster again",
			path.Join(dir, formationFile), r.Version, r.Checksum, r.sum())
	}
	return r, true, nil
}

// WithoutFormation says that a directory has a metadata log and no record of how its
// cluster was formed: a version that knew clusters of one node only made it.
func WithoutFormation(disk vfs.FS, dir string) (bool, error) {
	names, err := disk.List(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("quorum: list %s: %w", dir, err)
	}
	isCheckpoint := func(name string) bool { return path.Ext(name) == checkpointSuffix }
	return slices.ContainsFunc(names, isCheckpoint) && !slices.Contains(names, formationFile), nil
}
