package sketch

import (
	"errors"
	"math"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func of(values ...float64) *Sketch {
	s := &Sketch{}
	for _, v := range values {
		s.Add(v)
	}
	return s
}

// numbers are zero or of a size between 1e-5 and 1e10, which fits the buckets.
var numbers = rapid.OneOf(
	rapid.Float64Range(1e-5, 100), rapid.Float64Range(1, 1e10), rapid.Float64Range(-1e10, -1e-5),
	rapid.SampledFrom([]float64{0, 1, -1, 1e9, math.Copysign(0, -1)}))

func TestQuantilesAreWithinAccuracy(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfN(numbers, 1, 300).Draw(t, "values")
		s := of(values...)
		slices.Sort(values)
		if s.Min() != values[0] || s.Max() != values[len(values)-1] || s.Count() != uint64(len(values)) {
			t.Fatalf("min %v max %v count %d of %v", s.Min(), s.Max(), s.Count(), values)
		}
		for _, q := range []float64{0, 0.01, 0.25, 0.5, 0.75, 0.95, 0.99, 1} {
			want := values[int(math.Round(q*float64(len(values)-1)))]
			if got := s.Quantile(q); math.Abs(got-want) > Accuracy*math.Abs(want)*1.0001 {
				t.Fatalf("quantile %v = %v, want %v within 1 %%", q, got, want)
			}
		}
	})
}

func TestMergeIsConcatenation(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := rapid.SliceOfN(numbers, 0, 100).Draw(t, "a")
		b := rapid.SliceOfN(numbers, 0, 100).Draw(t, "b")
		merged := of(a...)
		merged.Merge(of(b...))
		both := of(append(slices.Clone(a), b...)...)
		// The sums differ by rounding only.
		if math.Abs(merged.sum-both.sum) > 1e-9*(1e10*200) {
			t.Fatalf("sum %v, want %v", merged.sum, both.sum)
		}
		merged.sum = both.sum
		for _, q := range []float64{0, 0.1, 0.5, 0.9, 0.99, 1} {
			if got, want := merged.Quantile(q), both.Quantile(q); got != want {
				t.Fatalf("quantile %v = %v merged, %v of both", q, got, want)
			}
		}
		if merged.count != both.count || merged.min != both.min || merged.max != both.max {
			t.Fatalf("merged %+v, both %+v", merged, both)
		}
	})
}

func TestEncodingRoundTrips(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := of(rapid.SliceOfN(numbers, 0, 50).Draw(t, "values")...)
		b, err := s.AppendBinary([]byte("x"))
		if err != nil {
			t.Fatal(err)
		}
		got := &Sketch{}
		if err := got.UnmarshalBinary(b[1:]); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, s) {
			t.Fatalf("got %+v, want %+v", got, s)
		}
		for n := range b[1:] {
			if err := got.UnmarshalBinary(b[1 : 1+n]); n > 1 && !errors.Is(err, ErrFormat) {
				t.Fatalf("%d of %d bytes: %v", n, len(b)-1, err)
			}
		}
	})
}

func TestOddValues(t *testing.T) {
	s := of(math.NaN(), math.Inf(1), math.Inf(-1))
	if s.Count() != 0 || s.Quantile(0.5) != 0 || s.Mean() != 0 {
		t.Errorf("%+v", s)
	}
	s = of(0, 0, 0)
	if s.Quantile(0.99) != 0 || s.Count() != 3 {
		t.Errorf("%+v", s)
	}
	// A span that does not fit: the large ones stay accurate, memory stays bounded.
	s = &Sketch{}
	for i := range 600 {
		s.Add(math.Pow(10, float64(i-300)))
	}
	if len(s.positive.counts) > maxBuckets {
		t.Errorf("%d buckets", len(s.positive.counts))
	}
	want := math.Pow(10, math.Round(0.99*599)-300)
	if got := s.Quantile(0.99); math.Abs(got-want) > Accuracy*want*1.0001 {
		t.Errorf("p99 = %v, want %v", got, want)
	}
	if s.Count() != 600 {
		t.Errorf("count %d", s.Count())
	}
}

func FuzzUnmarshal(f *testing.F) {
	for _, s := range []*Sketch{of(), of(1), of(-5, 0, 3, 1e9)} {
		b, _ := s.AppendBinary(nil)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s := &Sketch{}
		if err := s.UnmarshalBinary(b); err != nil {
			return
		}
		s.Quantile(0.5)
		s.Merge(of(1, 2, 3))
		again, _ := s.AppendBinary(nil)
		if err := (&Sketch{}).UnmarshalBinary(again); err != nil {
			t.Fatal(err)
		}
	})
}

func BenchmarkAdd(b *testing.B) {
	s := &Sketch{}
	for i := 0; b.Loop(); i++ {
		s.Add(float64(i%1000) + 1)
	}
}
