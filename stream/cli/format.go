package cli

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/leatlog/leat/topology/plan"
)

// formatHelp documents --format.
const formatHelp = `how to write a record:
  %t topic      %p partition  %o offset     %T timestamp (ms)
  %k key        %s value      %h headers    (null is NULL; headers name=value,...)
  %K, %S        length of key and value, -1 for null
  %%            a percent sign; \n \t \r \0 \\ \xHH as in C`

// format writes a record as a list of parts: literal text or a directive.
type format struct{ parts []part }

type part struct {
	directive byte // 0: literal
	text      string
}

// parseFormat reads a format string.
func parseFormat(s string) (*format, error) {
	f := &format{}
	var text strings.Builder
	flush := func() {
		if text.Len() > 0 {
			f.parts = append(f.parts, part{text: text.String()})
			text.Reset()
		}
	}
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '%' && i+1 < len(s):
			i++
			switch {
			case s[i] == '%':
				text.WriteByte('%')
			case strings.IndexByte("tpoTkshKS", s[i]) >= 0:
				flush()
				f.parts = append(f.parts, part{directive: s[i]})
			default:
				return nil, fmt.Errorf("--format %q: %%%c is not known: use %%t %%p %%o %%T %%k %%s %%h %%K %%S or %%%%", s, s[i])
			}
		case c == '\\' && i+1 < len(s):
			i++
			n, err := escape(&text, s[i:])
			if err != nil {
				return nil, fmt.Errorf("--format %q: %w", s, err)
			}
			i += n
		case c == '%' || c == '\\':
			return nil, fmt.Errorf("--format %q ends in the middle of %q", s, c)
		default:
			text.WriteByte(c)
		}
	}
	flush()
	return f, nil
}

// escape writes what stands behind a backslash; n is how many bytes beyond the
// first belong to it.
func escape(text *strings.Builder, s string) (n int, err error) {
	switch s[0] {
	case 'n':
		text.WriteByte('\n')
	case 't':
		text.WriteByte('\t')
	case 'r':
		text.WriteByte('\r')
	case '0':
		text.WriteByte(0)
	case '\\':
		text.WriteByte('\\')
	case 'x':
		if len(s) < 3 {
			return 0, fmt.Errorf(`\x needs two hexadecimal digits`)
		}
		b, err := strconv.ParseUint(s[1:3], 16, 8)
		if err != nil {
			return 0, fmt.Errorf(`\x%s is not a byte in hexadecimal`, s[1:3])
		}
		text.WriteByte(byte(b))
		return 2, nil
	default:
		return 0, fmt.Errorf(`\%c is not known: use \n \t \r \0 \\ or \xHH`, s[0])
	}
	return 0, nil
}

// appendRecord appends a record in the format.
func (f *format) appendRecord(dst []byte, topic string, partition int32, r *plan.Record) []byte {
	for _, p := range f.parts {
		switch p.directive {
		case 0:
			dst = append(dst, p.text...)
		case 't':
			dst = append(dst, topic...)
		case 'p':
			dst = strconv.AppendInt(dst, int64(partition), 10)
		case 'o':
			dst = strconv.AppendInt(dst, r.Offset, 10)
		case 'T':
			dst = strconv.AppendInt(dst, r.Timestamp, 10)
		case 'k':
			dst = appendField(dst, r.Key)
		case 's':
			dst = appendField(dst, r.Value)
		case 'K':
			dst = appendLength(dst, r.Key)
		case 'S':
			dst = appendLength(dst, r.Value)
		case 'h':
			for i, h := range r.Headers {
				if i > 0 {
					dst = append(dst, ',')
				}
				dst = append(append(dst, h.Key...), '=')
				dst = appendField(dst, h.Value)
			}
		}
	}
	return dst
}

func appendField(dst, b []byte) []byte {
	if b == nil {
		return append(dst, "NULL"...)
	}
	return append(dst, b...)
}

func appendLength(dst, b []byte) []byte {
	if b == nil {
		return append(dst, "-1"...)
	}
	return strconv.AppendInt(dst, int64(len(b)), 10)
}

// recordJSON is a record in JSON output. Bytes that are not UTF-8 come as base64
// in a field of their own.
type recordJSON struct {
	Topic       string       `json:"topic"`
	Partition   int32        `json:"partition"`
	Offset      int64        `json:"offset"`
	Timestamp   int64        `json:"timestamp"`
	Key         *string      `json:"key"`
	KeyBase64   string       `json:"key_base64,omitempty"`
	Value       *string      `json:"value"`
	ValueBase64 string       `json:"value_base64,omitempty"`
	Headers     []headerJSON `json:"headers,omitempty"`
}

type headerJSON struct {
	Name   string  `json:"name"`
	Value  *string `json:"value"`
	Base64 string  `json:"value_base64,omitempty"`
}

func appendJSON(dst []byte, topic string, partition int32, r *plan.Record) ([]byte, error) {
	v := recordJSON{Topic: topic, Partition: partition, Offset: r.Offset, Timestamp: r.Timestamp}
	v.Key, v.KeyBase64 = textOrBase64(r.Key)
	v.Value, v.ValueBase64 = textOrBase64(r.Value)
	for _, h := range r.Headers {
		text, encoded := textOrBase64(h.Value)
		v.Headers = append(v.Headers, headerJSON{h.Key, text, encoded})
	}
	b, err := json.Marshal(v)
	return append(append(dst, b...), '\n'), err
}

func textOrBase64(b []byte) (*string, string) {
	if b == nil {
		return nil, ""
	}
	if !utf8.Valid(b) {
		return nil, base64.StdEncoding.EncodeToString(b)
	}
	s := string(b)
	return &s, ""
}
