package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// positions says, by file, where the next line to publish begins. They are saved
// after the lines before were acknowledged: a crash between the two publishes these
// again, and loses none.
type positions struct {
	path string
	next map[string]int64
}

func loadPositions(path string) (*positions, error) {
	p := &positions{path: path, next: make(map[string]int64)}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, &p.next); err != nil {
		return nil, fmt.Errorf("positions in %s: %w; remove the file to read all logs anew", path, err)
	}
	return p, nil
}

// save replaces the file by one that is whole on disk.
func (p *positions) save() error {
	b, err := json.MarshalIndent(p.next, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.Create(p.path + ".new")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(p.path+".new", p.path)
}
