package record

import "testing"

func BenchmarkValidate(b *testing.B) {
	raw := []byte(sample(CodecNone, 120))
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		batch, _, err := Parse(raw)
		if err != nil || batch.Validate() != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkIterate(b *testing.B) {
	for _, codec := range codecs {
		b.Run(codec.String(), func(b *testing.B) {
			batch := sample(codec, 1000)
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				it := NewIterator(batch, DefaultLimit)
				for it.Next() {
					n++
				}
				it.Close()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/record")
		})
	}
}

func BenchmarkBuild(b *testing.B) {
	value := make([]byte, 100)
	builder := NewBuilder(CodecNone)
	var dst []byte
	b.ReportAllocs()
	for b.Loop() {
		builder.Reset()
		for i := range 1000 {
			builder.Append(int64(i), nil, value, nil)
		}
		dst = builder.Build(dst[:0])
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/record")
}
