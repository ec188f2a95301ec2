package main

import (
	"encoding/json"
	"fmt"
	"os"
)

// acknowledgement is a line of the file of --acknowledged: a record of
// host-metrics that the cluster has acknowledged, and where it is.
type acknowledgement struct {
	Partition int32           `json:"partition"`
	Offset    int64           `json:"offset"`
	Key       string          `json:"key"`
	Value     json.RawMessage `json:"value"` // as it was sent
}

// acknowledgedFile appends acknowledgements to a file, each batch in one write:
// when the process is killed, the last line may be torn, and what the file lacks
// is only claimed less. Not safe for concurrent use; nil writes nothing.
type acknowledgedFile struct {
	file  *os.File
	lines []byte
}

// openAcknowledged opens the file to append to. A torn last line is ended, so
// that it spoils no other.
func openAcknowledged(name string) (*acknowledgedFile, error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	a := &acknowledgedFile{file: f}
	info, err := f.Stat()
	if err == nil && info.Size() > 0 {
		last := make([]byte, 1)
		if _, err = f.ReadAt(last, info.Size()-1); err == nil && last[0] != '\n' {
			_, err = f.WriteString("\n")
		}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return a, nil
}

// write appends acknowledgements.
func (a *acknowledgedFile) write(list []acknowledgement) error {
	if a == nil {
		return nil
	}
	a.lines = a.lines[:0]
	for _, l := range list {
		line, err := json.Marshal(l)
		if err != nil {
			return fmt.Errorf("acknowledgement of %q: %w", l.Key, err)
		}
		a.lines = append(append(a.lines, line...), '\n')
	}
	_, err := a.file.Write(a.lines)
	return err
}

// close ends the file.
func (a *acknowledgedFile) close() error {
	if a == nil {
		return nil
	}
	return a.file.Close()
}
