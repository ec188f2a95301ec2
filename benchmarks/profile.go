package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/pprof"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/leatlog/leat/broker"
)

// loadFlag makes this program the clients of a broker in another process, so that the
// profile is the broker's alone: --load produce|fetch HOST:PORT.
const loadFlag = "--load"

const (
	profileConns   = 8 // each with a partition of its own
	profileTime    = 10 * time.Second
	profileRecords = 16 // of 1 KiB, in a batch
	profileFetch   = 1 << 20
)

// printProfile writes CPU profiles of a broker on TCP: of eight producers with acks=all,
// each of which waits for its answer, then of eight consumers that read what was written.
func printProfile(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	data, err := os.MkdirTemp(dir, "data-")
	if err != nil {
		return err
	}
	cfg := broker.DefaultConfig()
	cfg.DataDir, cfg.Listen = data, "127.0.0.1:0"
	b, err := broker.Start(context.Background(), cfg)
	if err != nil {
		return errors.Join(err, os.RemoveAll(data))
	}
	err = profiled(b.Addr(), dir)
	return errors.Join(err, b.Close(), os.RemoveAll(data))
}

func profiled(addr, dir string) error {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	e := &embedded{conn: conn}
	defer conn.Close()
	if err := e.createTopic(profileConns); err != nil {
		return err
	}
	for _, what := range []string{"produce", "fetch"} {
		path := filepath.Join(dir, what+".pprof")
		f, err := os.Create(path)
		if err != nil {
			return err
		}
		if err := pprof.StartCPUProfile(f); err != nil {
			return errors.Join(err, f.Close())
		}
		program, err := os.Executable()
		if err == nil {
			load := exec.Command(program, loadFlag, what, addr)
			load.Stdout, load.Stderr = os.Stdout, os.Stderr
			err = load.Run()
		}
		pprof.StopCPUProfile()
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
		fmt.Printf("go tool pprof -top %s\n", path)
	}
	return nil
}

// printLoad puts load on a broker and prints how much it took.
func printLoad(what, addr string) error {
	work := map[string]func(*embedded, int32, *atomic.Int64, time.Time) error{"produce": produceLoad, "fetch": fetchLoad}[what]
	if work == nil {
		return fmt.Errorf("%s %q: want produce or fetch", loadFlag, what)
	}
	var requests atomic.Int64
	errs := make([]error, profileConns)
	start := time.Now()
	var all sync.WaitGroup
	for n := range profileConns {
		all.Go(func() {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				errs[n] = err
				return
			}
			defer conn.Close()
			errs[n] = work(&embedded{conn: conn}, int32(n), &requests, start.Add(profileTime))
		})
	}
	all.Wait()
	per := float64(requests.Load()) / time.Since(start).Seconds()
	bytes := map[string]float64{"produce": profileRecords * 1024, "fetch": profileFetch}[what]
	fmt.Printf("%-8s %s requests a second, %.0f MiB a second\n", what, strconv.FormatFloat(per, 'f', 0, 64), per*bytes/(1<<20))
	return errors.Join(errs...)
}

func produceLoad(e *embedded, partition int32, requests *atomic.Int64, until time.Time) error {
	r := produceRequest(batch(profileRecords, 1024), -1)
	r.Topics[0].Partitions[0].Partition = partition
	for time.Now().Before(until) {
		if err := e.produce(r); err != nil {
			return err
		}
		requests.Add(1)
	}
	return nil
}

// fetchLoad reads a partition again and again, from its start to near its end.
func fetchLoad(e *embedded, partition int32, requests *atomic.Int64, until time.Time) error {
	for offset := int64(0); time.Now().Before(until); {
		batches, err := e.fetchFrom(partition, offset, profileFetch)
		if err != nil {
			return err
		}
		if len(batches) < profileFetch/2 {
			offset = 0
			continue
		}
		requests.Add(1)
		for len(batches) >= 61 { // base offset (8), length (4) ... last offset delta (4, at 23)
			size := 12 + int(binary.BigEndian.Uint32(batches[8:]))
			offset = int64(binary.BigEndian.Uint64(batches)) + int64(binary.BigEndian.Uint32(batches[23:])) + 1
			batches = batches[min(size, len(batches)):]
		}
	}
	return nil
}
