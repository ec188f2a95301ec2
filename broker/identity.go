package broker

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strconv"
	"strings"

	"github.com/leatlog/leat/broker/internal/metadata"
	"github.com/leatlog/leat/broker/internal/quorum"
	"github.com/leatlog/leat/broker/internal/vfs"
)

// identityFile says whose data directory this is, as Kafka's file of that name.
const identityFile = "meta.properties"

// identity is the content of that file.
type identity struct {
	node      int32  // 0: the directory is new
	cluster   string // empty in a directory of an earlier version
	directory string
}

// readIdentity returns whose data directory this is; zero for a new one.
func readIdentity(files vfs.FS, dir string) (identity, error) {
	content, err := readFile(files, path.Join(dir, identityFile))
	if errors.Is(err, fs.ErrNotExist) {
		return identity{}, nil
	}
	if err != nil {
		return identity{}, fmt.Errorf("data directory %s: %w", dir, err)
	}
	owner, err := parseIdentity(content)
	if err != nil {
		return identity{}, fmt.Errorf("data directory %s: %s: %w", dir, identityFile, err)
	}
	return owner, nil
}

// admit refuses a configuration of another node.
func (i identity) admit(c *Config) error {
	if i.node > 0 && c.NodeID > 0 && c.NodeID != i.node {
		return invalid("node-id", strconv.Itoa(int(c.NodeID)), fmt.Sprintf("data directory %s belongs to node %d", c.DataDir, i.node))
	}
	return nil
}

// keep writes the node's identity into its data directory, and refuses a directory
// that is another node's or cluster's: its metadata log names the node by that id.
func (i identity) keep(files vfs.FS, dir string, o *quorum.Outcome) error {
	switch {
	case i.node > 0 && i.node != o.Node:
		return invalid("node-id", strconv.Itoa(int(o.Node)), fmt.Sprintf("data directory %s belongs to node %d", dir, i.node))
	case i.cluster != "" && o.Cluster != "" && i.cluster != o.Cluster:
		return fmt.Errorf("%w: data directory %s is of cluster %s, the nodes found are of cluster %s: join the former, or use another directory",
			ErrConfig, dir, i.cluster, o.Cluster)
	}
	next := identity{o.Node, o.Cluster, ""}
	if o.Directory != 0 {
		next.directory = metadata.UUID(o.Directory.ID()).String()
	}
	if next == i {
		return nil
	}
	content := fmt.Sprintf("version=1\nnode.id=%d\n", next.node)
	if next.cluster != "" {
		content += "cluster.id=" + next.cluster + "\n"
	}
	if next.directory != "" {
		content += "directory.id=" + next.directory + "\n"
	}
	return replaceFile(files, dir, identityFile, []byte(content))
}

func parseIdentity(content string) (identity, error) {
	var i identity
	version, node := "", ""
	for line := range strings.Lines(content) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch name {
		case "version":
			version = value
		case "node.id":
			node = value
		case "cluster.id":
			i.cluster = value
		case "directory.id":
			i.directory = value
		}
	}
	if version != "1" {
		return i, fmt.Errorf("version %.20q, this program knows 1", version)
	}
	id, err := strconv.ParseInt(node, 10, 32)
	if err != nil {
		return i, fmt.Errorf("node.id %.20q is not a number", node)
	}
	i.node = int32(id)
	return i, nil
}

// replaceFile replaces a file atomically: a crash leaves the old one or the new one.
func replaceFile(files vfs.FS, dir, base string, content []byte) error {
	name := path.Join(dir, base)
	fail := func(err error) error { return fmt.Errorf("write %s: %w", name, err) }
	if err := files.Remove(name + ".tmp"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fail(err)
	}
	f, err := files.Create(name + ".tmp")
	if err != nil {
		return fail(err)
	}
	_, err = f.WriteAt(content, 0)
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

// maxSmallFile bounds a file that is read back.
const maxSmallFile = 1 << 20

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
	content := make([]byte, min(size, maxSmallFile))
	if _, err := f.ReadAt(content, 0); err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	return string(content), nil
}
