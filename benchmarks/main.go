// Command benchmarks prints what the broker and the stream engine cost on this
// machine. It asserts nothing.
//
//	go run ./benchmarks
//	go run ./benchmarks guarantee [HOST:PORT]
//	go run ./benchmarks nexmark [EVENTS]
//	go run ./benchmarks restore [KEYS]
//	go run ./benchmarks profile DIR
//
// The second form measures what exactly-once costs, on a cluster or on a broker
// of its own; the third runs the queries of Nexmark in memory; the fourth restores
// a store from its changelog; the fifth writes CPU profiles of a broker under load.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/leatlog/leat/broker"
)

// idleFlag makes this program start a broker, say how long it took and how much
// memory it holds, and exit: a process of its own, so that nothing else counts.
const idleFlag = "--idle-broker"

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "benchmarks:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 1 && args[0] == idleFlag:
		return idleBroker()
	case len(args) > 0 && len(args) <= 2 && args[0] == "guarantee":
		return printGuarantee(context.Background(), strings.Join(args[1:], ""))
	case len(args) > 0 && len(args) <= 2 && args[0] == "restore":
		return printRestore(args[1:])
	case len(args) == 3 && args[0] == loadFlag:
		return printLoad(args[1], args[2])
	case len(args) == 2 && args[0] == "profile":
		return printProfile(args[1])
	case len(args) > 0 && len(args) <= 2 && args[0] == "nexmark":
		return printNexmark(args[1:])
	case len(args) > 0:
		return errors.New("usage: go run ./benchmarks [guarantee [HOST:PORT] | nexmark [EVENTS] | restore [KEYS] | profile DIR]")
	}
	fmt.Printf("%s %s/%s, %d processors\n", runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU())
	if err := printEngine(); err != nil {
		return err
	}
	if err := printBroker(); err != nil {
		return err
	}
	return printStart()
}

// measured is what a loop cost.
type measured struct {
	elapsed     time.Duration
	allocations uint64
	times       int
}

// measure runs step for about two seconds, after a short warm-up.
func measure(step func() error) (measured, error) {
	const warm, long = 300 * time.Millisecond, 2 * time.Second
	var before, after runtime.MemStats
	var m measured
	for start := time.Now(); time.Since(start) < warm; {
		if err := step(); err != nil {
			return m, err
		}
	}
	runtime.ReadMemStats(&before)
	start := time.Now()
	for m.elapsed < long {
		if err := step(); err != nil {
			return m, err
		}
		m.times++
		m.elapsed = time.Since(start)
	}
	runtime.ReadMemStats(&after)
	m.allocations = after.Mallocs - before.Mallocs
	return m, nil
}

func printEngine() error {
	fmt.Println("\nStream engine, one task on one goroutine, records in memory, serdes included")
	fmt.Printf("  %-34s %12s %14s %16s\n", "", "ns/record", "records/s", "allocs/record")
	for _, c := range []struct {
		name string
		make func() (*engine, error)
	}{{"filter and map, strings", stateless}, {"count, 1,000 keys, warm cache", counting}, {"count in windows, 1,000 keys", windowed}} {
		e, err := c.make()
		if err != nil {
			return err
		}
		m, err := measure(e.step)
		if err != nil {
			return err
		}
		records := float64(m.times * runRecords)
		fmt.Printf("  %-34s %12.0f %14.0f %16.2f\n", c.name, float64(m.elapsed.Nanoseconds())/records, records/m.elapsed.Seconds(), float64(m.allocations)/records)
	}
	return nil
}

func printBroker() error {
	fmt.Println("\nBroker, one connection in the process, one request at a time (allocations are those of client and broker together)")
	fmt.Printf("  %-34s %12s %12s %10s %14s\n", "", "us/batch", "records/s", "MB/s", "allocs/batch")
	for _, shape := range []struct{ records, value int }{{10, 100}, {100, 100}, {600, 100}} {
		for _, acks := range []int16{-1, 1} {
			if err := printProduce(shape.records, shape.value, acks); err != nil {
				return err
			}
		}
	}
	return printFetch(100, 100)
}

func withBroker(use func(e *embedded) error) error {
	dir, err := os.MkdirTemp("", "leat-benchmark-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	e, err := startEmbedded(context.Background(), dir)
	if err != nil {
		return err
	}
	return errors.Join(use(e), e.close())
}

func printRow(name string, m measured, records, bytes int) {
	n := float64(m.times)
	fmt.Printf("  %-34s %12.1f %12.0f %10.1f %14.1f\n", name, float64(m.elapsed.Microseconds())/n,
		n*float64(records)/m.elapsed.Seconds(), n*float64(bytes)/m.elapsed.Seconds()/1e6, float64(m.allocations)/n)
}

func printProduce(records, value int, acks int16) error {
	return withBroker(func(e *embedded) error {
		raw := batch(records, value)
		request := produceRequest(raw, acks)
		m, err := measure(func() error { return e.produce(request) })
		if err != nil {
			return err
		}
		printRow(fmt.Sprintf("produce %d x %d B, acks=%s", records, value, map[int16]string{-1: "all", 1: "1"}[acks]), m, records, len(raw))
		return nil
	})
}

func printFetch(records, value int) error {
	return withBroker(func(e *embedded) error {
		raw := batch(records, value)
		request := produceRequest(raw, 1)
		const batches = 2000
		for range batches {
			if err := e.produce(request); err != nil {
				return err
			}
		}
		for _, size := range []int{1, 64} {
			at := 0
			m, err := measure(func() error {
				got, err := e.fetch(int64(at*records), int32(size*len(raw)))
				if err == nil && len(got) != size*len(raw) {
					err = fmt.Errorf("fetched %d bytes of %d", len(got), size*len(raw))
				}
				at = (at + size) % (batches - size)
				return err
			})
			if err != nil {
				return err
			}
			printRow(fmt.Sprintf("fetch of %d batches", size), m, size*records, size*len(raw))
		}
		return nil
	})
}

// printStart starts brokers in processes of their own.
func printStart() error {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	fmt.Println("\nStart of an embedded broker with an empty directory, and its memory when idle")
	for range 3 {
		out, err := exec.Command(program, idleFlag).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		fmt.Print("  ", string(out))
	}
	return nil
}

func idleBroker() error {
	dir, err := os.MkdirTemp("", "leat-benchmark-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	cfg := broker.DefaultConfig()
	cfg.DataDir, cfg.Listen = dir, "127.0.0.1:0"
	start := time.Now()
	b, err := broker.Start(context.Background(), cfg)
	if err != nil {
		return err
	}
	ready := time.Since(start)
	time.Sleep(2 * time.Second) // idle
	resident, err := residentMiB()
	if err != nil {
		return errors.Join(err, b.Close())
	}
	fmt.Printf("ready after %v, resident %.1f MiB\n", ready.Round(100*time.Microsecond), resident)
	return b.Close()
}

// residentMiB is this process's resident memory, on Linux.
func residentMiB() (float64, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, fmt.Errorf("resident memory is read on Linux only: %w", err)
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 64)
			return kib / 1024, err
		}
	}
	return 0, errors.New("no VmRSS in /proc/self/status")
}
