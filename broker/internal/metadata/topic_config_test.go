package metadata

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestTopicKeysAreSoundAndSorted(t *testing.T) {
	if !slices.IsSortedFunc(topicKeys, func(a, b TopicKey) int { return strings.Compare(a.Name, b.Name) }) {
		t.Error("topicKeys is not sorted by name")
	}
	for _, k := range topicKeys {
		if err := k.Validate(k.Default); err != nil {
			t.Errorf("the default of %s is not valid: %v", k.Name, err)
		}
		if k.Doc == "" {
			t.Errorf("%s has no documentation", k.Name)
		}
	}
}

func TestValidateTopicConfig(t *testing.T) {
	for _, test := range []struct{ name, value, message string }{
		{"retention.ms", "-1", ""},
		{"retention.ms", "-2", "at least -1"},
		{"retention.ms", "soon", "Invalid value soon for configuration retention.ms: Not a number of type LONG"},
		{"segment.bytes", "4294967296", "Not a number of type INT"},
		{"segment.bytes", "10", "at least 1024"},
		{"cleanup.policy", "compact, delete", ""},
		{"cleanup.policy", "shred", "one of: delete, compact"},
		{"cleanup.policy", "", "at least one of"},
		{"message.timestamp.type", "LogAppendTime", ""},
		{"message.timestamp.type", "logappendtime", "must be one of"},
		{"preallocate", "TRUE", ""},
		{"preallocate", "yes", "true or false"},
		{"min.cleanable.dirty.ratio", "1.5", "between 0 and 1"},
		{"min.cleanable.dirty.ratio", "NaN", "DOUBLE"},
		{"retention.years", "1", "Unknown topic config name: retention.years"},
	} {
		err := ValidateTopicConfig(test.name, test.value)
		if test.message == "" {
			if err != nil {
				t.Errorf("%s=%s: %v", test.name, test.value, err)
			}
		} else if !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), test.message) {
			t.Errorf("%s=%s: %v; want %q", test.name, test.value, err, test.message)
		}
	}
}

func TestParseTopicConfigLayers(t *testing.T) {
	static := map[string]string{"retention.ms": "1000", "segment.bytes": "2048"}
	c, err := ParseTopicConfig(static, map[string]string{"retention.ms": "5", "cleanup.policy": "compact"})
	if err != nil {
		t.Fatal(err)
	}
	if c.RetentionMs != 5 || c.SegmentBytes != 2048 || c.Delete || !c.Compact || c.RetentionBytes != -1 || c.MaxMessageBytes != 1048588 ||
		c.TimestampBeforeMaxMs != math.MaxInt64 || c.MinCleanableRatio != 0.5 {
		t.Errorf("%+v", c)
	}
	if _, err := ParseTopicConfig(map[string]string{"min.compaction.lag.ms": "10", "max.compaction.lag.ms": "5"}); !errors.Is(err, ErrConfig) {
		t.Errorf("minimum above maximum: %v", err)
	}
	if _, err := ParseTopicConfig(nil, map[string]string{"nonsense": ""}); !errors.Is(err, ErrConfig) {
		t.Errorf("unknown name: %v", err)
	}
	entries := DescribeTopicConfig(ConfigLayers{Topic: map[string]string{"retention.ms": "5"}, Static: static})
	n := slices.IndexFunc(entries, func(e ConfigEntry) bool { return e.Key.Name == "retention.ms" })
	want := []ConfigSynonym{{"retention.ms", "5", TopicSource}, {"log.retention.ms", "1000", StaticSource}, {"log.retention.ms", "604800000", DefaultSource}}
	if e := entries[n]; e.Value != "5" || e.Source != TopicSource || !slices.Equal(e.Synonyms, want) {
		t.Errorf("%+v", e)
	}
}

func TestTopicDefault(t *testing.T) {
	for _, test := range []struct {
		name, value, topic, want string
		ok                       bool
	}{
		{"log.retention.hours", "2", "retention.ms", "7200000", true},
		{"log.retention.hours", "-1", "retention.ms", "-1", true},
		{"log.retention.ms", "12", "retention.ms", "12", true},
		{"message.max.bytes", "99", "max.message.bytes", "99", true},
		{"min.insync.replicas", "2", "min.insync.replicas", "2", true},
		{"retention.ms", "1", "", "", false},
	} {
		topic, value, _, ok, err := TopicDefault(test.name, test.value)
		if topic != test.topic || value != test.want || ok != test.ok || err != nil {
			t.Errorf("TopicDefault(%s, %s) = %s, %s, %v, %v", test.name, test.value, topic, value, ok, err)
		}
	}
	for _, value := range []string{"x", "9223372036854775807", "-2"} {
		if _, _, _, _, err := TopicDefault("log.retention.hours", value); !errors.Is(err, ErrConfig) {
			t.Errorf("log.retention.hours=%s: %v", value, err)
		}
	}
}

func TestDuration(t *testing.T) {
	if Duration(math.MaxInt64) != math.MaxInt64 || Duration(-1) >= 0 || Duration(1500) != 1500*time.Millisecond {
		t.Error(Duration(math.MaxInt64), Duration(-1), Duration(1500))
	}
}
