package replica

import (
	"testing"
	"time"
)

func TestThrottle(t *testing.T) {
	var limit throttle
	now := time.Unix(100, 0)
	limit.took(now, 1<<30)
	if w := limit.wait(now); w != 0 {
		t.Fatalf("without a rate it waits %v", w)
	}
	limit.set(1000)
	if w := limit.wait(now); w != 0 {
		t.Fatalf("it waits %v before anything was copied", w)
	}
	limit.took(now, 2000)
	if w := limit.wait(now); w < 2*time.Second || w > 2*time.Second+2*time.Millisecond {
		t.Fatalf("it waits %v for 2000 bytes at 1000 a second", w)
	}
	now = now.Add(3 * time.Second)
	if w := limit.wait(now); w != 0 {
		t.Fatalf("it still waits %v", w)
	}
	// A long silence earns but a second.
	now = now.Add(time.Hour)
	limit.took(now, 2000)
	if w := limit.wait(now); w < time.Second || w > time.Second+2*time.Millisecond {
		t.Errorf("it waits %v for 1000 bytes too much", w)
	}
	limit.set(2000)
	if w := limit.wait(now); w != 0 {
		t.Errorf("another rate takes over a debt: %v", w)
	}
	// Over a minute of asking and taking, it is the rate.
	took := 0
	for begin := now; now.Sub(begin) < time.Minute; {
		if w := limit.wait(now); w > 0 {
			now = now.Add(w)
			continue
		}
		limit.took(now, 300)
		took += 300
	}
	if took < 115_000 || took > 125_000 {
		t.Errorf("%d bytes in a minute at 2000 a second", took)
	}
}
