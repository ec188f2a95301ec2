package server

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"

	"github.com/leatlog/leat/broker/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pipes is a listener whose connections stay in the process.
type pipes struct {
	accept chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newPipes() *pipes { return &pipes{accept: make(chan net.Conn), closed: make(chan struct{})} }

func (l *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-l.accept:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipes) Close() error { l.once.Do(func() { close(l.closed) }); return nil }

func (l *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipes"} }

func (l *pipes) dial() net.Conn {
	client, server := net.Pipe()
	l.accept <- server
	return client
}

// served is a server under test.
type served struct {
	*Server
	t    *testing.T
	ln   net.Listener
	done chan error
}

// table serves a few APIs of which the tests make requests.
func table(t testing.TB) *wire.Table {
	t.Helper()
	tab, err := wire.NewTable([]wire.API{{Key: 0, Min: 3, Max: 13}, {Key: 1, Min: 4, Max: 18}, {Key: 3, Max: 13}, {Key: 18, Max: 4}})
	if err != nil {
		t.Fatal(err)
	}
	return tab
}

func start(t *testing.T, ln net.Listener, cfg Config) *served {
	t.Helper()
	cfg.Table = table(t)
	s := &served{Server: New(cfg), t: t, ln: ln, done: make(chan error, 1)}
	s.frames.poison = true
	go func() { s.done <- s.Serve(ln, "PLAINTEXT") }()
	return s
}

func (s *served) stop() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		s.t.Errorf("shutdown: %v", err)
	}
	if err := <-s.done; !errors.Is(err, ErrClosed) {
		s.t.Errorf("Serve returned %v", err)
	}
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// client speaks to a server.
type client struct {
	net.Conn
	t *testing.T
}

func dial(t *testing.T, ln net.Listener) *client {
	t.Helper()
	if l, ok := ln.(*pipes); ok {
		return &client{l.dial(), t}
	}
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return &client{c, t}
}

// frameOf returns a whole request.
func frameOf(request kmsg.Request, version int16, id int32) []byte {
	request.SetVersion(version)
	return kmsg.NewRequestFormatter(kmsg.FormatterClientID("test")).AppendRequest(nil, request, id)
}

func metadataFrame(id int32) []byte { return frameOf(kmsg.NewPtrMetadataRequest(), 1, id) }

// produceFrame is a Produce request with one partition's records.
func produceFrame(id int32, acks int16, records []byte) []byte {
	request := kmsg.NewPtrProduceRequest()
	request.Acks = acks
	topic := kmsg.NewProduceRequestTopic()
	partition := kmsg.NewProduceRequestTopicPartition()
	partition.Records = records
	topic.Partitions = append(topic.Partitions, partition)
	request.Topics = append(request.Topics, topic)
	return frameOf(request, 9, id)
}

// receive reads a response and returns its correlation id and the rest.
func (c *client) receive() (int32, []byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return 0, nil, err
	}
	body := make([]byte, binary.BigEndian.Uint32(head[:]))
	if _, err := io.ReadFull(c, body); err != nil {
		return 0, nil, err
	}
	return int32(binary.BigEndian.Uint32(body)), body[4:], nil
}

func (c *client) expect(id int32) []byte {
	c.t.Helper()
	got, body, err := c.receive()
	if err != nil || got != id {
		c.t.Fatalf("got the answer to %d, %v; want that to %d", got, err, id)
	}
	return body
}

func (c *client) expectClosed() {
	c.t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if id, _, err := c.receive(); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		c.t.Fatalf("the connection is open: answer to %d, %v", id, err)
	}
}

func answer(r *wire.Request, respond wire.Responder) {
	respond(wire.Response{Body: r.Body.ResponseKind()})
}

func answerAll(_ context.Context, r *wire.Request, respond wire.Responder) { answer(r, respond) }

// parked keeps requests until the test answers them.
type parked struct {
	mu    sync.Mutex
	queue []func(wire.Response)
	all   []*wire.Request
	more  chan struct{}
}

