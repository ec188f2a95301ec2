package main

import (
	"time"

	"github.com/leatlog/leat/topology"
	"github.com/leatlog/leat/topology/serde"
)

// The topics.
var (
	// linesTopic has every line, keyed by the file it is from.
	linesTopic = topology.NewTopic("log-lines", serde.String, serde.String)
	// entriesTopic has the lines that were understood, keyed by file.
	entriesTopic = topology.NewTopic("log-entries", serde.String, serde.JSON[Entry]())
	// countsTopic has the number of lines by file, level and minute, as it grows.
	countsTopic = topology.NewTopic("log-counts", serde.String, serde.JSON[Count]())
)

// deadLetters has the lines that were not understood, with headers that say why.
const deadLetters = "log-dead-letters"

// grace is how long after its end a minute takes late lines. Files are written with
// different delays, and a file that is new to the example begins with older lines.
const grace = 24 * time.Hour

// Count is how many lines of a level a file had in a minute.
type Count struct {
	Source string    `json:"source"`
	Level  string    `json:"level"`
	Minute time.Time `json:"minute"`
	Lines  int64     `json:"lines"`
}

// kind is what lines are counted by.
type kind struct {
	Level  string `json:"level"`
	Source string `json:"source"`
}

// logTopology declares what happens to lines:
//
//	log-lines ── parse ─┬─> log-entries
//	              │     └─ by level and source ── 1 m ── count ──> log-counts
//	              └─ (not understood) ──> log-dead-letters
//
// A minute is that of the time in the line. What comes later than grace after the end
// of its minute is in log-entries and not in log-counts.
func logTopology() *topology.Topology {
	t := topology.New()
	lines := topology.From(t, linesTopic, topology.Named("lines"))
	entries := topology.MapValuesRecord(lines, func(r *topology.Record[string, string]) (Entry, error) {
		return parse(r.Key, r.Value, r.Time())
	}, topology.Named("parse"), topology.OnError(topology.DeadLetter(deadLetters)))
	topology.To(entries, entriesTopic, topology.Named("entries"))

	// The operators behind a repartition topic go by the time of its records.
	timed := topology.From(t, entriesTopic, topology.Named("timed"), topology.EventTime(func(e Entry) time.Time { return e.Time }))
	byKind := topology.GroupBy("by-kind", timed, serde.JSON[kind](), func(e Entry) kind { return kind{e.Level, e.Source} })
	counts := topology.Count("lines-per-minute", byKind.Window(topology.Tumbling(time.Minute).Grace(grace)), topology.OnUpdate())
	topology.To(topology.Map(counts.Stream(), func(k topology.WindowedKey[kind], n int64) (string, Count) {
		return k.Key.Source, Count{Source: k.Key.Source, Level: k.Key.Level, Minute: k.StartTime(), Lines: n}
	}, topology.Named("count")), countsTopic, topology.Named("counts"))
	return t
}
