package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/leatlog/leat/examples/internal/local"
)

//go:embed page.html
var pageHTML []byte

// page serves the board on a local address.
type page struct {
	listener net.Listener
	server   *http.Server
	board    *board
}

// openPage listens on address, or on a free port of the same host when its port
// is taken.
func openPage(address string, b *board) (p *page, moved bool, err error) {
	l, moved, err := local.Listen(address)
	if err != nil {
		return nil, false, fmt.Errorf("open the page on --http %s: %w", address, err)
	}
	p = &page{listener: l, board: b}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", p.html)
	mux.HandleFunc("GET /state", p.state)
	mux.HandleFunc("GET /events", p.events)
	p.server = &http.Server{Handler: localOnly(mux), ReadHeaderTimeout: 5 * time.Second}
	return p, moved, nil
}

// URL is where a browser finds the page.
func (p *page) URL() string { return "http://" + p.listener.Addr().String() }

// serve serves until ctx ends.
func (p *page) serve(ctx context.Context) error {
	done := make(chan struct{})
	p.server.BaseContext = func(net.Listener) context.Context { return ctx }
	go func() {
		defer close(done)
		<-ctx.Done()
		stop, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		if err := p.server.Shutdown(stop); err != nil {
			_ = p.server.Close()
		}
	}()
	err := p.server.Serve(p.listener)
	if !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	<-done
	return nil
}

// localOnly refuses requests that a browser sends here for another site's name,
// so that no other page can read this machine's metrics (DNS rebinding).
func localOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			host = r.Host
		}
		if host != "localhost" && net.ParseIP(host) == nil {
			http.Error(w, "this page answers to localhost and to addresses only", http.StatusForbidden)
			return
		}
		w.Header().Set("X-Content-Type-Options", "nosniff")
		next.ServeHTTP(w, r)
	})
}

func (p *page) html(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:")
	_, _ = w.Write(pageHTML)
}

func (p *page) state(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(p.board.snapshot())
}

// events sends the board as server-sent events: everything, then what is new.
func (p *page) events(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	flusher := http.NewResponseController(w)
	updates, stop := p.board.listen()
	defer stop()
	if err := flusher.Flush(); err != nil { // the browser knows that it is connected
		return
	}
	for {
		select {
		case <-r.Context().Done():
			return
		case u := <-updates:
			body, err := json.Marshal(u)
			if err != nil {
				return
			}
			if _, err := fmt.Fprintf(w, "data: %s\n\n", body); err != nil {
				return
			}
			if err := flusher.Flush(); err != nil {
				return
			}
		}
	}
}
