package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand"
	"reflect"
	"runtime/metrics"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// appendFrame appends the frame of a request without its size field.
func appendFrame(dst []byte, request kmsg.Request, correlationID int32, clientID string) []byte {
	frame := kmsg.NewRequestFormatter(kmsg.FormatterClientID(clientID)).AppendRequest(nil, request, correlationID)
	return append(dst, frame[4:]...)
}

func TestDecode(t *testing.T) {
	request := kmsg.NewPtrMetadataRequest()
	request.SetVersion(12)
	topic := kmsg.NewMetadataRequestTopic()
	topic.Topic = kmsg.StringPtr("orders")
	request.Topics = append(request.Topics, topic)
	frame := appendFrame(nil, request, 77, "me")
	frame = append(frame, "more"...) // ignored
	got, err := allVersions(t).Decode(frame)
	if err != nil {
		t.Fatal(err)
	}
	want := Header{Key: 3, Version: 12, CorrelationID: 77, ClientID: "me"}
	body := got.Body.(*kmsg.MetadataRequest)
	if got.Header != want || got.Size != len(frame) || len(body.Topics) != 1 || *body.Topics[0].Topic != "orders" {
		t.Fatalf("got %+v %+v", got, body)
	}
}

func TestDecodeRefuses(t *testing.T) {
	two := int16(0)
	table, err := NewTable([]API{{Key: 0, Min: 3, Max: 13, Advertised: &two}, {Key: 3, Min: 0, Max: 13}, {Key: 18, Max: 4}})
	if err != nil {
		t.Fatal(err)
	}
	header := func(key, version int16, rest ...byte) []byte {
		frame := binary.BigEndian.AppendUint16(nil, uint16(key))
		frame = binary.BigEndian.AppendUint16(frame, uint16(version))
		return append(append(frame, 0, 0, 0, 7), rest...)
	}
	null := []byte{0xff, 0xff} // client id
	for _, c := range []struct {
		name  string
		frame []byte
		want  error
	}{
		{"empty", nil, ErrMalformed},
		{"short header", header(3, 0)[:7], ErrMalformed},
		{"no client id", header(3, 0), errShort},
		{"client id beyond the end", header(3, 0, 0x7f, 0xff), errLength},
		{"negative client id", header(3, 0, 0xff, 0xfe), errNegative},
		{"unknown key", header(99, 0), ErrUnknownAPI},
		{"negative key", header(-1, 0), ErrUnknownAPI},
		{"key that is not served", header(1, 4), ErrUnknownAPI},
		{"version above", header(3, 14), ErrUnsupportedVersion},
		{"negative version", header(3, -1), ErrUnsupportedVersion},
		{"version advertised only", header(0, 2), ErrUnsupportedVersion},
		{"null array before it may be null", header(3, 0, append(null, 0xff, 0xff, 0xff, 0xff)...), errNull},
		{"array beyond the end", header(3, 1, append(null, 0, 0, 0, 9)...), errLength},
		{"array of -2", header(3, 1, append(null, 0xff, 0xff, 0xff, 0xfe)...), errNegative},
		{"compact array beyond the end", header(3, 9, append(null, 0, 0x7f)...), errLength},
		{"compact length of 2^32-1", header(3, 9, append(null, 0, 0xff, 0xff, 0xff, 0xff, 0x0f)...), errLength},
		{"compact length of 33 bits", header(3, 9, append(null, 0, 0xff, 0xff, 0xff, 0xff, 0x1f)...), errVarint},
		{"compact length without end", header(3, 9, append(null, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0)...), errVarint},
		{"compact length cut off", header(3, 9, append(null, 0, 0xff, 0xff)...), errShort},
		{"2^32-1 tags", header(3, 9, append(null, 0xff, 0xff, 0xff, 0xff, 0x0f)...), errManyTags},
		{"tag twice", header(3, 9, append(null, 2, 5, 0, 5, 0)...), errTagOrder},
		{"tags out of order", header(3, 9, append(null, 2, 5, 0, 4, 0)...), errTagOrder},
		{"tag beyond the end", header(3, 9, append(null, 1, 5, 9)...), errLength},
	} {
		if r, err := table.Decode(c.frame); !errors.Is(err, c.want) {
			t.Errorf("%s: %v and %+v, want %v", c.name, err, r, c.want)
		}
	}
}

