package cli

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/leatlog/leat/stream/client"
)

func TestChangeTopics(t *testing.T) {
	l := newLeat(t)
	topic := name("orders")
	l.run("", "topic", "create", topic, "--partitions", "1", "--replication-factor", "1", "--config", "max.message.bytes=5000")
	if out := l.run("", "topic", "alter", topic, "--config", "retention.ms=123456", "--unset", "max.message.bytes"); !strings.Contains(out, "changed topic") {
		t.Errorf("alter says %q", out)
	}
	settings := func(args ...string) map[string]settingJSON {
		var list []settingJSON
		if err := json.Unmarshal([]byte(l.run("", append(args, "--json")...)), &list); err != nil {
			t.Fatal(err)
		}
		byName := make(map[string]settingJSON)
		for _, s := range list {
			byName[s.Name] = s
		}
		return byName
	}
	got := settings("config", "get", "topic", topic)
	if s := got["retention.ms"]; s.Value != "123456" || s.Default || s.Source != "topic" {
		t.Errorf("retention.ms: %+v", s)
	}
	if s := got["max.message.bytes"]; !s.Default || s.Source != "default" {
		t.Errorf("max.message.bytes: %+v", s)
	}
	l.run("", "config", "set", "topic", topic, "cleanup.policy=compact", "--unset", "retention.ms")
	if got := settings("config", "get", "topic", topic, "--changed"); len(got) != 1 || got["cleanup.policy"].Value != "compact" {
		t.Errorf("changed: %v", got)
	}
	if out := l.run("", "config", "get", "topic", topic, "cleanup.policy"); !strings.Contains(out, "compact") || strings.Count(out, "\n") != 2 {
		t.Errorf("get: %q", out)
	}
	if out := l.run("", "topic", "add-partitions", topic, "--total", "3"); out != "topic "+topic+" has 3 partitions\n" {
		t.Errorf("add-partitions says %q", out)
	}
	var view topicJSON
	if err := json.Unmarshal([]byte(l.run("", "topic", "describe", topic, "--json")), &view); err != nil || len(view.Partitions) != 3 {
		t.Errorf("describe: %+v, %v", view, err)
	}
	for _, c := range []struct {
		want string
		args []string
	}{
		{"retention.ms", []string{"config", "set", "topic", topic, "retention.ms=soon"}},
		{"`leat topic list`", []string{"topic", "alter", "nothing-here", "--config", "retention.ms=1"}},
		{"nothing to change", []string{"topic", "alter", topic}},
		{`"retention"`, []string{"config", "get", "topic", topic, "retention"}},
		{"name a resource", []string{"config", "get", "topic"}},
		{`"topics"`, []string{"config", "get", "topics", "a"}},
		{"the broker's id", []string{"config", "get", "broker", "one"}},
		{"--total 0", []string{"topic", "add-partitions", topic}},
		{"INVALID_PARTITIONS", []string{"topic", "add-partitions", topic, "--total", "2"}},
	} {
		if out, err := l.try(t.Context(), "", c.args...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("leat %s: %v, want %q in it; output %q", strings.Join(c.args, " "), err, c.want, out)
		}
	}
}

func TestBrokerConfig(t *testing.T) {
	l := newLeat(t)
	out := l.run("", "config", "get", "broker", "1")
	if !strings.Contains(out, "num.partitions") || !strings.Contains(out, "FROM") {
		t.Errorf("broker: %s", out)
	}
}

func TestMoveGroups(t *testing.T) {
	l := newLeat(t)
	topic, group := name("in"), name("group")
	l.run("", "topic", "create", topic, "--partitions", "2", "--replication-factor", "1")
	l.run("a\nb\nc\n", "produce", topic, "--partition", "0")
	moves := func(args ...string) []move {
		t.Helper()
		var list []move
		out := l.run("", append([]string{"group", "reset-offsets", group, "--json"}, args...)...)
		if err := json.Unmarshal([]byte(out), &list); err != nil {
			t.Fatal(err)
		}
		return list
	}
	first := func(list []move) (from, to int64) { return list[0].From, list[0].To }
	if list := moves("--topic", topic, "--to", "end", "--dry-run"); len(list) != 2 || list[0] != (move{topic, 0, -1, 3}) || list[1] != (move{topic, 1, -1, 0}) {
		t.Errorf("end: %v", list)
	}
	if _, err := l.try(t.Context(), "", "group", "reset-offsets", group, "--to", "start"); err == nil || !strings.Contains(err.Error(), "--topic") {
		t.Errorf("a dry run has left offsets: %v", err)
	}
	moves("--topic", topic+":0", "--to", "2")
	if list := moves("--to", "start", "--dry-run"); len(list) != 1 || list[0] != (move{topic, 0, 2, 0}) {
		t.Errorf("start: %v", list)
	}
	if from, to := first(moves("--to", "-1")); from != 2 || to != 1 {
		t.Errorf("-1: %d to %d", from, to)
	}
	if from, to := first(moves("--to", "+100")); from != 1 || to != 3 {
		t.Errorf("+100: %d to %d", from, to)
	}
	if _, to := first(moves("--to", "1h")); to != 0 {
		t.Errorf("an hour ago: %d", to)
	}
	if _, to := first(moves("--to", "2999-01-01")); to != 3 {
		t.Errorf("in the future: %d", to)
	}
	if out := l.run("", "group", "reset-offsets", group, "--to", "start"); !strings.Contains(out, "FROM") {
		t.Errorf("says %q", out)
	}
	for _, wrong := range []string{"", "yesterday", "-1h", "2026-13-01"} {
		if _, err := parseTarget(wrong, time.Now()); err == nil {
			t.Errorf("--to %q is taken", wrong)
		}
	}
	if _, err := l.try(t.Context(), "", "group", "reset-offsets", group, "--topic", topic+":7", "--to", "start"); err == nil || !strings.Contains(err.Error(), "0 to 1") {
		t.Errorf("partition 7: %v", err)
	}
	if out := l.run("", "group", "delete", group); out != "deleted group "+group+"\n" {
		t.Errorf("delete says %q", out)
	}
	if _, err := l.try(t.Context(), "", "group", "delete", group); err == nil || !strings.Contains(err.Error(), "`leat group list`") {
		t.Errorf("a second delete: %v", err)
	}
}

// TestMoveLiveGroup checks that the offsets of a group are its members' business.
func TestMoveLiveGroup(t *testing.T) {
	l := newLeat(t)
	topic, group := name("in"), name("group")
	l.run("", "topic", "create", topic, "--partitions", "1", "--replication-factor", "1")
	l.join(topic, group)
	for _, args := range [][]string{{"group", "reset-offsets", group, "--topic", topic, "--to", "start"}, {"group", "delete", group}} {
		if _, err := l.try(t.Context(), "", args...); err == nil || !strings.Contains(err.Error(), client.ErrGroupNotEmpty.Error()) {
			t.Errorf("leat %s: %v", strings.Join(args, " "), err)
		}
	}
}
