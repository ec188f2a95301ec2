package state

import (
	"errors"
	"fmt"
	"time"
)

// Kind is the shape of a store.
type Kind uint8

// The shapes.
const (
	// KeyValue stores map a key to its latest value.
	KeyValue Kind = iota
	// Window stores map (window start, key) to a value and forget windows older
	// than their retention. Keys are laid out by WindowKey, so that expiry is one
	// range of the store.
	Window
	// Session stores map (session start and end, key) to a value and forget sessions
	// whose end is older than their retention. Keys are laid out by SessionKey.
	Session
	// Versioned stores map (key, time from which on) to a value, or to there being none,
	// so that it can be told what a key's value was at a time. Keys are laid out by
	// VersionKey. Whoever writes one removes the versions that outlived the retention.
	Versioned
)

// String returns the word for the kind.
func (k Kind) String() string {
	switch k {
	case KeyValue:
		return "key-value"
	case Window:
		return "window"
	case Session:
		return "session"
	case Versioned:
		return "versioned"
	}
	return fmt.Sprintf("Kind(%d)", uint8(k))
}

// Expires tells whether keys lead with a time, by which the store forgets.
func (k Kind) Expires() bool { return k.timeSize() > 0 }

// timeSize is the length of the time at the beginning of a key.
func (k Kind) timeSize() int {
	switch k {
	case Window:
		return WindowStartSize
	case Session:
		return SessionSpanSize
	}
	return 0
}

// MaxNameLength is how long a store's name may be. Kafka allows 249 bytes for
// the changelog's name, which adds the app's name and "-changelog".
const MaxNameLength = 160

// ErrSpec is wrapped by what Spec.Validate returns.
var ErrSpec = errors.New("state: store specification is not valid")

// Spec describes a store of a topology. Every partition (task) of the
// topology has one instance of it.
type Spec struct {
	// Name is unique in the topology; the changelog is <app>-<Name>-changelog.
	Name string
	// Kind is the shape.
	Kind Kind
	// WindowSize is the length of a window; Window stores only.
	WindowSize time.Duration
	// Retention is how long a window is kept after its start, a session after its end, and
	// how far back the versions of a key reach; all but KeyValue stores.
	Retention time.Duration
	// InMemory keeps the store in memory only; it is restored from its changelog.
	InMemory bool
	// NoChangelog turns the changelog off: the state is lost with the directory.
	NoChangelog bool
	// KeyFormat and ValueFormat are the serdes' names, for the plan manifest.
	KeyFormat, ValueFormat string
}

// Validate reports everything that is wrong with the specification, one line
// each, joined; every one wraps ErrSpec.
func (s Spec) Validate() error {
	var problems []error
	complain := func(format string, arguments ...any) {
		problems = append(problems, fmt.Errorf("%w: store %q: %s", ErrSpec, s.Name, fmt.Sprintf(format, arguments...)))
	}
	switch {
	case s.Name == "":
		complain("it has no name: give the operator that keeps it one")
	case s.Name == "." || s.Name == "..":
		complain("this name is not allowed: it would name a directory of the file system")
	case len(s.Name) > MaxNameLength:
		complain("the name has %d bytes: shorten it to %d", len(s.Name), MaxNameLength)
	}
	for i := range len(s.Name) {
		if !nameByte(s.Name[i]) {
			complain("byte %d of the name is %q: use letters, digits, '.', '_' and '-', as in topic names", i, s.Name[i])
			break
		}
	}
	switch s.Kind {
	case KeyValue:
		if s.WindowSize != 0 || s.Retention != 0 {
			complain("it is a key-value store with window size %v and retention %v: leave both out or make it a window store",
				s.WindowSize, s.Retention)
		}
	case Window:
		if s.WindowSize < time.Millisecond {
			complain("the window size is %v: it must be at least 1ms", s.WindowSize)
		}
		if s.Retention < s.WindowSize {
			complain("the retention is %v: it must be at least the window size, %v", s.Retention, s.WindowSize)
		}
	case Session:
		if s.WindowSize != 0 {
			complain("it is a session store with window size %v: sessions have none, leave it out", s.WindowSize)
		}
		if s.Retention < time.Millisecond {
			complain("the retention is %v: it must be at least 1ms", s.Retention)
		}
	case Versioned:
		if s.WindowSize != 0 {
			complain("it is a versioned store with window size %v: versions have none, leave it out", s.WindowSize)
		}
		if s.Retention < time.Millisecond {
			complain("the history reaches back %v: it must be at least 1ms", s.Retention)
		}
	default:
		complain("the kind is %v: use KeyValue, Window, Session or Versioned", s.Kind)
	}
	return errors.Join(problems...)
}

func nameByte(b byte) bool {
	return b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9' || b == '.' || b == '_' || b == '-'
}
