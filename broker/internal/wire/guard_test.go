package wire

import (
	"fmt"
	"math/rand"
	"reflect"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// allVersions serves every API with a schema at every version that kmsg knows.
func allVersions(t testing.TB) *Table {
	t.Helper()
	var rows []API
	for key := range schemas {
		rows = append(rows, API{Key: key, Max: kmsg.RequestForKey(key).MaxVersion()})
	}
	table, err := NewTable(rows)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// fill sets everything in v to random values: arrays of up to two elements,
// nullable values sometimes nil.
func fill(r *rand.Rand, v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if r.Intn(3) > 0 {
			v.Set(reflect.New(v.Type().Elem()))
			fill(r, v.Elem())
		}
	case reflect.Struct:
		if tags, ok := v.Addr().Interface().(*kmsg.Tags); ok {
			if r.Intn(4) == 0 {
				tags.Set(100, []byte("unknown"))
				tags.Set(101, nil)
			}
			return
		}
		for i := range v.NumField() {
			if f := v.Field(i); f.CanSet() && v.Type().Field(i).Name != "Version" {
				fill(r, f)
			}
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1+r.Intn(2), 2))
		for i := range v.Len() {
			fill(r, v.Index(i))
		}
	case reflect.Array:
		for i := range v.Len() {
			fill(r, v.Index(i))
		}
	case reflect.String:
		v.SetString("text"[:r.Intn(5)])
	case reflect.Bool:
		v.SetBool(r.Intn(2) == 0)
	case reflect.Float64:
		v.SetFloat(r.Float64())
	case reflect.Uint8, reflect.Uint16:
		v.SetUint(uint64(r.Intn(256)))
	default:
		v.SetInt(int64(int8(r.Intn(256))))
	}
}

// TestSchemasMatchKmsg walks what kmsg encodes: exactly all of it must be taken.
func TestSchemasMatchKmsg(t *testing.T) {
	table := allVersions(t)
	for _, row := range table.Rows() {
		for version := row.Min; version <= row.Max; version++ {
			t.Run(fmt.Sprintf("%s/%d", Name(row.Key), version), func(t *testing.T) {
				r := rand.New(rand.NewSource(int64(row.Key)<<8 + int64(version)))
				for range 30 {
					request := kmsg.RequestForKey(row.Key)
					fill(r, reflect.ValueOf(request).Elem())
					request.SetVersion(version)
					body := request.AppendTo(nil)
					g := guard{rest: body, version: version, flexible: request.IsFlexible()}
					if err := g.structure(table.roots[table.at[row.Key]]); err != nil {
						t.Fatalf("%v: %x of %+v", err, body, request)
					}
					if len(g.rest) != 0 {
						t.Fatalf("%d of %d bytes are left", len(g.rest), len(body))
					}
				}
			})
		}
	}
}

// TestMemoryIsNotUnderestimated compares what the guard counts for the elements
// of arrays with the types that kmsg decodes them to.
func TestMemoryIsNotUnderestimated(t *testing.T) {
	for _, row := range allVersions(t).Rows() {
		root, err := compile(schemas[row.Key])
		if err != nil {
			t.Fatal(err)
		}
		compareMemory(t, Name(row.Key), root, reflect.TypeOf(kmsg.RequestForKey(row.Key)).Elem())
	}
}

func compareMemory(t *testing.T, name string, f *field, typ reflect.Type) {
	t.Helper()
	var counted, real []int
	collectArrays(f, &counted)
	collectSlices(typ, &real)
	slices.Sort(counted)
	slices.Sort(real)
	if len(counted) != len(real) {
		t.Fatalf("%s: the schema has %d arrays, kmsg %d", name, len(counted), len(real))
	}
	for i := range real {
		if counted[i] < real[i] {
			t.Errorf("%s: elements are counted with %v bytes, kmsg's have %v", name, counted, real)
			return
		}
	}
}

func collectArrays(f *field, sizes *[]int) {
	if f.kind == arrayKind {
		*sizes = append(*sizes, f.elem.memory)
		collectArrays(f.elem, sizes)
	}
	for _, list := range [][]field{f.fields, f.tagged} {
		for i := range list {
			collectArrays(&list[i], sizes)
		}
	}
}

func collectSlices(typ reflect.Type, sizes *[]int) {
	switch typ.Kind() {
	case reflect.Pointer:
		collectSlices(typ.Elem(), sizes)
	case reflect.Slice:
		if typ.Elem().Kind() != reflect.Uint8 {
			*sizes = append(*sizes, int(typ.Elem().Size()))
			collectSlices(typ.Elem(), sizes)
		}
	case reflect.Struct:
		if typ == reflect.TypeFor[kmsg.Tags]() {
			return
		}
		for i := range typ.NumField() {
			collectSlices(typ.Field(i).Type, sizes)
		}
	}
}
