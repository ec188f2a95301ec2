package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/leatlog/leat/examples/internal/local"
)

// showTerminal shows the board on out until ctx ends: a table that is redrawn
// every second on a terminal, else a line for each closed window.
func showTerminal(ctx context.Context, out *os.File, b *board, page string) {
	updates, stop := b.listen()
	defer stop()
	draws := local.CanDraw(out)
	if draws {
		fmt.Fprint(out, "\x1b[?25l\x1b[2J") // hide the cursor, clear
		defer fmt.Fprint(out, "\x1b[?25h")
	}
	for {
		select {
		case <-ctx.Done():
			return
		case u := <-updates:
			if draws {
				fmt.Fprint(out, frame(u, page, local.Rows(out)))
				continue
			}
			// What was closed before the start was told by the run before.
			writeLines(out, slices.DeleteFunc(slices.Clone(u.Closed), func(r Rollup) bool { return r.End.Before(u.Started) }))
		}
	}
}

// writeLines writes closed windows, one a line.
func writeLines(out io.Writer, closed []Rollup) {
	for _, r := range closed {
		f := func(v float64) string { return format(v, r.Unit) }
		fmt.Fprintf(out, "%s  %-3s %-28s n=%-3d min=%s max=%s mean=%s p50=%s p95=%s p99=%s\n", r.Start.Local().Format(time.TimeOnly),
			r.Window, r.Metric, r.Count, f(r.Min), f(r.Max), f(r.Mean), f(r.P50), f(r.P95), f(r.P99))
	}
}

// frame is one picture of the terminal, drawn over the one before.
func frame(u update, page string, height int) string {
	var lines []string
	add := func(f string, arguments ...any) { lines = append(lines, fmt.Sprintf(f, arguments...)) }
	add("\x1b[1mLeat host metrics\x1b[0m  page %s  Kafka address %s", page, u.Address)
	late := make([]string, 0, len(windowSizes))
	for _, size := range windowSizes {
		late = append(late, fmt.Sprintf("%d of %s", u.Counters.Late[windowName(size)], windowName(size)))
	}
	add("%.0f samples/s, %d in all; %d windows closed; late: %s; up %s", u.Counters.PerSecond, u.Counters.Samples,
		u.Counters.Rollups, strings.Join(late, ", "), u.Now.Sub(u.Started).Round(time.Second))
	add("")
	add("\x1b[2m%-24s│ %3s %9s %9s %9s %9s │ %3s %9s %9s %9s %9s\x1b[0m", "",
		"10s", "mean", "p50", "p95", "max", "1m", "mean", "p95", "p99", "max")
	rows := u.Rows
	if fit := height - len(lines) - 2; fit < len(rows) {
		rows = rows[:max(fit, 0)]
	}
	for _, r := range rows {
		f := func(v float64) string { return format(v, r.Unit) }
		short, long := r.Now["10s"], r.Now["1m"]
		add("%-24.24s│ %3d %9s %9s %9s %9s │ %3d %9s %9s %9s %9s", r.Metric,
			short.Count, f(short.Mean), f(short.P50), f(short.P95), f(short.Max),
			long.Count, f(long.Mean), f(long.P95), f(long.P99), f(long.Max))
	}
	if hidden := len(u.Rows) - len(rows); hidden > 0 {
		add("\x1b[2m%d more on the page\x1b[0m", hidden)
	}
	if len(u.Rows) == 0 {
		add("waiting for the first samples ...")
	}
	if u.Counters.Problem != "" {
		add("\x1b[31m%.110s\x1b[0m", u.Counters.Problem)
	}
	add("\x1b[2mCtrl-C stops\x1b[0m")
	return "\x1b[H" + strings.Join(lines, "\x1b[K\n") + "\x1b[K\x1b[J"
}

// format writes a value so that people can read it in nine characters.
func format(v float64, unit string) string {
	switch unit {
	case unitPercent:
		return fmt.Sprintf("%.1f%%", v)
	case unitBytes, unitRate:
		scaled, prefix := v, ""
		for _, p := range []string{"K", "M", "G", "T"} {
			if scaled < 1000 {
				break
			}
			scaled, prefix = scaled/1024, p
		}
		digits := 1
		if prefix == "" || scaled >= 100 {
			digits = 0
		}
		return fmt.Sprintf("%.*f%s%s", digits, scaled, prefix, unit)
	}
	return fmt.Sprintf("%.2f", v)
}
