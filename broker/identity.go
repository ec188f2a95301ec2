package broker

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strconv"
	"strings"

	"github.com/leatlog/leat/broker/internal/vfs"
)

// identityFile says whose data directory this is, as Kafka's file of that name.
const identityFile = "meta.properties"

// checkIdentity writes the node's id into a new data directory, and refuses one
// that belongs to another node: its metadata log names the node by that id.
func checkIdentity(files vfs.FS, dir string, node int32) error {
	name := path.Join(dir, identityFile)
	content, err := readFile(files, name)
	if errors.Is(err, fs.ErrNotExist) {
		return writeIdentity(files, dir, node)
	}
	if err != nil {
		return fmt.Errorf("data directory %s: %w", dir, err)
	}
	owner, err := parseIdentity(content)
	if err != nil {
		return fmt.Errorf("data directory %s: %s: %w", dir, identityFile, err)
	}
	if owner != node {
		return invalid("node-id", strconv.Itoa(int(node)), fmt.Sprintf("data directory %s belongs to node %d", dir, owner))
	}
	return nil
}

func parseIdentity(content string) (int32, error) {
	version, node := "", ""
	for line := range strings.Lines(content) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch name {
		case "version":
			version = value
		case "node.id":
			node = value
		}
	}
	if version != "1" {
		return 0, fmt.Errorf("version %.20q, this program knows 1", version)
	}
	id, err := strconv.ParseInt(node, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("node.id %.20q is not a number", node)
	}
	return int32(id), nil
}

// writeIdentity replaces the file atomically: a crash leaves none or a whole one.
func writeIdentity(files vfs.FS, dir string, node int32) error {
	name := path.Join(dir, identityFile)
	fail := func(err error) error { return fmt.Errorf("write %s: %w", name, err) }
	if err := files.Remove(name + ".tmp"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fail(err)
	}
	f, err := files.Create(name + ".tmp")
	if err != nil {
		return fail(err)
	}
	_, err = f.WriteAt(fmt.Appendf(nil, "version=1\nnode.id=%d\n", node), 0)
	if err == nil {
		err = f.Sync()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = files.Rename(name+".tmp", name)
	}
	if err == nil {
		err = files.SyncDir(dir)
	}
	if err != nil {
		return fail(err)
	}
	return nil
}

// maxIdentity bounds the file that is read back.
const maxIdentity = 4096

func readFile(files vfs.FS, name string) (string, error) {
	f, err := files.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return "", err
	}
	content := make([]byte, min(size, maxIdentity))
	if _, err := f.ReadAt(content, 0); err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	return string(content), nil
}
