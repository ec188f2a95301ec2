package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"embed"
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"slices"
	"time"

	"github.com/leatlog/leat/examples/internal/local"
)

//go:embed site
var siteFiles embed.FS

var layout = template.Must(template.ParseFS(siteFiles, "site/layout.html"))

// site serves the pages and takes what visitors do.
type site struct {
	*local.Web
	board   *board
	publish func(ctx context.Context, visitor string, a Activity) error
}

const (
	visitorCookie = "visitor"
	visitorLength = 26
	// maxActivity bounds the body of a POST.
	maxActivity = 1 << 10
)

// openSite listens on address, or on a free port of the same host when its port is taken.
func openSite(address string, b *board, publish func(context.Context, string, Activity) error) (s *site, moved bool, err error) {
	s = &site{board: b, publish: publish}
	mux := http.NewServeMux()
	for _, p := range sitePages {
		path := p.Path
		if path == "/" {
			path = "/{$}"
		}
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) { s.page(w, r, p) })
	}
	mux.HandleFunc("GET /site.css", s.file("site/site.css", "text/css; charset=utf-8"))
	mux.HandleFunc("GET /site.js", s.file("site/site.js", "text/javascript; charset=utf-8"))
	mux.HandleFunc("GET /state", s.state)
	mux.HandleFunc("GET /events", s.events)
	mux.HandleFunc("POST /activity", s.activity)
	s.Web, moved, err = local.OpenWeb(address, mux)
	return s, moved, err
}

// page shows a page of the site, and gives the visitor an id.
func (s *site) page(w http.ResponseWriter, r *http.Request, p sitePage) {
	id := visitorOf(r)
	if id == "" {
		id = rand.Text()
	}
	http.SetCookie(w, &http.Cookie{Name: visitorCookie, Value: id, Path: "/", MaxAge: 86400 * 30, HttpOnly: true, SameSite: http.SameSiteStrictMode})
	var body bytes.Buffer
	err := layout.Execute(&body, map[string]any{"Page": p, "Pages": sitePages, "Visitor": id, "Name": nameOf(id), "State": s.board.view()})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
	_, _ = w.Write(body.Bytes())
}

// visitorOf is the id that a browser was given; empty when it has none.
func visitorOf(r *http.Request) string {
	c, err := r.Cookie(visitorCookie)
	if err != nil || len(c.Value) != visitorLength {
		return ""
	}
	for _, l := range c.Value {
		if (l < 'A' || l > 'Z') && (l < '2' || l > '7') { // what rand.Text has
			return ""
		}
	}
	return c.Value
}

func (s *site) file(name, kind string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		body, err := siteFiles.ReadFile(name)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", kind)
		w.Header().Set("Cache-Control", "no-cache")
		_, _ = w.Write(body)
	}
}

// activity takes what a visitor did. The answer, 204, says that the cluster has it.
func (s *site) activity(w http.ResponseWriter, r *http.Request) {
	id := visitorOf(r)
	if id == "" {
		http.Error(w, "there is no cookie that says who you are: open a page first", http.StatusBadRequest)
		return
	}
	if from := r.Header.Get("Sec-Fetch-Site"); from != "" && from != "same-origin" {
		http.Error(w, "this is for the site's own pages", http.StatusForbidden)
		return
	}
	var sent struct{ Kind, Page, Target string }
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxActivity)).Decode(&sent); err != nil {
		http.Error(w, fmt.Sprintf("it is no activity: %v", err), http.StatusBadRequest)
		return
	}
	a := Activity{Kind: sent.Kind, Page: sent.Page, Target: sent.Target}
	if problem := a.problem(); problem != "" {
		http.Error(w, problem, http.StatusBadRequest)
		return
	}
	err := s.publish(r.Context(), id, a)
	s.board.acknowledged(1, err)
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// problem says what is wrong with what a browser has sent; nothing when it is empty.
func (a Activity) problem() string {
	page, found := pageAt(a.Page)
	switch {
	case !found:
		return fmt.Sprintf("there is no page %q", a.Page)
	case a.Kind == kindClick:
		isLink := slices.ContainsFunc(sitePages, func(p sitePage) bool { return p.Path == a.Target })
		if !isLink && !slices.Contains(page.Buttons, a.Target) {
			return fmt.Sprintf("there is nothing like %q to click on %s", a.Target, a.Page)
		}
	case a.Kind != kindView && a.Kind != kindLeave:
		return fmt.Sprintf("kind %q is not known: view, click or leave", a.Kind)
	case a.Target != "":
		return "only a click has a target"
	}
	return ""
}

func (s *site) state(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(s.board.view())
}

// eventPause is the least time between two events of a page.
const eventPause = 200 * time.Millisecond

// events sends the board, as server-sent events, now and when it has changed.
func (s *site) events(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	flusher := http.NewResponseController(w)
	changes, stop := s.board.listen()
	defer stop()
	for {
		body, err := json.Marshal(s.board.view())
		if err != nil {
			return
		}
		if _, err := fmt.Fprintf(w, "data: %s\n\n", body); err != nil {
			return
		}
		if err := flusher.Flush(); err != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-time.After(eventPause):
		}
		select {
		case <-r.Context().Done():
			return
		case <-changes:
		}
	}
}
