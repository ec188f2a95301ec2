package brokertest_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/leatlog/leat/broker/brokertest"
)

// toxicProxy passes connections on to a broker, and breaks or delays them when told so.
// It does what sarama's tests use of Toxiproxy.
type toxicProxy struct {
	name, address, upstream string
	oneReplica              bool // of topics to be created, since there is one broker

	mu       sync.Mutex
	listener net.Listener // nil while it is disabled
	open     map[net.Conn]struct{}
	latency  time.Duration // of what the broker sends
	reset    bool          // connections are reset
	wait     sync.WaitGroup
}

// serveToxics starts the proxies kafka1 to kafka5, of the brokers or all of one, and the
// interface by which tests command them, whose address it returns.
func serveToxics(t *testing.T, upstreams []string) string {
	t.Helper()
	proxies := map[string]*toxicProxy{}
	for i := 1; i <= 5; i++ {
		p := &toxicProxy{name: fmt.Sprint("kafka", i), address: fmt.Sprintf("127.0.0.1:%d", saramaPorts+i),
			upstream: upstreams[min(i, len(upstreams))-1], oneReplica: len(upstreams) == 1, open: map[net.Conn]struct{}{}}
		proxies[p.name] = p
		if err := p.enable(true); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = p.enable(false)
			p.wait.Wait()
		})
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: toxicsHandler(proxies)}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { server.Close() })
	return "http://" + l.Addr().String()
}

func toxicsHandler(proxies map[string]*toxicProxy) http.Handler {
	mux := http.NewServeMux()
	on := func(pattern string, do func(p *toxicProxy, body []byte) error) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			p := proxies[r.PathValue("name")]
			body, err := io.ReadAll(r.Body)
			if p == nil || err != nil {
				http.Error(w, "no such proxy", http.StatusNotFound)
				return
			}
			if err := do(p, body); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			p.mu.Lock()
			defer p.mu.Unlock()
			_ = json.NewEncoder(w).Encode(map[string]any{"name": p.name, "listen": p.address, "upstream": p.upstream, "enabled": p.listener != nil})
		})
	}
	on("GET /proxies/{name}", func(*toxicProxy, []byte) error { return nil })
	on("POST /proxies/{name}", func(p *toxicProxy, body []byte) error {
		var as struct{ Enabled bool }
		if err := json.Unmarshal(body, &as); err != nil {
			return err
		}
		return p.enable(as.Enabled)
	})
	on("POST /proxies/{name}/toxics", func(p *toxicProxy, body []byte) error {
		var toxic struct {
			Type       string
			Attributes struct{ Latency int64 }
		}
		if err := json.Unmarshal(body, &toxic); err != nil {
			return err
		}
		return p.poison(toxic.Type, time.Duration(toxic.Attributes.Latency)*time.Millisecond)
	})
	mux.HandleFunc("POST /reset", func(w http.ResponseWriter, _ *http.Request) {
		for _, p := range proxies {
			p.mu.Lock()
			p.latency, p.reset = 0, false
			p.mu.Unlock()
			if err := p.enable(true); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
		}
		w.WriteHeader(http.StatusNoContent)
	})
	return mux
}

// enable opens the proxy, or closes it with all of its connections.
func (p *toxicProxy) enable(is bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case is == (p.listener != nil):
	case is:
		l, err := net.Listen("tcp", p.address)
		if err != nil {
			return err
		}
		p.listener = l
		p.wait.Go(func() { p.serve(l) })
	default:
		p.listener.Close()
		p.listener = nil
		p.closeAll(false)
	}
	return nil
}

// closeAll is called with the lock.
func (p *toxicProxy) closeAll(reset bool) {
	for c := range p.open {
		if tcp, ok := c.(*net.TCPConn); ok && reset {
			_ = tcp.SetLinger(0)
		}
		c.Close()
	}
}

