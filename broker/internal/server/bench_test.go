package server

import (
	"bufio"
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatlog/leat/broker/internal/wire"
)

// benchmark sends b.N frames, up to ten at once, and reads the answers.
func benchmark(b *testing.B, frame []byte, handle func(context.Context, *wire.Request, wire.Responder)) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	s := New(Config{Table: table(b), Handle: handle})
	go s.Serve(ln, "PLAINTEXT")
	defer s.Shutdown(context.Background())
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	slots := make(chan struct{}, 10)
	b.ReportAllocs()
	b.ResetTimer()
	go func() {
		for range b.N {
			slots <- struct{}{}
			c.Write(frame)
		}
	}()
	r := bufio.NewReaderSize(c, 1<<20)
	for range b.N {
		head, err := r.Peek(4)
		if err != nil {
			b.Fatal(err)
		}
		size := 4 + int(head[0])<<24 + int(head[1])<<16 + int(head[2])<<8 + int(head[3])
		b.SetBytes(int64(len(frame) + size))
		if _, err := io.CopyN(io.Discard, r, int64(size)); err != nil {
			b.Fatal(err)
		}
		<-slots
	}
}

func BenchmarkMetadata(b *testing.B) { benchmark(b, metadataFrame(1), answerAll) }

func BenchmarkProduce(b *testing.B) {
	for name, size := range map[string]int{"1KiB": 1 << 10, "64KiB": 64 << 10, "1MiB": 1 << 20} {
		b.Run(name, func(b *testing.B) { benchmark(b, produceFrame(1, 1, make([]byte, size)), answerAll) })
	}
}

func BenchmarkFetchFile(b *testing.B) {
	name := filepath.Join(b.TempDir(), "log")
	if err := os.WriteFile(name, make([]byte, 4<<20), 0o600); err != nil {
		b.Fatal(err)
	}
	file, err := os.Open(name)
	if err != nil {
		b.Fatal(err)
	}
	defer file.Close()
	frame := frameOf(kmsg.NewPtrFetchRequest(), 12, 1)
	for name, size := range map[string]int{"16KiB": 16 << 10, "64KiB": 64 << 10, "1MiB": 1 << 20} {
		chunks := []wire.Chunk{{File: descriptor{file}, Size: size}}
		b.Run(name, func(b *testing.B) {
			benchmark(b, frame, func(_ context.Context, _ *wire.Request, respond wire.Responder) {
				respond(wire.Response{Chunks: chunks})
			})
		})
	}
}