func newParked() *parked { return &parked{more: make(chan struct{}, 1000)} }

func (p *parked) handle(_ context.Context, r *wire.Request, respond wire.Responder) {
	p.mu.Lock()
	p.queue, p.all = append(p.queue, respond), append(p.all, r)
	p.mu.Unlock()
	p.more <- struct{}{}
}

func (p *parked) wait(n int) {
	for range n {
		<-p.more
	}
}

// onBoth runs a test over TCP and over pipes.
func onBoth(t *testing.T, run func(t *testing.T, ln net.Listener)) {
	t.Run("tcp", func(t *testing.T) { run(t, listen(t)) })
	t.Run("pipe", func(t *testing.T) { run(t, newPipes()) })
}

func TestAnswersKeepTheOrderOfRequests(t *testing.T) {
	onBoth(t, func(t *testing.T, ln net.Listener) {
		p := newParked()
		s := start(t, ln, Config{Handle: p.handle})
		defer s.stop()
		c := dial(t, ln)
		defer c.Close()
		go func() {
			for id := range int32(10) {
				c.Write(metadataFrame(id))
			}
		}()
		p.wait(10)
		go func() {
			for _, i := range []int{9, 3, 0, 1, 5, 2, 4, 8, 7, 6} {
				answer(p.all[i], p.queue[i])
			}
		}()
		for id := range int32(10) {
			c.expect(id)
		}
	})
}

func TestReaderStopsWhenTooManyRequestsWait(t *testing.T) {
	for _, limits := range []Limits{{InFlight: 3}, {InFlightBytes: 3 * (len(metadataFrame(0)) - 4)}} {
		synctest.Test(t, func(t *testing.T) {
			p, ln := newParked(), newPipes()
			s := start(t, ln, Config{Handle: p.handle, Limits: limits})
			defer s.stop()
			c := dial(t, ln)
			defer c.Close()
			go func() {
				for id := range int32(8) {
					c.Write(metadataFrame(id))
				}
			}()
			for answered := range 8 {
				synctest.Wait()
				if got, want := len(p.all), min(answered+3, 8); got != want {
					t.Fatalf("%d requests were read after %d answers, want %d", got, answered, want)
				}
				answer(p.all[answered], p.queue[answered])
				c.expect(int32(answered))
			}
		})
	}
}

// TestFramesStayUntilTheAnswer sends records of many sizes, some byte by byte, and
// looks at them just before each is answered. Released frames are overwritten.
func TestFramesStayUntilTheAnswer(t *testing.T) {
	p, ln := newParked(), listen(t)
	s := start(t, ln, Config{Handle: p.handle})
	defer s.stop()
	c := dial(t, ln)
	defer c.Close()
	sizes := []int{0, 1, 100, 1000, 16<<10 - 80, 16 << 10, 64<<10 - 50, 64 << 10, 65 << 10, 200 << 10, 1 << 20, 5 << 20}
	for round := range 3 {
		go func() {
			for i, size := range sizes {
				frame := produceFrame(int32(i), 1, bytes.Repeat([]byte{byte(i + 1)}, size))
				if size < 2000 {
					for j := range frame {
						c.Write(frame[j : j+1])
					}
					continue
				}
				c.Write(frame)
			}
		}()
		p.wait(len(sizes))
		for i := range sizes {
			records := p.all[i].Body.(*kmsg.ProduceRequest).Topics[0].Partitions[0].Records
			if len(records) != sizes[i] || bytes.Count(records, []byte{byte(i + 1)}) != sizes[i] {
				t.Fatalf("round %d: records of request %d were overwritten", round, i)
			}
			answer(p.all[i], p.queue[i])
			c.expect(int32(i))
		}
		p.queue, p.all = nil, nil
	}
}