func (p *toxicProxy) poison(kind string, latency time.Duration) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch kind {
	case "latency":
		p.latency = latency
	case "reset_peer":
		p.reset = true
		p.closeAll(true)
	default:
		return fmt.Errorf("toxic %q is not known", kind)
	}
	return nil
}

func (p *toxicProxy) serve(l net.Listener) {
	for {
		client, err := l.Accept()
		if err != nil {
			return
		}
		p.wait.Go(func() { p.pass(client) })
	}
}

// pass passes a connection on until one side closes it.
func (p *toxicProxy) pass(client net.Conn) {
	server, err := net.Dial("tcp", p.upstream)
	if err != nil {
		client.Close() // the broker is down
		return
	}
	p.mu.Lock()
	p.open[client], p.open[server] = struct{}{}, struct{}{}
	if p.reset || p.listener == nil {
		p.closeAll(p.reset)
	}
	p.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() {
		defer server.Close()
		defer client.Close()
		if p.oneReplica {
			_ = relayRequests(server, client)
		} else {
			_, _ = io.Copy(server, client)
		}
	})
	both.Go(func() {
		defer server.Close()
		defer client.Close()
		p.delay(client, server)
	})
	both.Wait()
	p.mu.Lock()
	delete(p.open, client)
	delete(p.open, server)
	p.mu.Unlock()
}

// delay copies, each piece after the latency.
func (p *toxicProxy) delay(to io.Writer, from io.Reader) {
	type piece struct {
		bytes []byte
		due   time.Time
	}
	pieces := make(chan piece, 1000)
	p.wait.Go(func() {
		defer close(pieces)
		for {
			buffer := make([]byte, 32<<10)
			n, err := from.Read(buffer)
			p.mu.Lock()
			due := time.Now().Add(p.latency)
			p.mu.Unlock()
			if n > 0 {
				pieces <- piece{buffer[:n], due}
			}
			if err != nil {
				return
			}
		}
	})
	var failed error
	for piece := range pieces {
		if failed != nil {
			continue // until the reader has ended
		}
		if wait := time.Until(piece.due); wait > 0 {
			<-time.After(wait)
		}
		_, failed = to.Write(piece.bytes)
	}
}

// serveDocker returns a folder with a command docker of which sarama's tests use two
// forms, "docker compose stop kafka-3" and "docker compose start kafka-3": they stop and
// start nodes. The command leaves a file and waits until it is gone.
func serveDocker(t *testing.T, nodes *brokertest.Cluster) string {
	t.Helper()
	folder, requests := t.TempDir(), t.TempDir()
	script := "#!/bin/sh\ncase \"$1 $2\" in 'compose stop' | 'compose start') ;; 'compose logs') exit 0 ;; *) exit 1 ;; esac\necho \"$2 $3\" > '" + requests + "/new.'$$\n" +
		"mv '" + requests + "/new.'$$ '" + requests + "/request.'$$\nwhile [ -e '" + requests + "/request.'$$ ]; do sleep 0.1; done\n"
	if err := os.WriteFile(filepath.Join(folder, "docker"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	done, ended := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() {
		close(done)
		<-ended
	})
	go func() {
		defer close(ended)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-done:
				return
			}
			found, _ := filepath.Glob(filepath.Join(requests, "request.*"))
			for _, path := range found {
				if err := compose(nodes, path); err != nil {
					t.Errorf("docker: %v", err)
				}
				os.Remove(path)
			}
		}
	}()
	return folder
}

// compose does what is asked for in a file.
func compose(nodes *brokertest.Cluster, path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	verb, service, _ := strings.Cut(strings.TrimSpace(string(b)), " ")
	id, err := strconv.Atoi(strings.TrimPrefix(service, "kafka-"))
	switch {
	case err != nil:
		return err
	case nodes == nil || id < 1 || id > nodes.Size():
		return fmt.Errorf("%s of node %d: there is none", verb, id)
	case verb == "stop":
		nodes.Node(id - 1).Stop()
	case verb == "start":
		nodes.Restart(id - 1)
	default:
		return errors.New("unknown request " + string(b))
	}
	return nil
}
