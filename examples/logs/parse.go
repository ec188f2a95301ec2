package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Entry is a log line that was understood.
type Entry struct {
	Source  string    `json:"source"`
	Time    time.Time `json:"time"`
	Level   string    `json:"level"` // trace, debug, info, warn, error, fatal, or none
	Message string    `json:"message"`
}

// Errors of lines that go to the dead letters.
var (
	errNotText = errors.New("line is not UTF-8")
	errJSON    = errors.New("line begins as JSON and is none")
)

// parse understands a line: JSON as zerolog, slog, zap and others write it, logfmt,
// and free text with a level somewhere near its start. seen is the time of a line
// that tells none.
func parse(source, line string, seen time.Time) (Entry, error) {
	e := Entry{Source: source, Time: seen, Level: "none", Message: line}
	if !utf8.ValidString(line) {
		return e, errNotText
	}
	if strings.HasPrefix(line, "{") {
		return parseJSON(e, line)
	}
	if level := logfmt(line, "level"); level != "" {
		e.Level = levelOf(level)
		if message := logfmt(line, "msg"); message != "" {
			e.Message = message
		}
		e.setTime(logfmt(line, "time"))
		return e, nil
	}
	head := line[:min(len(line), 120)]
	if m := levelWord.FindString(head); m != "" {
		e.Level = levelOf(m)
	}
	if m := leadingTime.FindString(line); m != "" {
		e.setTime(m)
	}
	return e, nil
}

func parseJSON(e Entry, line string) (Entry, error) {
	var fields map[string]any
	if err := json.Unmarshal([]byte(line), &fields); err != nil {
		return e, fmt.Errorf("%w: %w", errJSON, err)
	}
	first := func(names ...string) string {
		for _, name := range names {
			switch v := fields[name].(type) {
			case string:
				return v
			case float64:
				return strconv.FormatFloat(v, 'f', -1, 64)
			}
		}
		return ""
	}
	if level := first("level", "lvl", "severity", "loglevel"); level != "" {
		e.Level = levelOf(level)
	}
	if message := first("message", "msg"); message != "" {
		e.Message = message
	}
	e.setTime(first("time", "timestamp", "ts", "@timestamp"))
	return e, nil
}

// logfmt returns the value of a name=value pair, unquoted.
func logfmt(line, name string) string {
	for from := 0; ; {
		i := strings.Index(line[from:], name+"=")
		if i < 0 {
			return ""
		}
		i += from
		from = i + len(name) + 1
		if i > 0 && line[i-1] != ' ' {
			continue
		}
		value := line[from:]
		if quoted, err := strconv.QuotedPrefix(value); err == nil {
			text, _ := strconv.Unquote(quoted)
			return text
		}
		value, _, _ = strings.Cut(value, " ")
		return value
	}
}

var (
	levelWord   = regexp.MustCompile(`(?i)\b(trace|debug|info|notice|warn|warning|err|error|crit|critical|fatal|panic|emerg|alert)\b`)
	leadingTime = regexp.MustCompile(`^\[?\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?`)
)

// levels are the names a level goes by.
var levels = map[string]string{
	"trace": "trace", "debug": "debug", "info": "info", "notice": "info", "information": "info", "warn": "warn", "warning": "warn",
	"err": "error", "error": "error", "crit": "fatal", "critical": "fatal", "fatal": "fatal", "panic": "fatal", "dpanic": "fatal",
	"emerg": "fatal", "alert": "fatal",
}

func levelOf(name string) string {
	if level, ok := levels[strings.ToLower(strings.TrimSpace(name))]; ok {
		return level
	}
	return "none"
}

// timeLayouts are how lines tell their time. Without a zone it is local.
var timeLayouts = []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999Z0700", "2006-01-02T15:04:05.999999999", "2006-01-02 15:04:05.999999999"}

// setTime takes over a time that is understood and not before 1970.
func (e *Entry) setTime(text string) {
	text = strings.Replace(strings.TrimPrefix(text, "["), ",", ".", 1)
	for _, layout := range timeLayouts {
		if t, err := time.ParseInLocation(layout, text, time.Local); err == nil && t.Unix() > 0 {
			e.Time = t
			return
		}
	}
	// Seconds or milliseconds since 1970.
	if n, err := strconv.ParseFloat(text, 64); err == nil && n > 1e8 && n < 1e14 {
		if n > 1e11 {
			n /= 1000
		}
		e.Time = time.UnixMilli(int64(n * 1000))
	}
}
