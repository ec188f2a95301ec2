package record

import "testing"

func seed(f *testing.F) {
	for _, codec := range codecs {
		f.Add([]byte(sample(codec, 3)))
	}
	f.Add([]byte(NewBuilder(CodecNone).Build(nil)))
}

// FuzzParse: what parses is a part of the input and can be validated.
func FuzzParse(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		for rest := data; len(rest) > 0; {
			batch, after, err := Parse(rest)
			if err != nil {
				return
			}
			if len(batch) < HeaderSize || len(batch)+len(after) != len(rest) || batch.Size() != len(batch) {
				t.Fatalf("%d bytes split into %d and %d", len(rest), len(batch), len(after))
			}
			_ = batch.Validate()
			rest = after
		}
	})
}

// FuzzValidate: what validates stays valid when the broker sets its fields.
func FuzzValidate(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		batch, _, err := Parse(data)
		if err != nil {
			return
		}
		batch.SetCRC() // let the fuzzer past the checksum
		if batch.Validate() != nil {
			return
		}
		batch.SetBaseOffset(42)
		batch.SetLeaderEpoch(3)
		batch.SetLogAppendTime(9)
		if err := batch.Validate(); err != nil || batch.NextOffset() <= batch.BaseOffset() {
			t.Fatalf("after setting offset, epoch and time: %v, %d to %d", err, batch.BaseOffset(), batch.NextOffset())
		}
	})
}

// FuzzIterate: any records end in the promised number or in an error, within the limit.
func FuzzIterate(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		batch, _, err := Parse(data)
		if err != nil {
			return
		}
		it := NewIterator(batch, 1<<20)
		defer it.Close()
		n := int32(0)
		for it.Next() {
			n++
			if r := it.Record(); len(r.Key)+len(r.Value) > 1<<20 && batch.Codec() != CodecNone {
				t.Fatal("record exceeds the limit")
			}
		}
		if it.Err() == nil && n != batch.Count() {
			t.Fatalf("%d records, batch says %d", n, batch.Count())
		}
	})
}
