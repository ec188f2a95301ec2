package topology_test

import (
	"encoding/binary"
	"strings"
	"testing"
	"time"

	"github.com/leatlog/leat/state"
	"github.com/leatlog/leat/topology"
	"github.com/leatlog/leat/topology/serde"
)

func TestRowsOfTables(t *testing.T) {
	top := topology.New()
	in := topology.From(top, topology.NewTopic("in", serde.String, serde.String))
	count := topology.Count("counts", in.GroupByKey(), topology.Formerly("tallies"))
	rows, err := topology.MapTable(count.Filter(func(_ string, n int64) bool { return n > 1 }), func(_ string, n int64) int64 { return -n }).Rows()
	if err != nil {
		t.Fatal(err)
	}
	if rows.Store() != "tallies" || rows.Kind() != state.KeyValue {
		t.Errorf("store %q of kind %v", rows.Store(), rows.Kind())
	}
	for n, found := range map[int64]bool{1: false, 7: true} {
		stored := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, 1234), uint64(n))
		key, value, timestamp, ok, err := rows.Decode([]byte("k"), stored)
		if err != nil || ok != found || found && (key != "k" || value != -n || timestamp != 1234) {
			t.Errorf("row of %d: %q %d %d %v %v", n, key, value, timestamp, ok, err)
		}
	}
	for _, wrong := range []string{"", "1234567", "12345678x"} {
		if _, _, _, _, err := rows.Decode([]byte("k"), []byte(wrong)); err == nil || !strings.Contains(err.Error(), `"tallies"`) {
			t.Errorf("row %q: %v", wrong, err)
		}
	}

	windows, err := topology.Count("per-minute", in.GroupByKey().Window(topology.Tumbling(time.Minute))).Rows()
	if err != nil {
		t.Fatal(err)
	}
	key := topology.WindowedKey[string]{Key: "k", Window: topology.Window{Start: 60_000, End: 120_000}}
	raw, err := windows.AppendKey(nil, key)
	if want := state.WindowKey(nil, 60_000, []byte("k")); err != nil || string(raw) != string(want) {
		t.Errorf("key %x, %v; want %x", raw, err, want)
	}
	stored := binary.BigEndian.AppendUint64(make([]byte, 8), 3)
	if back, n, _, ok, err := windows.Decode(raw, stored); err != nil || !ok || back != key || n != 3 {
		t.Errorf("row: %v %d %v %v", back, n, ok, err)
	}
	if _, _, _, _, err := windows.Decode([]byte("short"), stored); err == nil {
		t.Error("a key without a window was decoded")
	}

	store := topology.NewKeyValueStore("mine", serde.String, serde.Int64, topology.Formerly("ours"))
	if of, err := store.Rows(); err != nil || of.Store() != "ours" {
		t.Errorf("store %q, %v", of.Store(), err)
	}
	joined := topology.JoinTables(count, count, func(a, b int64) int64 { return a + b })
	if _, err := joined.Rows(); err == nil || !strings.Contains(err.Error(), "no store") {
		t.Errorf("rows of a join: %v", err)
	}
	held := count.Suppress("held", topology.UntilTimeLimit(time.Minute))
	if _, err := held.Rows(); err == nil || !strings.Contains(err.Error(), "holds updates back") {
		t.Errorf("rows of a suppression: %v", err)
	}
}