func TestFilesAreSent(t *testing.T) {
	content := make([]byte, 3<<20)
	for i := range content {
		content[i] = byte(i * 7 >> 3)
	}
	name := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, f := range []struct {
		name string
		file wire.File
	}{{"descriptor", descriptor{file}}, {"memory", memory{bytes.NewReader(content)}}} {
		t.Run(f.name, func(t *testing.T) {
			onBoth(t, func(t *testing.T, ln net.Listener) {
				var released atomic.Int32
				s := start(t, ln, Config{Handle: func(_ context.Context, r *wire.Request, respond wire.Responder) {
					respond(wire.Response{
						Chunks: []wire.Chunk{
							{Bytes: []byte("head")}, {File: f.file, Position: 100, Size: 2 << 20}, {Bytes: bytes.Repeat([]byte("m"), 5000)},
							{File: f.file, Position: 7, Size: 900}, {Bytes: nil}, {File: f.file, Position: 3<<20 - 70_000, Size: 70_000},
						},
						Release: func() { released.Add(1) },
					})
				}})
				c := dial(t, ln)
				defer c.Close()
				want := "head" + string(content[100:100+2<<20]) + strings.Repeat("m", 5000) + string(content[7:907]) + string(content[3<<20-70_000:])
				for id := range int32(3) {
					go c.Write(metadataFrame(id))
					if got := c.expect(id); string(got) != want {
						t.Fatalf("%d bytes came, not the %d that were sent", len(got), len(want))
					}
				}
				s.stop()
				if released.Load() != 3 {
					t.Fatalf("%d of 3 responses were released", released.Load())
				}
			})
		})
	}
}

type descriptor struct{ *os.File }

func (d descriptor) Fd() (uintptr, bool) { return d.File.Fd(), true }

type memory struct{ io.ReaderAt }

func (memory) Fd() (uintptr, bool) { return 0, false }

func TestFileThatIsTooShortClosesTheConnection(t *testing.T) {
	onBoth(t, func(t *testing.T, ln net.Listener) {
		file, err := os.Create(filepath.Join(t.TempDir(), "log"))
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		s := start(t, ln, Config{Handle: func(_ context.Context, r *wire.Request, respond wire.Responder) {
			respond(wire.Response{Chunks: []wire.Chunk{{File: descriptor{file}, Size: 1 << 20}}})
		}})
		defer s.stop()
		c := dial(t, ln)
		defer c.Close()
		c.Write(metadataFrame(1))
		c.expectClosed()
	})
}

func TestBadFramesCloseTheirConnectionOnly(t *testing.T) {
	onBoth(t, func(t *testing.T, ln net.Listener) {
		s := start(t, ln, Config{Handle: answerAll, Limits: Limits{RequestBytes: 1 << 20, OrdinaryBytes: 1000}})
		defer s.stop()
		good := dial(t, ln)
		defer good.Close()
		large := metadataFrame(1)
		large[2], large[3] = 0x10, 0
		for _, frame := range [][]byte{
			[]byte("GET / HTTP/1.1\r\nHost: broker\r\n\r\n"),
			{0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 0, 0, 0}, // TLS
			{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
			{0, 0, 0, 7, 0, 3, 0, 0, 0, 0, 0, 0},
			{0xff, 0xff, 0xff, 0xff, 0, 3, 0, 0, 0, 0, 0, 0},
			{0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 9, 0, 0, 0, 0},
			{0, 0, 0, 10, 0, 99, 0, 0, 0, 0, 0, 0, 0, 0},
			{0, 0, 0, 10, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0},
			{0, 0, 0, 10, 0, 3, 0, 99, 0, 0, 0, 0, 0, 0},
			{0, 0, 0, 10, 0, 3, 0, 1, 0, 0, 0, 0, 0x7f, 0xff},
			large,
		} {
			c := dial(t, ln)
			go c.Write(frame)
			c.expectClosed()
			c.Close()
			go good.Write(metadataFrame(5))
			good.expect(5)
		}
	})
}

// TestClaimsCostNothing opens connections that say they will send much.
func TestClaimsCostNothing(t *testing.T) {
	ln := listen(t)
	s := start(t, ln, Config{Handle: answerAll})
	defer s.stop()
	before := heap()
	for range 200 {
		c := dial(t, ln)
		defer c.Close()
		c.Write([]byte{0x06, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 1})
	}
	good := dial(t, ln)
	defer good.Close()
	good.Write(metadataFrame(1))
	good.expect(1)
	if grown := int64(heap()) - int64(before); grown > 64<<20 {
		t.Fatalf("200 connections that claim 96 MiB each take %d MiB", grown>>20)
	}
}

func TestPanicClosesTheConnectionOnly(t *testing.T) {
	var log syncBuffer
	ln := listen(t)
	s := start(t, ln, Config{Logger: zerolog.New(&log), Handle: func(_ context.Context, r *wire.Request, respond wire.Responder) {
		switch r.CorrelationID {
		case 1:
			panic("at the disco")
		case 2:
			respond(wire.Response{Body: panicking{r.Body.ResponseKind()}})
		case 3:
			respond(wire.Response{Body: kmsg.NewPtrFetchResponse()})
		default:
			answer(r, respond)
		}
	}})
	defer s.stop()
	good := dial(t, ln)
	defer good.Close()
	for id := int32(1); id <= 3; id++ {
		c := dial(t, ln)
		c.Write(metadataFrame(id))
		c.expectClosed()
		c.Close()
		good.Write(metadataFrame(5))
		good.expect(5)
	}
	for _, want := range []string{"at the disco", "server_test.go", "in the encoder", "answered with Fetch"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log does not hold %q: %s", want, log.String())
		}
	}
}

