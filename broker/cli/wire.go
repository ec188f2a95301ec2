package cli

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// asker asks one broker of a cluster. It speaks the few requests of the cluster
// commands at versions that every broker they are meant for serves.
type asker struct {
	conn net.Conn
	id   int32
}

// maxResponse bounds a response: the metadata of some hundred thousand partitions.
const maxResponse = 256 << 20

// dialAny connects to the first of the addresses that answers.
func dialAny(ctx context.Context, bootstrap []string, timeout time.Duration) (*asker, error) {
	var failures []error
	for _, address := range bootstrap {
		d := net.Dialer{Timeout: timeout}
		conn, err := d.DialContext(ctx, "tcp", address)
		if err == nil {
			return &asker{conn: conn}, nil
		}
		failures = append(failures, err)
	}
	return nil, fmt.Errorf("no broker answers at %s: name another with --bootstrap: %w", strings.Join(bootstrap, ", "), errors.Join(failures...))
}

// ask sends a request and reads its response, within timeout.
func (a *asker) ask(request kmsg.Request, version int16, timeout time.Duration) (kmsg.Response, error) {
	request.SetVersion(version)
	a.id++
	if err := a.conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return nil, err
	}
	frame := kmsg.NewRequestFormatter(kmsg.FormatterClientID("leat-cli")).AppendRequest(nil, request, a.id)
	if _, err := a.conn.Write(frame); err != nil {
		return nil, fmt.Errorf("ask the broker at %s: %w", a.conn.RemoteAddr(), err)
	}
	var head [4]byte
	if _, err := io.ReadFull(a.conn, head[:]); err != nil {
		return nil, fmt.Errorf("the broker at %s did not answer %s: %w", a.conn.RemoteAddr(), kmsg.NameForKey(request.Key()), err)
	}
	size := binary.BigEndian.Uint32(head[:])
	if size < 4 || size > maxResponse {
		return nil, fmt.Errorf("the broker at %s answered %s with %d bytes", a.conn.RemoteAddr(), kmsg.NameForKey(request.Key()), size)
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(a.conn, body); err != nil {
		return nil, fmt.Errorf("read the answer to %s: %w", kmsg.NameForKey(request.Key()), err)
	}
	if id := int32(binary.BigEndian.Uint32(body)); id != a.id {
		return nil, fmt.Errorf("the broker at %s answered request %d, asked was %d", a.conn.RemoteAddr(), id, a.id)
	}
	body = body[4:]
	if _, plain := request.(*kmsg.ApiVersionsRequest); request.IsFlexible() && !plain { // KIP-511
		if len(body) == 0 || body[0] != 0 { // the header's tags: none is sent to this client
			return nil, fmt.Errorf("the broker at %s answered %s with an unknown header", a.conn.RemoteAddr(), kmsg.NameForKey(request.Key()))
		}
		body = body[1:]
	}
	response := request.ResponseKind()
	if err := response.ReadFrom(body); err != nil {
		return nil, fmt.Errorf("read the answer to %s: %w", kmsg.NameForKey(request.Key()), err)
	}
	return response, nil
}

func (a *asker) close() { _ = a.conn.Close() }
