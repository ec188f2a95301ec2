package plan

import (
	"fmt"
	"strings"
)

// Comparison is the plan of a program beside the one that its app last ran.
type Comparison struct {
	App string `json:"app"`
	// Class is the worst class of the differences.
	Class Class `json:"class"`
	// Differences are those of Compare; none when the app has not run yet.
	Differences []Difference `json:"differences"`
	// Running is nil when the app has not run yet, or has left nothing durable.
	Running *Manifest `json:"running"`
	// Program has nothing in RetiredStores and RetiredRepartitions.
	Program *Manifest `json:"program"`
}

// NewComparison compares the plan of a program with running, which may be nil.
func NewComparison(running, program *Manifest) *Comparison {
	c := &Comparison{App: program.App, Class: Safe, Differences: []Difference{}, Running: running, Program: program}
	if running != nil {
		c.Differences = append(c.Differences, Compare(running, program)...)
		c.Class = ClassOf(c.Differences)
	}
	return c
}

// String tells people what differs, and whether the program can start.
func (c *Comparison) String() string {
	var b strings.Builder
	switch {
	case c.Running == nil:
		fmt.Fprintf(&b, "app %q has no plan in the cluster: it has not run yet, or leaves nothing durable\n", c.App)
	case len(c.Differences) == 0:
		fmt.Fprintf(&b, "app %q: the program's plan is the one that ran last\n", c.App)
	default:
		fmt.Fprintf(&b, "app %q: the program's plan differs from the one that ran last:\n", c.App)
		width := 0
		for _, d := range c.Differences {
			width = max(width, len(d.Class))
		}
		for _, d := range c.Differences {
			fmt.Fprintf(&b, "  %-*s  operator %q: %s\n", width, d.Class, d.Operator, d.What)
			if d.Do != "" {
				fmt.Fprintf(&b, "  %-*s  -> %s\n", width, "", d.Do)
			}
		}
	}
	if c.Class == Incompatible {
		b.WriteString("incompatible: the program refuses to start\n")
	}
	return b.String()
}

// String describes the manifest: what its app leaves in the cluster.
func (m *Manifest) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "app %q\n", m.App)
	line := func(what, name, detail string, partitions int32) {
		if partitions > 0 {
			detail += fmt.Sprintf("; %d partitions", partitions)
		}
		fmt.Fprintf(&b, "  %-18s %s: %s\n", what, name, detail)
	}
	formats := func(key, value string) string {
		if key == "" && value == "" {
			return "as the records come"
		}
		return key + " -> " + value
	}
	for _, t := range m.Topics {
		line(t.Role, t.Topic, formats(t.Key, t.Value), t.Partitions)
	}
	for _, list := range []struct {
		what   string
		topics []ManifestTopic
	}{{"repartition", m.Repartitions}, {"retired topic", m.RetiredRepartitions}} {
		for _, t := range list.topics {
			line(list.what, t.Topic, formats(t.Key, t.Value)+"; operator "+t.Operator, t.Partitions)
		}
	}
	for _, list := range []struct {
		what   string
		stores []ManifestStore
	}{{"store", m.Stores}, {"retired store", m.RetiredStores}} {
		for _, s := range list.stores {
			detail := fmt.Sprintf("%s, %s; %s %s", s.Kind, formats(s.Key, s.Value), s.OperatorKind, s.Operator)
			if s.Windows != nil {
				detail += "; " + s.Windows.String()
			}
			line(list.what, s.Name, detail+"; "+orNone(s.Changelog), s.Partitions)
		}
	}
	return b.String()
}