type panicking struct{ kmsg.Response }

func (panicking) AppendTo([]byte) []byte { panic("in the encoder") }

func TestIdleConnectionsAreClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, ln := newParked(), newPipes()
		s := start(t, ln, Config{Handle: p.handle, Limits: Limits{Idle: time.Minute}})
		defer s.stop()
		waits, silent := dial(t, ln), dial(t, ln)
		defer waits.Close()
		begun := time.Now()
		waits.Write(metadataFrame(1))
		silent.expectClosedAfter(begun, time.Minute)
		half := dial(t, ln) // sends a part
		begun = time.Now()
		half.Write(metadataFrame(1)[:15])
		half.expectClosedAfter(begun, time.Minute)
		time.Sleep(time.Hour)
		answer(p.all[0], p.queue[0])
		begun = time.Now()
		waits.expect(1)
		waits.expectClosedAfter(begun, time.Minute)
	})
}

// TestFullConnectionsAreClosed says that a connection does not stay for ever
// whose client has left while too many of its requests wait.
func TestFullConnectionsAreClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, ln := newParked(), newPipes()
		s := start(t, ln, Config{Handle: p.handle, Limits: Limits{Idle: time.Minute, InFlight: 2}})
		defer s.stop()
		c := dial(t, ln)
		defer c.Close()
		begun := time.Now()
		c.Write(metadataFrame(1))
		c.Write(metadataFrame(2))
		c.expectClosedAfter(begun, time.Minute)
	})
}

func (c *client) expectClosedAfter(begun time.Time, after time.Duration) {
	c.t.Helper()
	if _, _, err := c.receive(); err == nil {
		c.t.Fatal("the connection is open")
	}
	if took := time.Since(begun); !begun.IsZero() && took != after {
		c.t.Fatalf("the connection was closed after %v, want %v", took, after)
	}
	c.Close()
}

func TestShutdownSendsWhatIsAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, ln := newParked(), newPipes()
		var ended atomic.Int32
		s := start(t, ln, Config{Handle: func(ctx context.Context, r *wire.Request, respond wire.Responder) {
			p.handle(ctx, r, respond)
			context.AfterFunc(ctx, func() { ended.Add(1) })
		}})
		c, idle := dial(t, ln), dial(t, ln)
		c.Write(metadataFrame(1))
		c.Write(metadataFrame(2))
		synctest.Wait()
		go s.stop()
		synctest.Wait()
		if ended.Load() != 2 {
			t.Fatalf("%d of 2 waiting requests were told of the end", ended.Load())
		}
		idle.expectClosed()
		idle.Close()
		answer(p.all[1], p.queue[1])
		answer(p.all[0], p.queue[0])
		c.expect(1)
		c.expect(2)
		c.expectClosed()
		c.Close()
	})
}

func TestShutdownGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, ln := newParked(), newPipes()
		s := start(t, ln, Config{Handle: p.handle})
		c := dial(t, ln)
		defer c.Close()
		c.Write(metadataFrame(1))
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("shutdown: %v", err)
		}
		<-s.done
		released := false
		p.queue[0](wire.Response{Release: func() { released = true }})
		if !released {
			t.Fatal("a response to a connection that is gone was not released")
		}
	})
}

func TestConnectionsAreLimited(t *testing.T) {
	ln := listen(t)
	s := start(t, ln, Config{Handle: answerAll, Limits: Limits{Connections: 2}})
	defer s.stop()
	one, two := dial(t, ln), dial(t, ln)
	defer one.Close()
	for i, c := range []*client{one, two} {
		c.Write(metadataFrame(int32(i)))
		c.expect(int32(i))
	}
	three := dial(t, ln)
	defer three.Close()
	three.expectClosed()
	two.Close()
	for s.Connections() > 1 {
		one.Write(metadataFrame(9)) // gives the server its turn
		one.expect(9)
	}
	four := dial(t, ln)
	defer four.Close()
	four.Write(metadataFrame(4))
	four.expect(4)
}

func TestNothingIsSentForNoResponse(t *testing.T) {
	onBoth(t, func(t *testing.T, ln net.Listener) {
		s := start(t, ln, Config{Handle: func(_ context.Context, r *wire.Request, respond wire.Responder) {
			switch {
			case r.Key != wire.ProduceKey:
				answer(r, respond)
			case r.CorrelationID == 8:
				respond(wire.Response{Close: true})
			default:
				respond(wire.Response{})
			}
		}})
		defer s.stop()
		c := dial(t, ln)
		defer c.Close()
		go func() {
			c.Write(produceFrame(1, 0, []byte("records")))
			c.Write(metadataFrame(2))
			c.Write(produceFrame(8, 0, []byte("records")))
		}()
		c.expect(2)
		c.expectClosed()
	})
}

// TestManyClients has many clients pipeline requests that are answered elsewhere.
func TestManyClients(t *testing.T) {
	ln := listen(t)
	work := make(chan func(), 10_000)
	var workers sync.WaitGroup
	for range 4 {
		workers.Go(func() {
			for f := range work {
				f()
			}
		})
	}
	counter := &counting{}
	s := start(t, ln, Config{Metrics: counter, Handle: func(_ context.Context, r *wire.Request, respond wire.Responder) {
		work <- func() { answer(r, respond) }
	}})
	var clients sync.WaitGroup
	for range 20 {
		clients.Go(func() {
			c := dial(t, ln)
			defer c.Close()
			go func() {
				for id := range int32(200) {
					if id%3 == 0 {
						c.Write(produceFrame(id, 1, make([]byte, id*50)))
					} else {
						c.Write(metadataFrame(id))
					}
				}
			}()
			for id := range int32(200) {
				if got, _, err := c.receive(); err != nil || got != id {
					t.Errorf("got %d, %v, want %d", got, err, id)
					return
				}
			}
		})
	}
	clients.Wait()
	s.stop()
	close(work)
	workers.Wait()
	if counter.served.Load() != 4000 || counter.open.Load() != 0 {
		t.Fatalf("%d of 4000 requests counted, %d connections open", counter.served.Load(), counter.open.Load())
	}
}

type counting struct{ served, open, refused atomic.Int64 }

func (c *counting) ConnectionOpened()                            { c.open.Add(1) }
func (c *counting) ConnectionClosed()                            { c.open.Add(-1) }
func (c *counting) RequestServed(int16, int, int, time.Duration) { c.served.Add(1) }
func (c *counting) RequestRefused()                              { c.refused.Add(1) }
