package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
)

// outcome is what a client knows of an operation when it has ended.
type outcome string

const (
	succeeded outcome = "ok"
	failed    outcome = "failed"  // it had no effect and never will have
	unknown   outcome = "unknown" // it may have had an effect, or have one later
)

// kind is what an operation does.
type kind string

const (
	produced   kind = "produce"     // one record, acks=all: Topic, Partition, Offset, Value
	transacted kind = "transaction" // Values; succeeded: committed, failed: aborted or never to be committed
	consumed   kind = "consume"     // a record that a member of a group has read: Topic, Partition, Offset, Value
	committed  kind = "commit"      // Group's Offset in Topic and Partition
	fetched    kind = "fetch"       // the Group's committed Offset, -1 for none
	created    kind = "create"      // Topic; Existed when it was there already
	deleted    kind = "delete"      // Topic; Missing when there was none
)

// operation is one line of a history: what one client did, and what it was told.
type operation struct {
	Client    string   `json:"client"`
	Kind      kind     `json:"kind"`
	Topic     string   `json:"topic,omitempty"`
	Group     string   `json:"group,omitempty"`
	Partition int32    `json:"partition,omitempty"`
	Offset    int64    `json:"offset"`
	Value     string   `json:"value,omitempty"`
	Values    []string `json:"values,omitempty"`
	Existed   bool     `json:"existed,omitempty"`
	Missing   bool     `json:"missing,omitempty"`
	Outcome   outcome  `json:"outcome"`
	Error     string   `json:"error,omitempty"`
	Call      int64    `json:"call"`   // nanoseconds since 1970
	Return    int64    `json:"return"` // nanoseconds since 1970
}

// recorder writes the operations of a client process to a file. It is safe for
// concurrent use.
type recorder struct {
	mu   sync.Mutex
	out  *bufio.Writer
	file *os.File
}

func newRecorder(path string) (*recorder, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	return &recorder{out: bufio.NewWriter(f), file: f}, nil
}

func (r *recorder) record(ops ...operation) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, op := range ops {
		line, err := json.Marshal(op)
		if err != nil {
			panic(err) // an operation always has a JSON form
		}
		r.out.Write(line)
		r.out.WriteByte('\n')
	}
}

// Close returns the first error of all that was recorded.
func (r *recorder) Close() error {
	return errors.Join(r.out.Flush(), r.file.Close())
}

// readHistory reads what a client process recorded.
func readHistory(path string) ([]operation, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var ops []operation
	decoder := json.NewDecoder(bufio.NewReader(f))
	for {
		var op operation
		switch err := decoder.Decode(&op); {
		case err == io.EOF:
			return ops, nil
		case err != nil:
			return nil, fmt.Errorf("%s, operation %d: %w", path, len(ops), err)
		}
		ops = append(ops, op)
	}
}

// failure is an error's text, short enough for a history.
func failure(err error) string {
	text := strings.ReplaceAll(err.Error(), "\n", " ")
	return text[:min(len(text), 200)]
}
