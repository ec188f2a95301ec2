package broker

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

// start returns a configuration that is valid.
func valid() Config {
	c := DefaultConfig()
	c.DataDir = "data"
	return c
}

func TestDefaultsAreValid(t *testing.T) {
	c := valid()
	if err := c.validate(); err != nil {
		t.Fatal(err)
	}
	var zero Config
	zero.DataDir = "data"
	if err := zero.validate(); err != nil {
		t.Fatal(err)
	}
	if !slices.EqualFunc(c.Settings(), zero.Settings(), func(a, b Setting) bool { return a == b }) {
		t.Error("a zero Config does not take the defaults of DefaultConfig")
	}
	if c.Listen != "127.0.0.1:9092" || c.Gossip != "" || c.NodeID != 0 || c.Flush != FlushSync {
		t.Errorf("%+v", c)
	}
}

func TestValidateNamesTheSetting(t *testing.T) {
	for want, change := range map[string]func(*Config){
		"data-dir=: a directory":            func(c *Config) { c.DataDir = "" },
		"node-id=-1: must be 1 or more":     func(c *Config) { c.NodeID = -1 },
		"listen=9092: must be HOST:PORT":    func(c *Config) { c.Listen = "9092" },
		"listen=h:x: the port must be":      func(c *Config) { c.Listen = "h:x" },
		"listen=:9092: listens on all":      func(c *Config) { c.Listen = ":9092" },
		"admin=h:70000: the port must":      func(c *Config) { c.Admin = "h:70000" },
		"gossip=h: must be HOST:PORT":       func(c *Config) { c.Gossip = "h" },
		"gossip.encryption.key=(hidden)":    func(c *Config) { c.GossipKeys = []string{"c2hvcnQ="} },
		"join=h: must be HOST:PORT":         func(c *Config) { c.Join = []string{"h"} },
		"bootstrap-expect=99: must be":      func(c *Config) { c.BootstrapExpect = 99 },
		"roles=broker: a node that is no":   func(c *Config) { c.Roles = []string{"broker"} },
		"roles=king: must be of":            func(c *Config) { c.Roles = []string{"king"} },
		"flush=never: must be one of sync":  func(c *Config) { c.Flush = "never" },
		"num.partitions=-5: must be":        func(c *Config) { c.Topics.Partitions = -5 },
		"Invalid value x for configuration": func(c *Config) { c.Topics.Defaults = map[string]string{"retention.ms": "x"} },
		"group.min.session.timeout.ms":      func(c *Config) { c.Groups.MinSession = time.Hour },
	} {
		c := valid()
		change(&c)
		err := c.validate()
		if !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("got %v; want one line with %q", err, want)
		}
	}
}

func TestSet(t *testing.T) {
	c := valid()
	for _, s := range [][2]string{
		{"node.id", "7"}, {"listeners", "PLAINTEXT://localhost:1"}, {"advertised.listeners", "PLAINTEXT://h:2"},
		{"log.dirs", "/d"}, {"flush", "os"}, {"auto.create.topics.enable", "false"}, {"offsets.retention.minutes", "5"},
		{"log.retention.ms", "77"}, {"log.retention.hours", "1"}, {"log.roll.hours", "2"}, {"log.roll.ms", "9"},
		{"group.initial.rebalance.delay.ms", "0"}, {"num.io.threads", "8"}, {"process.roles", "broker,controller"},
	} {
		if err := c.Set(s[0], s[1]); err != nil {
			t.Errorf("Set(%s, %s): %v", s[0], s[1], err)
		}
	}
	if err := c.validate(); err != nil {
		t.Fatal(err)
	}
	if c.NodeID != 7 || c.Listen != "localhost:1" || c.Advertise != "h:2" || c.DataDir != "/d" || c.Flush != FlushOS ||
		!c.Topics.NoAutoCreate || c.Groups.OffsetsRetention != 5*time.Minute || c.Groups.InitialRebalanceDelay >= 0 || len(c.ignored) != 1 {
		t.Errorf("%+v", c)
	}
	if d := c.Topics.Defaults; d["retention.ms"] != "77" || d["segment.ms"] != "9" {
		t.Errorf("the stronger synonym does not win: %v", d)
	}
	for _, s := range [][2]string{
		{"no.such.setting", "1"}, {"node.id", "x"}, {"node.id", "0"}, {"num.partitions", "99999999999"}, {"default.replication.factor", "70000"},
		{"listeners", "SSL://h:1"}, {"listeners", "PLAINTEXT://h"}, {"auto.create.topics.enable", "maybe"},
		{"connections.max.idle.ms", "-1"}, {"log.retention.hours", "x"}, {"message.max.bytes", "-1"}, {"group.initial.rebalance.delay.ms", "-1"},
	} {
		if err := c.Set(s[0], s[1]); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), s[1]) {
			t.Errorf("Set(%s, %s) = %v; want ErrConfig with the value", s[0], s[1], err)
		}
	}
}

func TestSetFrom(t *testing.T) {
	c := valid()
	if err := c.SetFrom(strings.NewReader("# comment\n! another\n\n node.id = 3 \nbroker.rack=a=b\n")); err != nil {
		t.Fatal(err)
	}
	if c.NodeID != 3 || c.Rack != "a=b" {
		t.Errorf("%+v", c)
	}
	for _, text := range []string{"a line", "node.id=1\nnonsense=2"} {
		if err := c.SetFrom(strings.NewReader(text)); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), "line ") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestSettingsAreDocumented(t *testing.T) {
	c := valid()
	list := c.Settings()
	for n, s := range list {
		if s.Doc == "" || n > 0 && list[n-1].Name == s.Name {
			t.Errorf("setting %q is twice in the list or has no documentation", s.Name)
		}
		if _, ignored := ignoredSettings[s.Name]; ignored {
			t.Errorf("setting %q is both known and ignored", s.Name)
		}
	}
}
