package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/leatlog/leat/state"
	"github.com/leatlog/leat/state/badgerstore"
	"github.com/leatlog/leat/state/changelog"
)

const restoreKeys = 2_000_000

// printRestore restores a store from a changelog in memory, on one processor.
func printRestore(arguments []string) error {
	keys := restoreKeys
	if len(arguments) > 0 {
		n, err := strconv.Atoi(arguments[0])
		if err != nil || n < 1 {
			return fmt.Errorf("%q is no number of keys", arguments[0])
		}
		keys = n
	}
	dir, err := os.MkdirTemp("", "leat-benchmark-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	runtime.GOMAXPROCS(1)
	start, busy := time.Now(), processorSeconds()
	if err := restoreChangelog(dir, keys); err != nil {
		return err
	}
	elapsed := time.Since(start).Seconds()
	fmt.Printf("%s %s/%s\n\nRestore of %d keys of 16 bytes, at random, with values of 8, into Badger, on one processor\n", runtime.Version(), runtime.GOOS, runtime.GOARCH, keys)
	fmt.Printf("  %-24s %10.2f s %12.0f keys/s\n", "elapsed", elapsed, float64(keys)/elapsed)
	if busy = processorSeconds() - busy; busy > 0 {
		fmt.Printf("  %-24s %10.2f s %12.0f keys/s\n", "of the processor", busy, float64(keys)/busy)
	}
	return nil
}

// processorSeconds is the time that this process has had of processors, on Linux; 0 elsewhere.
func processorSeconds() float64 {
	stat, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return 0
	}
	// The name of the program ends with the last parenthesis; user and system time are the
	// 12th and 13th fields behind it, in hundredths of a second.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(fields) < 13 {
		return 0
	}
	user, err1 := strconv.ParseFloat(fields[11], 64)
	system, err2 := strconv.ParseFloat(fields[12], 64)
	if err1 != nil || err2 != nil {
		return 0
	}
	return (user + system) / 100
}

// restoreKey is the key of the nth row: spread like a hash.
func restoreKey(dst []byte, n uint64) []byte {
	dst = binary.BigEndian.AppendUint64(dst, n*0x9e3779b97f4a7c15)
	return binary.BigEndian.AppendUint64(dst, n)
}

// restoreChangelog restores the keys into a store in dir, and looks whether the last is there.
func restoreChangelog(dir string, keys int) error {
	backend, err := badgerstore.New(badgerstore.Config{Dir: dir})
	if err != nil {
		return err
	}
	spec := state.Spec{Name: "restored"}
	engine, err := backend.Open(context.Background(), "0_0", spec)
	if err != nil {
		return err
	}
	r, err := changelog.NewRestorer(spec, engine, changelog.Bounds{End: int64(keys)})
	if err != nil {
		return err
	}
	var records []changelog.Record
	var bytes []byte
	for !r.Done() {
		records, bytes = records[:0], bytes[:0]
		for n := r.Next(); n < min(r.Next()+500, int64(keys)); n++ {
			at := len(bytes)
			bytes = restoreKey(bytes, uint64(n))
			bytes = binary.BigEndian.AppendUint64(bytes, uint64(n))
			records = append(records, changelog.Record{Offset: n, Timestamp: n, Key: bytes[at : at+16], Value: bytes[at+16:]})
		}
		if err := r.Add(records, r.Next(), 0); err != nil {
			return err
		}
	}
	if err := r.Finish(); err != nil {
		return err
	}
	_, found, err := engine.Get(nil, restoreKey(nil, uint64(keys-1)))
	if err == nil && !found {
		err = errors.New("the last key is not in the store")
	}
	return errors.Join(err, engine.Close(), backend.Close())
}
