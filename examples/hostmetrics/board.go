package main

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// closedWindows is how many closed windows of each metric and size the board
// keeps.
const closedWindows = 60

// board is what is to be seen, on the terminal and on the page. Safe for
// concurrent use.
type board struct {
	mu       sync.Mutex
	address  string
	data     string
	started  time.Time
	metrics  map[string]*metric
	counters counters
	fresh    []Rollup             // closed since the last update, for the page's listeners
	changed  map[chan update]bool // listeners; true: it has missed something
	gather   prometheus.Gatherer
	recent   []sampleCount
}

// metric is what is known of one metric.
type metric struct {
	unit   string
	open   map[string]Rollup   // by window
	closed map[string][]Rollup // by window, oldest first
}

// counters tell how the example is doing since it started.
type counters struct {
	Samples    int64            `json:"samples"`
	PerSecond  float64          `json:"perSecond"`
	Rollups    int64            `json:"rollups"` // closed windows
	Late       map[string]int64 `json:"late"`    // by window: samples after its grace
	Unreadable int64            `json:"unreadable"`
	Problem    string           `json:"problem,omitempty"`
}

type sampleCount struct {
	at time.Time
	n  int
}

func newBoard(address, data string, gather prometheus.Gatherer) *board {
	return &board{
		address: address, data: data, started: time.Now(), metrics: map[string]*metric{},
		changed: map[chan update]bool{}, gather: gather, counters: counters{Late: map[string]int64{}},
	}
}

// show takes a rollup. A closed window that comes again, as after a restart,
// replaces the one before.
func (b *board) show(r Rollup) {
	b.mu.Lock()
	defer b.mu.Unlock()
	m := b.metrics[r.Metric]
	if m == nil {
		m = &metric{open: map[string]Rollup{}, closed: map[string][]Rollup{}}
		b.metrics[r.Metric] = m
	}
	m.unit = r.Unit
	if !r.Final {
		if r.Start.After(m.open[r.Window].Start) || r.Start.Equal(m.open[r.Window].Start) {
			m.open[r.Window] = r
		}
		return
	}
	list := m.closed[r.Window]
	at, found := slices.BinarySearchFunc(list, r.Start, func(old Rollup, start time.Time) int { return old.Start.Compare(start) })
	if found {
		list[at] = r
		return
	}
	list = slices.Insert(list, at, r)
	m.closed[r.Window] = list[max(0, len(list)-closedWindows):]
	b.counters.Rollups++
	b.fresh = append(b.fresh, r)
}

// sampled counts samples that were published.
func (b *board) sampled(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.counters.Samples += int64(n)
	b.recent = append(b.recent, sampleCount{time.Now(), n})
}

// published notes whether the last attempt to publish has failed.
func (b *board) published(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.counters.Problem = ""
	if err != nil {
		b.counters.Problem = "publishing failed: " + err.Error()
	}
}

// row is a metric as the terminal and the page show it.
type row struct {
	Metric string              `json:"metric"`
	Unit   string              `json:"unit"`
	Now    map[string]Rollup   `json:"now"`              // by window: the open one, or the last closed
	Closed map[string][]Rollup `json:"closed,omitempty"` // by window
}

// update is what the page is told: everything at first, then what is new.
type update struct {
	Address  string    `json:"address"`
	Data     string    `json:"data"`
	Started  time.Time `json:"started"`
	Now      time.Time `json:"now"`
	Full     bool      `json:"full"`
	Rows     []row     `json:"rows"`
	Closed   []Rollup  `json:"closed,omitempty"`
	Counters counters  `json:"counters"`
}

// snapshot returns everything there is to see.
func (b *board) snapshot() update {
	b.count()
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.update(true)
}

// update is called with mu held.
func (b *board) update(full bool) update {
	u := update{Address: b.address, Data: b.data, Started: b.started, Now: time.Now(), Full: full, Counters: b.counters}
	u.Counters.Late = maps.Clone(b.counters.Late)
	for name, m := range b.metrics {
		r := row{Metric: name, Unit: m.unit, Now: map[string]Rollup{}}
		for window, list := range m.closed {
			r.Now[window] = list[len(list)-1]
		}
		for window, open := range m.open {
			if !open.Start.Before(r.Now[window].Start) {
				r.Now[window] = open
			}
		}
		if full {
			r.Closed = map[string][]Rollup{}
			for window, list := range m.closed {
				r.Closed[window] = slices.Clone(list)
			}
		}
		u.Rows = append(u.Rows, r)
	}
	slices.SortFunc(u.Rows, func(a, b row) int {
		return cmp.Or(cmp.Compare(groupOrder(a.Metric), groupOrder(b.Metric)), naturalOrder(a.Metric, b.Metric))
	})
	return u
}

// groups are the first parts of metrics' names, in the order they are shown in.
var groups = []string{"cpu", "memory", "disk", "network", "load"}

// groupOrder is the place of a metric's group; unknown ones come last.
func groupOrder(metric string) int {
	group, _, _ := strings.Cut(metric, "/")
	if i := slices.Index(groups, group); i >= 0 {
		return i
	}
	return len(groups)
}

// naturalOrder compares names so that core2 comes before core10.
func naturalOrder(a, b string) int {
	return cmp.Or(cmp.Compare(strings.TrimRight(a, "0123456789m"), strings.TrimRight(b, "0123456789m")), cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
}

// listen returns a channel of updates, everything at once and then what is new
// every second, and a function that ends them. A listener that does not keep up misses some; the next one is then full.
func (b *board) listen() (updates <-chan update, stop func()) {
	c := make(chan update, 4)
	b.count()
	b.mu.Lock()
	defer b.mu.Unlock()
	c <- b.update(true)
	b.changed[c] = false
	return c, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.changed, c)
	}
}

// run tells the listeners every second what is new, until ctx ends.
func (b *board) run(ctx context.Context) {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		b.tell()
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// tell sends an update to every listener.
func (b *board) tell() {
	b.count()
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.changed) > 0 {
		news := b.update(false)
		news.Closed = b.fresh
		for c, all := range b.changed {
			u := news
			if all {
				u = b.update(true)
			}
			select {
			case c <- u:
				b.changed[c] = false
			default:
				b.changed[c] = true
			}
		}
	}
	b.fresh = nil
}

// rateWindow is over how long samples per second are counted.
const rateWindow = 10 * time.Second

// count brings the counters up to date. What the operators left out is asked of
// the app's metrics.
func (b *board) count() {
	families, err := b.gather.Gather()
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	b.recent = slices.DeleteFunc(b.recent, func(s sampleCount) bool { return now.Sub(s.at) > rateWindow })
	n := 0
	for _, s := range b.recent {
		n += s.n
	}
	b.counters.PerSecond = float64(n) / min(rateWindow, max(time.Second, now.Sub(b.started))).Seconds()
	if err != nil {
		return // the counts stay as they were
	}
	b.counters.Unreadable = 0
	for _, f := range families {
		if f.GetName() != "leat_stream_dropped_records_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			labels := map[string]string{}
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			n := int64(m.GetCounter().GetValue())
			window, closed := strings.CutPrefix(labels["operator"], "rollup-")
			switch {
			case labels["reason"] == "late" && closed:
				b.counters.Late[window] = n
			case labels["reason"] == "error":
				b.counters.Unreadable += n
			}
		}
	}
}
