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

// showTerminal shows the board on out until ctx ends: a picture that is redrawn every
// second on a terminal, else a line for each session that ends.
func showTerminal(ctx context.Context, out io.Writer, b *board, page string) {
	changes, stop := b.listen()
	defer stop()
	file, isFile := out.(*os.File)
	draws := isFile && local.CanDraw(file)
	if draws {
		fmt.Fprint(out, "\x1b[?25l\x1b[2J") // hide the cursor, clear
		defer fmt.Fprint(out, "\x1b[?25h")
	}
	second := time.NewTicker(time.Second)
	defer second.Stop()
	begin, told := b.now(), map[string]bool{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-changes:
		case <-second.C:
		}
		v := b.view()
		if draws {
			fmt.Fprint(out, frame(v, page, local.Rows(file)))
			continue
		}
		told = writeEnded(out, v.Closed, begin, told)
	}
}

// writeEnded writes the sessions that are not among those told yet, and returns all that
// are now. What ended before begin was told by the run before.
func writeEnded(out io.Writer, closed []visitor, begin time.Time, told map[string]bool) map[string]bool {
	all := map[string]bool{}
	for _, s := range slices.Backward(closed) { // the earliest first
		id := fmt.Sprint(s.Visitor, s.Start)
		if all[id] = true; !told[id] && s.End.After(begin) {
			fmt.Fprintln(out, s.End.Local().Format(time.TimeOnly), sessionLine(s, s.End))
		}
	}
	return all
}

// sessionLine describes a session; until is its end, or the present.
func sessionLine(s visitor, until time.Time) string {
	path := strings.Join(s.Pages, " > ")
	return fmt.Sprintf("%-18s %6s  %2d views %2d clicks  %s", s.Name, until.Sub(s.Start).Round(time.Second), s.Views, s.Clicks, path)
}

// frame is one picture of the terminal, drawn over the one before.
func frame(v view, page string, height int) string {
	var lines []string
	add := func(f string, arguments ...any) {
		lines = append(lines, fmt.Sprintf("%.140s", fmt.Sprintf(f, arguments...)))
	}
	add("\x1b[1mLeat page views\x1b[0m  open %s  Kafka address %s  %d acknowledged", page, v.Address, v.Acknowledged)
	add("")
	if len(v.Minutes) == 0 {
		add("nobody has been here in the last hour: open %s", page)
	} else {
		top := v.Minutes[0]
		add("\x1b[2mtop pages at %s\x1b[0m", top.Minute.Local().Format("15:04"))
		for _, p := range top.Pages {
			add("%5d  %-10s %s", p.Views, p.Page, strings.Repeat("▪", int(min(p.Views, 60))))
		}
	}
	add("")
	add("\x1b[2m%d sessions are open\x1b[0m", len(v.Open))
	for _, s := range v.Open {
		add("%s", sessionLine(s, v.Now))
	}
	add("")
	add("\x1b[2mended\x1b[0m")
	for _, s := range v.Closed {
		add("%s  %s", s.End.Local().Format(time.TimeOnly), sessionLine(s, s.End))
	}
	if v.Problem != "" {
		add("\x1b[31m%s\x1b[0m", v.Problem)
	}
	lines = lines[:min(len(lines), max(height-2, 1))]
	lines = append(lines, "\x1b[2mCtrl-C stops\x1b[0m")
	return "\x1b[H" + strings.Join(lines, "\x1b[K\n") + "\x1b[K\x1b[J"
}
