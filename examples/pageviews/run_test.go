package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/cookiejar"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatlog/leat/broker/brokertest"
	"github.com/leatlog/leat/examples/internal/local"
)

// clock is a time that the test moves.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(by time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(by)
}

// buffer is what the example writes. Safe for concurrent use.
type buffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.String()
}

// example is a start of the example on a broker.
type example struct {
	t    *testing.T
	out  buffer
	url  string
	stop context.CancelFunc
	done chan error
}

func start(t *testing.T, dir, address string, now *clock) *example {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	e := &example{t: t, stop: stop, done: make(chan error, 1)}
	o := options{Options: local.Options{DataDir: dir}, http: "127.0.0.1:0", now: now.Now, tick: 20 * time.Millisecond}
	go func() {
		e.done <- runOn(ctx, o, &local.Cluster{Bootstrap: []string{address}, StateDir: filepath.Join(dir, "state")}, &e.out)
	}()
	waitFor(t, "the site's address", func() bool {
		select {
		case err := <-e.done:
			t.Fatalf("it has ended: %v", err)
		default:
		}
		e.url = regexp.MustCompile(`http://[0-9.:]+`).FindString(e.out.String())
		return e.url != ""
	})
	return e
}

// end stops the example cleanly.
func (e *example) end() {
	e.t.Helper()
	e.stop()
	if err := <-e.done; err != nil && !local.IsInterruption(err) {
		e.t.Fatal(err)
	}
	if text := e.out.String(); !strings.Contains(text, "the next start goes on") {
		e.t.Errorf("it said %q", text)
	}
}

// person is a browser that keeps its cookie.
type person struct {
	t      *testing.T
	client *http.Client
	id     string
}

func newPerson(t *testing.T) *person {
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &person{t: t, client: &http.Client{Jar: jar}}
}

// open loads a page.
func (p *person) open(url, page string) {
	p.t.Helper()
	response, err := p.client.Get(url + page)
	if err != nil {
		p.t.Fatal(err)
	}
	defer response.Body.Close()
	var body bytes.Buffer
	if _, err := body.ReadFrom(response.Body); err != nil || response.StatusCode != http.StatusOK {
		p.t.Fatalf("%s: %s, %v", page, response.Status, err)
	}
	id := regexp.MustCompile(`data-visitor="([A-Z2-7]+)"`).FindStringSubmatch(body.String())
	if id == nil || p.id != "" && p.id != id[1] {
		p.t.Fatalf("%s: visitor %q, was %q", page, id, p.id)
	}
	p.id = id[1]
}

