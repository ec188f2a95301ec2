package handler

import "sync"

// gather calls last when the function it returns was called n times, each with a part
// of an answer to fill in; at once when n is 0.
func gather(n int, last func()) func(fill func()) {
	if n == 0 {
		last()
	}
	var mu sync.Mutex
	return func(fill func()) {
		mu.Lock()
		fill()
		n--
		done := n == 0
		mu.Unlock()
		if done {
			last()
		}
	}
}
