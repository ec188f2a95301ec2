package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestTail(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.log")
	tl := &tail{path: path}
	defer tl.close()
	expect := func(when string, want ...string) {
		t.Helper()
		lines, err := tl.read(1 << 20)
		if err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		var got []string
		for _, l := range lines {
			got = append(got, l.Text)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", when, got, want)
		}
	}
	expect("no file")
	write(t, path, "one\ntwo\r\n\nthr")
	expect("first look", "one", "two")
	write(t, path, "ee\n")
	expect("the rest of a line", "three")
	expect("nothing new")

	// Rotation: what was written to the old file in between is not lost.
	write(t, path, "four\n")
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	write(t, path, "five\n")
	expect("the old file", "four")
	expect("the new file", "five")

	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	write(t, path, "six\n")
	expect("cut and written again", "six")

	long := strings.Repeat("x", maxLine+100)
	write(t, path, long+"\nseven\n")
	expect("a long line", long[:maxLine], "seven")

	again := &tail{path: path, offset: tl.offset}
	defer again.close()
	write(t, path, "eight\n")
	lines, err := again.read(1 << 20)
	if err != nil || len(lines) != 1 || lines[0].Text != "eight" {
		t.Errorf("from a position: %v, %v", lines, err)
	}
}

func TestTailInPieces(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.log")
	write(t, path, strings.Repeat("0123456789\n", 100))
	tl := &tail{path: path}
	defer tl.close()
	n := 0
	for looks := 0; n < 100; looks++ {
		lines, err := tl.read(100)
		if err != nil || len(lines) == 0 || len(lines) > 10 {
			t.Fatalf("%d lines, %v", len(lines), err)
		}
		n += len(lines)
	}
	last := &tail{path: path}
	defer last.close()
	last.startAtLast(25)
	if lines, err := last.read(1000); err != nil || len(lines) != 2 {
		t.Errorf("the last 25 bytes: %v, %v", lines, err)
	}
}

func TestPositions(t *testing.T) {
	path := filepath.Join(t.TempDir(), "positions.json")
	p, err := loadPositions(path)
	if err != nil {
		t.Fatal(err)
	}
	p.next["/a"] = 7
	if err := p.save(); err != nil {
		t.Fatal(err)
	}
	if p, err = loadPositions(path); err != nil || p.next["/a"] != 7 {
		t.Errorf("%v, %v", p, err)
	}
	write(t, path, "?")
	if _, err := loadPositions(path); err == nil {
		t.Error("damaged positions are taken")
	}
}
