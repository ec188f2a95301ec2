package broker_test

import (
	"errors"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatlog/leat/broker/brokertest"
	"github.com/leatlog/leat/broker/internal/vfs"
)

// TestDiskFull: a client is refused with the storage error while the disk is full,
// reads what is there, and writes again when there is room.
func TestDiskFull(t *testing.T) {
	var quota vfs.Quota
	quota.Set(1 << 40)
	b := brokertest.Start(t, onDisk(vfs.NewFaulty(vfs.NewMem(), quota.Before)))
	created, err := kadm.NewClient(crashClient(t, b)).CreateTopic(crashContext(t), 1, 1, nil, "orders")
	if err != nil || created.Err != nil {
		t.Fatal(err, created.Err)
	}
	// One try only: the client would try again until there is room.
	c := crashClient(t, b, kgo.RecordRetries(0), kgo.DisableIdempotentWrite(), kgo.RequiredAcks(kgo.AllISRAcks()))
	produce := func(value string) error {
		return c.ProduceSync(crashContext(t), &kgo.Record{Topic: "orders", Value: []byte(value)}).FirstErr()
	}
	if err := produce("before"); err != nil {
		t.Fatal(err)
	}
	quota.Set(0)
	if err := produce("refused"); !errors.Is(err, kerr.KafkaStorageError) {
		t.Errorf("produce on a full disk: %v", err)
	}
	if got := readAll(t, b, "orders")[0]; len(got) != 1 || got[0] != "before" {
		t.Errorf("read on a full disk: %v", got)
	}
	quota.Set(1 << 40)
	if err := produce("after"); err != nil {
		t.Errorf("produce when there is room again: %v", err)
	}
	if got := readAll(t, b, "orders")[0]; len(got) != 2 || got[0] != "before" || got[1] != "after" {
		t.Errorf("records: %v", got)
	}
}
