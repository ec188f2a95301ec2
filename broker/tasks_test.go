package broker

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// Tasks may begin while somebody waits for those that run.
func TestTasksBeginWhileSomebodyWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var list tasks
		var ended atomic.Int32
		list.wait() // for none
		var next func(n int) func()
		next = func(n int) func() {
			return func() {
				if n > 0 {
					list.run(next(n - 1))
				}
				time.Sleep(time.Second)
				ended.Add(1)
			}
		}
		list.run(next(9))
		list.wait()
		if n := ended.Load(); n != 10 {
			t.Errorf("%d tasks have ended, want 10", n)
		}
	})
}
