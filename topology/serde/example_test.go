package serde_test

import (
	"fmt"
	"time"

	"github.com/lovoo/goka/codec"

	"github.com/leatlog/leat/topology/serde"
)

// The engine reuses one buffer: Append extends what it is given.
func ExampleSerde() {
	buffer, _ := serde.Int64.Append(nil, 258)
	value, _ := serde.Int64.Decode(buffer)
	fmt.Printf("%x %d\n", buffer, value)
	// Output: 0000000000000102 258
}

func ExampleJSON() {
	type Order struct {
		ID     string  `json:"id"`
		Amount float64 `json:"amount"`
	}
	orders := serde.JSON[Order]()
	encoded, _ := orders.Append(nil, Order{ID: "a-1", Amount: 9.5})
	fmt.Println(string(encoded))
	_, err := orders.Decode([]byte("no JSON"))
	fmt.Println(err)
	// Output:
	// {"id":"a-1","amount":9.5}
	// serde: bytes do not hold a value of this type: json(serde_test.Order): invalid character 'o' in literal null (expecting 'u')
}

func ExampleWindowed() {
	keys := serde.Windowed(serde.String, time.Minute)
	key, _ := keys.Decode([]byte("cpu\x00\x00\x00\x00\x00\x00\xea\x60"))
	fmt.Println(key.Key, key.StartTime().Format(time.TimeOnly), key.EndTime().Format(time.TimeOnly))
	// Output: cpu 00:01:00 00:02:00
}

// A goka codec serves a topology unchanged.
func ExampleFromCodec() {
	counts := serde.FromCodec[int64]("goka int64", new(codec.Int64))
	encoded, _ := counts.Append(nil, 42)
	fmt.Printf("%s\n", encoded)
	// Output: 42
}
