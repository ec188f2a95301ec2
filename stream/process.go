package stream

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// processFile holds the process id within the state directory.
const processFile = "process.id"

// processID names this process among those of the app. It leads the
// transactional ids of the workers, so a process that comes back under the same
// id ends what its former self has left open, at once. It is the instance id; or
// what the state directory remembers; or random, for a process without either.
func (a *App) processID() (string, error) {
	switch {
	case a.cfg.InstanceID != "":
		return a.cfg.InstanceID, nil
	case a.cfg.StateDir == "":
		return rand.Text(), nil
	}
	path := filepath.Join(a.cfg.StateDir, processFile)
	content, err := os.ReadFile(path)
	if err == nil {
		id := strings.TrimSpace(string(content))
		if id != "" && len(id) <= 64 && strings.IndexFunc(id, notInTopicName) < 0 {
			return id, nil
		}
		a.log.Warn().Str("file", path).Msg("the process id cannot be read; taking a new one")
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("process id: %w", err)
	}
	// A file that a crash has left half written only costs a new id.
	id := rand.Text()
	if err := os.WriteFile(path, []byte(id+"\n"), 0o644); err != nil {
		return "", fmt.Errorf("process id: %w", err)
	}
	return id, nil
}

// transactionalID is the one of a worker; "" when it has no transactions.
func (a *App) transactionalID(worker int) string {
	if a.cfg.Guarantee != ExactlyOnce {
		return ""
	}
	return fmt.Sprintf("%s-%s-%d", a.cfg.AppID, a.process, worker)
}
