package local

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/leatlog/leat/stream/client"
)

func TestStart(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	o := Options{Name: "sample"}
	f := flag.NewFlagSet("sample", flag.ContinueOnError)
	o.Flags(f)
	if err := f.Parse([]string{"--listen", taken.Addr().String(), "--data-dir", t.TempDir()}); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	c, err := Start(t.Context(), o, &out)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "is taken") || c.InstanceID != "sample" || c.Bootstrap[0] == taken.Addr().String() {
		t.Errorf("%+v says %q", c, &out)
	}
	cl, err := client.New(client.Config{Bootstrap: c.Bootstrap})
	if err != nil {
		t.Fatal(err)
	}
	if err := cl.Ping(t.Context()); err != nil {
		t.Error(err)
	}
	cl.Close()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	// A cluster elsewhere has a state of its own.
	o.Bootstrap = "host:9092,b/../c"
	if c, err = Start(t.Context(), o, io.Discard); err != nil || len(c.Bootstrap) != 2 || c.InstanceID != "" {
		t.Errorf("%+v, %v", c, err)
	}
	if filepath.Base(filepath.Dir(c.StateDir)) != "cluster-host_9092_b_.._c" {
		t.Errorf("state in %s", c.StateDir)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if _, err := Start(t.Context(), Options{}, io.Discard); err == nil {
		t.Error("no data directory is taken")
	}
}

func TestTakenPortIsRecognised(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = net.Listen("tcp", l.Addr().String())
	if !isAddressInUse(err) || isAddressInUse(errors.New("other")) {
		t.Errorf("%v", err)
	}
}

func TestAFileIsNoTerminal(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if CanDraw(f) || Rows(f) <= 0 {
		t.Error("a file is taken for a terminal")
	}
}

func TestInterruption(t *testing.T) {
	other := errors.New("other")
	for _, c := range []struct {
		err  error
		want bool
	}{
		{context.Canceled, true},
		{fmt.Errorf("create topics: %w", context.Canceled), true},
		{errors.Join(fmt.Errorf("one: %w", context.Canceled), context.Canceled), true},
		{errors.Join(context.Canceled, other), false},
		{fmt.Errorf("%w: %w", context.Canceled, other), false},
		{other, false},
		{context.DeadlineExceeded, false},
	} {
		if got := IsInterruption(c.err); got != c.want {
			t.Errorf("%v: %v", c.err, got)
		}
	}
}