// post sends an activity as the page's script does, and returns the status.
func (p *person) post(url, body string) int {
	p.t.Helper()
	response, err := p.client.Post(url+"/activity", "text/plain;charset=UTF-8", strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	defer response.Body.Close()
	return response.StatusCode
}

// expected is what the results must be, computed from what was acknowledged.
type expected struct {
	sessions map[string]Session // by visitor and start
	open     map[string]Session
	minutes  map[string]map[string]int64
}

// took notes an activity at a time.
func (x *expected) took(visitor string, a Activity, at time.Time) {
	s, isOpen := x.open[visitor]
	if isOpen && at.Sub(s.End) > gap {
		x.close(visitor)
		s, isOpen = Session{}, false
	}
	if !isOpen {
		s = Session{Visitor: visitor, Start: at, Closed: true}
	}
	s.Visit, s.End = s.add(a), at
	x.open[visitor] = s
	if a.Kind == kindView {
		minute := at.Truncate(time.Minute).Format(time.RFC3339)
		if x.minutes[minute] == nil {
			x.minutes[minute] = map[string]int64{}
		}
		x.minutes[minute][a.Page]++
	}
}

func (x *expected) close(visitor string) {
	s := x.open[visitor]
	x.sessions[fmt.Sprint(visitor, s.Start)] = s
	delete(x.open, visitor)
}

// People walk around, the example stops and starts in between: each session comes once and
// as it was, and the views of each minute are counted.
func TestPlayedVisits(t *testing.T) {
	b := brokertest.Start(t)
	dir, now, random := t.TempDir(), &clock{now: time.Now().UTC().Truncate(time.Hour)}, rand.New(rand.NewPCG(1, 2))
	x := &expected{sessions: map[string]Session{}, open: map[string]Session{}, minutes: map[string]map[string]int64{}}
	var people []*person
	for range 5 {
		people = append(people, newPerson(t))
	}
	for range 2 {
		e := start(t, dir, b.Addr(), now)
		for range 60 {
			now.advance(time.Duration(random.IntN(15000)) * time.Millisecond)
			p, page := people[random.IntN(len(people))], sitePages[random.IntN(len(sitePages))]
			a := Activity{Kind: []string{kindView, kindView, kindClick, kindLeave}[random.IntN(4)], Page: page.Path}
			if a.Kind == kindClick {
				a.Target = page.Buttons[0]
			}
			p.open(e.url, page.Path)
			if status := p.post(e.url, fmt.Sprintf(`{"kind":%q,"page":%q,"target":%q}`, a.Kind, a.Page, a.Target)); status != http.StatusNoContent {
				t.Fatalf("%v: status %d", a, status)
			}
			x.took(p.id, a, now.Now())
		}
		e.end()
	}
	e := start(t, dir, b.Addr(), now)
	now.advance(gap + grace + time.Second) // the ticks tell it
	for visitor := range maps.Clone(x.open) {
		x.close(visitor)
	}
	check(t, b.Addr(), x)
	checkPage(t, e.url, len(x.sessions))
	e.end()
}

// check reads the results until all that is expected has come.
func check(t *testing.T, address string, x *expected) {
	t.Helper()
	c, err := kgo.NewClient(kgo.AlwaysRetryEOF(), kgo.SeedBrokers(address), kgo.ConsumeTopics(sessionsTopic.Name, topTopic.Name),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.MetadataMinAge(20*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	sessions, minutes := map[string]Session{}, map[string]map[string]int64{}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for len(sessions) < len(x.sessions) || !reflect.DeepEqual(minutes, x.minutes) {
		fetches := c.PollFetches(ctx)
		if ctx.Err() != nil {
			t.Fatalf("%d of %d sessions have come; minutes\n%v, want\n%v", len(sessions), len(x.sessions), minutes, x.minutes)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if r.Topic == topTopic.Name {
				var top Top
				if err := json.Unmarshal(r.Value, &top); err != nil {
					t.Error(err)
				}
				pages := map[string]int64{}
				for _, p := range top.Pages {
					pages[p.Page] = p.Views
				}
				minutes[string(r.Key)] = pages
				return
			}
			var s Session
			if err := json.Unmarshal(r.Value, &s); err != nil {
				t.Error(err)
			}
			id := fmt.Sprint(string(r.Key), s.Start)
			if _, twice := sessions[id]; twice {
				t.Errorf("session %s came twice", id)
			}
			sessions[id] = s
		})
	}
	for id, want := range x.sessions {
		if got := sessions[id]; !sameSession(got, want) {
			t.Errorf("session %s:\n%v, want\n%v", id, got, want)
		}
	}
}

func sameSession(a, b Session) bool {
	return a.Visitor == b.Visitor && a.Start.Equal(b.Start) && a.End.Equal(b.End) && a.Views == b.Views && a.Clicks == b.Clicks &&
		slices.Equal(a.Pages, b.Pages) && a.Closed == b.Closed
}

// checkPage waits until the page shows the sessions.
func checkPage(t *testing.T, url string, sessions int) {
	t.Helper()
	var v view
	waitFor(t, "the sessions on the page", func() bool {
		response, err := http.Get(url + "/state")
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		v = view{}
		if err := json.NewDecoder(response.Body).Decode(&v); err != nil {
			t.Fatal(err)
		}
		return len(v.Closed) == min(sessions, keptSessions) && len(v.Open) == 0 && len(v.Minutes) > 0
	})
}

// What is no activity of a page's is refused.
func TestActivityIsChecked(t *testing.T) {
	published := 0
	s, _, err := openSite("127.0.0.1:0", newBoard("", time.Now), func(context.Context, string, Activity) error { published++; return nil })
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	p := newPerson(t)
	if got := p.post(s.URL(), `{"kind":"view","page":"/"}`); got != http.StatusBadRequest {
		t.Errorf("without a cookie: %d", got)
	}
	p.open(s.URL(), "/")
	for body, want := range map[string]int{
		`{"kind":"view","page":"/"}`:                          204,
		`{"kind":"click","page":"/","target":"/leat"}`:        204,
		`{"kind":"leave","page":"/visit"}`:                    204,
		`{"kind":"view","page":"/nowhere"}`:                   400,
		`{"kind":"view","page":"/","target":"x"}`:             400,
		`{"kind":"click","page":"/","target":"what is this"}`: 400,
		`{"kind":"tick","page":"/"}`:                          400,
		`{`:                                                   400,
		`{"kind":"` + strings.Repeat("x", maxActivity) + `"}`: 400,
	} {
		if got := p.post(s.URL(), body); got != want {
			t.Errorf("%.60s: %d, want %d", body, got, want)
		}
	}
	request, err := http.NewRequest(http.MethodPost, s.URL()+"/activity", strings.NewReader(`{"kind":"view","page":"/"}`))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Sec-Fetch-Site", "cross-site")
	response, err := p.client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusForbidden || published != 3 {
		t.Errorf("from another site: %s; %d published", response.Status, published)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// waitFor waits until the condition holds.
func waitFor(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for !condition() {
		select {
		case <-ticker.C:
		case <-deadline:
			t.Fatalf("never saw %s", what)
		}
	}
}
