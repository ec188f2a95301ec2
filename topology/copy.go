package topology

import "reflect"

// copier makes copies of aggregates, which user functions may change in place.
type copier[A any] struct {
	value Serde[A]
	// plain says that an assignment is a copy.
	plain bool
	buf   []byte
}

// newCopier returns a copier; mutable says that user functions may change aggregates in
// place.
func newCopier[A any](value Serde[A], mutable bool) copier[A] {
	return copier[A]{value: value, plain: !mutable || plain(reflect.TypeFor[A]())}
}

// copy returns a value that is changed without the original.
func (c *copier[A]) copy(v A) (A, error) {
	if c.plain || nullCheck[A]().isNull(v) {
		return v, nil
	}
	var err error
	if c.buf, err = c.value.Append(c.buf[:0], v); err != nil {
		return v, err
	}
	return c.value.Decode(c.buf)
}

// plain tells whether values of a type hold nothing that another value shares and that
// can be changed.
func plain(t reflect.Type) bool {
	switch kind := t.Kind(); kind {
	case reflect.Array:
		return plain(t.Elem())
	case reflect.Struct:
		for i := range t.NumField() {
			if !plain(t.Field(i).Type) {
				return false
			}
		}
		return true
	default:
		return kind >= reflect.Bool && kind <= reflect.Complex128 || kind == reflect.String
	}
}
