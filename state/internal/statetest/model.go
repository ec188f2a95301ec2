// Package statetest holds what the tests of the engines share: a model of a
// store that is too simple to be wrong, a conformance suite, and a random test
// that compares an engine with the model.
package statetest

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/leatlog/leat/state"
)

// Model is a store as a map.
type Model map[string]string

// Apply does to the model what b does to an engine.
func (m Model) Apply(b *state.Batch) {
	for i := range b.Len() {
		switch op, key, value := b.Entry(i); op {
		case state.OpPut:
			m[string(key)] = string(value)
		case state.OpDelete:
			delete(m, string(key))
		case state.OpDeleteBefore:
			maps.DeleteFunc(m, func(k, _ string) bool { return k < string(key) })
		}
	}
}

// Scan lists the entries in [from, to) as "key=value"; nil bounds are open.
func (m Model) Scan(from, to []byte, reverse bool) []string {
	var entries []string
	for _, key := range slices.Sorted(maps.Keys(m)) {
		if (from == nil || key >= string(from)) && (to == nil || key < string(to)) {
			entries = append(entries, fmt.Sprintf("%q=%q", key, m[key]))
		}
	}
	if reverse {
		slices.Reverse(entries)
	}
	return entries
}

// Scan lists a reader's entries in [from, to) like Model.Scan.
func Scan(r state.Reader, from, to []byte, reverse bool) ([]string, error) {
	var entries []string
	err := r.Scan(from, to, reverse, func(key, value []byte) bool {
		entries = append(entries, fmt.Sprintf("%q=%q", key, value))
		return true
	})
	return entries, err
}

// Difference says how the reader differs from the model, "" when it does not. It
// reads everything by Scan, both ways, and every key by Get.
func Difference(r state.Reader, m Model) (string, error) {
	for _, reverse := range []bool{false, true} {
		got, err := Scan(r, nil, nil, reverse)
		if err != nil {
			return "", err
		}
		if want := m.Scan(nil, nil, reverse); !slices.Equal(got, want) {
			return fmt.Sprintf("scan (reverse %v): got %d entries %s, want %d entries %s",
				reverse, len(got), shorten(got), len(want), shorten(want)), nil
		}
	}
	for key, want := range m {
		got, found, err := r.Get([]byte("x"), []byte(key))
		if err != nil {
			return "", err
		}
		if !found || !bytes.Equal(got, []byte("x"+want)) {
			return fmt.Sprintf("get %q = %q, %v, want %q", key, got, found, "x"+want), nil
		}
	}
	return "", nil
}

func shorten(entries []string) string {
	if len(entries) > 20 {
		return fmt.Sprintf("%v ...", entries[:20])
	}
	return fmt.Sprint(entries)
}

// MustEqual fails the test when the reader differs from the model.
func MustEqual(t testing.TB, r state.Reader, m Model) {
	t.Helper()
	difference, err := Difference(r, m)
	if err != nil {
		t.Fatal(err)
	}
	if difference != "" {
		t.Fatal(difference)
	}
}

// Build makes a batch from "key=value" (put), "key" (delete) and "<key" (delete
// before) strings.
func Build(entries ...string) *state.Batch {
	b := &state.Batch{}
	for _, e := range entries {
		key, value, put := bytes.Cut([]byte(e), []byte("="))
		switch {
		case put:
			b.Put(key, value)
		case e[0] == '<':
			b.DeleteBefore([]byte(e[1:]))
		default:
			b.Delete(key)
		}
	}
	return b
}
