package replica

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := NewDeadlines(Clock{})
		start := time.Now()
		var mu sync.Mutex // expiries run on different goroutines
		var log []string
		entries := make([]Deadline, 4)
		set := func(i int, after time.Duration) {
			d.Set(&entries[i], start.Add(after), func() {
				mu.Lock()
				defer mu.Unlock()
				log = append(log, fmt.Sprintf("%d@%v", i, time.Since(start)))
			})
		}
		set(0, 3*time.Second)
		set(1, time.Second)
		set(2, 2*time.Second)
		set(3, 4*time.Second)
		set(0, 1500*time.Millisecond) // moved
		d.Cancel(&entries[2])
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if got := strings.Join(log, " "); got != "1@1s 0@1.5s" {
			t.Errorf("expired %s", got)
		}
		if d.Len() != 1 {
			t.Errorf("%d entries left, want 1", d.Len())
		}
		set(1, -time.Second) // in the past: at once
		synctest.Wait()
		if len(log) != 3 {
			t.Errorf("expired %v", log)
		}
		d.Close()
		set(0, 0)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if len(log) != 3 || d.Len() != 0 {
			t.Errorf("after Close: %v, %d entries", log, d.Len())
		}
	})
}
