package main

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/leatlog/leat/examples/internal/local"
)

//go:embed page.html
var pageHTML []byte

// page shows the board in a browser.
type page struct {
	*local.Web
	board *board
}

// openPage listens on address, or on a free port of the same host when its port
// is taken.
func openPage(address string, b *board) (p *page, moved bool, err error) {
	p = &page{board: b}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", p.html)
	mux.HandleFunc("GET /state", p.state)
	mux.HandleFunc("GET /events", p.events)
	p.Web, moved, err = local.OpenWeb(address, mux)
	return p, moved, err
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
