package metadata

import (
	"encoding/base64"
	"fmt"
	"io"
)

// UUID identifies a topic, a broker incarnation or a cluster. Its text form is
// Kafka's: 22 characters of URL-safe base64 without padding.
type UUID [16]byte

// IsZero says that the UUID is Kafka's "no id".
func (u UUID) IsZero() bool { return u == UUID{} }

// String returns Kafka's text form.
func (u UUID) String() string { return base64.RawURLEncoding.EncodeToString(u[:]) }

// ParseUUID reads Kafka's text form.
func ParseUUID(s string) (UUID, error) {
	var u UUID
	if len(s) != base64.RawURLEncoding.EncodedLen(len(u)) {
		return u, fmt.Errorf("uuid %.40q: want 22 characters of URL-safe base64, got %d", s, len(s))
	}
	if _, err := base64.RawURLEncoding.Decode(u[:], []byte(s)); err != nil {
		return UUID{}, fmt.Errorf("uuid %.40q: %w", s, err)
	}
	return u, nil
}

// NewUUID makes a version 4 UUID from 16 bytes of random. Like Kafka it draws
// again when the text form would start with a dash, which command lines take
// for an option, and when the id is one of the two Kafka reserves.
func NewUUID(random io.Reader) (UUID, error) {
	for {
		var u UUID
		if _, err := io.ReadFull(random, u[:]); err != nil {
			return UUID{}, fmt.Errorf("draw a uuid: %w", err)
		}
		u[6] = u[6]&0x0f | 0x40
		u[8] = u[8]&0x3f | 0x80
		if u.String()[0] != '-' {
			return u, nil
		}
	}
}

// MarshalText implements encoding.TextMarshaler.
func (u UUID) MarshalText() ([]byte, error) {
	return base64.RawURLEncoding.AppendEncode(nil, u[:]), nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (u *UUID) UnmarshalText(text []byte) error {
	parsed, err := ParseUUID(string(text))
	if err != nil {
		return err
	}
	*u = parsed
	return nil
}
