// Package sketch summarises a stream of numbers in little memory: how many, the
// smallest, the largest, their sum, and any quantile to within one percent of
// its value. Two summaries merge into the summary of both streams.
//
// It is a DDSketch (Masson, Rim, Lee: "DDSketch: A Fast and Fully-Mergeable
// Quantile Sketch with Relative-Error Guarantees", VLDB 2019): values fall into
// buckets whose bounds grow by a constant factor, so that any value of a bucket
// is close to any other. Merging adds bucket counts, which loses nothing.
package sketch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

const (
	// Accuracy is the relative error of a quantile.
	Accuracy = 0.01
	// maxBuckets bounds a sketch to 16 KiB for each sign. 2048 buckets span 17 powers
	// of ten; beyond that the values nearest to zero lose accuracy.
	maxBuckets = 2048
)

var (
	growth    = (1 + Accuracy) / (1 - Accuracy)
	logGrowth = math.Log(growth)
)

// Sketch is a summary. The zero value is empty and ready. Not safe for
// concurrent use.
type Sketch struct {
	count          uint64
	zeros          uint64
	min, max, sum  float64
	positive, negs buckets // by the magnitude of the value
}

// buckets are the counts of buckets first, first+1, ... Bucket i holds magnitudes
// in (growth^(i-1), growth^i].
type buckets struct {
	first  int
	counts []uint64
}

// Add adds a value. NaN and infinities are left out: they have no place among
// quantiles. It reports whether the value was added.
func (s *Sketch) Add(v float64) bool {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return false
	}
	if s.count == 0 {
		s.min, s.max = v, v
	}
	s.min, s.max = min(s.min, v), max(s.max, v)
	s.count++
	s.sum += v
	switch {
	case v > 0:
		s.positive.add(bucketOf(v), 1)
	case v < 0:
		s.negs.add(bucketOf(-v), 1)
	default:
		s.zeros++
	}
	return true
}

// Merge adds everything that o has summarised.
func (s *Sketch) Merge(o *Sketch) {
	if o.count == 0 {
		return
	}
	if s.count == 0 {
		s.min, s.max = o.min, o.max
	}
	s.min, s.max = min(s.min, o.min), max(s.max, o.max)
	s.count += o.count
	s.zeros += o.zeros
	s.sum += o.sum
	s.positive.merge(&o.positive)
	s.negs.merge(&o.negs)
}

// Count returns the number of values.
func (s *Sketch) Count() uint64 { return s.count }

// Min returns the smallest value, exactly; 0 when there is none.
func (s *Sketch) Min() float64 { return s.min }

// Max returns the largest value, exactly; 0 when there is none.
func (s *Sketch) Max() float64 { return s.max }

// Sum returns the sum of all values.
func (s *Sketch) Sum() float64 { return s.sum }

// Mean returns the mean; 0 when there is no value.
func (s *Sketch) Mean() float64 {
	if s.count == 0 {
		return 0
	}
	return s.sum / float64(s.count)
}

// Quantile returns the value at rank q of n-1 (0 the smallest, 0.5 the median, 1
// the largest), to within Accuracy of it; 0 when there is no value.
func (s *Sketch) Quantile(q float64) float64 {
	if s.count == 0 {
		return 0
	}
	q = min(max(q, 0), 1)
	rank := uint64(math.Round(q * float64(s.count-1)))
	switch {
	case rank == 0:
		return s.min
	case rank == s.count-1:
		return s.max
	}
	v := s.at(rank)
	return min(max(v, s.min), s.max)
}

// at returns the middle of the bucket that holds the value with this rank.
func (s *Sketch) at(rank uint64) float64 {
	for i := len(s.negs.counts) - 1; i >= 0; i-- {
		if rank < s.negs.counts[i] {
			return -middle(s.negs.first + i)
		}
		rank -= s.negs.counts[i]
	}
	if rank < s.zeros {
		return 0
	}
	rank -= s.zeros
	for i, n := range s.positive.counts {
		if rank < n {
			return middle(s.positive.first + i)
		}
		rank -= n
	}
	return s.max
}

func bucketOf(magnitude float64) int { return int(math.Ceil(math.Log(magnitude) / logGrowth)) }

// middle is the value whose relative distance to both ends of a bucket is the
// same.
func middle(bucket int) float64 {
	return 2 * math.Exp(float64(bucket)*logGrowth) / (1 + growth)
}

