package stream_test

import (
	"fmt"
	"maps"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatlog/leat/state"
	"github.com/leatlog/leat/state/badgerstore"
)

// verifyStores compares every store that the processes left on their disks with
// the replay of its changelog: what is in it, and the changelog from its position
// on, are the table, though a process that lost the task long ago has an old
// position. One that is at the end has to hold the table as it is.
func (k *killing) verifyStores(t *testing.T, store string) {
	t.Helper()
	replayed := make(map[int32][]*kgo.Record)
	for _, r := range readCommitted(t, k.addr, k.prefix+"app-"+store+"-changelog") {
		replayed[r.Partition] = append(replayed[r.Partition], r)
	}
	current := make(map[string]bool)
	for _, v := range k.victims {
		backend, err := badgerstore.New(badgerstore.Config{Dir: v.Dir})
		if err != nil {
			t.Fatal(err)
		}
		tasks, err := os.ReadDir(v.Dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, task := range tasks {
			if !task.IsDir() || !strings.Contains(task.Name(), "_") {
				continue
			}
			if _, err := os.Stat(v.Dir + "/" + task.Name() + "/" + store); err != nil {
				continue // a task without the store
			}
			_, partition, _ := strings.Cut(task.Name(), "_")
			number, err := strconv.Atoi(partition)
			if err != nil {
				t.Fatal(err)
			}
			e, err := backend.Open(t.Context(), task.Name(), state.Spec{Name: store})
			if err != nil {
				t.Fatal(err)
			}
			atEnd, err := isReplay(e, replayed[int32(number)])
			if err != nil {
				t.Errorf("%s, task %s: %v", v.Instance, task.Name(), err)
			}
			current[task.Name()] = current[task.Name()] || atEnd
			if err := e.Close(); err != nil {
				t.Error(err)
			}
		}
		if err := backend.Close(); err != nil {
			t.Error(err)
		}
	}
	for task, atEnd := range current {
		if !atEnd {
			t.Errorf("no process has the whole store of task %s, though all were stopped with a commit", task)
		}
	}
	if len(current) != 8 {
		t.Errorf("stores of %d tasks are on disk, not of 8", len(current))
	}
}

// isReplay says why an engine is not the replay of its changelog, and whether its
// position is the end: nothing of the changelog is behind it.
func isReplay(e state.Engine, records []*kgo.Record) (atEnd bool, err error) {
	position, found := e.Position()
	if !found {
		return false, nil // killed before its first checkpoint
	}
	got, want := make(map[string]string), make(map[string]string)
	err = e.Scan(nil, nil, false, func(key, value []byte) bool {
		got[string(key)] = string(value)
		return true
	})
	if err != nil {
		return false, err
	}
	atEnd = true
	apply := func(to map[string]string, r *kgo.Record) {
		if r.Value == nil {
			delete(to, string(r.Key))
		} else {
			to[string(r.Key)] = string(r.Value)
		}
	}
	for _, r := range records {
		apply(want, r)
		if r.Offset >= position.Offset {
			apply(got, r)
			atEnd = false
		}
	}
	if !maps.Equal(got, want) {
		return atEnd, fmt.Errorf("at offset %d it holds %d keys, and with what follows is not the replay of its changelog, which has %d keys", position.Offset, len(got), len(want))
	}
	return atEnd, nil
}
