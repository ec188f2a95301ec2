package topology

import "github.com/leatlog/leat/topology/plan"

// figures counts what a cache does.
type figures struct{ hits, misses, writes uint64 }

func (f *figures) of(store string, bytes int) plan.CacheFigures {
	return plan.CacheFigures{Store: store, Hits: f.hits, Misses: f.misses, Writes: f.writes, Bytes: int64(bytes)}
}

// cached is a stateful operator that has a cache.
type cached interface{ figures() plan.CacheFigures }

// Caches implements plan.Cached.
func (i *instance) Caches(tell func(plan.CacheFigures)) {
	for _, s := range i.stateful {
		if c, ok := s.(cached); ok {
			tell(c.figures())
		}
	}
}

func (c *cache[K, A]) figures() plan.CacheFigures { return c.counted.of(c.name, c.bytes) }

func (a *windowedAggregation[R, K, V, A]) figures() plan.CacheFigures { return a.cache.figures() }

func (j *streamJoiner[K, A, B, R]) figures() plan.CacheFigures { return j.cache.figures() }

func (a *keyedAggregation[R, K, A]) figures() plan.CacheFigures { return a.cache.figures() }

func (s *spans[R, K, A]) figures() plan.CacheFigures { return s.counted.of(s.storeName, s.bytes) }
