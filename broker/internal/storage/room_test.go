package storage

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/leatlog/leat/broker/internal/vfs"
)

// roomy is a disk that says how much of it is free: what files have been given is not.
type roomy struct {
	vfs.FS
	total int64
	log   *Log
}

func (r *roomy) Space(string) (free, total uint64, err error) {
	used := int64(0)
	if r.log != nil {
		for _, s := range r.log.segments {
			used += s.allocated
		}
	}
	return uint64(max(0, r.total-used)), uint64(r.total), nil
}

// Appends leave the bytes alone that are kept for others, preallocation included, and go on
// when there is room.
func TestAppendsKeepBytesFree(t *testing.T) {
	for keep := int64(0); keep < 200_000; keep += 9_999 {
		disk := &roomy{FS: vfs.NewMem(), total: 300_000}
		env := testEnv(disk)
		env.KeepFree = keep
		cfg := smallConfig()
		cfg.SegmentBytes = 1 << 20
		l, err := Open(env, testDir, cfg)
		if err != nil {
			t.Fatal(err)
		}
		disk.log = l
		var want []byte
		for i := 0; err == nil && i < 2000; i++ {
			b := batchOf(1, 1000, fmt.Sprint(i))
			if _, err = l.Append(b, 0); err == nil {
				want = append(want, b...)
			}
		}
		free, _, _ := disk.Space("")
		switch {
		case keep == 0:
			if err != nil {
				t.Fatalf("nothing kept: %v", err)
			}
		case !errors.Is(err, vfs.ErrNoSpace) || l.Damaged() != nil:
			t.Fatalf("%d bytes kept: %v, damaged %v", keep, err, l.Damaged())
		case int64(free) < keep-blockSize-markSize || int64(free) > keep+40_000:
			t.Fatalf("%d bytes kept, and %d free when an append was refused", keep, free)
		}
		disk.total += 100_000
		mustAppend(t, l, batchOf(1, 1000, "late"))
		if got := readAll(t, l); !bytes.HasPrefix(got, want) {
			t.Fatalf("%d bytes kept: other bytes than were appended", keep)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// A slice that cannot be read because its file is shorter than it must be is damage; one
// that the log was cut below is not.
func TestSliceThatCannotBeRead(t *testing.T) {
	for _, cut := range []bool{true, false} {
		disk := vfs.NewMem()
		l := mustOpen(t, disk, smallConfig())
		for i := range 4 {
			mustAppend(t, l, batchOf(1, 400, fmt.Sprint(i)))
		}
		if err := l.Sync(); err != nil {
			t.Fatal(err)
		}
		slice, err := l.Slice(0, l.EndOffset(), 1<<20, true)
		if err != nil {
			t.Fatal(err)
		}
		slice.Failed()
		if err := l.Damaged(); err != nil {
			t.Errorf("a slice that can be read: %v", err)
		}
		if cut {
			err = l.TruncateTo(1)
		} else {
			err = slice.File.Truncate(100)
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := slice.AppendTo(nil); err == nil && !cut {
			t.Error("a slice beyond the end of its file was read")
		}
		slice.Failed()
		slice.Release()
		if damaged := l.Damaged() != nil; damaged == cut {
			t.Errorf("truncated by the log %v: damaged %v", cut, l.Damaged())
		}
	}
}
