package metadata

import (
	"fmt"
	"strings"
)

// ClusterTopic is the topic that holds the metadata log.
const ClusterTopic = "__cluster_metadata"

// ClusterTopicID is the id that Kafka gives to the metadata topic. It is in no
// Image: the topic is there before the first entry.
var ClusterTopicID = UUID{15: 1}

// OffsetsTopic and TransactionsTopic hold what the coordinators remember.
const (
	OffsetsTopic      = "__consumer_offsets"
	TransactionsTopic = "__transaction_state"
)

// IsInternal says that the topic belongs to the broker: clients are told so and
// do not subscribe to it by pattern.
func IsInternal(name string) bool {
	return name == OffsetsTopic || name == TransactionsTopic || name == ClusterTopic
}

// maxTopicName leaves room for "-<partition>.<hash>-delete" in a directory name.
const maxTopicName = 249

// ValidateTopicName checks a name by Kafka's rules: 1 to 249 characters out of
// ASCII letters, digits, '.', '_' and '-', and neither "." nor "..".
func ValidateTopicName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("topic name is empty")
	case name == "." || name == "..":
		return fmt.Errorf("topic name cannot be %q", name)
	case len(name) > maxTopicName:
		return fmt.Errorf("topic name %.40q... is %d characters long, the most is %d", name, len(name), maxTopicName)
	}
	for i := 0; i < len(name); i++ {
		c := name[i]
		ok := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '_' || c == '-'
		if !ok {
			return fmt.Errorf("topic name %q holds a character other than ASCII letters, digits, '.', '_' and '-'", name)
		}
	}
	return nil
}

// MayCollide says that a name holds a character that makes collisions possible.
func MayCollide(name string) bool { return strings.ContainsAny(name, "._") }

// Collide says that two different names differ only in '.' for '_'. Kafka forbids
// such pairs since its metrics replace '.' by '_'.
func Collide(a, b string) bool {
	if a == b || len(a) != len(b) {
		return false
	}
	for i := 0; i < len(a); i++ {
		if a[i] != b[i] && (a[i] != '.' || b[i] != '_') && (a[i] != '_' || b[i] != '.') {
			return false
		}
	}
	return true
}

// Collision returns the topic of the image that name collides with, if any.
func (i *Image) Collision(name string) (string, bool) {
	found := ""
	if MayCollide(name) {
		for _, part := range i.byName.part {
			for other := range part {
				if Collide(name, other) && (found == "" || other < found) {
					found = other
				}
			}
		}
	}
	return found, found != ""
}
