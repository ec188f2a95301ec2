package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

const (
	// maxQueryBytes bounds a request, whose keys are as long as their records'.
	maxQueryBytes = 8 << 20
	// stopQueries is how long queries under way may take at the end of the App.
	stopQueries = time.Second
)

// The paths of the query endpoint.
const (
	rowsPath   = "/rows"
	healthPath = "/health"
)

// queryServer answers queries of the other processes of the App, and tells its health.
type queryServer struct {
	app    *App
	http   http.Server
	served chan struct{} // closed when the server has ended
}

// queryError is what an answer says that is none. Reason is one of queryReasons.
type queryError struct {
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

// queryReasons name the errors on the wire.
var queryReasons = []struct {
	reason string
	err    error
	status int
}{
	{"not-running", ErrNotRunning, http.StatusServiceUnavailable},
	{"no-store", ErrNoStore, http.StatusNotFound},
	{"not-owner", ErrNotOwner, http.StatusMisdirectedRequest},
	{"restoring", ErrRestoring, http.StatusServiceUnavailable},
	{"stale", ErrStale, http.StatusServiceUnavailable},
}

// listenForQueries opens the query endpoint, if there is to be one.
func (a *App) listenForQueries() error {
	if a.cfg.QueryListen == "" {
		return nil
	}
	listener, err := net.Listen("tcp", a.cfg.QueryListen)
	if err != nil {
		return fmt.Errorf("Config.QueryListen: %w", err)
	}
	if a.queryAddress = a.cfg.QueryAdvertise; a.queryAddress == "" {
		a.queryAddress = listener.Addr().String()
	}
	s := &queryServer{app: a, served: make(chan struct{})}
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+rowsPath, s.rows)
	mux.HandleFunc("GET "+healthPath, s.health)
	s.http = http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10}
	go func() {
		defer close(s.served)
		if err := s.http.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			a.log.Warn().Err(err).Msg("the query endpoint has ended; other processes cannot query this one's stores")
		}
	}()
	a.queryServer = s
	a.log.Info().Str("address", a.queryAddress).Msg("answering queries")
	return nil
}

// QueryAddress is where the other processes query this one, HOST:PORT; "" while the App
// does not run or has no Config.QueryListen.
func (a *App) QueryAddress() string {
	if a.queries.Load() == nil {
		return ""
	}
	return a.queryAddress
}

// close ends the endpoint.
func (s *queryServer) close() {
	ctx, cancel := context.WithTimeout(context.Background(), stopQueries)
	defer cancel()
	if err := s.http.Shutdown(ctx); err != nil {
		_ = s.http.Close() // whoever still waits learns of it by the connection
	}
	<-s.served
}

// rows answers a pageRequest with a page, or sends it on to the owner.
func (s *queryServer) rows(w http.ResponseWriter, r *http.Request) {
	var req pageRequest
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxQueryBytes)).Decode(&req); err != nil {
		http.Error(w, fmt.Sprintf("the body is no query: %v", err), http.StatusBadRequest)
		return
	}
	p, err := page{}, error(ErrNotRunning)
	if q := s.app.queries.Load(); q != nil {
		p, err = q.local(req)
	}
	if req.App != s.app.cfg.AppID {
		err = fmt.Errorf("%w: this is app %q, not %q", ErrNoStore, s.app.cfg.AppID, req.App)
	}
	var elsewhere *NotOwnerError
	switch {
	case err == nil:
		s.answer(w, http.StatusOK, p)
	case errors.As(err, &elsewhere) && elsewhere.Address != "":
		http.Redirect(w, r, "http://"+elsewhere.Address+rowsPath, http.StatusTemporaryRedirect)
	default:
		for _, known := range queryReasons {
			if errors.Is(err, known.err) {
				s.answer(w, known.status, queryError{known.reason, err.Error()})
				return
			}
		}
		s.app.log.Warn().Err(err).Msg("a query has failed")
		s.answer(w, http.StatusInternalServerError, queryError{Message: err.Error()})
	}
}

// health answers with the App's Health: 200 while it serves, 503 when it stops.
func (s *queryServer) health(w http.ResponseWriter, _ *http.Request) {
	h := s.app.Health()
	status := http.StatusOK
	if h.State >= Stopping {
		status = http.StatusServiceUnavailable
	}
	s.answer(w, status, h)
}

func (s *queryServer) answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(body); err != nil {
		s.app.log.Debug().Err(err).Msg("answering a query failed")
	}
}
