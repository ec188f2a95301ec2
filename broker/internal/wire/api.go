package wire

import (
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// API is one row of the table of what is served.
type API struct {
	Key int16
	// Min and Max bound the versions that are served.
	Min, Max int16
	// Advertised is the lowest version told to clients, when that is below Min:
	// Produce only (KIP-896). A request of such a version closes the connection.
	Advertised *int16
}

// MinAdvertised is the lowest version that ApiVersions tells clients.
func (a *API) MinAdvertised() int16 {
	if a.Advertised != nil {
		return *a.Advertised
	}
	return a.Min
}

// Table is the set of APIs that are served, by key. It is immutable.
type Table struct {
	rows []API  // by key
	at   []int8 // key -> place in rows, -1 none
	// roots are the compiled schemas, by place in rows.
	roots []*field
}

// NewTable returns the table of the rows. It fails when a key is there twice, is
// not known to kmsg, has no schema, or has versions that kmsg does not know.
func NewTable(rows []API) (*Table, error) {
	t := &Table{at: make([]int8, kmsg.MaxKey+1)}
	for i := range t.at {
		t.at[i] = -1
	}
	byKey := make([]*API, len(t.at))
	for i := range rows {
		r := &rows[i]
		if r.Key < 0 || int(r.Key) >= len(t.at) {
			return nil, fmt.Errorf("api key %d does not exist", r.Key)
		}
		if byKey[r.Key] != nil {
			return nil, fmt.Errorf("api key %d (%s) is in the table twice", r.Key, kmsg.NameForKey(r.Key))
		}
		if _, ok := schemas[r.Key]; !ok {
			return nil, fmt.Errorf("api key %d (%s) has no schema", r.Key, kmsg.NameForKey(r.Key))
		}
		if known := kmsg.RequestForKey(r.Key).MaxVersion(); r.Min < 0 || r.Min > r.Max || r.Max > known {
			return nil, fmt.Errorf("api key %d (%s): versions %d to %d are not within 0 to %d", r.Key, kmsg.NameForKey(r.Key), r.Min, r.Max, known)
		}
		byKey[r.Key] = r
	}
	for key, r := range byKey {
		if r == nil {
			continue
		}
		root, err := compile(schemas[r.Key])
		if err != nil {
			return nil, err
		}
		t.at[key] = int8(len(t.rows))
		t.rows = append(t.rows, *r)
		t.roots = append(t.roots, root)
	}
	return t, nil
}

// Rows returns the rows by key. The slice is shared.
func (t *Table) Rows() []API { return t.rows }

// Lookup returns the row of a key.
func (t *Table) Lookup(key int16) (*API, bool) {
	if key < 0 || int(key) >= len(t.at) || t.at[key] < 0 {
		return nil, false
	}
	return &t.rows[t.at[key]], true
}

// Name returns the API's name as Kafka writes it, "Unknown" for a key that does
// not exist.
func Name(key int16) string { return kmsg.NameForKey(key) }

// Keys of APIs that this package or the server treats apart.
const (
	ProduceKey     = 0
	APIVersionsKey = 18
)
