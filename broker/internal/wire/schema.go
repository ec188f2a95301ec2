package wire

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// kind is the type of a field.
type kind uint8

const (
	fixedKind  kind = iota // size bytes
	stringKind             // length int16 or compact
	bytesKind              // length int32 or compact
	arrayKind              // length int32 or compact, then that many of elem
	structKind             // fields, then tags in flexible versions
)

// field is a field of a struct or the element of an array.
type field struct {
	kind     kind
	size     int   // of fixedKind
	min, max int16 // the versions that have it
	nullable int16 // the first version in which it may be null
	tag      int32 // -1: not tagged
	elem     *field
	fields   []field // of structKind: those without a tag
	tagged   []field
	memory   int // bytes that the value takes when decoded, without what it points to
}

const never = math.MaxInt16 // as a version: none

// Bytes that decoded values take on a 64-bit machine.
const (
	stringMemory  = 16
	sliceMemory   = 24
	pointerMemory = 8
	tagsMemory    = 8   // an empty kmsg.Tags
	firstTag      = 400 // a map with one entry
	nextTag       = 80  // another entry of the map, with room for its growth
)

var fixedSizes = map[string]int{"bool": 1, "int8": 1, "int16": 2, "int32": 4, "int64": 8, "float64": 8, "uuid": 16}

// compile parses a schema. Its errors are mistakes of the table.
func compile(schema string) (*field, error) {
	p := schemaParser{rest: "{" + schema + "}"}
	root, err := p.parseType()
	if err == nil && p.rest != "" {
		err = fmt.Errorf("something is left: %q", p.rest)
	}
	if err != nil {
		return nil, fmt.Errorf("schema %q: %w", schema, err)
	}
	return root, nil
}

type schemaParser struct{ rest string }

func (p *schemaParser) take(prefix string) bool {
	rest, ok := strings.CutPrefix(p.rest, prefix)
	p.rest = rest
	return ok
}

// word takes letters, digits and underscores.
func (p *schemaParser) word() string {
	n := 0
	for n < len(p.rest) && (p.rest[n] == '_' || p.rest[n] >= '0' && p.rest[n] <= '9' || p.rest[n] >= 'a' && p.rest[n] <= 'z') {
		n++
	}
	w := p.rest[:n]
	p.rest = p.rest[n:]
	return w
}

// number takes digits, none giving otherwise.
func (p *schemaParser) number(otherwise int16) (int16, error) {
	n := 0
	for n < len(p.rest) && p.rest[n] >= '0' && p.rest[n] <= '9' {
		n++
	}
	if n == 0 {
		return otherwise, nil
	}
	v, err := strconv.ParseInt(p.rest[:n], 10, 16)
	p.rest = p.rest[n:]
	return int16(v), err
}

func (p *schemaParser) parseType() (*field, error) {
	f := &field{max: never, nullable: never, tag: -1}
	var err error
	switch {
	case p.take("[]"):
		f.kind, f.memory = arrayKind, sliceMemory
		if p.take("?") {
			if f.nullable, err = p.number(0); err != nil {
				return nil, err
			}
		}
		f.elem, err = p.parseType()
		return f, err
	case p.take("?{"):
		f.nullable = 0
		err = p.parseStruct(f)
		f.memory += pointerMemory
		return f, err
	case p.take("{"):
		return f, p.parseStruct(f)
	}
	name := p.word()
	size, fixed := fixedSizes[name]
	switch {
	case fixed:
		f.kind, f.size, f.memory = fixedKind, size, size
	case name == "string":
		f.kind, f.memory = stringKind, stringMemory
	case name == "bytes":
		f.kind, f.memory = bytesKind, sliceMemory
	default:
		return nil, fmt.Errorf("unknown type %q before %q", name, p.rest)
	}
	if p.take("?") {
		f.nullable, err = p.number(0)
		if f.kind == stringKind {
			f.memory += pointerMemory
		}
	}
	return f, err
}

func (p *schemaParser) parseStruct(s *field) error {
	s.kind, s.memory = structKind, tagsMemory
	if p.take("}") {
		return nil
	}
	for {
		p.take(" ")
		if p.word() == "" || !p.take(" ") {
			return fmt.Errorf("a field's name is missing before %q", p.rest)
		}
		f, err := p.parseType()
		if err != nil {
			return err
		}
		if err := p.parseVersions(f); err != nil {
			return err
		}
		s.memory += (f.memory + 7) &^ 7
		if f.tag >= 0 {
			s.tagged = append(s.tagged, *f)
		} else {
			s.fields = append(s.fields, *f)
		}
		if p.take("}") {
			return nil
		}
		if !p.take(",") {
			return fmt.Errorf("a comma is missing before %q", p.rest)
		}
	}
}

// parseVersions takes @3+, @0-7 and #1.
func (p *schemaParser) parseVersions(f *field) (err error) {
	if p.take("@") {
		if f.min, err = p.number(-1); err != nil {
			return err
		}
		if !p.take("+") {
			if !p.take("-") {
				return fmt.Errorf("versions end at %q", p.rest)
			}
			if f.max, err = p.number(-1); err != nil {
				return err
			}
		}
	}
	if p.take("#") {
		tag, err := p.number(-1)
		f.tag = int32(tag)
		return err
	}
	return nil
}
