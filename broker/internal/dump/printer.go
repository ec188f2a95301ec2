package dump

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// field is a named value of a line.
type field struct {
	name  string
	value any
}

// printer writes lines of fields, as text or as JSON. It keeps the first error.
type printer struct {
	w    io.Writer
	json bool
	line []byte
	err  error
}

// print writes a line: what it is about, then its fields in order. depth indents
// the text.
func (p *printer) print(depth int, kind string, fields ...field) {
	if p.err != nil {
		return
	}
	p.line = p.line[:0]
	if p.json {
		p.line = append(p.line, `{"type":`...)
		p.line = strconv.AppendQuote(p.line, kind)
		for _, f := range fields {
			value, err := json.Marshal(jsonValue(f.value))
			if err != nil {
				p.err = fmt.Errorf("write %s: %w", f.name, err)
				return
			}
			p.line = append(p.line, ',')
			p.line = strconv.AppendQuote(p.line, strings.ReplaceAll(f.name, " ", "_"))
			p.line = append(append(p.line, ':'), value...)
		}
		p.line = append(p.line, '}')
	} else {
		p.line = append(p.line, strings.Repeat("  ", depth)...)
		p.line = append(p.line, kind...)
		for _, f := range fields {
			p.line = append(p.line, "  "+f.name+" "+text(f.value)...)
		}
	}
	p.line = append(p.line, '\n')
	_, p.err = p.w.Write(p.line)
}

// timestamp is a time in milliseconds since the epoch.
type timestamp int64

func (t timestamp) String() string {
	if t < 0 {
		return "none"
	}
	return time.UnixMilli(int64(t)).UTC().Format("2006-01-02T15:04:05.000Z")
}

// text is a value in a line of text.
func text(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case []byte:
		if v == nil {
			return "null"
		}
		if utf8.Valid(v) && strings.IndexFunc(string(v), func(r rune) bool { return !unicode.IsPrint(r) && r != '\n' && r != '\t' }) < 0 {
			return strconv.Quote(string(v))
		}
		return fmt.Sprintf("0x%x", v)
	case string:
		return strconv.Quote(v)
	case *string:
		if v == nil {
			return "null"
		}
		return strconv.Quote(*v)
	case json.RawMessage:
		return string(v)
	}
	return fmt.Sprint(v)
}

// jsonValue is a value as JSON can hold it: bytes that are no text become base64
// in an object.
func jsonValue(v any) any {
	switch v := v.(type) {
	case []byte:
		switch {
		case v == nil:
			return nil
		case utf8.Valid(v):
			return string(v)
		}
		return map[string]string{"base64": base64.StdEncoding.EncodeToString(v)}
	case timestamp:
		return int64(v)
	case word:
		return string(v)
	}
	return v
}

// word is a string that text shows without quotes.
type word string
