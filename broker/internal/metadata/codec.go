package metadata

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
)

// Version is the format version written into entries and snapshots.
const Version = 1

// Errors that Decode, DecodeImage and Apply wrap.
var (
	// ErrVersion says that a newer version of Leat wrote the value, or one with a
	// change type or field this version does not know.
	ErrVersion = errors.New("metadata written by a newer version")
	// ErrMalformed says that the value is not what any version writes.
	ErrMalformed = errors.New("malformed metadata")
	// ErrInconsistent says that a change does not fit the image it is applied to.
	ErrInconsistent = errors.New("inconsistent metadata change")
)

// Encode returns the value of a metadata entry that states changes. The same
// changes always give the same bytes.
func Encode(changes []Change) []byte {
	b := make([]byte, 0, 64+160*len(changes))
	b = append(b, `{"v":`...)
	b = strconv.AppendInt(b, Version, 10)
	return appendChanges(b, changes)
}

// appendChanges writes the "changes" member and closes the object.
func appendChanges(b []byte, changes []Change) []byte {
	b = append(b, `,"changes":[`...)
	for i, c := range changes {
		if i > 0 {
			b = append(b, ',')
		}
		body, err := json.Marshal(c)
		if err != nil {
			// The types are closed and hold only strings, integers and slices of them.
			panic(fmt.Sprintf("metadata: encode a %s change: %v", c.kind(), err))
		}
		b = append(b, `{"type":"`...)
		b = append(b, c.kind()...)
		b = append(b, '"', ',')
		b = append(b, body[1:]...)
	}
	return append(b, ']', '}')
}

// Decode reads the value of a metadata entry. It fails with ErrVersion or
// ErrMalformed and never skips what it does not know.
func Decode(value []byte) ([]Change, error) {
	var entry struct {
		V       int               `json:"v"`
		Changes []json.RawMessage `json:"changes"`
	}
	if err := json.Unmarshal(value, &entry); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if err := checkVersion(entry.V); err != nil {
		return nil, err
	}
	return decodeChanges(entry.Changes)
}

func checkVersion(v int) error {
	switch {
	case v > Version:
		return fmt.Errorf("%w: format version %d, this program knows up to %d", ErrVersion, v, Version)
	case v < 1:
		return fmt.Errorf("%w: format version %d", ErrMalformed, v)
	}
	return nil
}

func decodeChanges(raw []json.RawMessage) ([]Change, error) {
	changes := make([]Change, 0, len(raw))
	for i, r := range raw {
		c, err := decodeChange(r)
		if err != nil {
			return nil, fmt.Errorf("change %d of %d: %w", i+1, len(raw), err)
		}
		changes = append(changes, c)
	}
	return changes, nil
}

func decodeChange(raw json.RawMessage) (Change, error) {
	var t typed
	if err := json.Unmarshal(raw, &t); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	c := newChange(t.Type)
	if c == nil {
		return nil, fmt.Errorf("%w: unknown change type %.40q", ErrVersion, t.Type)
	}
	// Strict: a field this program ignored would be a fact it lost.
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(c); err != nil {
		if bytes.HasPrefix([]byte(err.Error()), []byte("json: unknown field")) {
			return nil, fmt.Errorf("%w: %s change: %w", ErrVersion, t.Type, err)
		}
		return nil, fmt.Errorf("%w: %s change: %w", ErrMalformed, t.Type, err)
	}
	c.clearType()
	return c, nil
}

// Encode returns the image as a snapshot: the offset and epoch of the last entry
// it holds, and the changes that build it from nothing. Equal images give equal
// bytes.
func (i *Image) Encode() []byte {
	changes := i.changes()
	b := make([]byte, 0, 96+160*len(changes))
	b = append(b, `{"v":`...)
	b = strconv.AppendInt(b, Version, 10)
	b = append(b, `,"offset":`...)
	b = strconv.AppendInt(b, i.offset, 10)
	b = append(b, `,"epoch":`...)
	b = strconv.AppendInt(b, int64(i.epoch), 10)
	return appendChanges(b, changes)
}

// DecodeImage reads a snapshot written by Image.Encode.
func DecodeImage(snapshot []byte) (*Image, error) {
	var s struct {
		V       int               `json:"v"`
		Offset  int64             `json:"offset"`
		Epoch   int32             `json:"epoch"`
		Changes []json.RawMessage `json:"changes"`
	}
	if err := json.Unmarshal(snapshot, &s); err != nil {
		return nil, fmt.Errorf("metadata snapshot: %w: %w", ErrMalformed, err)
	}
	if err := checkVersion(s.V); err != nil {
		return nil, fmt.Errorf("metadata snapshot: %w", err)
	}
	changes, err := decodeChanges(s.Changes)
	if err != nil {
		return nil, fmt.Errorf("metadata snapshot: %w", err)
	}
	image, _, err := Empty().Apply(s.Offset, s.Epoch, changes)
	if err != nil {
		return nil, fmt.Errorf("metadata snapshot: %w", err)
	}
	return image, nil
}
