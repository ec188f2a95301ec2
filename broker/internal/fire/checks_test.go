package main

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var (
	p0 = place{"t", 0}
	p1 = place{"t", 1}
)

func write(value string, offset int64, o outcome) operation {
	return operation{Client: "c", Kind: produced, Topic: "t", Offset: offset, Value: value, Outcome: o}
}

func values(list ...string) []entry {
	var entries []entry
	for i, value := range list {
		entries = append(entries, entry{int64(i), value})
	}
	return entries
}

// sealed returns a batch as it is on disk, with so many records and a body.
func sealed(base int64, count int, body string) []byte {
	b := make([]byte, batchHeader, batchHeader+len(body))
	binary.BigEndian.PutUint64(b, uint64(base))
	binary.BigEndian.PutUint32(b[8:], uint32(batchHeader-batchPrefix+len(body)))
	b[16] = 2
	binary.BigEndian.PutUint32(b[23:], uint32(count-1))
	b = append(b, body...)
	binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], castagnoli))
	return b
}

func parsed(t *testing.T, raw ...[]byte) []batch {
	t.Helper()
	list, err := parseBatches(slices.Concat(raw...), false)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// Each checker says nothing of a history as it should be, and finds what is broken on
// purpose in it.
func TestCheckersNoticeWhatIsBroken(t *testing.T) {
	replica := func(body string, n int) []batch {
		return parsed(t, [][]byte{sealed(0, 2, "first"), sealed(2, 1, body), sealed(3, 4, "third")}[:n]...)
	}
	transaction := func(o outcome) []operation {
		return []operation{{Client: "x", Kind: transacted, Values: []string{"x/1", "x/2"}, Outcome: o}}
	}
	commit := func(offset, call, end int64, o outcome) operation {
		return operation{Kind: committed, Group: "g", Topic: "t", Offset: offset, Outcome: o, Call: call, Return: end}
	}
	fetch := func(offset, call, end int64) operation {
		return operation{Kind: fetched, Group: "g", Topic: "t", Offset: offset, Outcome: succeeded, Call: call, Return: end}
	}
	read := func(value string, offset int64) operation {
		return operation{Kind: consumed, Group: "g", Topic: "t", Offset: offset, Value: value, Outcome: succeeded}
	}
	at := func(op operation, call, end int64) operation { op.Call, op.Return = call, end; return op }
	request := func(k kind, call, end int64, was bool, o outcome) operation {
		return operation{Kind: k, Topic: "n", Existed: was && k == created, Missing: was && k == deleted, Outcome: o, Call: call, Return: end}
	}
	for _, c := range []struct {
		name  string
		check func(v *violations)
		want  string // "" for a sound history
	}{
		{"acknowledged", func(v *violations) {
			checkAcknowledged(v, []operation{write("a/1", 0, succeeded), write("a/2", 1, succeeded), write("a/3", 9, unknown)}, contents{p0: values("a/1", "a/2")})
		}, ""},
		{"lost record", func(v *violations) {
			checkAcknowledged(v, []operation{write("a/1", 0, succeeded), write("a/2", 1, succeeded)}, contents{p0: values("a/1")})
		}, `"a/2" is lost`},
		{"record replaced", func(v *violations) {
			checkAcknowledged(v, []operation{write("a/1", 0, succeeded)}, contents{p0: values("b/1")})
		}, `holds "b/1"`},
		{"offset given twice", func(v *violations) {
			checkAcknowledged(v, []operation{write("a/1", 0, succeeded), write("a/2", 0, succeeded)}, contents{p0: values("a/1")})
		}, "both"},
		{"invented record", func(v *violations) {
			checkWritten(v, []operation{write("a/1", 0, succeeded)}, contents{p0: values("a/1", "a/7")})
		}, `nobody wrote "a/7"`},
		{"in order", func(v *violations) {
			checkOrder(v, contents{p0: values("a/1", "b/1", "a/3"), p1: values("a/2", "b/9", "b/10")}, "t")
		}, ""},
		{"duplicate", func(v *violations) { checkOrder(v, contents{p0: values("a/1", "a/2", "a/2")}, "t") }, "duplicated"},
		{"duplicate in another partition", func(v *violations) { checkOrder(v, contents{p0: values("a/1"), p1: values("a/1")}, "t") }, "duplicated"},
		{"reordered", func(v *violations) { checkOrder(v, contents{p0: values("a/1", "a/3", "a/2")}, "t") }, "reordered"},
		{"whole transactions", func(v *violations) {
			checkTransactions(v, append(transaction(succeeded), operation{Kind: transacted, Values: []string{"y/1"}, Outcome: failed}), contents{p0: values("x/1"), p1: values("x/2")}, "t")
		}, ""},
		{"unknown and whole", func(v *violations) {
			checkTransactions(v, transaction(unknown), contents{p0: values("x/1", "x/2")}, "t")
			checkTransactions(v, transaction(unknown), contents{}, "t")
		}, ""},
		{"committed and lost", func(v *violations) { checkTransactions(v, transaction(succeeded), contents{p0: values("x/1")}, "t") }, "1 of its 2"},
		{"torn", func(v *violations) { checkTransactions(v, transaction(unknown), contents{p0: values("x/1")}, "t") }, "torn"},
		{"aborted and read", func(v *violations) {
			checkTransactions(v, transaction(failed), contents{p0: values("x/1", "x/2")}, "t")
		}, "not committed"},
		{"transaction twice", func(v *violations) {
			checkTransactions(v, transaction(succeeded), contents{p0: values("x/1", "x/2", "x/1")}, "t")
		}, "2 times"},
		{"offsets", func(v *violations) {
			checkOffsets(v, []operation{fetch(-1, 0, 1), commit(5, 2, 3, succeeded), fetch(5, 4, 5), commit(9, 6, 9, unknown), fetch(5, 10, 11), fetch(9, 12, 13)}, map[place]int64{p0: 9})
		}, ""},
		{"offset goes back", func(v *violations) {
			checkOffsets(v, []operation{commit(5, 2, 3, succeeded), commit(9, 4, 5, succeeded), fetch(5, 6, 7)}, nil)
		}, "went back to 5"},
		{"offset is gone", func(v *violations) {
			checkOffsets(v, []operation{commit(5, 2, 3, succeeded), fetch(-1, 6, 7)}, nil)
		}, "went back to -1"},
		{"offset of nobody", func(v *violations) { checkOffsets(v, []operation{commit(5, 2, 3, succeeded), fetch(6, 6, 7)}, nil) }, "never committed"},
		{"offset beyond the end", func(v *violations) {
			checkOffsets(v, []operation{commit(5, 2, 3, succeeded), fetch(5, 6, 7)}, map[place]int64{p0: 4})
		}, "beyond"},
		{"consumed", func(v *violations) {
			checkConsumed(v, []operation{read("a/1", 0), read("a/2", 1), commit(2, 1, 2, succeeded)}, contents{p0: values("a/1", "a/2", "a/3")})
		}, ""},
		{"record passed over", func(v *violations) {
			checkConsumed(v, []operation{read("a/2", 1), commit(2, 1, 2, succeeded)}, contents{p0: values("a/1", "a/2")})
		}, "nobody read offset 0"},
		{"read and changed", func(v *violations) { checkConsumed(v, []operation{read("a/1", 0)}, contents{p0: values("b/1")}) }, "a consumer read"},
		{"replicas", func(v *violations) {
			checkReplicas(v, map[string][]batch{"1": replica("x", 3), "2": replica("x", 2)}, 3, p0)
		}, ""},
		{"different above the high watermark", func(v *violations) {
			checkReplicas(v, map[string][]batch{"1": replica("x", 3), "2": replica("y", 3)}, 2, p0)
		}, ""},
		{"one byte differs", func(v *violations) {
			checkReplicas(v, map[string][]batch{"1": replica("x", 3), "2": replica("y", 3)}, 3, p0)
		}, "offset 2 differs"},
		{"replica is short", func(v *violations) {
			checkReplicas(v, map[string][]batch{"1": replica("x", 3), "2": replica("x", 2)}, 7, p0)
		}, "ends at offset 3"},
		{"gap in a replica", func(v *violations) {
			checkReplicas(v, map[string][]batch{"1": parsed(t, sealed(0, 2, "a"), sealed(5, 1, "b"))}, 6, p0)
		}, "expected was 2"},
		{"appends", func(v *violations) {
			checkAppends(v, []operation{at(write("a", 4, succeeded), 1, 5), at(write("b", 3, succeeded), 2, 4), at(write("c", 7, succeeded), 6, 7)}, "t")
		}, ""},
		{"later append, smaller offset", func(v *violations) {
			checkAppends(v, []operation{at(write("a", 4, succeeded), 1, 2), at(write("b", 3, succeeded), 3, 4)}, "t")
		}, "not linearizable"},
		{"topics", func(v *violations) {
			checkTopics(v, []operation{request(created, 1, 4, false, unknown), request(created, 5, 6, true, succeeded), request(deleted, 7, 8, false, succeeded), request(deleted, 9, 10, true, succeeded)})
		}, ""},
		{"created again by the broker that forwards it", func(v *violations) {
			checkTopics(v, []operation{request(created, 1, int64(forwardPause)+9, false, succeeded), request(deleted, 3, 4, false, succeeded), request(deleted, int64(forwardPause)+10, int64(forwardPause)+11, false, succeeded)})
		}, ""},
		{"created again without a reason", func(v *violations) {
			checkTopics(v, []operation{request(created, 1, 9, false, succeeded), request(deleted, 3, 4, false, succeeded), request(deleted, 10, 11, false, succeeded)})
		}, "not linearizable"},
		{"created twice", func(v *violations) {
			checkTopics(v, []operation{request(created, 1, 2, false, succeeded), request(created, 3, 4, false, succeeded)})
		}, "not linearizable"},
		{"topic forgotten", func(v *violations) {
			checkTopics(v, []operation{request(created, 1, 2, false, succeeded), request(deleted, 3, 4, true, succeeded)})
		}, "not linearizable"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var v violations
			c.check(&v)
			found := strings.Join(v.list, "\n")
			if c.want == "" && v.count() > 0 || !strings.Contains(found, c.want) {
				t.Errorf("found %q, want %q", found, c.want)
			}
		})
	}
}

