package wire

import (
	"encoding/binary"
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// HeaderPrefix is how many bytes of a frame PeekKey needs: key, version and
// correlation id, the shortest request there is.
const HeaderPrefix = 8

// PeekKey returns the API key of a frame of which at least HeaderPrefix bytes are
// there.
func PeekKey(prefix []byte) int16 { return int16(binary.BigEndian.Uint16(prefix)) }

// Decode decodes a frame (without its size field). It fails with ErrMalformed,
// ErrUnknownAPI or ErrUnsupportedVersion, except that ApiVersions requests of any
// version are accepted: see Request.Unsupported. The request's Conn is not set.
// The byte slices of its Body alias the frame. Bytes after the body are ignored, as
// in Kafka.
func (t *Table) Decode(frame []byte) (*Request, error) {
	if len(frame) < HeaderPrefix {
		return nil, fmt.Errorf("%w of %d bytes: %w", ErrMalformed, len(frame), errShort)
	}
	r := &Request{Size: len(frame)}
	r.Key = int16(binary.BigEndian.Uint16(frame))
	r.Version = int16(binary.BigEndian.Uint16(frame[2:]))
	r.CorrelationID = int32(binary.BigEndian.Uint32(frame[4:]))
	api, ok := t.Lookup(r.Key)
	if !ok {
		return nil, fmt.Errorf("%w: key %d (%s), version %d", ErrUnknownAPI, r.Key, Name(r.Key), r.Version)
	}
	r.Body = kmsg.RequestForKey(r.Key)
	if r.Version < api.Min || r.Version > api.Max {
		if r.Key != APIVersionsKey {
			return nil, fmt.Errorf("%w: %s version %d, served are %d to %d", ErrUnsupportedVersion, Name(r.Key), r.Version, api.Min, api.Max)
		}
		r.Unsupported = true
		r.Body.SetVersion(0)
		return r, nil
	}
	r.Body.SetVersion(r.Version)
	if err := t.decodeRest(r, frame[HeaderPrefix:]); err != nil {
		return nil, fmt.Errorf("%w: %s version %d of %d bytes from client %.50q %w", ErrMalformed, Name(r.Key), r.Version, len(frame), r.ClientID, err)
	}
	return r, nil
}

// clientIDField is the last field of the header. It is never compact.
var clientIDField = field{kind: stringKind}

// decodeRest decodes the client id, the header's tags and the body.
func (t *Table) decodeRest(r *Request, rest []byte) error {
	g := guard{rest: rest, version: r.Version}
	n, err := g.length(&clientIDField, false)
	if err != nil {
		return err
	}
	if n > 0 {
		r.ClientID = string(g.rest[:n])
		g.rest = g.rest[n:]
	}
	root := t.roots[t.at[r.Key]]
	if g.flexible = r.Body.IsFlexible(); g.flexible {
		if err := g.tags(nil); err != nil {
			return err
		}
	}
	body := g.rest
	if err := g.structure(root); err != nil {
		return err
	}
	return r.Body.ReadFrom(body)
}
