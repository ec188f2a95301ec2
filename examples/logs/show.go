package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/leatlog/leat/examples/internal/local"
	"github.com/leatlog/leat/stream/client"
	"github.com/leatlog/leat/topology"
	"github.com/leatlog/leat/topology/plan"
)

// shownLevels are the columns of the table.
var shownLevels = []string{"fatal", "error", "warn", "info", "debug", "trace", "none"}

// board is what is shown: counts of the last hour, and the latest troubles.
type board struct {
	mu      sync.Mutex
	counts  map[kind]map[int64]int64 // lines by minute, in seconds since 1970
	dead    int64
	latest  []string // errors and dead letters, the newest last
	unshown []string
}

func newBoard() *board { return &board{counts: make(map[kind]map[int64]int64)} }

// keepLatest is how many troubles are kept.
const keepLatest = 100

func (b *board) trouble(text string) {
	text = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' ' // a log line must not steer the terminal
	}, text)
	b.latest = append(b.latest, text)
	b.latest = b.latest[max(0, len(b.latest)-keepLatest):]
	b.unshown = append(b.unshown, text)
}

// take takes a record of one of the topics.
func (b *board) take(topic string, r *plan.Record) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch topic {
	case countsTopic.Name:
		var c Count
		if err := json.Unmarshal(r.Value, &c); err != nil {
			return err
		}
		k := kind{c.Level, c.Source}
		if b.counts[k] == nil {
			b.counts[k] = make(map[int64]int64)
		}
		b.counts[k][c.Minute.Unix()] = c.Lines
	case entriesTopic.Name:
		var e Entry
		if err := json.Unmarshal(r.Value, &e); err != nil {
			return err
		}
		if e.Level == "error" || e.Level == "fatal" {
			b.trouble(fmt.Sprintf("%s %-5s %s: %s", e.Time.Local().Format(time.DateTime), e.Level, filepath.Base(e.Source), e.Message))
		}
	case deadLetters:
		b.dead++
		reason := ""
		for _, h := range r.Headers {
			if h.Key == topology.HeaderError {
				reason = string(h.Value)
			}
		}
		b.trouble(fmt.Sprintf("%s dead  %s: %s", time.UnixMilli(r.Timestamp).Local().Format(time.DateTime), filepath.Base(string(r.Key)), reason))
	}
	return nil
}

// follow brings what comes to the topics to the board until ctx ends, from an hour
// ago on.
func follow(ctx context.Context, c *client.Client, b *board) error {
	hourAgo := time.Now().Add(-time.Hour)
	from := map[string]time.Time{countsTopic.Name: hourAgo, entriesTopic.Name: hourAgo, deadLetters: hourAgo}
	return local.Follow(ctx, c, local.Following{From: from, Partitions: partitions}, func(p client.Partition, r *plan.Record) error {
		return b.take(p.Topic, r)
	})
}

// show shows the board until ctx ends: a table on a terminal, else a line for each
// error and dead letter.
func show(ctx context.Context, out *os.File, b *board, cluster *local.Cluster) {
	draws := local.CanDraw(out)
	if draws {
		fmt.Fprint(out, "\x1b[?25l\x1b[2J") // hide the cursor, clear
		defer fmt.Fprint(out, "\x1b[?25h")
	}
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		if draws {
			fmt.Fprint(out, b.frame(time.Now(), local.Rows(out), cluster.Bootstrap[0]))
		} else {
			b.mu.Lock()
			lines := b.unshown
			b.unshown = nil
			b.mu.Unlock()
			for _, line := range lines {
				fmt.Fprintln(out, line)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// frame is one picture of the terminal, drawn over the one before.
func (b *board) frame(now time.Time, height int, address string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	lines := []string{
		"\x1b[1mLeat logs\x1b[0m  lines of the last hour, by file and level  Kafka address " + address,
		fmt.Sprintf("%d dead letters in %s", b.dead, deadLetters), "",
	}
	head := fmt.Sprintf("\x1b[2m%-34s", "")
	for _, level := range shownLevels {
		head += fmt.Sprintf(" %8s", level)
	}
	lines = append(lines, head+"\x1b[0m")
	sums := b.sums(now)
	sources := make([]string, 0, len(sums))
	for source := range sums {
		sources = append(sources, source)
	}
	slices.Sort(sources)
	room := max(3, (height-len(lines)-3)/2)
	for i, source := range sources {
		if i == room {
			lines = append(lines, fmt.Sprintf("\x1b[2m%d more files\x1b[0m", len(sources)-room))
			break
		}
		row := fmt.Sprintf("%-34s", tailOf(source, 34))
		for _, level := range shownLevels {
			n := sums[source][level]
			switch {
			case n == 0:
				row += fmt.Sprintf(" \x1b[2m%8s\x1b[0m", "·")
			case level == "error" || level == "fatal":
				row += fmt.Sprintf(" \x1b[31m%8d\x1b[0m", n)
			case level == "warn":
				row += fmt.Sprintf(" \x1b[33m%8d\x1b[0m", n)
			default:
				row += fmt.Sprintf(" %8d", n)
			}
		}
		lines = append(lines, row)
	}
	if len(sources) == 0 {
		lines = append(lines, "waiting for lines ...")
	}
	lines = append(lines, "")
	for _, text := range b.latest[max(0, len(b.latest)-max(0, height-len(lines)-1)):] {
		lines = append(lines, fmt.Sprintf("%.118s", text))
	}
	lines = append(lines, "\x1b[2mCtrl-C stops\x1b[0m")
	return "\x1b[H" + strings.Join(lines, "\x1b[K\n") + "\x1b[K\x1b[J"
}

// sums adds up the last hour, and forgets what is older.
func (b *board) sums(now time.Time) map[string]map[string]int64 {
	from := now.Add(-time.Hour).Unix()
	sums := make(map[string]map[string]int64)
	for k, minutes := range b.counts {
		for minute, n := range minutes {
			if minute < from {
				delete(minutes, minute)
				continue
			}
			if sums[k.Source] == nil {
				sums[k.Source] = make(map[string]int64)
			}
			sums[k.Source][k.Level] += n
		}
	}
	return sums
}

// tailOf is the end of a path that fits.
func tailOf(path string, width int) string {
	if runes := []rune(path); len(runes) > width {
		return "…" + string(runes[len(runes)-width+1:])
	}
	return path
}
