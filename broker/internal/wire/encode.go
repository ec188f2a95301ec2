package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// ErrEncode says that a response cannot be sent: a mistake of the handler.
var ErrEncode = errors.New("response cannot be encoded")

// AppendResponse appends the response's frame to dst: size, header and, when the
// response has a Body, the body. The frame's chunks, when it has them instead, are
// to be sent after it; they are in its size. After an error dst is returned as it
// was.
func AppendResponse(dst []byte, request *Request, r *Response) ([]byte, error) {
	start := len(dst)
	dst = append(dst, 0, 0, 0, 0)
	dst = binary.BigEndian.AppendUint32(dst, uint32(request.CorrelationID))
	if request.Key != APIVersionsKey && request.Body.IsFlexible() {
		dst = append(dst, 0) // no tags
	}
	size := 0
	if r.Body != nil {
		if r.Body.Key() != request.Key || r.Body.GetVersion() != request.Body.GetVersion() {
			return dst[:start], fmt.Errorf("%w: %s version %d answered with %s version %d", ErrEncode,
				Name(request.Key), request.Body.GetVersion(), Name(r.Body.Key()), r.Body.GetVersion())
		}
		dst = r.Body.AppendTo(dst)
	}
	for i := range r.Chunks {
		size += r.Chunks[i].Len()
	}
	size += len(dst) - start - 4
	if size > math.MaxInt32 {
		return dst[:start], fmt.Errorf("%w: %s version %d has %d bytes", ErrEncode, Name(request.Key), request.Body.GetVersion(), size)
	}
	binary.BigEndian.PutUint32(dst[start:], uint32(size))
	return dst, nil
}

// Empty says that nothing is to be sent.
func (r *Response) Empty() bool { return r.Body == nil && len(r.Chunks) == 0 }