func TestSegmentParserNoticesDamage(t *testing.T) {
	sound := slices.Concat(sealed(0, 2, "first"), sealed(2, 1, "second"), make([]byte, 100))
	dir := t.TempDir()
	file := filepath.Join(dir, fmt.Sprintf("%020d.log", 0))
	check := func(data []byte) error {
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		list, err := readSegments(dir, false)
		if err == nil && len(list) != 2 {
			return fmt.Errorf("%d batches", len(list))
		}
		return err
	}
	if err := check(sound); err != nil {
		t.Fatal(err)
	}
	end := len(sound) - 100
	for i := 8; i < end; i++ { // the base offset is compared between batches, not within one
		second := batchHeader + len("first")
		if i >= 12 && i < 16 || i >= second && i < second+8 || i >= second+12 && i < second+16 {
			continue // offset and leader epoch are outside of the checksum
		}
		damaged := slices.Clone(sound)
		damaged[i] ^= 1
		if check(damaged) == nil {
			t.Errorf("a flipped bit in byte %d is not noticed", i)
		}
	}
	if check(sound[:end-1]) == nil {
		t.Error("a torn tail is not noticed")
	}
}

func TestViolationsAreCountedBeyondTheFirst(t *testing.T) {
	var v violations
	for i := range mostViolations + 5 {
		v.add("violation %d", i)
	}
	if v.count() != mostViolations+5 || len(v.list) != mostViolations {
		t.Errorf("%d counted, %d listed", v.count(), len(v.list))
	}
}
