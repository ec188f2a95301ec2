package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/shirou/gopsutil/v4/cpu"
	"github.com/shirou/gopsutil/v4/disk"
	"github.com/shirou/gopsutil/v4/load"
	"github.com/shirou/gopsutil/v4/mem"
	"github.com/shirou/gopsutil/v4/net"
)

// Sample is one reading of one metric: a record of the topic host-metrics,
// whose key is the metric's name.
type Sample struct {
	Host   string    `json:"host"`
	Metric string    `json:"metric"`
	Value  float64   `json:"value"`
	Unit   string    `json:"unit"`
	Time   time.Time `json:"time"`
}

// The units.
const (
	unitPercent = "%"
	unitBytes   = "B"
	unitRate    = "B/s"
	unitNone    = ""
)

// sampler reads the metrics of this machine. Rates need two readings: the first
// Read has none. Not safe for concurrent use.
type sampler struct {
	host     string
	last     time.Time
	counters map[string]uint64 // by metric, at the last reading
}

func newSampler() *sampler {
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	return &sampler{host: host, counters: map[string]uint64{}}
}

// Read returns the samples of this moment. What cannot be read on this machine is
// left out; the error, if any, says what and why, and does not make the others
// void.
func (s *sampler) Read(ctx context.Context, now time.Time) ([]Sample, error) {
	r := reading{sampler: s, now: now, seconds: now.Sub(s.last).Seconds(), first: s.last.IsZero()}
	var failed []error
	for _, source := range []struct {
		name string
		read func(context.Context, *reading) error
	}{
		{"CPU", readCPU}, {"memory", readMemory}, {"disk", readDisk}, {"network", readNetwork}, {"load", readLoad},
	} {
		if err := source.read(ctx, &r); err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", source.name, err))
		}
	}
	s.last = now
	return r.samples, errors.Join(failed...)
}

// reading is one Read under way.
type reading struct {
	*sampler
	now     time.Time
	seconds float64 // since the reading before
	first   bool
	samples []Sample
}

func (r *reading) value(metric, unit string, value float64) {
	r.samples = append(r.samples, Sample{Host: r.host, Metric: metric, Value: value, Unit: unit, Time: r.now})
}

// rate adds what a counter of bytes grew by in a second. Counters that were reset
// have no rate this time.
func (r *reading) rate(metric string, counter uint64) {
	before, known := r.counters[metric]
	r.counters[metric] = counter
	if known && !r.first && counter >= before && r.seconds > 0 {
		r.value(metric, unitRate, float64(counter-before)/r.seconds)
	}
}

// readCPU adds the use of each core since the last reading.
func readCPU(ctx context.Context, r *reading) error {
	percents, err := cpu.PercentWithContext(ctx, 0, true)
	if err != nil || r.first {
		return err // the first call has nothing to compare with
	}
	for i, p := range percents {
		r.value(fmt.Sprintf("cpu/core%d", i), unitPercent, p)
	}
	return nil
}

func readMemory(ctx context.Context, r *reading) error {
	m, err := mem.VirtualMemoryWithContext(ctx)
	if err != nil {
		return err
	}
	r.value("memory/used", unitBytes, float64(m.Used))
	r.value("memory/available", unitBytes, float64(m.Available))
	return nil
}

func readDisk(ctx context.Context, r *reading) error {
	devices, err := disk.IOCountersWithContext(ctx)
	if err != nil {
		return err
	}
	for name, d := range devices {
		if wholeDisk(name, devices) {
			r.rate("disk/"+name+"/read", d.ReadBytes)
			r.rate("disk/"+name+"/write", d.WriteBytes)
		}
	}
	return nil
}

// wholeDisk is false for partitions of another device in the list (sda1, nvme0n1p2)
// and for devices that are no disk.
func wholeDisk(name string, devices map[string]disk.IOCountersStat) bool {
	for _, prefix := range []string{"loop", "ram", "zram", "sr", "fd"} {
		if strings.HasPrefix(name, prefix) {
			return false
		}
	}
	parent := strings.TrimRight(name, "0123456789")
	if _, partition := devices[parent]; partition && parent != name {
		return false
	}
	_, partition := devices[strings.TrimSuffix(parent, "p")]
	return !partition || !strings.HasSuffix(parent, "p")
}

func readNetwork(ctx context.Context, r *reading) error {
	interfaces, err := net.IOCountersWithContext(ctx, true)
	if err != nil {
		return err
	}
	for _, i := range interfaces {
		if i.BytesRecv == 0 && i.BytesSent == 0 {
			continue // it is not in use
		}
		r.rate("network/"+i.Name+"/received", i.BytesRecv)
		r.rate("network/"+i.Name+"/sent", i.BytesSent)
	}
	return nil
}

func readLoad(ctx context.Context, r *reading) error {
	l, err := load.AvgWithContext(ctx)
	if err != nil {
		return err
	}
	r.value("load/1m", unitNone, l.Load1)
	r.value("load/5m", unitNone, l.Load5)
	r.value("load/15m", unitNone, l.Load15)
	return nil
}
