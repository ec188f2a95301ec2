package replica

import (
	"sync"
	"time"
)

// throttle bounds the bytes a second that are copied for throttled replicas which are not
// in sync (KIP-73). What is in flight may pass the bound; nothing more is begun until the
// debt is paid. Safe for concurrent use.
type throttle struct {
	mu     sync.Mutex
	rate   int64   // bytes a second; 0 is no bound
	credit float64 // bytes that may be copied now; below 0 a debt
	at     time.Time
}

// set changes the rate, and forgives a debt of another one.
func (t *throttle) set(rate int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.rate != rate {
		t.rate, t.credit, t.at = rate, 0, time.Time{}
	}
}

// took notes bytes that were copied.
func (t *throttle) took(now time.Time, bytes int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.rate > 0 && bytes > 0 {
		t.earn(now)
		t.credit -= float64(bytes)
	}
}

// wait returns how long to wait until more may be copied, 0 when it may be now.
func (t *throttle) wait(now time.Time) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.rate <= 0 {
		return 0
	}
	t.earn(now)
	if t.credit >= 0 {
		return 0
	}
	return time.Duration(-t.credit/float64(t.rate)*float64(time.Second)) + time.Millisecond
}

// earn adds what time has brought, at most a second's. The caller holds mu.
func (t *throttle) earn(now time.Time) {
	if !t.at.IsZero() {
		t.credit = min(t.credit+now.Sub(t.at).Seconds()*float64(t.rate), float64(t.rate))
	}
	t.at = now
}