// TestDecodeUnsupportedAPIVersions says that ApiVersions is accepted whatever its
// version and body.
func TestDecodeUnsupportedAPIVersions(t *testing.T) {
	table, err := NewTable([]API{{Key: 18, Max: 4}})
	if err != nil {
		t.Fatal(err)
	}
	for _, version := range []byte{5, 0x7f} {
		r, err := table.Decode([]byte{0, 18, 0, version, 0, 0, 0, 9, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
		if err != nil || !r.Unsupported || r.Body.GetVersion() != 0 || r.CorrelationID != 9 {
			t.Fatalf("version %d: %v %+v", version, err, r)
		}
		response := r.Body.ResponseKind()
		out, err := AppendResponse(nil, r, &Response{Body: response})
		if want := []byte{0, 0, 0, 10, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0}; err != nil || !bytes.Equal(out, want) {
			t.Fatalf("%v: %x, want %x", err, out, want)
		}
	}
}

func TestResponseHeader(t *testing.T) {
	table := allVersions(t)
	for _, c := range []struct {
		key, version int16
		header       int
	}{{18, 3, 4}, {18, 0, 4}, {3, 8, 4}, {3, 9, 5}, {1, 11, 4}, {1, 12, 5}} {
		request := kmsg.RequestForKey(c.key)
		request.SetVersion(c.version)
		r, err := table.Decode(appendFrame(nil, request, 3, ""))
		if err != nil {
			t.Fatal(err)
		}
		out, err := AppendResponse([]byte("before"), r, &Response{Chunks: []Chunk{{Bytes: make([]byte, 10)}, {Bytes: make([]byte, 5)}}})
		if err != nil || len(out) != 6+4+c.header || binary.BigEndian.Uint32(out[6:]) != uint32(c.header+15) {
			t.Errorf("%s version %d: %v %x", Name(c.key), c.version, err, out)
		}
	}
}

func TestResponseOfAnotherVersionIsRefused(t *testing.T) {
	request := kmsg.NewPtrMetadataRequest()
	request.SetVersion(5)
	response := kmsg.NewPtrMetadataResponse()
	response.SetVersion(6)
	out, err := AppendResponse([]byte("x"), &Request{Header: Header{Key: 3, Version: 5}, Body: request}, &Response{Body: response})
	if !errors.Is(err, ErrEncode) || string(out) != "x" {
		t.Fatalf("%v %q", err, out)
	}
}

// allocated is the bytes that were allocated so far.
func allocated() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// bombs are written over every place of a request.
var bombs = [][]byte{
	{0x7f, 0xff, 0xff, 0xff}, {0x00, 0xff, 0xff, 0xff}, {0x80, 0, 0, 0}, {0xff, 0xff, 0xff, 0xfe},
	{0x7f, 0xff}, {0x80, 0}, {0x00, 0x10, 0, 0},
	{0xff, 0xff, 0xff, 0xff, 0x0f}, {0xff, 0xff, 0xff, 0xff, 0x07}, {0xff, 0xff, 0xff, 0xff, 0xff}, {0x80, 0x80, 0x40},
}

// TestLengthBombs overwrites every place of a request of every API and version
// with lengths that are too large, with nothing and with 64 KiB of zeros and of ones
// behind, and looks at what decoding allocates and how long it takes.
func TestLengthBombs(t *testing.T) {
	table := allVersions(t)
	zeros, ones := make([]byte, 64<<10), bytes.Repeat([]byte{1}, 64<<10)
	worst := uint64(0)
	for _, row := range table.Rows() {
		for version := row.Min; version <= row.Max; version++ {
			r := rand.New(rand.NewSource(int64(row.Key)<<8 + int64(version)))
			request := kmsg.RequestForKey(row.Key)
			fill(r, reflect.ValueOf(request).Elem())
			request.SetVersion(version)
			frame := appendFrame(nil, request, 1, "bomber")
			for at := HeaderPrefix; at < len(frame); at++ {
				for i, bomb := range bombs {
					for _, tail := range [][]byte{frame[min(len(frame), at+len(bomb)):], zeros, ones} {
						if len(tail) > len(frame) && (at+i)%13 != 0 {
							continue // these take time
						}
						bad := slices.Concat(frame[:at], bomb, tail)
						before, start := allocated(), time.Now()
						_, _ = table.Decode(bad)
						if took := time.Since(start); took > 5*time.Second {
							t.Fatalf("%s version %d: decoding %x... took %v", Name(row.Key), version, bad[:at+5], took)
						}
						worst = max(worst, allocated()-before)
					}
				}
			}
		}
	}
	t.Logf("the worst request allocated %d bytes", worst)
	if worst > maxDecoded+(2<<20) {
		t.Fatalf("a request of at most 65 KiB allocated %d MiB", worst>>20)
	}
}

// TestBudget sends the largest requests of the smallest elements.
func TestBudget(t *testing.T) {
	table := allVersions(t)
	request := kmsg.NewPtrMetadataRequest()
	request.SetVersion(9)
	for range 1_000_000 {
		topic := kmsg.NewMetadataRequestTopic()
		topic.Topic = new(string)
		request.Topics = append(request.Topics, topic)
	}
	frame := appendFrame(nil, request, 1, "")
	before := allocated()
	if _, err := table.Decode(frame); !errors.Is(err, errMemory) {
		t.Fatalf("%d bytes: %v", len(frame), err)
	}
	if got := allocated() - before; got > 1<<20 {
		t.Fatalf("refusing it allocated %d bytes", got)
	}
	request.Topics = request.Topics[:90_000]
	frame = appendFrame(nil, request, 1, "")
	before = allocated()
	if _, err := table.Decode(frame); err != nil {
		t.Fatal(err)
	}
	if got := allocated() - before; got > maxDecoded {
		t.Fatalf("decoding %d bytes allocated %d", len(frame), got)
	}
}

// FuzzDecode decodes anything. What decodes is encoded again and decodes to the same.
func FuzzDecode(f *testing.F) {
	table := allVersions(f)
	for _, row := range table.Rows() {
		for _, version := range []int16{row.Min, row.Max} {
			request := kmsg.RequestForKey(row.Key)
			fill(rand.New(rand.NewSource(int64(row.Key))), reflect.ValueOf(request).Elem())
			request.SetVersion(version)
			f.Add(appendFrame(nil, request, 1, "fuzz"))
		}
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		r, err := table.Decode(frame)
		if err != nil || r.Unsupported {
			return
		}
		again, err := table.Decode(appendFrame(nil, r.Body, r.CorrelationID, r.ClientID))
		if err != nil {
			t.Fatalf("%s version %d: what was decoded does not decode: %v", Name(r.Key), r.Version, err)
		}
		if one, two := r.Body.AppendTo(nil), again.Body.AppendTo(nil); !bytes.Equal(one, two) {
			t.Fatalf("%s version %d: %x became %x", Name(r.Key), r.Version, one, two)
		}
	})
}
