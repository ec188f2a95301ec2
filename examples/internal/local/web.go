package local

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

// Web serves an example's page on an address of this machine.
type Web struct {
	listener net.Listener
	server   *http.Server
}

// OpenWeb listens on address, or on a free port of the same host when its port is
// taken, which moved tells. Requests are answered by handler once Serve runs.
func OpenWeb(address string, handler http.Handler) (w *Web, moved bool, err error) {
	l, moved, err := Listen(address)
	if err != nil {
		return nil, false, fmt.Errorf("open the page on --http %s: %w", address, err)
	}
	return &Web{listener: l, server: &http.Server{Handler: localOnly(handler), ReadHeaderTimeout: 5 * time.Second}}, moved, nil
}

// URL is where a browser finds the page.
func (w *Web) URL() string { return "http://" + w.listener.Addr().String() }

// Serve serves until ctx ends; requests then end, too: it is their context.
func (w *Web) Serve(ctx context.Context) error {
	done := make(chan struct{})
	w.server.BaseContext = func(net.Listener) context.Context { return ctx }
	go func() {
		defer close(done)
		<-ctx.Done()
		stop, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		if err := w.server.Shutdown(stop); err != nil {
			_ = w.server.Close()
		}
	}()
	err := w.server.Serve(w.listener)
	if !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	<-done
	return nil
}

// localOnly refuses requests that a browser sends here for another site's name,
// so that no other page can read what is served here (DNS rebinding).
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
