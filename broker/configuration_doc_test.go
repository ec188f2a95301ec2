package broker

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/leatlog/leat/broker/internal/metadata"
)

// TestConfigurationDoc keeps docs/configuration.md equal to the code; with
// LEAT_UPDATE_DOCS=1 it writes it.
func TestConfigurationDoc(t *testing.T) {
	const name = "../docs/configuration.md"
	want := configurationDoc()
	if os.Getenv("LEAT_UPDATE_DOCS") != "" {
		if err := os.WriteFile(name, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s does not tell what the broker knows; run LEAT_UPDATE_DOCS=1 go test ./broker -run ConfigurationDoc", name)
	}
}

func configurationDoc() string {
	var b strings.Builder
	b.WriteString(`# Configuration

Settings of the broker, for ` + "`--set name=value`, `--config FILE` and `Config.Set`" + `,
then those of topics, for CreateTopics and AlterConfigs. Names are Kafka's;
` + "`flush` and `flush.interval.ms`" + ` are Leat's own. Written from the code by
` + "`LEAT_UPDATE_DOCS=1 go test ./broker -run ConfigurationDoc`" + `.

## Broker

| name | default | |
|---|---|---|
`)
	defaults := DefaultConfig()
	for _, s := range settings {
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", s.name, cell(s.get(&defaults)), s.doc)
	}
	b.WriteString(`
## Topics

The default of a topic configuration for all topics is set by the broker's names
in the last column.

| name | default | | broker's name |
|---|---|---|---|
`)
	for _, k := range metadata.TopicKeys() {
		doc := k.Doc
		if k.Unused != "" {
			doc += " Stored and shown, without effect: " + k.Unused + "."
		}
		var names []string
		for _, s := range k.Synonyms {
			names = append(names, "`"+s.Name+"`")
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", k.Name, cell(k.Default), doc, strings.Join(names, ", "))
	}
	b.WriteString(`
## Taken and ignored

So that a Kafka broker's file can be given, these are accepted, and named in the
log at start.

| name | why it means nothing here |
|---|---|
`)
	for _, name := range slices.Sorted(maps.Keys(ignoredSettings)) {
		fmt.Fprintf(&b, "| `%s` | %s |\n", name, ignoredSettings[name])
	}
	return b.String()
}

func cell(value string) string {
	if value == "" {
		return ""
	}
	return "`" + value + "`"
}
