package stream

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/leatlog/leat/stream/internal/assign"
	"github.com/leatlog/leat/topology/plan"
)

const (
	// queryTimeout bounds a query of another process, whatever its context says.
	queryTimeout = 10 * time.Second
	// maxRedirects is how often a query follows a task that has moved.
	maxRedirects = 3
	// maxAnswerBytes bounds an answer: a page with one row beyond pageBytes.
	maxAnswerBytes = 256 << 20
)

// ErrUnreachable says that the owner of the task did not answer: it may have ended, and
// the group not noticed yet. Ask again.
var ErrUnreachable = errors.New("stream: the owner of the task did not answer")

// errMoving ends a query that is sent to and fro.
var errMoving = errors.New("the task moves")

func newQueryClient() *http.Client {
	return &http.Client{
		Timeout:   queryTimeout,
		Transport: &http.Transport{MaxIdleConnsPerHost: 16, IdleConnTimeout: 30 * time.Second, DisableCompression: true},
		CheckRedirect: func(_ *http.Request, via []*http.Request) error {
			if len(via) > maxRedirects {
				return errMoving
			}
			return nil
		},
	}
}

// setOwners notes where the tasks of the App can be queried.
func (q *queries) setOwners(owners []assign.Owner) {
	addresses := make(map[plan.TaskID]string)
	for _, o := range owners {
		for _, id := range o.Tasks {
			addresses[id] = o.Address
		}
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.owners = addresses
}

// ownerElsewhere returns where a task that is not ours can be queried.
func (q *queries) ownerElsewhere(id plan.TaskID) string {
	q.mu.RLock()
	defer q.mu.RUnlock()
	if address := q.owners[id]; address != q.app.queryAddress {
		return address
	}
	return "" // it was ours, and nobody has said yet who comes next
}

// remote asks another process.
func (q *queries) remote(ctx context.Context, address string, req pageRequest) (p page, err error) {
	body, err := json.Marshal(req)
	if err != nil {
		return p, fmt.Errorf("stream: query: %w", err)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+address+rowsPath, bytes.NewReader(body))
	if err != nil {
		return p, fmt.Errorf("%w: at %q: %w", ErrUnreachable, address, err)
	}
	r.Header.Set("Content-Type", "application/json")
	resp, err := q.client.Do(r)
	switch {
	case ctx.Err() != nil:
		if err == nil {
			_ = resp.Body.Close()
		}
		return p, ctx.Err()
	case errors.Is(err, errMoving):
		return p, &NotOwnerError{Task: req.Task}
	case err != nil:
		return p, fmt.Errorf("%w: task %s: %w", ErrUnreachable, req.Task, err)
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswerBytes))
	if err != nil {
		return p, fmt.Errorf("%w: task %s: %w", ErrUnreachable, req.Task, err)
	}
	if resp.StatusCode != http.StatusOK {
		return p, refusal(req.Task, address, resp.Status, answer)
	}
	if err := json.Unmarshal(answer, &p); err != nil {
		return p, fmt.Errorf("%w: task %s at %s: %w", ErrUnreachable, req.Task, address, err)
	}
	return p, nil
}

// refusal is the error of an answer that is none.
func refusal(task plan.TaskID, address, status string, answer []byte) error {
	var said queryError
	if err := json.Unmarshal(answer, &said); err != nil {
		return fmt.Errorf("%w: task %s: %s at %s, which may be no process of this app", ErrUnreachable, task, status, address)
	}
	for _, known := range queryReasons {
		switch {
		case known.reason != said.Reason:
		case known.err == ErrNotOwner:
			return &NotOwnerError{Task: task}
		case known.err == ErrNotRunning: // that one, not this
			return fmt.Errorf("%w: %s stops", ErrUnreachable, address)
		default:
			return fmt.Errorf("%w: at %s: %s", known.err, address, said.Message)
		}
	}
	return fmt.Errorf("stream: query at %s: %s: %s", address, status, said.Message)
}