func (b *buckets) add(bucket int, n uint64) {
	b.cover(bucket, bucket)
	b.counts[max(bucket-b.first, 0)] += n
}

func (b *buckets) merge(o *buckets) {
	if len(o.counts) == 0 {
		return
	}
	b.cover(o.first, o.first+len(o.counts)-1)
	for i, n := range o.counts {
		b.counts[max(o.first+i-b.first, 0)] += n
	}
}

// cover makes room for buckets low to high. When that would be too many, the
// lowest ones are joined into one: large values matter more.
func (b *buckets) cover(low, high int) {
	if len(b.counts) > 0 {
		low, high = min(low, b.first), max(high, b.first+len(b.counts)-1)
	}
	low = max(low, high-maxBuckets+1)
	if len(b.counts) > 0 && low == b.first && high == b.first+len(b.counts)-1 {
		return
	}
	counts := make([]uint64, high-low+1)
	for i, n := range b.counts {
		counts[max(b.first+i-low, 0)] += n
	}
	b.first, b.counts = low, counts
}

// The encoding, all integers little-endian or varints:
//
//	| version (1) | min (8) | max (8) | sum (8) | zeros (uvarint) | positive | negative |
//
//	buckets: | number (uvarint) | first (varint) | counts (uvarint each) |
//
// An empty sketch is the version alone.
const version = 1

// ErrFormat says that bytes are not an encoded sketch.
var ErrFormat = errors.New("sketch: bytes do not hold a sketch")

// AppendBinary appends the encoding of the sketch to dst. It never fails; the
// error is that of encoding.BinaryAppender.
func (s *Sketch) AppendBinary(dst []byte) ([]byte, error) {
	dst = append(dst, version)
	if s.count == 0 {
		return dst, nil
	}
	for _, v := range []float64{s.min, s.max, s.sum} {
		dst = binary.LittleEndian.AppendUint64(dst, math.Float64bits(v))
	}
	dst = binary.AppendUvarint(dst, s.zeros)
	return s.negs.append(s.positive.append(dst)), nil
}

func (b *buckets) append(dst []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(b.counts)))
	if len(b.counts) == 0 {
		return dst
	}
	dst = binary.AppendVarint(dst, int64(b.first))
	for _, n := range b.counts {
		dst = binary.AppendUvarint(dst, n)
	}
	return dst
}

// UnmarshalBinary replaces the sketch by the one encoded in all of src. Errors
// wrap ErrFormat.
func (s *Sketch) UnmarshalBinary(src []byte) error {
	if len(src) == 0 || src[0] != version {
		return fmt.Errorf("%w: %d bytes that do not begin with version %d", ErrFormat, len(src), version)
	}
	*s = Sketch{}
	if len(src) == 1 {
		return nil
	}
	r := reader{rest: src[1:]}
	s.min, s.max, s.sum = r.float(), r.float(), r.float()
	s.zeros = r.uvarint()
	s.positive, s.negs = r.buckets(), r.buckets()
	if r.failed || len(r.rest) > 0 {
		return fmt.Errorf("%w: cut or too long, %d bytes", ErrFormat, len(src))
	}
	s.count = s.zeros
	for _, b := range []buckets{s.positive, s.negs} {
		for _, n := range b.counts {
			s.count += n
		}
	}
	if s.count == 0 || !(s.min <= s.max) || math.IsInf(s.min, 0) || math.IsInf(s.max, 0) {
		return fmt.Errorf("%w: %d values between %v and %v", ErrFormat, s.count, s.min, s.max)
	}
	return nil
}

type reader struct {
	rest   []byte
	failed bool
}

func (r *reader) float() float64 {
	if len(r.rest) < 8 {
		r.failed = true
		return 0
	}
	v := math.Float64frombits(binary.LittleEndian.Uint64(r.rest))
	r.rest = r.rest[8:]
	return v
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.rest)
	if n <= 0 {
		r.failed = true
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

func (r *reader) buckets() buckets {
	n := r.uvarint()
	if r.failed || n == 0 {
		return buckets{}
	}
	first, width := binary.Varint(r.rest)
	const furthest = 1 << 20 // more than any float64 needs
	if width <= 0 || n > maxBuckets || n > uint64(len(r.rest)) || first < -furthest || first > furthest {
		r.failed = true
		return buckets{}
	}
	r.rest = r.rest[width:]
	b := buckets{first: int(first), counts: make([]uint64, n)}
	for i := range b.counts {
		b.counts[i] = r.uvarint()
	}
	return b
}
