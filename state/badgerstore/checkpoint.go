package badgerstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"os"
	"path/filepath"

	"github.com/leatlog/leat/state"
)

// checkpoint says which part of the changelog a database holds and what its
// files were when it was made. On disk, integers are big-endian:
//
//	| magic (8) | kind (1) | offset (8) | leader epoch (4) | number (8) |
//	| file count (4) | files | CRC-32C of all before (4) |
//
//	file: | name length (1) | name | length in bytes (8) | CRC-32C (4) |
type checkpoint struct {
	kind     state.Kind
	position state.Position
	// number counts the checkpoints of this database; the database holds it too.
	number uint64
	// files are sorted by name, which gives each one once.
	files []fileMark
}

// fileMark is what a checkpoint knows about a file: its first size bytes have
// the checksum crc. Whether the file may have grown since depends on its name.
type fileMark struct {
	name string
	size int64
	crc  uint32
}

// checkpointMagic ends with the version of the format.
const checkpointMagic = "LEATCKP\x01"

const (
	checkpointName       = "checkpoint"
	checkpointHeaderSize = len(checkpointMagic) + 1 + 8 + 4 + 8 + 4
	smallestFileMark     = 1 + 1 + 8 + 4
	// maxCheckpointSize bounds what is read: far more files than a database has.
	maxCheckpointSize = 16 << 20
)

var (
	errCheckpoint = errors.New("the checkpoint file is damaged")
	castagnoli    = crc32.MakeTable(crc32.Castagnoli)
)

// encode appends the checkpoint to dst.
func (c *checkpoint) encode(dst []byte) []byte {
	start := len(dst)
	dst = append(dst, checkpointMagic...)
	dst = append(dst, byte(c.kind))
	dst = binary.BigEndian.AppendUint64(dst, uint64(c.position.Offset))
	dst = binary.BigEndian.AppendUint32(dst, uint32(c.position.LeaderEpoch))
	dst = binary.BigEndian.AppendUint64(dst, c.number)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(c.files)))
	for _, f := range c.files {
		dst = append(dst, byte(len(f.name)))
		dst = append(dst, f.name...)
		dst = binary.BigEndian.AppendUint64(dst, uint64(f.size))
		dst = binary.BigEndian.AppendUint32(dst, f.crc)
	}
	return binary.BigEndian.AppendUint32(dst, crc32.Checksum(dst[start:], castagnoli))
}

// decodeCheckpoint is the inverse of encode. Every error wraps errCheckpoint.
func decodeCheckpoint(b []byte) (*checkpoint, error) {
	bad := func(format string, arguments ...any) (*checkpoint, error) {
		return nil, fmt.Errorf("%w: %s", errCheckpoint, fmt.Sprintf(format, arguments...))
	}
	if len(b) < checkpointHeaderSize+4 {
		return bad("it has %d bytes, less than its header", len(b))
	}
	if string(b[:len(checkpointMagic)]) != checkpointMagic {
		return bad("it begins with %q", b[:len(checkpointMagic)])
	}
	body, sum := b[:len(b)-4], binary.BigEndian.Uint32(b[len(b)-4:])
	if got := crc32.Checksum(body, castagnoli); got != sum {
		return bad("its checksum is %08x, it says %08x", got, sum)
	}
	rest := body[len(checkpointMagic):]
	c := &checkpoint{kind: state.Kind(rest[0])}
	c.position.Offset = int64(binary.BigEndian.Uint64(rest[1:]))
	c.position.LeaderEpoch = int32(binary.BigEndian.Uint32(rest[9:]))
	c.number = binary.BigEndian.Uint64(rest[13:])
	count := binary.BigEndian.Uint32(rest[21:])
	rest = rest[25:]
	if c.position.Offset < 0 {
		return bad("its offset is %d", c.position.Offset)
	}
	if uint64(count) > uint64(len(rest)/smallestFileMark) {
		return bad("it lists %d files in %d bytes", count, len(rest))
	}
	c.files = make([]fileMark, 0, count)
	previous := ""
	for range count {
		var f fileMark
		if len(rest) == 0 || len(rest) < 1+int(rest[0])+12 {
			return bad("its list of files is cut")
		}
		f.name, rest = string(rest[1:1+int(rest[0])]), rest[1+int(rest[0]):]
		size := binary.BigEndian.Uint64(rest)
		f.crc, rest = binary.BigEndian.Uint32(rest[8:]), rest[12:]
		if f.name <= previous || f.name != filepath.Base(f.name) || size > math.MaxInt64 {
			return bad("it lists file %q with %d bytes after %q", f.name, size, previous)
		}
		f.size, previous = int64(size), f.name
		c.files = append(c.files, f)
	}
	if len(rest) != 0 {
		return bad("%d bytes follow its list of files", len(rest))
	}
	return c, nil
}

// readCheckpoint reads the checkpoint of the store in dir; errors.Is
// fs.ErrNotExist when there is none, errCheckpoint when it is damaged.
func readCheckpoint(dir string) (*checkpoint, error) {
	path := filepath.Join(dir, checkpointName)
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxCheckpointSize {
		return nil, fmt.Errorf("%w: it has %d bytes", errCheckpoint, info.Size())
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return decodeCheckpoint(b)
}

// writeCheckpoint replaces the checkpoint of the store in dir: after a crash it
// is the old one or the new one.
func writeCheckpoint(dir string, c *checkpoint) error {
	path := filepath.Join(dir, checkpointName)
	temporary := path + ".new"
	if err := writeSynced(temporary, c.encode(nil)); err != nil {
		return err
	}
	if err := os.Rename(temporary, path); err != nil {
		return err
	}
	return syncDirectory(dir)
}

// removeCheckpoint removes the checkpoint, so that the next open starts over.
func removeCheckpoint(dir string) error {
	if err := os.Remove(filepath.Join(dir, checkpointName)); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return err
	}
	return syncDirectory(dir)
}

func writeSynced(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func syncDirectory(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
