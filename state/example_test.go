package state_test

import (
	"context"
	"fmt"
	"time"

	"github.com/leatlog/leat/state"
	"github.com/leatlog/leat/state/memstore"
)

// Writes are applied to an engine in batches; reads see whole batches.
func Example() {
	engine, err := memstore.New().Open(context.Background(), "0_0", state.Spec{Name: "counts"})
	if err != nil {
		panic(err)
	}
	defer engine.Close()

	var batch state.Batch
	batch.Put([]byte("apples"), []byte("3"))
	batch.Put([]byte("pears"), []byte("5"))
	batch.Delete([]byte("apples"))
	if err := engine.Apply(&batch); err != nil {
		panic(err)
	}
	err = engine.Scan(nil, nil, false, func(key, value []byte) bool {
		fmt.Printf("%s=%s\n", key, value)
		return true
	})
	fmt.Println(err)
	// Output:
	// pears=5
	// <nil>
}

// The keys of a window store are led by the start of the window, so that old
// windows are one range.
func ExampleWindowKey() {
	start := time.Date(2024, 1, 1, 12, 0, 0, 0, time.UTC).UnixMilli()
	key := state.WindowKey(nil, start, []byte("home"))
	back, inner, ok := state.SplitWindowKey(key)
	fmt.Println(time.UnixMilli(back).UTC().Format(time.TimeOnly), string(inner), ok)
	// Output: 12:00:00 home true
}
